//! librdkafka's configuration: the user's properties, and those that the protocol needs.

use std::collections::BTreeMap;

use rdkafka::ClientConfig;

use super::record_batches::BATCH_BYTES_DEFAULT;
use crate::config::Config;

/// The largest value that librdkafka accepts for `message.max.bytes`.
const MESSAGE_BYTES_MAX: &str = "1000000000";

/// librdkafka's aliases for properties that are set here. If both are set, librdkafka's choice is undefined.
const ALIASES: &[(&str, &str)] = &[
    ("metadata.broker.list", "bootstrap.servers"),
    ("delivery.timeout.ms", "message.timeout.ms"),
    ("queue.buffering.max.ms", "linger.ms"),
    ("compression.codec", "compression.type"),
];

/// The default of `client.id`.
pub(crate) const CLIENT_ID: &str = "kafka-scheduler";
const STATISTICS_INTERVAL: &str = "statistics.interval.ms";
const STATISTICS_INTERVAL_MS: &str = "5000";

/// By how much a fetch response may exceed the records that were asked for.
const RESPONSE_OVERHEAD_BYTES: u64 = 512;
/// librdkafka's defaults of `fetch.max.bytes` and `receive.message.max.bytes`.
const FETCH_BYTES_MAX: u64 = 52_428_800;
const RECEIVE_BYTES_MAX: u64 = 100_000_000;

/// Properties that no user may change, because the protocol depends on them.
const CONSUMER_FIXED: &[(&str, &str)] = &[
    ("group.protocol", "classic"),
    ("partition.assignment.strategy", "cooperative-sticky"),
    ("auto.offset.reset", "error"),
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("isolation.level", "read_committed"),
    ("allow.auto.create.topics", "false"),
];

const PRODUCER_FIXED: &[(&str, &str)] =
    &[("enable.idempotence", "true"), ("allow.auto.create.topics", "false"), ("message.max.bytes", MESSAGE_BYTES_MAX)];

/// Makes the configuration of each kind of client.
#[derive(Clone, Debug)]
pub(crate) struct ClientConfigs {
    consumer: BTreeMap<String, String>,
    producer: BTreeMap<String, String>,
    consumer_statistics_ms: String,
    producer_statistics_ms: String,
    /// Configured properties that are ignored, and why.
    pub warnings: Vec<String>,
}

impl ClientConfigs {
    /// Merges the user's properties with the engine's.
    pub(crate) fn new(config: &Config) -> Self {
        let mut warnings = Vec::new();
        let mut consumer = consumer_properties(config, &mut warnings);
        let mut producer = producer_properties(config, &mut warnings);
        let consumer_statistics_ms = take_statistics_interval(&mut consumer);
        let producer_statistics_ms = take_statistics_interval(&mut producer);
        warnings.sort();
        warnings.dedup();
        Self { consumer, producer, consumer_statistics_ms, producer_statistics_ms, warnings }
    }

    /// Keeps record batches below the smallest `max.message.bytes` of the engine's own topics: the broker rejects a
    /// batch as a whole.
    pub(crate) fn limit_batches(&mut self, bytes_max: Option<usize>) {
        let configured = self.producer.get("batch.size").and_then(|text| text.parse().ok());
        if let Some(size) = bytes_max.filter(|max| *max < configured.unwrap_or(BATCH_BYTES_DEFAULT)) {
            self.producer.insert("batch.size".into(), size.max(1).to_string());
        }
    }

    /// Returns whether the producers compress what they send.
    pub(crate) fn compresses(&self) -> bool {
        self.producer.get("compression.type").is_some_and(|codec| codec != "none")
    }

    /// A read_committed consumer.
    pub(crate) fn consumer(&self) -> ClientConfig {
        client_config(&self.consumer)
    }

    /// The group's consumer, which reports statistics. A client that does so and is not polled fills its memory.
    pub(crate) fn group_consumer(&self) -> ClientConfig {
        let mut config = self.consumer();
        config.set(STATISTICS_INTERVAL, &self.consumer_statistics_ms);
        config
    }

    /// A consumer that reads committed offsets even while a transaction's offsets are pending.
    pub(crate) fn read_uncommitted_consumer(&self) -> ClientConfig {
        let mut config = client_config(&self.consumer);
        config.set("isolation.level", "read_uncommitted").set("auto.offset.reset", "earliest");
        config
    }

    /// A consumer that reads single records, whatever became of their transactions. It asks the leaders, and an offset
    /// that is out of range is an error.
    pub(crate) fn record_consumer(&self) -> ClientConfig {
        let mut config = self.read_uncommitted_consumer();
        config.set("auto.offset.reset", "error").set("enable.partition.eof", "true");
        // After the record that is asked for, few others are fetched.
        config.set("queued.min.messages", "1").set("queued.max.messages.kbytes", "1024");
        config.remove("client.rack");
        config
    }

    /// Returns the configuration of a producer without transactions, for user records.
    #[cfg(feature = "cli")]
    pub(crate) fn idempotent_producer(&self) -> ClientConfig {
        let mut config = client_config(&self.producer);
        config.remove("transactional.id");
        config
    }

