//! The settings of compose, Kubernetes and systemd exist and are valid.

use std::collections::BTreeMap;

use kafka_scheduler::config::Config;
use serde_json::Value;

use crate::{documents, list, manifest, read, text};

type Settings = BTreeMap<String, String>;

/// Returns the variables in the README's table, including those that another variable's row explains, and `TZ`.
fn documented() -> Vec<String> {
    let readme = read("README.md");
    let rows = readme.lines().filter(|line| line.starts_with("| `"));
    let spans = rows.flat_map(|row| row.split('`').skip(1).step_by(2));
    let capital = |span: &&str| span.len() > 1 && span.chars().all(|c| c.is_ascii_uppercase() || c == '_');
    spans.filter(capital).map(str::to_owned).collect()
}

/// Checks that the variables are documented and valid together; `file` is the content of the configuration file.
#[track_caller]
fn checked(settings: &Settings, file: Option<&str>) -> Config {
    let documented = documented();
    assert!(documented.iter().any(|name| name == "REST_TOKEN") && documented.len() > 15, "{documented:?}");
    let unknown: Vec<&String> = settings.keys().filter(|name| !documented.contains(name)).collect();
    assert!(unknown.is_empty(), "the README does not know {unknown:?}");
    let missing = || std::io::Error::from(std::io::ErrorKind::NotFound);
    let config =
        Config::load_from(&|name| settings.get(name).cloned(), &|_| file.map(str::to_owned).ok_or_else(missing));
    config.unwrap_or_else(|e| panic!("{e}"))
}

fn map(value: &Value) -> Settings {
    let entries = value.as_object().expect("a map").iter();
    entries.map(|(name, value)| (name.clone(), value.as_str().expect("text").to_owned())).collect()
}

#[test]
fn compose() {
    let compose = &documents("packaging/compose.yaml")[0];
    let config = checked(&map(&compose["services"]["scheduler"]["environment"]), None);
    let kafka = map(&compose["services"]["kafka"]["environment"]);
    let reached = kafka["KAFKA_ADVERTISED_LISTENERS"]
        .split(',')
        .any(|l| l.ends_with(&format!("//{}", config.bootstrap_servers())));
    assert!(reached, "the broker does not advertise {}", config.bootstrap_servers());
    // In compose, no one else creates the topics.
    assert!(config.create_topics());
}

#[test]
fn compose_runs_the_kafka_that_the_tests_run() {
    let compose = &documents("packaging/compose.yaml")[0];
    let tag = text(compose, "/services/kafka/image").rsplit_once(':').expect("a tag").1;
    assert!(read("tests/broker/kit/broker.rs").contains(&format!("\"{tag}\"")), "{tag}");
}

#[test]
fn kubernetes() {
    let mut settings = map(&manifest("ConfigMap")["data"]);
    let secret = manifest("Secret");
    let deployment = manifest("Deployment");
    let pod = &deployment["spec"]["template"]["spec"];
    for variable in list(pod, "/containers/0/env") {
        // Any token has the form of one from a secret.
        let value = variable["value"].as_str().unwrap_or("secret");
        settings.insert(text(variable, "/name").to_owned(), value.to_owned());
    }
    assert_eq!(text(pod, "/containers/0/envFrom/0/configMapRef/name"), text(&manifest("ConfigMap"), "/metadata/name"));
    assert_eq!(text(pod, "/volumes/0/secret/secretName"), text(&secret, "/metadata/name"));
    let folder = text(pod, "/containers/0/volumeMounts/0/mountPath");
    let file = text(pod, "/volumes/0/secret/items/0/path");
    assert_eq!(settings["CONFIGURATION_FILE"], format!("{folder}/{file}"));
    let key = text(pod, "/volumes/0/secret/items/0/key");
    let config = checked(&settings, Some(text(&secret["stringData"], &format!("/{key}"))));
    assert!(config.rest_token().is_some());
    assert_eq!(config.kafka_common()["security.protocol"], "PLAINTEXT");
}

#[test]
fn systemd() {
    let text = read("packaging/systemd/kafka-scheduler.env");
    // Commented-out settings are examples, so they must be valid as well.
    let lines = text.lines().map(|line| line.trim_start_matches('#')).filter(|line| !line.contains(' '));
    let settings: Settings = lines.filter_map(|line| line.split_once('=')).map(|(n, v)| (n.into(), v.into())).collect();
    assert!(settings.len() > 5, "{settings:?}");
    let config = checked(&settings, Some(""));
    assert!(config.server_addr().ip().is_loopback(), "without a token, REST listens only on this machine");
}
