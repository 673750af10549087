//! Events and counters for the operator.

use std::ops::{Index, IndexMut};

use super::due::Due;
use super::reason::Reason;
use super::targets::TargetState;
use super::types::{Millis, TopicPartition};

/// An event for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// A schedule was accepted on a live partition. [`Report::Live`] counts those that loading found.
    Accepted {
        /// The record's partition.
        partition: TopicPartition,
        /// The record's offset.
        offset: i64,
        /// When it is due.
        due: Due,
        /// The target topic.
        target: std::sync::Arc<str>,
    },
    /// A user's tombstone cancelled a pending schedule on a live partition.
    Cancelled {
        /// The tombstone's partition.
        partition: TopicPartition,
        /// The tombstone's offset.
        offset: i64,
    },
    /// A record is invalid: it cannot fire.
    Invalid {
        /// The record's partition.
        partition: TopicPartition,
        /// The record's offset.
        offset: i64,
        /// The reason.
        reason: Reason,
    },
    /// A schedule is due so far ahead that it is probably a mistake.
    FarAhead {
        /// The record's partition.
        partition: TopicPartition,
        /// The record's offset.
        offset: i64,
        /// The probable mistake, from [`schedule::far_ahead`](super::schedule::far_ahead).
        why: &'static str,
    },
    /// A schedule that an engine has read before has a zone or a syntax that this version does not know. It stays
    /// in the log until a version that knows it owns the partition.
    UnknownSyntax {
        /// The record's partition.
        partition: TopicPartition,
        /// The record's offset.
        offset: i64,
        /// What is not known.
        reason: Reason,
    },
    /// A firing, rewrite or dead letter was rejected and will be retried; once for each kind of reason.
    Parked {
        /// The record's partition.
        partition: TopicPartition,
        /// The record's offset.
        offset: i64,
        /// The reason.
        reason: Reason,
        /// When it is retried.
        retry_at: Millis,
    },
    /// A schedule cannot be delivered and becomes a dead letter.
    ToDeadLetter {
        /// The record's partition.
        partition: TopicPartition,
        /// The record's offset.
        offset: i64,
        /// The reason.
        reason: Reason,
    },
    /// A target topic became usable or unusable.
    TargetChanged {
        /// The topic's name.
        name: std::sync::Arc<str>,
        /// Its state in the cluster's metadata or by the delivery reports.
        state: TargetState,
    },
    /// A partition is loaded and fires from now on: it is live.
    Live {
        /// The partition.
        partition: TopicPartition,
        /// Number of pending schedules.
        pending: usize,
        /// Number of pending schedules that are already due.
        overdue: usize,
        /// Number of leftovers, which do not fire: see [`start_marker`](super::start_marker).
        leftovers: u64,
    },
    /// Another group fires the same topic: schedules may fire once for each group, or be ended by the other one's
    /// tombstone.
    ForeignGroup {
        /// The partition with a barrier of that group.
        partition: TopicPartition,
        /// The id of that group.
        group: String,
    },
    /// The brokers take records, but more slowly than schedules are due.
    ThroughputIsLimit,
    /// A partition is read again from its beginning.
    Reread {
        /// The partition.
        partition: TopicPartition,
        /// The cause.
        why: &'static str,
    },
}

/// Numbers of events since the scheduler was made. They never decrease. Field names follow the metrics.
///
/// Each time a partition is loaded, the schedules, leftovers, invalid and far-ahead records in its log are counted
/// again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Schedules accepted.
    pub planned: u64,
    /// Schedules fired that were not missed.
    pub triggered: u64,
    /// Schedules fired that were already due when their partition became live.
    pub missed: u64,
    /// Schedules that a user cancelled while no engine record for their key was outstanding.
    pub deleted: u64,
    /// Invalid records.
    pub invalid: u64,
    /// All other cancels: the key had no schedule, or an engine record for it was outstanding.
    pub other: u64,
    /// Leftovers, which do not fire: see [`start_marker`](super::start_marker).
    pub leftovers: u64,
    /// Schedules accepted that are due more than 100 years ahead.
    pub far_ahead: u64,
    /// Missed occurrences that were skipped.
    pub skipped: u64,
    /// Schedules or occurrences that were not fired because they had expired.
    pub expired: u64,
    /// Progress records that were produced again with fewer occurrences. They do not count.
    pub progress_replayed: u64,
    /// Records rewritten because an engine record had overtaken them.
    pub rewritten: u64,
    /// Partitions that went live after their whole log was read.
    pub cold_takeovers: u64,
    /// Partitions that went live after they went on from a snapshot.
    pub warm_takeovers: u64,
    /// Records moved to the dead-letter topic.
    pub dead_lettered: u64,
    /// By the reason's number: records that could not fire, each counted once for each kind of reason.
    pub by_reason: ByReason,
}

/// A number for each [`Reason`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByReason([u64; Reason::ALL.len()]);

impl ByReason {
    /// Iterates over the numbers of all reasons.
    pub fn iter(&self) -> impl Iterator<Item = (Reason, u64)> {
        Reason::ALL.iter().copied().zip(self.0)
    }
}

impl Default for ByReason {
    fn default() -> Self {
        Self([0; Reason::ALL.len()])
    }
}

impl Index<Reason> for ByReason {
    type Output = u64;

    fn index(&self, reason: Reason) -> &u64 {
        &self.0[reason as usize]
    }
}

impl IndexMut<Reason> for ByReason {
    fn index_mut(&mut self, reason: Reason) -> &mut u64 {
        &mut self.0[reason as usize]
    }
}