    /// A transactional producer.
    pub(crate) fn transactional_producer(&self, transactional_id: &str) -> ClientConfig {
        let mut config = client_config(&self.producer);
        config.set("transactional.id", transactional_id);
        config
    }

    /// A transactor's producer, which reports statistics.
    pub(crate) fn transactor_producer(&self, transactional_id: &str) -> ClientConfig {
        let mut config = self.transactional_producer(transactional_id);
        config.set(STATISTICS_INTERVAL, &self.producer_statistics_ms);
        config
    }
}

fn consumer_properties(config: &Config, warnings: &mut Vec<String>) -> BTreeMap<String, String> {
    let mut consumer = common_properties(config, config.kafka_consumer());
    let session_ms = config.session_timeout().as_millis();
    for (key, value) in [
        ("heartbeat.interval.ms", (session_ms / 3).clamp(1, 500).to_string()),
        ("fetch.wait.max.ms", "100".into()),
        // As much as the loop reads while a broker answers: more would leave the processor's caches before it is
        // read. librdkafka pauses when this much is queued, by default for a second: longer than reading it takes.
        ("queued.max.messages.kbytes", "8192".into()),
        ("queued.min.messages", "4000".into()),
        ("fetch.queue.backoff.ms", "1".into()),
        ("max.poll.interval.ms", session_ms.max(300_000).to_string()),
    ] {
        consumer.entry(key.into()).or_insert(value);
    }
    fix(&mut consumer, CONSUMER_FIXED, warnings);
    fit_responses(&mut consumer);
    for (key, value) in [("group.id", config.group_id().to_owned()), ("session.timeout.ms", session_ms.to_string())] {
        consumer.insert(key.into(), value);
    }
    if consumer.remove("group.instance.id").is_some() {
        warnings.push(
            "group.instance.id is ignored: a static member that stopped and came back would be taken for the owner of \
             partitions it has lost"
                .into(),
        );
    }
    consumer
}

fn producer_properties(config: &Config, warnings: &mut Vec<String>) -> BTreeMap<String, String> {
    let mut producer = common_properties(config, config.kafka_producer());
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
    fix(&mut producer, PRODUCER_FIXED, warnings);
    producer
}

fn common_properties(config: &Config, own: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut all = config.kafka_common().clone();
    all.extend(own.clone());
    for (alias, name) in ALIASES {
        if let Some(value) = all.remove(*alias) {
            all.entry((*name).into()).or_insert(value);
        }
    }
    all.insert("bootstrap.servers".into(), config.bootstrap_servers().to_owned());
    for (key, value) in [
        ("client.id", CLIENT_ID),
        ("socket.nagle.disable", "true"),
        ("reconnect.backoff.max.ms", "2000"),
        // An added partition is read within this time; the default is 5 minutes.
        ("topic.metadata.refresh.interval.ms", "30000"),
    ] {
        all.entry(key.into()).or_insert(value.into());
    }
    all
}

/// Removes the statistics interval, which only polled clients may have. Recovery is detected from their statistics, so
/// it cannot be switched off.
fn take_statistics_interval(all: &mut BTreeMap<String, String>) -> String {
    all.remove(STATISTICS_INTERVAL).filter(|interval| interval != "0").unwrap_or_else(|| STATISTICS_INTERVAL_MS.into())
}

/// librdkafka rejects a consumer whose `receive.message.max.bytes` is smaller than its fetches, and fetches at least
/// `message.max.bytes`, which in the common properties is meant for the producer.
fn fit_responses(consumer: &mut BTreeMap<String, String>) {
    consumer.remove("message.max.bytes");
    let number = |name: &str, default: u64| consumer.get(name).map_or(Ok(default), |text| text.parse::<u64>());
    if let (Ok(fetch), Ok(receive)) =
        (number("fetch.max.bytes", FETCH_BYTES_MAX), number("receive.message.max.bytes", RECEIVE_BYTES_MAX))
        && receive < fetch.saturating_add(RESPONSE_OVERHEAD_BYTES)
    {
        consumer.insert("receive.message.max.bytes".into(), fetch.saturating_add(RESPONSE_OVERHEAD_BYTES).to_string());
    }
}

fn fix(all: &mut BTreeMap<String, String>, fixed: &[(&str, &str)], warnings: &mut Vec<String>) {
    for (key, value) in fixed {
        if let Some(configured) = all.insert((*key).into(), (*value).into())
            && configured != *value
        {
            warnings.push(format!("{key} is {value}, whatever is configured: exactly-once depends on it"));
        }
    }
}

