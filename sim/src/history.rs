//! The history of a run. The world writes it, and the oracle reads nothing else.

use std::collections::{BTreeMap, BTreeSet};

use kafka_scheduler::core::Listed;
use kafka_scheduler::core::batch::Batch;
use kafka_scheduler::core::io::{Millis, TopicPartition};
pub use kafka_scheduler::core::when::Misfire;

use crate::kafka::Kafka;
use crate::kafka::log::Headers;
use crate::scenario::{RecordKind, Scenario, Setup, Target};

/// A user's record, acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRecord {
    /// The key.
    pub key: Vec<u8>,
    /// The kind of record.
    pub kind: RecordKind,
    /// The target topic.
    pub target: Target,
    /// Due time in seconds since 1970; of a schedule that recurs, its seed.
    pub due_s: i64,
    /// When and how often a schedule recurs.
    pub recurrence: Option<Recurrence>,
    /// Its timestamp.
    pub at_ms: i64,
    /// Headers, in order.
    pub headers: Headers,
    /// The value. Each record has its own, so one cannot be taken for another.
    pub value: Vec<u8>,
    /// Whether it is a schedule that can fire.
    pub can_fire: bool,
    /// When read_committed consumers could first read it.
    pub readable_ms: i64,
}

/// When and how often a schedule recurs, as the oracle computes it: apart from the engine's calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recurrence {
    /// The first occurrence.
    pub first_ms: i64,
    /// The interval; of a schedule with one occurrence a year.
    pub interval_ms: i64,
    /// The number of occurrences.
    pub count: u64,
    /// What happens to missed ones.
    pub misfire: Misfire,
}

impl Recurrence {
    /// Returns when an occurrence is due.
    #[must_use]
    pub fn nominal_ms(&self, number: u64) -> i64 {
        self.first_ms + (number as i64 - 1) * self.interval_ms
    }

    /// Returns whether an occurrence was missed, for an engine whose clock shows `now_ms`.
    #[must_use]
    pub fn is_missed(&self, number: u64, now_ms: i64) -> bool {
        let is_late = self.nominal_ms(number) + MISSED_MS < now_ms;
        is_late || number < self.count && self.nominal_ms(number + 1) <= now_ms
    }
}

/// An occurrence that is later than this has been missed: the engine's default.
const MISSED_MS: i64 = 60_000;

impl UserRecord {
    /// Returns when it was due first, in milliseconds since 1970.
    #[must_use]
    pub fn first_due_ms(&self) -> i64 {
        self.recurrence.map_or(self.due_s * 1000, |recurrence| recurrence.first_ms)
    }

    /// Whether it can be the latest record for its key.
    #[must_use]
    pub const fn can_be_latest(&self) -> bool {
        !matches!(self.kind, RecordKind::ReservedKey | RecordKind::NoKey | RecordKind::Replayed)
    }

    /// Whether it has a null value.
    #[must_use]
    pub const fn is_cancel(&self) -> bool {
        matches!(self.kind, RecordKind::Cancel | RecordKind::Copied)
    }
}

/// An entry of the history. The oracle judges entries in their order.
#[derive(Debug)]
pub enum Entry {
    /// An instance forgot the records that it had read.
    Forgot {
        /// The instance's number.
        instance: usize,
        /// The partition; `None` is all.
        partition: Option<TopicPartition>,
    },
    /// An instance began to take a snapshot of what it had read of a partition.
    SnapshotBegan {
        /// The instance's number.
        instance: usize,
        /// The partition.
        partition: TopicPartition,
        /// The snapshot's number.
        snapshot: u64,
    },
    /// An instance goes on from a snapshot, as if it had read the same records.
    Restored {
        /// The instance's number.
        instance: usize,
        /// The partition.
        partition: TopicPartition,
        /// The snapshot's number.
        snapshot: u64,
    },
    /// An instance has read a record. Its log still has it.
    Read {
        /// The instance's number.
        instance: usize,
        /// The record's partition.
        partition: TopicPartition,
        /// The record's offset.
        offset: i64,
    },
    /// An instance formed a batch.
    Decided(Decision),
    /// The brokers accepted the offsets of a batch.
    OffsetsSent {
        /// The instance's number.
        instance: usize,
        /// The batch's id.
        batch: u64,
        /// The member of the group that sent them.
        member: String,
        /// The offsets' partitions.
        partitions: Vec<TopicPartition>,
    },
    /// The brokers committed a batch, and its instance knows.
    Committed {
        /// The instance's number.
        instance: usize,
        /// The batch's id.
        batch: u64,
    },
    /// A batch was aborted or has an unknown outcome.
    Aborted {
        /// The instance's number.
        instance: usize,
        /// The batch's id.
        batch: u64,
    },
    /// An instance reported that throughput is its limit.
    ThroughputIsLimit {
        /// The instance's number.
        instance: usize,
    },
    /// A partition became live in an instance.
    WentLive,
    /// An instance asked its shell for something that it must not ask for.
    Violation(String),
}

