//! librdkafka's settings: the user's, and those that the protocol needs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use rdkafka::ClientConfig;

use super::limits::Limits;
use super::voice::Voice;
use crate::config::{Config, Files};
use crate::handle::board::Board;

/// The largest value that librdkafka takes for `message.max.bytes`.
const MESSAGE_BYTES_MAX: &str = "1000000000";

/// Other names that librdkafka has for settings made here. Both given, chance would choose between them.
const ALIASES: &[(&str, &str)] = &[
    ("metadata.broker.list", "bootstrap.servers"),
    ("delivery.timeout.ms", "message.timeout.ms"),
    ("queue.buffering.max.ms", "linger.ms"),
    ("compression.codec", "compression.type"),
];

/// What the engine calls itself to the brokers, unless it is configured.
pub const CLIENT_ID: &str = "kafka-scheduler";
/// Between two reports of a client on itself, in milliseconds.
const STATISTICS: &str = "statistics.interval.ms";
const STATISTICS_MS: &str = "5000";

/// What a response may be larger than the records it was asked for.
const RESPONSE_OVERHEAD: u64 = 512;
/// librdkafka's defaults.
const FETCH_BYTES_MAX: u64 = 52_428_800;
const RECEIVE_BYTES_MAX: u64 = 100_000_000;
/// librdkafka's default for the size of a set of records.
pub const SET_BYTES_MAX: usize = 1_000_000;

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
    consumer_reports_ms: String,
    producer_reports_ms: String,
    /// Configured entries that do not count, and why.
    pub warnings: Vec<String>,
    /// Says what the clients have to say.
    pub voice: Arc<Voice>,
    /// What targets take.
    pub limits: Arc<Limits>,
    /// The brokers can be asked for topics' settings.
    pub describes: bool,
    /// Where the settings came from; nothing until an engine runs with them.
    pub files: Arc<Mutex<Files>>,
}

impl Settings {
    /// From what the user has set.
    pub fn new(config: &Config, board: Arc<Board>) -> Self {
        let mut warnings = Vec::new();
        let mut consumer = base(config, &config.kafka_consumer);
        let session_ms = config.session_timeout_ms;
        for (key, value) in [
            ("heartbeat.interval.ms", (session_ms / 3).clamp(1, 500).to_string()),
            ("fetch.wait.max.ms", "100".into()),
            // As much as the loop reads while a broker answers: more would leave the processor's caches before it is
            // read. librdkafka pauses when so much waits, by default for a second: longer than it takes to read it.
            ("queued.max.messages.kbytes", "8192".into()),
            ("queued.min.messages", "4000".into()),
            ("fetch.queue.backoff.ms", "1".into()),
            ("max.poll.interval.ms", session_ms.max(300_000).to_string()),
        ] {
            consumer.entry(key.into()).or_insert(value);
        }
        own(&mut consumer, CONSUMER_OWNED, &mut warnings);
        fit_responses(&mut consumer);
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
        let (consumer_reports_ms, producer_reports_ms) = (take_reports(&mut consumer), take_reports(&mut producer));
        warnings.sort();
        warnings.dedup();
        Self {
            consumer,
            producer,
            consumer_reports_ms,
            producer_reports_ms,
            warnings,
            voice: Arc::new(Voice::new(board, config.group_id.clone(), config.session_timeout_ms)),
            limits: Arc::default(),
            describes: !config.embedded,
            files: Arc::default(),
        }
    }

    /// A file that settings came from and that was rewritten since, if the brokers do not let the engine's clients in: new
    /// credentials do not reach clients that are there.
    pub fn outdated(&self) -> Option<String> {
        self.voice.is_locked_out().then(|| self.rewritten())?
    }

    /// The same before any broker has let a client in.
    pub fn rewritten(&self) -> Option<String> {
        // On a file system that does not answer, one look is enough.
        self.files.try_lock().ok()?.rewritten()
    }

    /// Keeps sets of records below what the smallest of the engine's own topics takes: the broker refuses a set as a
    /// whole.
    pub fn fit_sets(&mut self, bytes_max: Option<usize>) {
        let configured = self.producer.get("batch.size").and_then(|text| text.parse().ok());
        if let Some(size) = bytes_max.filter(|max| *max < configured.unwrap_or(SET_BYTES_MAX)) {
            self.producer.insert("batch.size".into(), size.max(1).to_string());
        }
    }

    /// Whether the producers compress what they send.
    pub fn compresses(&self) -> bool {
        self.producer.get("compression.type").is_some_and(|codec| codec != "none")
    }

    /// A consumer of the group's name.
    pub fn consumer(&self) -> ClientConfig {
        client(&self.consumer)
    }

    /// The group's consumer, which reports on itself. A client that does so and is not polled fills its memory.
    pub fn reporting_consumer(&self) -> ClientConfig {
        let mut config = self.consumer();
        config.set(STATISTICS, &self.consumer_reports_ms);
        config
    }

    /// A client that reads committed offsets also while a transaction's are pending.
    pub fn uncommitted(&self) -> ClientConfig {
        let mut config = client(&self.consumer);
        config.set("isolation.level", "read_uncommitted").set("auto.offset.reset", "earliest");
        config
    }

    /// A producer without transactions, for those who schedule.
    #[cfg(feature = "cli")]
    pub fn idempotent_producer(&self) -> ClientConfig {
        let mut config = client(&self.producer);
        config.remove("transactional.id");
        config
    }

    /// A transactional producer.
    pub fn producer(&self, transactional_id: &str) -> ClientConfig {
        let mut config = client(&self.producer);
        config.set("transactional.id", transactional_id);
        config
    }

