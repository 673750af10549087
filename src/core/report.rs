//! Events and counters for the operator.

use super::reason::Reason;
use super::targets::TargetState;
use super::types::{Millis, TopicPartition};

/// What an operator may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// A record that cannot fire.
    Invalid {
        /// Where it lies.
        partition: TopicPartition,
        /// Its offset.
        offset: i64,
        /// Why.
        reason: Reason,
    },
    /// A schedule that is due so far ahead that it is probably a mistake.
    FarAhead {
        /// Where it lies.
        partition: TopicPartition,
        /// Its offset.
        offset: i64,
        /// What is probably wrong: [`schedule::far_ahead`](super::schedule::far_ahead).
        why: &'static str,
    },
    /// A schedule could not be delivered and is tried again later.
    Parked {
        /// Where it lies.
        partition: TopicPartition,
        /// Its offset.
        offset: i64,
        /// Why.
        reason: Reason,
        /// When it is tried again.
        retry_at: Millis,
    },
    /// A schedule cannot be delivered and becomes a dead letter.
    ToDeadLetter {
        /// Where it lies.
        partition: TopicPartition,
        /// Its offset.
        offset: i64,
        /// Why.
        reason: Reason,
    },
    /// A target topic stopped or began to be usable.
    TargetChanged {
        /// The topic.
        name: std::sync::Arc<str>,
        /// What the metadata said.
        state: TargetState,
    },
    /// A partition is loaded and fires from now on.
    Live {
        /// Which.
        partition: TopicPartition,
        /// Schedules held.
        pending: usize,
        /// Of these, how many are overdue.
        overdue: usize,
        /// Schedules left alone because they are older than the first start allows.
        leftovers: u64,
    },
    /// Another group fires the same topic: every schedule fires once for each of them.
    ForeignGroup {
        /// Where its record lies.
        partition: TopicPartition,
        /// Its id, as it names itself.
        group: String,
    },
    /// The brokers take records, but more slowly than schedules are due.
    ThroughputIsLimit,
    /// A partition's records are read again from the beginning, and why.
    Reread {
        /// Which.
        partition: TopicPartition,
        /// Why.
        why: &'static str,
    },
}

/// Events since the scheduler was made. They only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Accepted as pending.
    pub planned: u64,
    /// Fired, and not missed.
    pub triggered: u64,
    /// Fired, and overdue when its partition came up.
    pub missed: u64,
    /// Pending ones cancelled by their user.
    pub deleted: u64,
    /// Records that cannot fire.
    pub invalid: u64,
    /// Records that are neither a schedule nor a cancel of one.
    pub other: u64,
    /// Left alone because they are older than the first start allows.
    pub leftovers: u64,
    /// Accepted as pending, and due more than 100 years ahead.
    pub far_ahead: u64,
    /// Words written again because an engine record outran them.
    pub reasserted: u64,
    /// Records moved to the dead-letter topic.
    pub dead_lettered: u64,
    /// Records that could not fire, each once for each reason, by the reason's number.
    pub by_reason: [u64; Reason::ALL.len()],
}