fn client_config(all: &BTreeMap<String, String>) -> ClientConfig {
    let mut config = ClientConfig::new();
    for (key, value) in all {
        config.set(key, value);
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configs(common: &[(&str, &str)], consumer: &[(&str, &str)], producer: &[(&str, &str)]) -> ClientConfigs {
        let owned = |all: &[(&str, &str)]| all.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        ClientConfigs::new(&Config::with_unchecked_librdkafka(owned(common), owned(consumer), owned(producer)))
    }

    #[test]
    fn what_the_protocol_needs_wins_and_says_so() {
        let config = Config::builder()
            .librdkafka_consumer("group.instance.id", "static")
            .librdkafka_consumer("isolation.level", "read_uncommitted")
            .librdkafka_consumer("enable.auto.commit", "true")
            .librdkafka_consumer("fetch.min.bytes", "7")
            .librdkafka_producer("enable.idempotence", "false")
            .librdkafka_producer("transaction.timeout.ms", "60000")
            .build();
        let configs = ClientConfigs::new(&config.expect("only the engine's own settings win over them"));
        let consumer = configs.consumer();
        assert_eq!(consumer.get("group.instance.id"), None);
        assert_eq!(consumer.get("isolation.level"), Some("read_committed"));
        assert_eq!(consumer.get("enable.auto.commit"), Some("false"));
        assert_eq!(consumer.get("partition.assignment.strategy"), Some("cooperative-sticky"));
        assert_eq!(consumer.get("fetch.min.bytes"), Some("7"), "what is not the engine's goes through");
        let producer = configs.transactional_producer("id");
        assert_eq!(producer.get("enable.idempotence"), Some("true"));
        assert_eq!(producer.get("transaction.timeout.ms"), Some("60000"));
        for key in ["group.instance.id", "isolation.level", "enable.auto.commit", "enable.idempotence"] {
            assert!(configs.warnings.iter().any(|warning| warning.contains(key)), "{key}: {:?}", configs.warnings);
        }
    }

    #[test]
    fn every_setting_of_the_protocols_wins_over_a_configured_one() {
        let wrong: Vec<(&str, &str)> =
            CONSUMER_FIXED.iter().chain(PRODUCER_FIXED).map(|(key, _)| (*key, "x")).collect();
        let made = configs(&wrong, &wrong, &wrong);
        for (fixed, config) in [(CONSUMER_FIXED, made.consumer()), (PRODUCER_FIXED, made.transactional_producer("p"))] {
            for (key, value) in fixed {
                assert_eq!(config.get(key), Some(*value), "{key}");
                assert!(made.warnings.iter().any(|warning| warning.starts_with(key)), "{key}: {:?}", made.warnings);
            }
        }
        let is_fixed = |key: &str| CONSUMER_FIXED.iter().chain(PRODUCER_FIXED).any(|(fixed, _)| *fixed == key);
        for key in [
            "group.protocol",
            "partition.assignment.strategy",
            "auto.offset.reset",
            "enable.auto.commit",
            "enable.auto.offset.store",
            "isolation.level",
            "allow.auto.create.topics",
            "enable.idempotence",
            "message.max.bytes",
        ] {
            assert!(is_fixed(key), "{key} is the protocol's");
        }
    }

    #[test]
    fn metadata_is_refreshed_every_30_s_unless_configured() {
        let refresh =
            |common| configs(common, &[], &[]).consumer().get("topic.metadata.refresh.interval.ms").map(str::to_owned);
        assert_eq!(refresh(&[]).as_deref(), Some("30000"));
        assert_eq!(refresh(&[("topic.metadata.refresh.interval.ms", "1000")]).as_deref(), Some("1000"));
    }

    #[test]
    fn only_clients_that_are_polled_report() {
        let made = configs(&[("statistics.interval.ms", "0")], &[("statistics.interval.ms", "700")], &[]);
        assert_eq!(made.consumer().get("statistics.interval.ms"), None);
        assert_eq!(made.transactional_producer("p").get("statistics.interval.ms"), None);
        assert_eq!(made.read_uncommitted_consumer().get("statistics.interval.ms"), None);
        assert_eq!(made.group_consumer().get("statistics.interval.ms"), Some("700"));
        assert_eq!(made.transactor_producer("p").get("statistics.interval.ms"), Some("5000"));
    }

    #[test]
    fn single_records_are_read_from_leaders() {
        let made = configs(&[("client.rack", "a")], &[("client.rack", "b")], &[]);
        assert_eq!(made.consumer().get("client.rack"), Some("b"));
        let config = made.record_consumer();
        assert_eq!((config.get("client.rack"), config.get("auto.offset.reset")), (None, Some("error")));
        config.create::<rdkafka::consumer::BaseConsumer>().expect("librdkafka accepts it");
    }

    #[test]
    fn aliases_do_not_outvote_what_is_set() {
        let made = configs(&[("metadata.broker.list", "elsewhere:1")], &[], &[("delivery.timeout.ms", "9000")]);
        assert_eq!(made.consumer().get("bootstrap.servers"), Some("localhost:9092"));
        assert_eq!(made.consumer().get("metadata.broker.list"), None);
        assert_eq!(made.transactional_producer("p").get("message.timeout.ms"), Some("9000"));
    }

    #[test]
    fn a_consumer_may_receive_what_it_fetches() {
        let made = configs(&[("message.max.bytes", "500000000")], &[("fetch.max.bytes", "200000000")], &[]);
        assert_eq!(made.consumer().get("message.max.bytes"), None);
        assert_eq!(made.consumer().get("receive.message.max.bytes"), Some("200000512"));
        made.consumer().create::<rdkafka::consumer::BaseConsumer>().expect("librdkafka accepts it");
    }
}
