//! Inputs and outputs of the scheduler.
//!
//! The core never acts: it receives each event as an [`Input`] and returns [`Output`]s that the shell executes. The
//! answer to an output is a later input, so a simulator can delay, reorder or lose it.

use super::batch::Batch;
use super::reason::Reason;
pub use super::report::{Counters, Report};
pub use super::targets::TargetState;
pub use super::throughput::BatchTimeout;
pub use super::types::{Cursor, Header, Millis, Record, TopicPartition};

/// Identifies a question of the core to the shell, which returns it with the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// An event outside the core.
#[derive(Debug)]
pub enum Input<'a> {
    /// The group assigned these partitions to this instance, and the consumer now reads each from its beginning.
    Assigned {
        /// All partitions of one rebalance event.
        partitions: &'a [TopicPartition],
        /// Local midnight plus `SINCE_DELTA` days: on the engine's first start, schedules due before it are *leftovers*
        /// and do not fire.
        leftover_cutoff: Millis,
    },
    /// A consumed record.
    Record(Record<'a>),
    /// The answer to [`Output::ReadCommitted`] for one partition.
    Committed {
        /// One of the requested partitions.
        partition: TopicPartition,
        /// The group's committed offset, if there is one.
        offset: Option<i64>,
        /// The metadata committed with it, empty if there is none.
        metadata: &'a [u8],
    },
    /// The answer to [`Output::Fence`], also if not every id could be fenced.
    Fenced {
        /// The request's [`Output::Fence::request`].
        request: RequestId,
    },
    /// The answer to [`Output::FindSince`].
    Since {
        /// The request's [`Output::FindSince::request`].
        request: RequestId,
        /// The earliest `since` in the group's metadata or the topic's start markers, if any.
        since: Option<Millis>,
        /// As in [`Input::Assigned`], at the time of this answer.
        leftover_cutoff: Millis,
    },
    /// The answer to [`Output::CheckTarget`].
    Target {
        /// [`Output::CheckTarget::target`].
        target: u32,
        /// The topic's state in the cluster's metadata.
        state: TargetState,
    },
    /// A batch has settled.
    BatchEnded {
        /// [`Batch::id`].
        batch: u64,
        /// Its outcome.
        outcome: Outcome,
    },
    /// The group revokes these. The shell delays its answer until [`Output::Release`] has named all of them.
    Revoked {
        /// All partitions of one rebalance event.
        partitions: &'a [TopicPartition],
    },
    /// These were lost without a revocation: another instance may own them already. The shell has answered the group.
    Lost {
        /// All partitions of one rebalance event.
        partitions: &'a [TopicPartition],
    },
    /// The consumer's position in a partition is no longer valid, or no record of one can be read. The core leaves the
    /// group and reads every partition again from its beginning.
    PositionInvalid {
        /// The cause, for the log.
        why: &'static str,
    },
    /// The log of a partition begins at a later offset than before: earlier records were deleted.
    Trimmed {
        /// The partition.
        partition: TopicPartition,
        /// The log's first offset.
        start: i64,
    },
    /// How long a fold of a topic's partitions stays usable, from the topic's own settings: half of
    /// `delete.retention.ms`, and at most `min.compaction.lag.ms` if that is not 0. Without this input no canary is
    /// written, and no snapshot is taken.
    CanaryLimit {
        /// Index of the topic.
        topic: u16,
        /// The limit in milliseconds; 0 if the topic itself does not set both.
        limit_ms: i64,
    },
    /// The answer to [`Output::CheckCanary`].
    CanaryChecked {
        /// The partition.
        partition: TopicPartition,
        /// The log has a record with this key at this offset. `false` also if it could not be read.
        found: bool,
    },
    /// The consumer group's generation, whenever it has changed.
    Generation(i32),
    /// Give all partitions back and stop. [`Output::Stopped`] follows when nothing is in flight.
    Stop,
    /// Time has passed. Send it at [`Scheduler::poll_timeout`](super::Scheduler::poll_timeout).
    Tick,
}

