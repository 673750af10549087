//! Fuzzes the environment variables and the configuration file.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use kafka_scheduler::config::Config;

const PATH: &str = "a.yaml";

/// The input has lines `NAME=value`, then a line of three dashes, then the configuration file.
pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match text.split_once("---\n") {
        Some((environment, file)) => load(environment, Some(file)),
        None => load(&text, None),
    }
}

/// Loads and checks the settings; returns the message if they are rejected.
pub fn load(environment: &str, file: Option<&str>) {
    let mut variables: BTreeMap<&str, String> =
        environment.lines().filter_map(|line| line.split_once('=')).map(|(n, v)| (n, without_lookup(n, v))).collect();
    match file {
        Some(_) => variables.insert("CONFIGURATION_FILE", PATH.to_owned()),
        None => variables.remove("CONFIGURATION_FILE"),
    };
    let read = |path: &str| {
        assert_eq!(path, PATH);
        Ok(file.unwrap_or_default().to_owned())
    };
    match Config::load_from(&|name| variables.get(name).cloned(), &read) {
        Ok(config) => holds(&config),
        Err(e) => {
            let line = e.to_string();
            assert!(!line.is_empty() && !line.contains(['\n', '\r', '\0']), "a message is one line: {line:?}");
        }
    }
}

/// Replaces a hostname by one that is rejected, so no DNS lookup happens.
fn without_lookup(variable: &str, value: &str) -> String {
    let listens = ["METRICS_HTTP_ADDR", "METRICS_ADDR", "SERVER_ADDR"].contains(&variable);
    let host = value.trim().rsplit_once(':').map_or("", |(host, _)| host);
    if listens && !host.is_empty() && value.trim().parse::<SocketAddr>().is_err() {
        return format!("/{value}");
    }
    value.to_owned()
}

fn holds(config: &Config) {
    assert!(!config.bootstrap_servers().is_empty() && !config.group_id().is_empty());
    assert!(config.since_delta_days() <= 0 && !config.session_timeout().is_zero());
    let history = config.history_topic().to_owned();
    assert!(!config.schedules_topics().is_empty() && !config.schedules_topics().contains(&history));
    let mut topics = config.schedules_topics().to_vec();
    topics.sort_unstable();
    topics.dedup();
    assert_eq!(topics.len(), config.schedules_topics().len(), "no topic is repeated");
    assert!(topics.len() <= usize::from(u16::MAX) && topics.iter().all(|topic| (1..=249).contains(&topic.len())));
    let maps = [config.kafka_common(), config.kafka_producer(), config.kafka_consumer()];
    for (key, value) in maps.into_iter().flatten() {
        assert!(!key.contains('\0') && !value.contains('\0'), "librdkafka takes C strings");
        assert!(
            !["bootstrap.servers", "group.id", "session.timeout.ms"].contains(&&**key),
            "settings with an environment variable are not passed through"
        );
    }
    assert!(config.to_builder().build().is_ok(), "a loaded configuration can be built again");
}
