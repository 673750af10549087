//! The settings in compose, Kubernetes and systemd are the program's, and it takes them.

use std::collections::BTreeMap;

use kafka_scheduler::config::Config;
use serde_json::Value;

use crate::{documents, list, manifest, read, text};

type Settings = BTreeMap<String, String>;

/// The variables in the README's table, those that it explains in a row of another, and `TZ`.
fn documented() -> Vec<String> {
    let readme = read("README.md");
    let rows = readme.lines().filter(|line| line.starts_with("| `"));
    let words = rows.flat_map(|row| row.split('`').skip(1).step_by(2));
    let capital = |word: &&str| word.len() > 1 && word.chars().all(|c| c.is_ascii_uppercase() || c == '_');
    words.filter(capital).map(str::to_owned).collect()
}

/// They are known, and legal together; `file` is the configuration file, if there is one.
#[track_caller]
fn taken(settings: &Settings, file: Option<&str>) -> Config {
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
    let config = taken(&map(&compose["services"]["scheduler"]["environment"]), None);
    let kafka = map(&compose["services"]["kafka"]["environment"]);
    let reached = kafka["KAFKA_ADVERTISED_LISTENERS"]
        .split(',')
        .any(|l| l.ends_with(&format!("//{}", config.bootstrap_servers())));
    assert!(reached, "{} is no address of the broker", config.bootstrap_servers());
    // Nothing else would create the topics.
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
        // A token that is taken from a secret looks like any other.
        let value = variable["value"].as_str().unwrap_or("secret");
        settings.insert(text(variable, "/name").to_owned(), value.to_owned());
    }
    assert_eq!(text(pod, "/containers/0/envFrom/0/configMapRef/name"), text(&manifest("ConfigMap"), "/metadata/name"));
    assert_eq!(text(pod, "/volumes/0/secret/secretName"), text(&secret, "/metadata/name"));
    let folder = text(pod, "/containers/0/volumeMounts/0/mountPath");
    let file = text(pod, "/volumes/0/secret/items/0/path");
    assert_eq!(settings["CONFIGURATION_FILE"], format!("{folder}/{file}"));
    let key = text(pod, "/volumes/0/secret/items/0/key");
    let config = taken(&settings, Some(text(&secret["stringData"], &format!("/{key}"))));
    assert!(config.rest_token().is_some());
    assert_eq!(config.kafka_common()["security.protocol"], "PLAINTEXT");
}

#[test]
fn systemd() {
    let text = read("packaging/systemd/kafka-scheduler.env");
    // Those that are commented out are there to be switched on, and hold to the same.
    let lines = text.lines().map(|line| line.trim_start_matches('#')).filter(|line| !line.contains(' '));
    let settings: Settings = lines.filter_map(|line| line.split_once('=')).map(|(n, v)| (n.into(), v.into())).collect();
    assert!(settings.len() > 5, "{settings:?}");
    let config = taken(&settings, Some(""));
    assert!(config.server_addr().ip().is_loopback(), "REST has no token there");
}
