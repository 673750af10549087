//! What a run consists of: a setup, and operations at their times.
//!
//! Every operation is total: it names instances, keys and partitions by numbers that are wrapped around, and does
//! nothing where it does not apply. So any operation can be left out and what remains is a scenario still.

mod bytes;
mod seed;
mod shrink;

pub use shrink::shrink;

use crate::faults::Fault;

/// Faults strike and users speak until then; what follows is quiet.
pub const SAFETY_MS: u32 = 90_000;
/// The longest that anything waits once faults have stopped: parked schedules, targets, transactions' time-outs.
pub const CONVERGE_TIMEOUT_MS: u32 = 75_000;
/// Operations at most: bytes beyond that are ignored.
pub const OPS_MAX: usize = 4_000;

/// A run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// What there is.
    pub setup: Setup,
    /// What happens, in any order.
    pub ops: Vec<Op>,
}

/// What there is in a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Instances: 1 to 3.
    pub instances: u8,
    /// Schedules topics: 1 or 2.
    pub topics: u8,
    /// Partitions of each: 1 to 3.
    pub partitions: u8,
    /// Keys that users speak of: 1 to 16.
    pub keys: u8,
    /// Transactors of an instance: 1 or 2.
    pub transactors: u8,
    /// Schedules a batch: 1 to 8.
    pub items_max: u8,
    /// `SCHEDULE_GRACE_INTERVAL` in seconds, up to 254.
    pub grace_s: Option<u8>,
    /// `MAX_HORIZON` in hundreds of seconds, 1 to 255.
    pub horizon_hs: Option<u8>,
    /// `SINCE_DELTA` with its sign turned: 0 to 2 days.
    pub since_days: u8,
    /// There is a dead-letter topic.
    pub dead_letters: bool,
    /// When the run starts: so many seconds after a midnight (before, where negative); 0 is a noon.
    pub midnight_s: i8,
    /// Thousands of bytes a second that an instance may send of large records, 16 to 31; 0 is any number.
    pub bandwidth_kbps: u8,
    /// Topics that refuse timestamps more than an hour ahead.
    pub timestamps: Timestamps,
    /// Seeds all delays.
    pub seed: u64,
}

/// Which topics refuse records that are stamped more than an hour ahead of the brokers' clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timestamps {
    /// None: they stamp records themselves.
    Any,
    /// All topics.
    Bounded,
    /// Target topics alone.
    BoundedInTargets,
}

