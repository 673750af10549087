//! The topics, the group and the engines of one test.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::broker::{Broker, broker, default_broker};
use super::client::{self, Producer, Reader, Record, Scheduled};
use super::engine::Engine;
use super::wait::{now_ms, now_s};

/// Long enough for a takeover while other tests use both cores.
pub const TIMEOUT: Duration = Duration::from_secs(40);

/// The prefix of the engine's own keys.
const RESERVED: &[u8] = b"__scheduler.";

const DAY_MS: &str = "86400000";

/// Topics and a group that no other test uses.
pub struct Case {
    pub broker: &'static Broker,
    name: String,
    pub schedules: Vec<String>,
    pub target: String,
    pub history: String,
    pub group: String,
    pub partitions: i32,
    producer: Producer,
}

impl Case {
    /// Creates one schedules topic with this many partitions; `None` without a broker.
    pub fn new(name: &str, partitions: i32) -> Option<Self> {
        Self::with_topics(name, partitions, 1)
    }

    /// Uses the broker with default settings, and topics with only the settings that every schedules topic needs.
    pub fn with_defaults(name: &str, partitions: i32) -> Option<Self> {
        let broker = default_broker()?;
        Some(Self::made(broker, name, partitions, 1, &[("cleanup.policy", "compact")], &[]))
    }

    /// Creates several schedules topics.
    pub fn with_topics(name: &str, partitions: i32, topics: usize) -> Option<Self> {
        Some(Self::on(broker()?, name, partitions, topics))
    }

    /// Uses the test's own brokers.
    pub fn on(broker: &'static Broker, name: &str, partitions: i32, topics: usize) -> Self {
        Self::configured(broker, name, partitions, topics, &[("min.compaction.lag.ms", DAY_MS)])
    }

    /// Uses the test's own brokers, with more settings of the schedules topics.
    pub fn configured(
        broker: &'static Broker,
        name: &str,
        partitions: i32,
        topics: usize,
        settings: &[(&str, &str)],
    ) -> Self {
        let mut all = vec![("cleanup.policy", "compact"), ("delete.retention.ms", DAY_MS)];
        all.extend(settings);
        Self::made(broker, name, partitions, topics, &all, &[("message.timestamp.type", "LogAppendTime")])
    }

    fn made(
        broker: &'static Broker,
        name: &str,
        partitions: i32,
        topics: usize,
        settings: &[(&str, &str)],
        target_settings: &[(&str, &str)],
    ) -> Self {
        static CASES: AtomicU32 = AtomicU32::new(0);
        let n = CASES.fetch_add(1, Ordering::Relaxed);
        let unique = format!("{name}-{:x}-{n}", now_ms());
        let case = Self {
            broker,
            name: name.to_owned(),
            schedules: (0..topics).map(|i| format!("{unique}-schedules-{i}")).collect(),
            target: format!("{unique}-target"),
            history: format!("{unique}-history"),
            group: format!("{unique}-group"),
            partitions,
            producer: Producer::new(&broker.bootstrap, &[]),
        };
        for topic in &case.schedules {
            client::create_replicated_topic(&broker.bootstrap, topic, partitions, broker.replicas, settings);
        }
        for (topic, settings) in [(&case.target, target_settings), (&case.history, &[])] {
            client::create_replicated_topic(&broker.bootstrap, topic, partitions, broker.replicas, settings);
        }
        case
    }

    pub fn bootstrap(&self) -> &str {
        &self.broker.bootstrap
    }

    /// Starts an engine on the case's topics.
    pub fn engine(&self) -> Engine {
        self.engine_with(&[])
    }

    /// Starts an engine with additional or other environment variables.
    pub fn engine_with(&self, more: &[(&str, &str)]) -> Engine {
        let mut env: BTreeMap<&str, String> = BTreeMap::from([
            ("BOOTSTRAP_SERVERS", self.bootstrap().to_owned()),
            ("SCHEDULES_TOPICS", self.schedules.join(",")),
            ("HISTORY_TOPIC", self.history.clone()),
            ("GROUP_ID", self.group.clone()),
            ("SESSION_TIMEOUT", self.broker.session_timeout_ms.to_string()),
            // A test may run across midnight, so leftovers begin a day earlier; tests of leftovers set their own value.
            ("SINCE_DELTA", "-1".to_owned()),
            ("TZ", "UTC".to_owned()),
        ]);
        env.extend(more.iter().map(|(name, value)| (*name, (*value).to_owned())));
        let env: Vec<(String, String)> = env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Engine::start(&self.name, &[], &env)
    }