/// A batch when it was formed.
#[derive(Debug)]
pub struct Decision {
    /// The instance's number.
    pub instance: usize,
    /// When it was formed.
    pub at_ms: i64,
    /// The instance's own clock.
    pub clock: Millis,
    /// The batch.
    pub batch: Batch,
    /// When the instance had last read each partition to its last stable offset.
    pub caught_up_ms: BTreeMap<TopicPartition, i64>,
    /// Until when the instance's consumer is slow.
    pub slow_consumer_until_ms: i64,
}

/// The history of a run.
#[derive(Debug)]
pub struct History {
    /// The scenario's sizes and settings.
    pub setup: Setup,
    /// When the run started.
    pub start_ms: i64,
    /// The brokers, with their logs.
    pub kafka: Kafka,
    /// The schedules partitions, in the order in which they were created.
    pub partitions: Vec<TopicPartition>,
    /// Every user record that was acknowledged and not aborted by its user, by partition and offset.
    pub produced: BTreeMap<(TopicPartition, i64), UserRecord>,
    /// How far any clock was ever ahead.
    pub ahead_ms_max: i64,
    /// How far any clock was ever behind, as a negative number.
    pub behind_ms_max: i64,
    /// When faults stopped.
    pub quiet_since_ms: Option<i64>,
    /// Whether every instance has started again since faults stopped.
    pub restarted: bool,
    /// Whether the topic of [`Target::Late`] ever could not be produced to.
    pub was_away: bool,
    entries: Vec<Entry>,
}

impl History {
    pub(crate) fn new(scenario: &Scenario, start_ms: i64, kafka: Kafka, partitions: Vec<TopicPartition>) -> Self {
        Self {
            setup: scenario.setup.clone(),
            start_ms,
            kafka,
            partitions,
            produced: BTreeMap::new(),
            ahead_ms_max: 0,
            behind_ms_max: 0,
            quiet_since_ms: None,
            restarted: false,
            was_away: false,
            entries: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, entry: Entry) {
        self.entries.push(entry);
    }

    /// Returns the entries since the last call.
    pub(crate) fn take_entries(&mut self) -> Vec<Entry> {
        std::mem::take(&mut self.entries)
    }
}

/// What the running instances show when they are asked.
#[derive(Debug)]
pub struct Observed {
    /// When they were asked.
    pub now_ms: i64,
    /// The pending schedules of all running instances.
    pub listed: Vec<Listed>,
    /// Partitions that an instance fires.
    pub live: BTreeSet<TopicPartition>,
    /// Whether no batch is in flight and all logs are read to their ends.
    pub is_idle: bool,
    /// A line for each instance, for a failure's report.
    pub description: String,
}

/// The pending schedules that an instance has for a partition that it fires.
#[derive(Debug)]
pub struct Holding {
    /// When the instance was asked.
    pub now_ms: i64,
    /// The instance's number.
    pub instance: usize,
    /// The partition.
    pub partition: TopicPartition,
    /// Offsets of the users' records.
    pub offsets: BTreeSet<i64>,
    /// Local midnight plus `SINCE_DELTA`, by the clock that the instance's core was last told.
    pub leftover_cutoff_ms: i64,
}