/// Something that happens at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Op {
    /// When, in milliseconds from the start: even, and below 131,072.
    pub at_ms: u32,
    /// What.
    pub act: Act,
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// A user produces a record.
    Produce {
        /// On which key, modulo the setup's number.
        key: u8,
        /// What.
        kind: RecordKind,
        /// Where a schedule goes.
        target: Target,
        /// When it is due, in seconds from when it is said.
        in_s: i16,
        /// Its producer sends it again.
        twice: bool,
        /// It arrives this much later, up to 4,095 ms: others overtake it.
        late_ms: u16,
        /// Its value is large.
        large: bool,
    },
    /// A user's own transaction with some schedules.
    Transaction {
        /// The first key; the others follow it.
        key: u8,
        /// Records: 1 to 3.
        count: u8,
        /// How it ends.
        commit: bool,
        /// How long it stays open, up to 16,383 ms, which is longer than the broker lets it.
        for_ms: u16,
        /// When its schedules are due.
        in_s: i16,
    },
    /// A process dies and comes back with an empty memory.
    Crash {
        /// Which, modulo their number.
        instance: u8,
        /// At this point of a transaction.
        point: Point,
        /// How long it stays away, up to 8,191 ms.
        down_ms: u16,
    },
    /// A process stands still. Past its session time-out it wakes up as a zombie.
    Pause {
        /// Which.
        instance: u8,
        /// At this point of a transaction.
        point: Point,
        /// How long, up to 16,383 ms.
        for_ms: u16,
    },
    /// A transactor's thread stands still, while everything else of its process goes on.
    Stall {
        /// Which.
        instance: u8,
        /// At this point of a transaction.
        point: Point,
        /// How long, up to 16,383 ms.
        for_ms: u16,
    },
    /// The brokers answer a transactional request with an error.
    Error {
        /// To which instance.
        instance: u8,
        /// Which.
        error: Error,
        /// At this point of a transaction.
        point: Point,
    },
    /// An instance's clock steps.
    Skew {
        /// Which.
        instance: u8,
        /// Milliseconds, or days where `days` is set.
        by: i16,
        /// By one day, forward or back as `by` says, rather than by milliseconds.
        days: bool,
    },
    /// A partition is compacted.
    Compact {
        /// Which, modulo their number.
        partition: u8,
        /// Old tombstones go too.
        tombstones: bool,
    },
    /// All processes die at once.
    Outage {
        /// How long they stay away, up to 16,383 ms.
        down_ms: u16,
        /// The group's offsets expire meanwhile.
        expire: bool,
    },
    /// An instance reads rarely.
    SlowConsumer {
        /// Which.
        instance: u8,
        /// How long, up to 16,383 ms.
        for_ms: u16,
        /// Between two reads, up to 2,047 ms.
        gap_ms: u16,
    },
    /// Transaction markers are written late.
    SlowMarkers {
        /// How long, up to 16,383 ms.
        for_ms: u16,
        /// By so much, up to 2,047 ms.
        up_to_ms: u16,
    },
    /// An instance's requests and answers take long.
    SlowNetwork {
        /// Which.
        instance: u8,
        /// How long, up to 16,383 ms.
        for_ms: u16,
        /// By so much, up to 2,047 ms.
        up_to_ms: u16,
    },
    /// Nobody can be fenced with `init_transactions`.
    FencesFail {
        /// How long, up to 16,383 ms.
        for_ms: u16,
    },
    /// The topic of [`Target::Late`] cannot be produced to.
    TargetAway {
        /// In which way.
        away: Away,
        /// How long, up to 32,767 ms.
        for_ms: u16,
    },
    /// A process is told to stop, hands over and comes back.
    Stop {
        /// Which.
        instance: u8,
        /// How long it stays away, up to 8,191 ms.
        down_ms: u16,
    },
    /// A consumer's position is no longer valid.
    Unreadable {
        /// Whose.
        instance: u8,
    },
    /// An instance is given a partition from its beginning again, unasked.
    Rewind {
        /// Which.
        instance: u8,
    },
    /// A schedules topic gets one more partition, up to 4.
    Grow {
        /// Which, modulo their number.
        topic: u8,
    },
    /// The group takes long to rebalance.
    SlowRebalance {
        /// No rebalance ends for so long, up to 8,191 ms.
        for_ms: u16,
    },
    /// From now on users write to every partition, also for some time after faults have stopped.
    Flood,
}

/// What a user's record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// A schedule.
    Schedule,
    /// A null value.
    Cancel,
    /// No `scheduler-epoch`.
    NoEpoch,
    /// A `scheduler-epoch` that is no number.
    BadEpoch,
    /// A schedule for a schedules topic.
    ToSchedules,
    /// A null value with the engine's header, copied from elsewhere.
    Copied,
    /// A schedule under a key that is kept for the engine.
    ReservedKey,
    /// A schedule without a key.
    NoKey,
}

/// Where a schedule goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A topic that takes everything.
    Open,
    /// A topic that is there most of the time.
    Late,
    /// A topic that is never there.
    Missing,
    /// A topic that may be seen, not written to.
    Forbidden,
    /// A topic that refuses the record as too large, and says so.
    Small,
    /// A topic whose refusal names nobody.
    Silent,
}

impl Target {
    /// Every one.
    pub const ALL: [Self; 6] = [Self::Open, Self::Late, Self::Missing, Self::Forbidden, Self::Small, Self::Silent];