/// The outcome of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The broker has committed it.
    Committed {
        /// For each schedules partition: the highest offset of the batch's records in it.
        last_offsets: Vec<(TopicPartition, i64)>,
    },
    /// The broker has aborted it (`abort_transaction` returned Ok), or nothing of it was ever sent.
    Aborted(Abort),
    /// The shell cannot know whether it was committed. The core answers with [`Output::Rejoin`], or with
    /// [`Output::Stopped`] if it is stopping.
    Unknown,
}

/// Why a batch was aborted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Abort {
    /// A transient failure that no record caused, such as a timeout: the same records may be tried again.
    Retry,
    /// As [`Abort::Retry`], because records were not acknowledged in time. A smaller batch may get through.
    TimedOut(BatchTimeout),
    /// The broker rejected our member id or generation, or the consumer had none.
    StaleGeneration {
        /// The rejected generation; `None` if the consumer had none.
        generation: Option<i32>,
    },
    /// The broker rejected these items, as index into [`Batch::items`] and reason: at least one.
    Rejected(Vec<(u32, Reason)>),
    /// The broker rejected a record that no delivery report names.
    RejectedUnnamed,
}

impl Abort {
    /// Returns the cause of a batch that the broker rejected because of these items, if it named any.
    #[must_use]
    pub fn rejected(items: Vec<(u32, Reason)>) -> Self {
        if items.is_empty() { Self::RejectedUnnamed } else { Self::Rejected(items) }
    }
}

/// An action for the shell, or a report.
#[derive(Debug)]
pub enum Output {
    /// Read the group's committed offset and metadata of these partitions. Answer: [`Input::Committed`] for each.
    ReadCommitted(Vec<TopicPartition>),
    /// Run `init_transactions` with each id on a short-lived producer, unless the generation changed meanwhile.
    /// Answer: [`Input::Fenced`], also if it failed.
    Fence {
        /// Identifies the answer.
        request: RequestId,
        /// Transactional ids of former owners.
        transactional_ids: Vec<String>,
    },
    /// Find the earliest `since` ([`Ownership::since`](super::ownership::Ownership::since)) in the group's metadata for
    /// any partition of the topic. If there is none, read it from the start markers in the partitions' logs. Answer:
    /// [`Input::Since`].
    FindSince {
        /// Identifies the answer. A newer request for the same topic replaces this one.
        request: RequestId,
        /// Index of the topic.
        topic: u16,
        /// Partitions that the core itself reads, so their logs need not be read for it.
        known: Vec<i32>,
    },
    /// Look a topic up in the cluster's metadata, without creating it. Answer: [`Input::Target`].
    CheckTarget {
        /// Identifies the target in the answer.
        target: u32,
        /// The topic's name.
        name: std::sync::Arc<str>,
    },
    /// Read the record at this offset with a consumer outside the group. Answer: [`Input::CanaryChecked`].
    CheckCanary {
        /// The partition.
        partition: TopicPartition,
        /// The canary's offset.
        offset: i64,
        /// The canary's key.
        key: Vec<u8>,
    },
    /// Run this transaction, with the group metadata as it is now. Answer: [`Input::BatchEnded`].
    Transact(Batch),
    /// Seek the consumer to the beginning of this partition.
    Seek(TopicPartition),
    /// These partitions may be given back. Each revoked partition is named once, unless [`Output::Rejoin`],
    /// [`Output::Stopped`] or [`Input::Lost`] comes first: then no release follows.
    Release(Vec<TopicPartition>),
    /// Replace the transactional ids. Producers of the old ones abort their open transaction and end.
    ReplaceTransactionalIds {
        /// One for each transactor.
        transactional_ids: Vec<String>,
    },
    /// Leave the group, then rejoin it, for this reason. [`Output::ReplaceTransactionalIds`] came before, and the core
    /// has forgotten everything in flight.
    Rejoin(&'static str),
    /// [`Input::Stop`] is done: let the transactors abort their open transactions, leave the group, and end.
    Stopped,
    /// For the operator. It needs no action.
    Report(Report),
}
