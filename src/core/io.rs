//! What goes into the scheduler and what comes out of it.
//!
//! The core never acts: it is told what happened as an [`Input`] and answers with [`Output`]s that the shell carries
//! out. Answers to an output come back as a later input, so that a simulator can delay, reorder or lose them.

use super::batch::Batch;
use super::reason::Reason;
pub use super::report::{Counters, Report};
pub use super::targets::TargetState;
pub use super::throughput::Late;
pub use super::types::{Cursor, Header, Millis, Record, TopicPartition};

/// Names a request of the core's in its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// Something that happened outside.
#[derive(Debug)]
pub enum Input<'a> {
    /// The group gave these partitions to this instance, and the consumer now reads each from its beginning.
    Assigned {
        /// One rebalance event's partitions.
        partitions: &'a [TopicPartition],
        /// Local midnight plus `SINCE_DELTA` days: what is due before this is a leftover on a first start.
        leftover_cutoff: Millis,
    },
    /// A consumed record.
    Record(Record<'a>),
    /// The answer to [`Output::ReadCommitted`] for one partition.
    Committed {
        /// The partition asked about.
        partition: TopicPartition,
        /// The group's committed offset, if there is one.
        offset: Option<i64>,
        /// The metadata committed with it, as read.
        metadata: &'a [u8],
    },
    /// The answer to [`Output::Fence`], whether or not every id could be fenced.
    Fenced {
        /// [`Output::Fence::request`] that is answered.
        request: RequestId,
    },
    /// The answer to [`Output::FindSince`].
    Since {
        /// [`Output::FindSince::request`] that is answered.
        request: RequestId,
        /// The earliest `since` known to the group or to the topic's floor records, if any.
        since: Option<Millis>,
        /// As in [`Input::Assigned`], read anew.
        leftover_cutoff: Millis,
    },
    /// The answer to [`Output::CheckTarget`].
    Target {
        /// [`Output::CheckTarget::target`].
        target: u32,
        /// What the cluster's metadata says of it.
        state: TargetState,
    },
    /// A batch has ended.
    BatchEnded {
        /// [`Batch::id`].
        batch: u64,
        /// How.
        outcome: Outcome,
    },
    /// The group wants these back. The shell holds its answer until [`Output::Release`] has named all of them.
    Revoked {
        /// One rebalance event's partitions.
        partitions: &'a [TopicPartition],
    },
    /// These were taken without waiting for us: another instance may own them already. The shell has answered.
    Lost {
        /// One rebalance event's partitions.
        partitions: &'a [TopicPartition],
    },
    /// The consumer's position in this partition is no longer valid (out of range, reset or truncated).
    PositionInvalid {
        /// What made it so, for the log.
        why: &'static str,
    },
    /// The log of a partition begins later than before: what lay before that is gone.
    Trimmed {
        /// Which.
        partition: TopicPartition,
        /// The first offset that is left.
        start: i64,
    },
    /// The consumer group's generation, sent whenever it has changed.
    Generation(i32),
    /// Hand everything over and stop. [`Output::Stopped`] follows when nothing is in flight.
    Stop,
    /// Time has passed. Send it at [`Scheduler::poll_timeout`](super::Scheduler::poll_timeout).
    Tick,
}

/// How a batch ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The broker has committed it.
    Committed {
        /// For each schedules partition written to: the highest offset of the batch's records there.
        last_offsets: Vec<(TopicPartition, i64)>,
    },
    /// The broker has aborted it (`abort_transaction` returned Ok), or nothing of it was ever sent.
    Aborted(Abort),
    /// Nobody here can say. The core answers with [`Output::Rejoin`].
    Unknown,
}

/// Why a batch was aborted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Abort {
    /// Nothing that the batch itself is to blame for, such as a time-out: the same records may be tried again.
    Retry,
    /// As [`Abort::Retry`], because records were not acknowledged in time. A smaller batch may get through.
    TimedOut(Late),
    /// The broker refused our member id or generation, or the consumer has none to give.
    StaleGeneration {
        /// The generation that was refused.
        generation: i32,
    },
    /// The delivery reports name these items, by index into [`Batch::items`], and why. With none, the broker has refused
    /// a record, and nobody says which.
    Rejected(Vec<(u32, Reason)>),
}

/// Something for the shell to do, or to tell.
#[derive(Debug)]
pub enum Output {
    /// Read the group's committed offset and metadata of these. Answer: [`Input::Committed`] for each.
    ReadCommitted(Vec<TopicPartition>),
    /// Run `init_transactions` with each id on a short-lived producer, unless the generation changed meanwhile.
    /// Answer: [`Input::Fenced`], also when it failed.
    Fence {
        /// Names this request in its answer.
        request: RequestId,
        /// Transactional ids of former owners.
        transactional_ids: Vec<String>,
    },
    /// Find the earliest `since` in the group's metadata for any partition of the topic or, where there is none, in
    /// the floor records of its partitions, read from the log. Answer: [`Input::Since`].
    FindSince {
        /// Names this request in its answer. A newer request for the same topic makes the answer worthless.
        request: RequestId,
        /// Index of the topic.
        topic: u16,
        /// Partitions that the core itself is reading: their floors are known here and need no scan.
        known: Vec<i32>,
    },
    /// Ask the cluster's metadata whether a topic exists, without creating it. Answer: [`Input::Target`].
    CheckTarget {
        /// Names the target in the answer.
        target: u32,
        /// The topic.
        name: std::sync::Arc<str>,
    },
    /// Run this transaction, with the group metadata as it is now. Answer: [`Input::BatchEnded`].
    Transact(Batch),
    /// Read this partition from its beginning again.
    Seek(TopicPartition),
    /// These may be given back. Each partition of a revocation is released exactly once.
    Release(Vec<TopicPartition>),
    /// Take these transactional ids in place of the old ones, whose producers abort what they have open and end.
    ReplaceTransactionalIds {
        /// One for each transactor.
        transactional_ids: Vec<String>,
    },
    /// Leave the group, then join it anew. [`Output::ReplaceTransactionalIds`] has come before; everything in flight is forgotten.
    Rejoin(&'static str),
    /// [`Input::Stop`] is done: let the transactors abort what they have open, leave the group, and end.
    Stopped,
    /// For the log. Nothing needs to be done.
    Report(Report),
}
