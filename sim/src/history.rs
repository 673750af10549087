//! What happened in a run, as the oracle reads it. The world writes it; the oracle knows nothing else of the world.

use std::collections::{BTreeMap, BTreeSet};

use kafka_scheduler::core::Listed;
use kafka_scheduler::core::batch::Batch;
use kafka_scheduler::core::io::{Millis, Partition};

use crate::kafka::Kafka;
use crate::kafka::log::Headers;
use crate::scenario::{RecordKind, Scenario, Setup, Target};

/// A user's record, acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRecord {
    /// On which key.
    pub key: Vec<u8>,
    /// What.
    pub kind: RecordKind,
    /// Where a schedule goes.
    pub target: Target,
    /// When it is due, in seconds since 1970.
    pub due: i64,
    /// Its timestamp.
    pub at_ms: i64,
    /// In order.
    pub headers: Headers,
    /// The value; unique, so that one record is not taken for another.
    pub value: Vec<u8>,
    /// It can fire: a schedule that keeps the rules.
    pub fit: bool,
    /// Since when read_committed consumers can read it.
    pub readable_ms: i64,
}

impl UserRecord {
    /// Whether it changes what its key's last word is.
    #[must_use]
    pub const fn can_be_latest(&self) -> bool {
        !matches!(self.kind, RecordKind::ReservedKey | RecordKind::NoKey)
    }

    /// Whether it has a null value.
    #[must_use]
    pub const fn is_cancel(&self) -> bool {
        matches!(self.kind, RecordKind::Cancel | RecordKind::Copied)
    }
}

/// An event that the oracle judges in the order in which events happened.
#[derive(Debug)]
pub enum Entry {
    /// An instance forgot what it had read: of one partition, or of all.
    Forgot {
        /// The instance's number.
        instance: usize,
        /// `None` is all.
        partition: Option<Partition>,
    },
    /// An instance was given a record. Its log still has it.
    Read {
        /// The instance's number.
        instance: usize,
        /// The record's partition.
        partition: Partition,
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
        /// Which partitions they are of.
        partitions: Vec<Partition>,
    },
    /// The brokers committed a batch, and its instance knows.
    Committed {
        /// The instance's number.
        instance: usize,
        /// The batch's id.
        batch: u64,
    },
    /// A batch was not committed, as far as its instance knows.
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
    /// An instance began to fire a partition.
    WentLive,
    /// An instance asked its shell for something that it must not ask for.
    Violation(String),
}

/// A batch at the time at which it was formed.
#[derive(Debug)]
pub struct Decision {
    /// The instance's number.
    pub instance: usize,
    /// The time.
    pub at_ms: i64,
    /// The instance's own clock.
    pub clock: Millis,
    /// What was decided.
    pub batch: Batch,
    /// When the instance had last read each partition to its end.
    pub caught_up_ms: BTreeMap<Partition, i64>,
    /// Until when the instance's consumer is slow.
    pub slow_consumer_until_ms: i64,
}

/// What happened in a run so far.
#[derive(Debug)]
pub struct History {
    /// What there is in the run.
    pub setup: Setup,
    /// When the run started.
    pub start_ms: i64,
    /// The brokers, with their logs.
    pub kafka: Kafka,
    /// The schedules partitions, in the order in which they were created.
    pub partitions: Vec<Partition>,
    /// Every user record that was acknowledged and not aborted by its user, by partition and offset.
    pub produced: BTreeMap<(Partition, i64), UserRecord>,
    /// The furthest that any clock was ever ahead.
    pub ahead_ms_max: i64,
    /// The furthest that any clock was ever behind, as a negative number.
    pub behind_ms_max: i64,
    /// When faults stopped.
    pub quiet_since_ms: Option<i64>,
    /// Every instance has started again since faults stopped.
    pub restarted: bool,
    /// The late target could not be produced to at some time.
    pub was_away: bool,
    entries: Vec<Entry>,
}

impl History {
    pub(crate) fn new(scenario: &Scenario, start_ms: i64, kafka: Kafka, partitions: Vec<Partition>) -> Self {
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

    pub(crate) fn add(&mut self, event: Entry) {
        self.entries.push(event);
    }

    /// Hands out the events since it was last called.
    pub(crate) fn take_entries(&mut self) -> Vec<Entry> {
        std::mem::take(&mut self.entries)
    }
}

/// What the instances answer when they are asked.
#[derive(Debug)]
pub struct Observed {
    /// When they were asked.
    pub now_ms: i64,
    /// The pending schedules of all running instances.
    pub listed: Vec<Listed>,
    /// Partitions that an instance fires.
    pub live: BTreeSet<Partition>,
    /// Nothing is in flight, and everything in the logs has been read.
    pub is_still: bool,
    /// A line for each instance, for a failure's report.
    pub description: String,
}

/// Offsets of the pending schedules that an instance has of a partition which it fires.
#[derive(Debug)]
pub struct Holding {
    /// When the instance was asked.
    pub now_ms: i64,
    /// The instance's number.
    pub instance: usize,
    /// The partition.
    pub partition: Partition,
    /// Offsets of the users' records.
    pub offsets: BTreeSet<i64>,
    /// Local midnight plus `SINCE_DELTA`, by the instance's clock as its core knows it.
    pub today_ms: i64,
}
