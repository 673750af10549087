//! librdkafka's settings: the user's, and those that the protocol needs.

use std::collections::BTreeMap;

use rdkafka::ClientConfig;

use crate::config::Config;

/// The largest value that librdkafka takes for `message.max.bytes`.
const MESSAGE_BYTES_MAX: &str = "1000000000";

/// Settings of the consumer that no user may change, and why.
const CONSUMER_OWNED: &[(&str, &str)] = &[
    ("group.protocol", "classic"),
    ("partition.assignment.strategy", "cooperative-sticky"),
    ("auto.offset.reset", "error"),
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("isolation.level", "read_committed"),
    ("allow.auto.create.topics", "false"),
];

const PRODUCER_OWNED: &[(&str, &str)] =
    &[("enable.idempotence", "true"), ("allow.auto.create.topics", "false"), ("message.max.bytes", MESSAGE_BYTES_MAX)];

/// Finished settings, and what had to be said about them.
#[derive(Clone, Debug)]
pub struct Settings {
    consumer: BTreeMap<String, String>,
    producer: BTreeMap<String, String>,
    /// Configured entries that do not count, and why.
    pub warnings: Vec<String>,
}

impl Settings {
    /// From what the user has set.
    pub fn new(config: &Config) -> Self {
        let mut warnings = Vec::new();
        let mut consumer = base(config, &config.kafka_consumer);
        let session_ms = config.session_timeout_ms;
        for (key, value) in [
            ("heartbeat.interval.ms", (session_ms / 3).clamp(1, 500).to_string()),
            ("fetch.wait.max.ms", "100".into()),
            ("queued.max.messages.kbytes", "65536".into()),
            ("max.poll.interval.ms", session_ms.max(300_000).to_string()),
        ] {
            consumer.entry(key.into()).or_insert(value);
        }
        own(&mut consumer, CONSUMER_OWNED, &mut warnings);
        for (key, value) in
            [("group.id", config.group_id.clone()), ("session.timeout.ms", config.session_timeout_ms.to_string())]
        {
            consumer.insert(key.into(), value);
        }
        if consumer.remove("group.instance.id").is_some() {
            warnings.push(
                "group.instance.id is ignored: a static member that stopped and came back would be taken for the \
                 owner of partitions it has lost"
                    .into(),
            );
        }
        let mut producer = base(config, &config.kafka_producer);
        for (key, value) in [
            ("partitioner", "murmur2_random"),
            ("transaction.timeout.ms", "15000"),
            ("message.timeout.ms", "5000"),
            ("linger.ms", "2"),
            ("queue.buffering.max.messages", "500000"),
            ("batch.num.messages", "10000"),
        ] {
            producer.entry(key.into()).or_insert(value.into());
        }
        own(&mut producer, PRODUCER_OWNED, &mut warnings);
        Self { consumer, producer, warnings }
    }

    /// The group's consumer.
    pub fn consumer(&self) -> ClientConfig {
        client(&self.consumer)
    }

    /// A client that reads committed offsets also while a transaction's are pending.
    pub fn uncommitted(&self) -> ClientConfig {
        let mut config = client(&self.consumer);
        config.set("isolation.level", "read_uncommitted").set("auto.offset.reset", "earliest");
        config
    }

    /// A transactional producer.
    pub fn producer(&self, transactional_id: &str) -> ClientConfig {
        let mut config = client(&self.producer);
        config.set("transactional.id", transactional_id);
        config
    }
}

fn base(config: &Config, own: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut all = config.kafka_common.clone();
    all.extend(own.clone());
    all.insert("bootstrap.servers".into(), config.bootstrap_servers.clone());
    for (key, value) in [
        ("broker.address.family", "v4"),
        ("client.id", "kafka-scheduler"),
        ("socket.nagle.disable", "true"),
        ("reconnect.backoff.max.ms", "2000"),
    ] {
        all.entry(key.into()).or_insert(value.into());
    }
    all
}

fn own(all: &mut BTreeMap<String, String>, owned: &[(&str, &str)], warnings: &mut Vec<String>) {
    for (key, value) in owned {
        if let Some(configured) = all.insert((*key).into(), (*value).into())
            && configured != *value
        {
            warnings.push(format!("{key} is {value}, whatever is configured: exactly-once depends on it"));
        }
    }
}

fn client(all: &BTreeMap<String, String>) -> ClientConfig {
    let mut config = ClientConfig::new();
    for (key, value) in all {
        config.set(key, value);
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_protocol_needs_wins_and_says_so() {
        let mut config = Config::load(&|_| None).expect("the defaults are legal");
        for (key, value) in [
            ("group.instance.id", "static"),
            ("isolation.level", "read_uncommitted"),
            ("enable.auto.commit", "true"),
            ("fetch.min.bytes", "7"),
        ] {
            config.kafka_consumer.insert(key.into(), value.into());
        }
        config.kafka_producer.insert("enable.idempotence".into(), "false".into());
        config.kafka_producer.insert("transaction.timeout.ms".into(), "60000".into());
        let settings = Settings::new(&config);
        let consumer = settings.consumer();
        assert_eq!(consumer.get("group.instance.id"), None);
        assert_eq!(consumer.get("isolation.level"), Some("read_committed"));
        assert_eq!(consumer.get("enable.auto.commit"), Some("false"));
        assert_eq!(consumer.get("partition.assignment.strategy"), Some("cooperative-sticky"));
        assert_eq!(consumer.get("fetch.min.bytes"), Some("7"), "what is not the engine's goes through");
        let producer = settings.producer("id");
        assert_eq!(producer.get("enable.idempotence"), Some("true"));
        assert_eq!(producer.get("transaction.timeout.ms"), Some("60000"));
        for key in ["group.instance.id", "isolation.level", "enable.auto.commit", "enable.idempotence"] {
            assert!(settings.warnings.iter().any(|warning| warning.contains(key)), "{key}: {:?}", settings.warnings);
        }
    }
}