    /// The same, and it reports on itself.
    pub fn reporting_producer(&self, transactional_id: &str) -> ClientConfig {
        let mut config = self.producer(transactional_id);
        config.set(STATISTICS, &self.producer_reports_ms);
        config
    }
}

fn base(config: &Config, own: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut all = config.kafka_common.clone();
    all.extend(own.clone());
    for (alias, name) in ALIASES {
        if let Some(value) = all.remove(*alias) {
            all.entry((*name).into()).or_insert(value);
        }
    }
    all.insert("bootstrap.servers".into(), config.bootstrap_servers.clone());
    for (key, value) in [
        ("client.id", CLIENT_ID),
        ("socket.nagle.disable", "true"),
        ("reconnect.backoff.max.ms", "2000"),
        // So soon a partition that was added is read; the default is 5 minutes.
        ("topic.metadata.refresh.interval.ms", "30000"),
    ] {
        all.entry(key.into()).or_insert(value.into());
    }
    all
}

/// How often the clients that matter report. Without it nobody could tell when the brokers are back.
fn take_reports(all: &mut BTreeMap<String, String>) -> String {
    all.remove(STATISTICS).filter(|interval| interval != "0").unwrap_or_else(|| STATISTICS_MS.into())
}

/// librdkafka refuses a consumer that may not receive what it fetches, and fetches at least `message.max.bytes`, which
/// in the common settings is meant for the producer.
fn fit_responses(consumer: &mut BTreeMap<String, String>) {
    consumer.remove("message.max.bytes");
    let number = |name: &str, default: u64| consumer.get(name).map_or(Ok(default), |text| text.parse::<u64>());
    if let (Ok(fetch), Ok(receive)) =
        (number("fetch.max.bytes", FETCH_BYTES_MAX), number("receive.message.max.bytes", RECEIVE_BYTES_MAX))
        && receive < fetch.saturating_add(RESPONSE_OVERHEAD)
    {
        consumer.insert("receive.message.max.bytes".into(), fetch.saturating_add(RESPONSE_OVERHEAD).to_string());
    }
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

    fn settings(common: &[(&str, &str)], consumer: &[(&str, &str)], producer: &[(&str, &str)]) -> Settings {
        let owned = |all: &[(&str, &str)]| all.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let mut config = Config::load(&|_| None).expect("the defaults are allowed");
        config.kafka_common = owned(common);
        config.kafka_consumer = owned(consumer);
        config.kafka_producer = owned(producer);
        Settings::new(&config, Arc::default())
    }

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
        let settings = Settings::new(&config, Arc::default());
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

    #[test]
    fn every_setting_of_the_protocols_wins_over_a_configured_one() {
        let wrong: Vec<(&str, &str)> =
            CONSUMER_OWNED.iter().chain(PRODUCER_OWNED).map(|(key, _)| (*key, "x")).collect();
        let made = settings(&wrong, &wrong, &wrong);
        for (owned, config) in [(CONSUMER_OWNED, made.consumer()), (PRODUCER_OWNED, made.producer("p"))] {
            for (key, value) in owned {
                assert_eq!(config.get(key), Some(*value), "{key}");
                assert!(made.warnings.iter().any(|warning| warning.starts_with(key)), "{key}: {:?}", made.warnings);
            }
        }
        let owned = |key: &str| CONSUMER_OWNED.iter().chain(PRODUCER_OWNED).any(|(owned, _)| *owned == key);
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
            assert!(owned(key), "{key} is the protocol's");
        }
    }

    #[test]
    fn metadata_is_refreshed_every_30_s_unless_configured() {
        let refresh =
            |common| settings(common, &[], &[]).consumer().get("topic.metadata.refresh.interval.ms").map(str::to_owned);
        assert_eq!(refresh(&[]).as_deref(), Some("30000"));
        assert_eq!(refresh(&[("topic.metadata.refresh.interval.ms", "1000")]).as_deref(), Some("1000"));
    }

    #[test]
    fn only_clients_that_are_polled_report() {
        let made = settings(&[("statistics.interval.ms", "0")], &[("statistics.interval.ms", "700")], &[]);
        assert_eq!(made.consumer().get("statistics.interval.ms"), None);
        assert_eq!(made.producer("p").get("statistics.interval.ms"), None);
        assert_eq!(made.uncommitted().get("statistics.interval.ms"), None);
        assert_eq!(made.reporting_consumer().get("statistics.interval.ms"), Some("700"));
        assert_eq!(made.reporting_producer("p").get("statistics.interval.ms"), Some("5000"));
    }

    #[test]
    fn aliases_do_not_outvote_what_is_set() {
        let made = settings(&[("metadata.broker.list", "elsewhere:1")], &[], &[("delivery.timeout.ms", "9000")]);
        assert_eq!(made.consumer().get("bootstrap.servers"), Some("localhost:9092"));
        assert_eq!(made.consumer().get("metadata.broker.list"), None);
        assert_eq!(made.producer("p").get("message.timeout.ms"), Some("9000"));
    }

    #[test]
    fn a_consumer_may_receive_what_it_fetches() {
        let made = settings(&[("message.max.bytes", "500000000")], &[("fetch.max.bytes", "200000000")], &[]);
        assert_eq!(made.consumer().get("message.max.bytes"), None);
        assert_eq!(made.consumer().get("receive.message.max.bytes"), Some("200000512"));
        made.consumer().create::<rdkafka::consumer::BaseConsumer>().expect("librdkafka takes it");
    }
}
