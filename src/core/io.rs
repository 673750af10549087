//! What goes into the scheduler and what comes out of it.
//!
//! The core never acts: it is told what happened as an [`Input`] and answers with [`Output`]s that the shell carries
//! out. Answers to an output come back as a later input, so that a simulator can delay, reorder or lose them.

use super::batch::Batch;
use super::reason::Reason;
pub use super::throughput::Late;

/// Milliseconds since 1970-01-01T00:00:00Z, by the clock of whoever passed it in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub i64);

impl Millis {
    /// This moment moved by `delta` milliseconds, stopping at the ends of the range.
    #[must_use]
    pub const fn plus(self, delta: i64) -> Self {
        Self(self.0.saturating_add(delta))
    }
}

/// One partition of one schedules topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition {
    /// Index into [`Config::topics`](super::Config::topics).
    pub topic: u16,
    /// Partition number within the topic.
    pub number: i32,
}

/// A header as Kafka carries it. Names repeat, and order matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// UTF-8 by the protocol's rules, but no broker checks it.
    pub name: &'a [u8],
    /// `None` is Kafka's null, which differs from empty.
    pub value: Option<&'a [u8]>,
}

/// A record delivered by a read_committed consumer.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Where it lies.
    pub partition: Partition,
    /// Its offset there.
    pub offset: i64,
    /// The record's timestamp, whatever its type; -1 where it has none.
    pub timestamp: Millis,
    /// `None` is Kafka's null.
    pub key: Option<&'a [u8]>,
    /// `None` is Kafka's null: a tombstone.
    pub value: Option<&'a [u8]>,
    /// In the record's order.
    pub headers: &'a [Header<'a>],
}