    /// The topic's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "target",
            Self::Late => "late",
            Self::Missing => "missing",
            Self::Forbidden => "forbidden",
            Self::Small => "small",
            Self::Silent => "silent",
        }
    }

    /// Whether a schedule for it fires in the end.
    #[must_use]
    pub const fn delivers(self) -> bool {
        matches!(self, Self::Open | Self::Late)
    }
}

/// How a topic cannot be produced to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Away {
    /// It is not there.
    Missing,
    /// It may not be seen.
    Forbidden,
    /// The brokers do not answer.
    Silent,
    /// Its partition has no leader.
    Leaderless,
}

/// Where in a transaction something strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Point {
    /// At once, whatever is going on.
    Now,
    /// Before anything is sent.
    BeforeSend,
    /// All records are acknowledged.
    AfterProduce,
    /// The offsets are accepted.
    AfterOffsets,
    /// The broker has committed, and its answer is on its way.
    AfterCommit,
}

/// What the brokers answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Error {
    /// The same request may be sent again.
    Retriable,
    /// The transaction must be aborted.
    Abortable,
    /// The producer is of no use any more.
    Fatal,
    /// Nothing, and the request was lost: the outcome is not known.
    RequestLost,
    /// Nothing, though the request was carried out.
    ReplyLost,
    /// Nothing, and the request arrives when nobody waits for its answer any more.
    Late,
}

impl Act {
    /// The kind of fault that it is, if it is one.
    #[must_use]
    pub fn fault(self) -> Option<Fault> {
        Some(match self {
            Self::Produce { twice: true, .. } => Fault::Duplicate,
            Self::Produce { late_ms: 1.., .. } => Fault::Reordered,
            Self::Produce { kind: RecordKind::Schedule, target, .. } if !target.delivers() => Fault::Poison,
            Self::Produce { .. } => return None,
            Self::Transaction { .. } => Fault::UserTransaction,
            Self::Crash { point: Point::Now, .. } => Fault::Crash,
            Self::Crash { point: Point::BeforeSend, .. } => Fault::CrashBeforeSend,
            Self::Crash { point: Point::AfterProduce, .. } => Fault::CrashAfterProduce,
            Self::Crash { point: Point::AfterOffsets, .. } => Fault::CrashAfterOffsets,
            Self::Crash { point: Point::AfterCommit, .. } => Fault::CrashAfterCommit,
            Self::Pause { for_ms, .. } if i64::from(for_ms) < crate::kafka::group::SESSION_TIMEOUT_MS => Fault::Pause,
            Self::Pause { .. } => Fault::Zombie,
            Self::Stall { .. } => Fault::Stall,
            Self::Error { error: Error::Retriable, .. } => Fault::Retriable,
            Self::Error { error: Error::Abortable, .. } => Fault::Abortable,
            Self::Error { error: Error::Fatal, .. } => Fault::Fatal,
            Self::Error { .. } => Fault::Unanswered,
            Self::Skew { .. } => Fault::Skew,
            Self::Compact { tombstones: false, .. } => Fault::Compaction,
            Self::Compact { tombstones: true, .. } => Fault::OldTombstones,
            Self::Outage { expire: false, .. } => Fault::Outage,
            Self::Outage { expire: true, .. } => Fault::Expiry,
            Self::SlowConsumer { .. } => Fault::SlowConsumer,
            Self::SlowMarkers { .. } => Fault::SlowMarkers,
            Self::SlowNetwork { .. } => Fault::SlowNetwork,
            Self::FencesFail { .. } => Fault::FencesFail,
            Self::TargetAway { .. } => Fault::TargetAway,
            Self::Stop { .. } => Fault::Stop,
            Self::Unreadable { .. } => Fault::Unreadable,
            Self::Rewind { .. } => Fault::Rewind,
            Self::SlowRebalance { .. } => Fault::SlowRebalance,
            Self::Grow { .. } => Fault::Growth,
            Self::Flood => Fault::Flood,
        })
    }
}
