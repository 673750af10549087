//! A model of a Kafka cluster: logs, transactions and one consumer group.

pub mod group;
pub mod log;
mod offsets;
mod transactions;

use std::collections::BTreeMap;

use kafka_scheduler::core::io::TopicPartition;

use crate::rng::Rng;
use group::Group;
use log::{Log, Stored};
pub use offsets::sent_by_librdkafka;
use transactions::{Marker, Producer};

/// `transaction.timeout.ms`.
pub const TRANSACTION_TIMEOUT_MS: i64 = 15_000;

/// A partition of any topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogId {
    /// Of a schedules topic.
    Schedules(TopicPartition),
    /// The only partition of the target topic of this name.
    Target(&'static str),
    /// The only partition of the history topic.
    History,
    /// The only partition of the dead-letter topic.
    DeadLetter,
}

/// Why the broker refuses a transactional request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A newer producer has taken the transactional id, or the transaction has timed out.
    Fenced,
    /// The markers of the id's last transaction are still being written.
    Concurrent,
    /// The member or its generation is not the group's.
    Generation,
    /// Offset metadata is longer than the broker takes.
    Metadata,
    /// The transaction already ended the other way.
    State,
}

/// An action of the transaction coordinator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A producer initialized an id in a new epoch.
    Init {
        /// The transactional id.
        id: String,
        /// The epoch.
        epoch: u32,
    },
    /// A transaction was committed.
    Commit {
        /// Its number.
        transaction: u64,
        /// The epoch of its id.
        epoch: u32,
    },
}

/// Committed offsets with their metadata.
pub type Committed = BTreeMap<TopicPartition, (i64, String)>;

/// The cluster.
#[derive(Debug)]
pub struct Kafka {
    /// Every partition's log.
    pub logs: BTreeMap<LogId, Log>,
    /// Replicas of a schedules partition.
    replicas: usize,
    /// The consumer group.
    pub group: Group,
    /// The group's offsets.
    pub committed: Committed,
    /// The order in which each was sent: a transaction's offsets count from when they were sent, not from its commit.
    taken: BTreeMap<TopicPartition, u64>,
    next_taken: u64,
    /// Until when markers may be late, and by how much.
    slow_markers: (i64, i64),
    /// Whether the markers of the last transaction that ended are late because of [`Kafka::slow_markers`].
    pub markers_are_late: bool,
    /// The actions of the transaction coordinator, in order.
    pub events: Vec<Event>,
    /// The generation that sent a transaction's offsets, and the group's own at that time.
    generations: BTreeMap<u64, (i32, i32)>,
    /// Transactions in the order in which they were committed.
    pub commits: Vec<u64>,
    /// Every transactional record ever appended, which compaction does not touch.
    written: BTreeMap<u64, Vec<(LogId, Stored)>>,
    /// The offset of each of them, in the same order.
    written_at: BTreeMap<u64, Vec<i64>>,
    /// The transactional id that wrote each transaction.
    writers: BTreeMap<u64, String>,
    /// The offsets of each committed transaction.
    sent: BTreeMap<u64, Vec<(TopicPartition, i64, String)>>,
    producers: BTreeMap<String, Producer>,
    markers: Vec<Marker>,
    next_transaction: u64,
    rng: Rng,
}

impl Kafka {
    /// Creates an empty cluster with these schedules partitions, each on this number of replicas. All other topics have
    /// one.
    #[must_use]
    pub fn new(partitions: &[TopicPartition], replicas: usize, rng: Rng) -> Self {
        let schedules = partitions.iter().map(|p| (LogId::Schedules(*p), Log::new(replicas)));
        let others = [LogId::History, LogId::DeadLetter].map(|log_id| (log_id, Log::default()));
        Self {
            logs: schedules.chain(others).collect(),
            replicas,
            group: Group::new(partitions),
            committed: Committed::new(),
            taken: BTreeMap::new(),
            next_taken: 0,
            slow_markers: (i64::MIN, 0),
            markers_are_late: false,
            events: Vec::new(),
            generations: BTreeMap::new(),
            commits: Vec::new(),
            written: BTreeMap::new(),
            written_at: BTreeMap::new(),
            writers: BTreeMap::new(),
            sent: BTreeMap::new(),
            producers: BTreeMap::new(),
            markers: Vec::new(),
            next_transaction: 1,
            rng,
        }
    }

    /// Adds a partition, which the group will assign.
    pub fn add_partition(&mut self, partition: TopicPartition) {
        self.logs.entry(LogId::Schedules(partition)).or_insert_with(|| Log::new(self.replicas));
        self.group.add_partition(partition);
    }

    /// Returns a partition's log.
    #[must_use]
    pub fn log(&self, log_id: LogId) -> &Log {
        &self.logs[&log_id]
    }

    /// Returns the records of each committed transaction, in commit order, including those that compaction has removed.
    pub fn journal(&self) -> impl Iterator<Item = (u64, &[(LogId, Stored)])> {
        self.commits.iter().map(|t| (*t, self.written.get(t).map_or(&[][..], Vec::as_slice)))
    }

    /// Returns the offsets of a transaction's records, in the order of [`Kafka::journal`].
    #[must_use]
    pub fn offsets_of(&self, transaction: u64) -> &[i64] {
        self.written_at.get(&transaction).map_or(&[], Vec::as_slice)
    }

    /// Returns the transactional id that wrote a transaction.
    #[must_use]
    pub fn writer(&self, transaction: u64) -> &str {
        self.writers.get(&transaction).map_or("", String::as_str)
    }

    /// Delays markers by up to `up_to_ms`, until `until_ms`.
    pub fn slow_markers(&mut self, until_ms: i64, up_to_ms: i64) {
        self.slow_markers = (until_ms, up_to_ms);
    }

    /// Returns the generation that sent a transaction's offsets, and the group's own at that time.
    #[must_use]
    pub fn generations_of(&self, transaction: u64) -> Option<(i32, i32)> {
        self.generations.get(&transaction).copied()
    }

    /// Returns the consumer offsets of a committed transaction.
    #[must_use]
    pub fn sent_offsets(&self, transaction: u64) -> &[(TopicPartition, i64, String)] {
        self.sent.get(&transaction).map_or(&[], Vec::as_slice)
    }

    /// Returns the next time at which [`Kafka::tick`] has something to do, if there is one.
    #[must_use]
    pub fn deadline(&self) -> Option<i64> {
        let markers = self.markers.iter().map(|marker| marker.at_ms);
        let open = self.producers.values().filter_map(Producer::ends_by);
        markers.chain(open).chain(self.group.deadline()).min()
    }

    fn log_mut(&mut self, log_id: LogId) -> &mut Log {
        self.logs.entry(log_id).or_default()
    }
}