/// Something that happened outside.
#[derive(Debug)]
pub enum Input<'a> {
    /// The group gave these partitions to this instance, and the consumer now reads each from its beginning.
    Assigned {
        /// One rebalance event's partitions.
        partitions: &'a [Partition],
        /// Local midnight plus `SINCE_DELTA` days: what is due before this is a leftover on a first start.
        today: Millis,
    },
    /// A consumed record.
    Record(Record<'a>),
    /// The answer to [`Output::ReadCommitted`] for one partition.
    Committed {
        /// The partition asked about.
        partition: Partition,
        /// The group's committed offset, if there is one.
        offset: Option<i64>,
        /// The metadata committed with it, as read.
        metadata: &'a [u8],
    },
    /// The answer to [`Output::Fence`], whether or not every id could be fenced.
    Fenced {
        /// [`Output::Fence::take`] of the request answered.
        take: u64,
    },
    /// The answer to [`Output::FindSince`].
    Since {
        /// [`Output::FindSince::ask`] of the request answered.
        ask: u64,
        /// The earliest `since` known to the group or to the topic's floor records, if any.
        since: Option<Millis>,
        /// As in [`Input::Assigned`], read anew.
        today: Millis,
    },
    /// The answer to [`Output::CheckTarget`].
    Target {
        /// [`Output::CheckTarget::target`].
        target: u32,
        /// What the cluster's metadata says of it.
        state: TargetState,
    },
    /// A batch has ended.
    Settled {
        /// [`Batch::id`].
        batch: u64,
        /// How.
        outcome: Outcome,
    },
    /// The group wants these back. The shell holds its answer until [`Output::Release`] has named all of them.
    Revoked {
        /// One rebalance event's partitions.
        partitions: &'a [Partition],
    },
    /// These were taken without waiting for us: another instance may own them already. The shell has answered.
    Lost {
        /// One rebalance event's partitions.
        partitions: &'a [Partition],
    },
    /// The consumer's position in this partition is no longer valid (out of range, reset or truncated).
    Unreadable {
        /// For the report.
        why: &'a str,
    },
    /// The log of a partition begins later than before: what lay before that is gone.
    Trimmed {
        /// Which.
        partition: Partition,
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

/// What the cluster's metadata says of a target topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetState {
    /// It can be produced to.
    Exists,
    /// The cluster answered that there is no such topic.
    Missing,
    /// The cluster answered that we may not see it.
    Forbidden,
    /// It is there, but one of its partitions takes no records: it has no leader, or too few replicas in sync.
    Leaderless,
    /// It is there, but refuses the engine's timestamps. No metadata says so: the delivery reports do.
    RefusesTimestamps,
    /// The cluster did not answer in time, which says nothing of the topic.
    NoAnswer,
}

/// How a batch ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The broker has committed it.
    Committed {
        /// For each schedules partition written to: the highest offset of the batch's records there.
        written: Vec<(Partition, i64)>,
    },
    /// The broker has aborted it (`abort_transaction` returned Ok), or nothing of it was ever sent.
    Aborted(Abort),
    /// Nobody here can say. The core answers with [`Output::Restart`].
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
    Refused {
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
    ReadCommitted(Vec<Partition>),
    /// Run `init_transactions` with each id on a short-lived producer, unless the generation changed meanwhile.
    /// Answer: [`Input::Fenced`], also when it failed.
    Fence {
        /// Names this request in its answer.
        take: u64,
        /// Transactional ids of former owners.
        transactional_ids: Vec<String>,
    },
    /// Find the earliest `since` in the group's metadata for any partition of the topic or, where there is none, in
    /// the floor records of its partitions, read from the log. Answer: [`Input::Since`].
    FindSince {
        /// Names this request in its answer. A newer one for the same topic makes the answer worthless.
        ask: u64,
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
    /// Run this transaction, with the group metadata as it is now. Answer: [`Input::Settled`].
    Transact(Batch),
    /// Read this partition from its beginning again.
    Seek(Partition),
    /// These may be given back. Each partition of a revocation is released exactly once.
    Release(Vec<Partition>),
    /// Take these transactional ids in place of the old ones, whose producers abort what they have open and end.
    Renew {
        /// One for each transactor.
        transactional_ids: Vec<String>,
    },
    /// Leave the group, then join it anew. [`Output::Renew`] has come before; everything in flight is forgotten.
    Restart(&'static str),
    /// [`Input::Stop`] is done: let the transactors abort what they have open, leave the group, and end.
    Stopped,
    /// For the log. Nothing needs to be done.
    Report(Report),
}

/// What an operator may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// A record that cannot fire.
    Invalid {
        /// Where it lies.
        partition: Partition,
        /// Its offset.
        offset: i64,
        /// Why.
        reason: Reason,
    },
    /// A schedule that is due so far ahead that it is probably a mistake.
    FarAhead {
        /// Where it lies.
        partition: Partition,
        /// Its offset.
        offset: i64,
        /// What is probably wrong: [`schedule::far_ahead`](super::schedule::far_ahead).
        why: &'static str,
    },
    /// A schedule could not be delivered and is tried again later.
    Parked {
        /// Where it lies.
        partition: Partition,
        /// Its offset.
        offset: i64,
        /// Why.
        reason: Reason,
        /// When it is tried again.
        retry_at: Millis,
    },
    /// A schedule cannot be delivered and becomes a dead letter.
    GivenUp {
        /// Where it lies.
        partition: Partition,
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
        partition: Partition,
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
        partition: Partition,
        /// Its id, as it names itself.
        group: String,
    },
    /// The brokers take records, but more slowly than schedules are due.
    ThroughputIsLimit,
    /// A partition's records are read again from the beginning, and why.
    Reread {
        /// Which.
        partition: Partition,
        /// Why.
        why: &'static str,
    },
}

/// Where a listing goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The last partition seen.
    pub(crate) partition: Option<Partition>,
    /// The next entry in it.
    pub(crate) entry: u32,
    /// The barrier that its entries were read up to, and how often they have moved since: else they lie elsewhere.
    pub(crate) barrier: Option<i64>,
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
    pub refused: [u64; Reason::ALL.len()],
}
