//! What one test has to itself: topics, a group, engines.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::broker::{Broker, broker, default_broker};
use super::client::{self, Producer, Reader, Record, Scheduled};
use super::engine::Engine;
use super::wait::{now_ms, now_s};

/// Long enough for a takeover with everything else that runs on two cores.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// The engine's own keys begin with it.
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
    /// With one schedules topic of so many partitions; `None` where there is no broker.
    pub fn new(name: &str, partitions: i32) -> Option<Self> {
        Self::with_topics(name, partitions, 1)
    }

    /// On the broker with default settings, with topics that set nothing but what makes a schedules topic one.
    pub fn with_defaults(name: &str, partitions: i32) -> Option<Self> {
        let broker = default_broker()?;
        Some(Self::made(broker, name, partitions, 1, &[("cleanup.policy", "compact")], &[]))
    }

    /// With several schedules topics.
    pub fn with_topics(name: &str, partitions: i32, topics: usize) -> Option<Self> {
        Some(Self::on(broker()?, name, partitions, topics))
    }

    /// On brokers of the test's own.
    pub fn on(broker: &'static Broker, name: &str, partitions: i32, topics: usize) -> Self {
        Self::configured(broker, name, partitions, topics, &[("min.compaction.lag.ms", DAY_MS)])
    }

    /// The same with further settings of the schedules topics.
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

    /// An engine on this case's topics.
    pub fn engine(&self) -> Engine {
        self.engine_with(&[])
    }

    /// The same with more in its environment, or something else in it.
    pub fn engine_with(&self, more: &[(&str, &str)]) -> Engine {
        let mut env: BTreeMap<&str, String> = BTreeMap::from([
            ("BOOTSTRAP_SERVERS", self.bootstrap().to_owned()),
            ("SCHEDULES_TOPICS", self.schedules.join(",")),
            ("HISTORY_TOPIC", self.history.clone()),
            ("GROUP_ID", self.group.clone()),
            ("SESSION_TIMEOUT", self.broker.session_timeout_ms.to_string()),
            // The tests may run at midnight; those about it choose for themselves.
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
        // The one that was used so far does not know of them yet.
        self.producer = Producer::new(&self.broker.bootstrap, &[]);
    }

    /// A schedule for this case's target, `seconds` from now.
    pub fn due_in(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>, seconds: i64) -> Scheduled {
        Scheduled::new(key, value, now_s() + seconds, &self.target)
    }

    /// Hands a record over to the first schedules topic.
    pub fn queue(&self, record: &Scheduled) {
        self.producer.send(&self.schedules[0], record);
    }

    /// Waits until all that was handed over has arrived.
    pub fn flush(&self) {
        self.producer.flush();
    }

    /// Produces to the first schedules topic.
    pub fn produce(&self, records: &[Scheduled]) {
        self.produce_to(0, records);
    }

    /// Produces to one of the schedules topics.
    pub fn produce_to(&self, topic: usize, records: &[Scheduled]) {
        for record in records {
            self.producer.send(&self.schedules[topic], record);
        }
        self.producer.flush();
    }

    /// Produces to any topic.
    pub fn produce_elsewhere(&self, topic: &str, records: &[Scheduled]) {
        for record in records {
            self.producer.send(topic, record);
        }
        self.producer.flush();
    }

    /// Reads the target on.
    pub fn target_reader(&self) -> Reader {
        Reader::new(self.bootstrap(), &self.target)
    }

    /// Waits until the target holds so many records, and returns them.
    pub fn fired(&self, count: usize) -> Vec<Record> {
        let mut reader = self.target_reader();
        reader.wait(&format!("{count} fired"), PATIENCE, |r| r.len() >= count);
        reader.records
    }

    pub fn read_target(&self) -> Vec<Record> {
        client::read_all(self.bootstrap(), &self.target)
    }

    pub fn read_history(&self) -> Vec<Record> {
        client::read_all(self.bootstrap(), &self.history)
    }

    /// What a schedules topic holds, without the engine's own bookkeeping.
    pub fn read_schedules(&self, topic: usize) -> Vec<Record> {
        let mut records = client::read_all(self.bootstrap(), &self.schedules[topic]);
        records.retain(|r| !r.key.as_deref().unwrap_or_default().starts_with(RESERVED));
        records
    }

    /// Null-valued records of the first schedules topic that the engine wrote.
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

    /// Waits until every partition of every schedules topic is live and has fired all it owes: an overdue schedule
    /// in each goes through, which comes after whatever was due before it. Probes are left out of what is returned,
    /// which is everything else in the target.
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
        reader.wait("the probes have fired", PATIENCE, |records| {
            let keys: std::collections::HashSet<&[u8]> = records.iter().filter_map(|r| r.key.as_deref()).collect();
            probes.iter().all(|probe| keys.contains(probe.as_bytes()))
        });
        let mut records = self.read_target();
        records.retain(|r| !r.key.as_deref().unwrap_or_default().starts_with(b"probe-"));
        records
    }
}