    /// Adds partitions to the first schedules topic.
    pub fn grow(&mut self, partitions: i32) {
        client::add_partitions(self.bootstrap(), &self.schedules[0], usize::try_from(partitions).expect("some"));
        self.partitions = partitions;
        // The cached producer does not know the new partitions.
        self.producer = Producer::new(&self.broker.bootstrap, &[]);
    }

    /// Returns a schedule for this case's target, due in `seconds`.
    pub fn due_in(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>, seconds: i64) -> Scheduled {
        Scheduled::new(key, value, now_s() + seconds, &self.target)
    }

    /// Produces to the first schedules topic, without waiting.
    pub fn queue(&self, record: &Scheduled) {
        self.producer.send(&self.schedules[0], record);
    }

    /// Waits until all records are delivered.
    pub fn flush(&self) {
        self.producer.flush();
    }

    /// Produces to the first schedules topic, and waits for delivery.
    pub fn produce(&self, records: &[Scheduled]) {
        self.produce_to(0, records);
    }

    /// Produces to one of the schedules topics, and waits for delivery.
    pub fn produce_to(&self, topic: usize, records: &[Scheduled]) {
        for record in records {
            self.producer.send(&self.schedules[topic], record);
        }
        self.producer.flush();
    }

    /// Produces to any topic, and waits for delivery.
    pub fn produce_elsewhere(&self, topic: &str, records: &[Scheduled]) {
        for record in records {
            self.producer.send(topic, record);
        }
        self.producer.flush();
    }

    /// Returns a reader of the target.
    pub fn target_reader(&self) -> Reader {
        Reader::new(self.bootstrap(), &self.target)
    }

    /// Waits until the target has this many records, and returns them.
    pub fn fired(&self, count: usize) -> Vec<Record> {
        let mut reader = self.target_reader();
        reader.wait(&format!("{count} fired"), TIMEOUT, |r| r.len() >= count);
        reader.records
    }

    pub fn read_target(&self) -> Vec<Record> {
        client::read_all(self.bootstrap(), &self.target)
    }

    pub fn read_history(&self) -> Vec<Record> {
        client::read_all(self.bootstrap(), &self.history)
    }

    /// Returns the records of a schedules topic, without the engine's own keys.
    pub fn read_schedules(&self, topic: usize) -> Vec<Record> {
        let mut records = client::read_all(self.bootstrap(), &self.schedules[topic]);
        records.retain(|r| !r.key.as_deref().unwrap_or_default().starts_with(RESERVED));
        records
    }

    /// Returns the tombstones that the engine wrote to the first schedules topic.
    pub fn tombstones(&self) -> Vec<Record> {
        let mut records = Vec::new();
        Reader::new(self.bootstrap(), &self.schedules[0]).drain(|record| {
            let reserved = record.key.as_deref().unwrap_or_default().starts_with(RESERVED);
            if !reserved && record.value.is_none() && record.header("scheduler-engine").is_some() {
                records.push(record);
            }
        });
        records
    }

    /// Waits until every partition of every schedules topic is live and has fired all owed schedules. To know that, it
    /// schedules an overdue probe in each partition, which fires after all schedules that were due before it. Returns
    /// the target's records without the probes.
    pub fn settled(&self) -> Vec<Record> {
        static PROBES: AtomicU32 = AtomicU32::new(0);
        let round = PROBES.fetch_add(1, Ordering::Relaxed);
        let mut probes = Vec::new();
        for (i, topic) in self.schedules.iter().enumerate() {
            for partition in 0..self.partitions {
                let key = format!("probe-{round}-{i}-{partition}");
                self.producer.send(topic, &self.due_in(&key, "probe", 0).target_key(&key).partition(partition));
                probes.push(key);
            }
        }
        self.producer.flush();
        let mut reader = self.target_reader();
        reader.wait("the probes have fired", TIMEOUT, |records| {
            let keys: std::collections::HashSet<&[u8]> = records.iter().filter_map(|r| r.key.as_deref()).collect();
            probes.iter().all(|probe| keys.contains(probe.as_bytes()))
        });
        let mut records = self.read_target();
        records.retain(|r| !r.key.as_deref().unwrap_or_default().starts_with(b"probe-"));
        records
    }
}
