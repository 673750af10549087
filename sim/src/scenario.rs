//! The input of a run: a setup, and operations with their times.
//!
//! Every operation is total: it names instances, keys and partitions by numbers that wrap around, and does nothing if
//! it does not apply. So any operation can be left out, and the others still are a scenario.

mod bytes;
mod seed;
mod shrink;

pub use shrink::shrink;

use crate::faults::Fault;

/// Until when faults hit and users produce, from the start.
pub const SAFETY_MS: u32 = 90_000;
/// How long everything may take to converge after faults stop: parked schedules, targets, transactions' timeouts.
pub const CONVERGE_TIMEOUT_MS: u32 = 75_000;
/// Bytes of further operations are ignored.
pub const OPS_MAX: usize = 4_000;

/// The input of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// Sizes and settings.
    pub setup: Setup,
    /// Operations, in any order.
    pub ops: Vec<Op>,
}

/// Sizes and settings of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Instances: 1 to 3.
    pub instances: u8,
    /// Schedules topics: 1 or 2.
    pub topics: u8,
    /// Partitions of each: 1 to 3.
    pub partitions: u8,
    /// Keys that users produce: 1 to 16.
    pub keys: u8,
    /// Transactors of an instance: 1 or 2.
    pub transactors: u8,
    /// Schedules in a batch: 1 to 8.
    pub items_max: u8,
    /// `SCHEDULE_GRACE_INTERVAL` in seconds, up to 254.
    pub grace_s: Option<u8>,
    /// `MAX_HORIZON` in hundreds of seconds, 1 to 255.
    pub horizon_hs: Option<u8>,
    /// `SINCE_DELTA` without its sign: 0 to 2 days.
    pub since_days: u8,
    /// Whether there is a dead-letter topic.
    pub dead_letters: bool,
    /// When the run starts: seconds after a midnight, negative before it; 0 is a noon.
    pub midnight_s: i8,
    /// Thousands of bytes that an instance may send of large records in a second, 16 to 31; 0 is no limit.
    pub bandwidth_kbps: u8,
    /// Topics that reject timestamps more than an hour ahead.
    pub timestamps: Timestamps,
    /// Replicas of each schedules partition: 1 to 3.
    pub replicas: u8,
    /// Whether replicas may lag as far as the docs exclude: one that was away for long keeps its log, and cleaners do
    /// not keep pace. Seeds never have it.
    pub stale_replicas: bool,
    /// The seed of all delays.
    pub seed: u64,
}

/// The topics that reject timestamps more than an hour ahead of the brokers' clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timestamps {
    /// No topic: all of them have `LogAppendTime`.
    Any,
    /// All topics.
    Bounded,
    /// Target topics only.
    BoundedInTargets,
}

/// An operation with its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Op {
    /// Milliseconds from the start: even, and below 131,072.
    pub at_ms: u32,
    /// The operation.
    pub act: Act,
}

/// An operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// A user produces a record.
    Produce {
        /// The key, modulo the setup's number.
        key: u8,
        /// The kind of record.
        kind: RecordKind,
        /// The target topic.
        target: Target,
        /// When it is due, in seconds from now.
        in_s: i16,
        /// Whether its producer sends it again.
        twice: bool,
        /// It arrives this much later, up to 4,095 ms, so others overtake it.
        late_ms: u16,
        /// Whether its value is large.
        large: bool,
    },
    /// A user's transaction with some schedules.
    Transaction {
        /// The first key; the others follow it.
        key: u8,
        /// Records: 1 to 3.
        count: u8,
        /// Whether it commits.
        commit: bool,
        /// How long it stays open, up to 16,383 ms, which exceeds its timeout.
        for_ms: u16,
        /// When its schedules are due, in seconds from now.
        in_s: i16,
    },
    /// A process dies, and starts again with an empty memory.
    Crash {
        /// The instance, modulo their number.
        instance: u8,
        /// The point of a transaction.
        point: Point,
        /// How long it stays down, up to 8,191 ms.
        down_ms: u16,
    },
    /// A process pauses. After its session timeout it wakes up as a zombie.
    Pause {
        /// The instance.
        instance: u8,
        /// The point of a transaction.
        point: Point,
        /// How long, up to 16,383 ms.
        for_ms: u16,
    },
    /// A transactor's thread pauses, and its process goes on.
    Stall {
        /// The instance.
        instance: u8,
        /// The point of a transaction.
        point: Point,
        /// How long, up to 16,383 ms.
        for_ms: u16,
    },
    /// A transactional request fails.
    Error {
        /// The instance.
        instance: u8,
        /// The error.
        error: RequestError,
        /// The point of a transaction.
        point: Point,
    },
    /// An instance's clock steps.
    Skew {
        /// The instance.
        instance: u8,
        /// Milliseconds, or the direction if `days` is set.
        by: i16,
        /// Whether the step is one day, forward or back by the sign of `by`.
        days: bool,
    },
    /// A partition is compacted.
    Compact {
        /// The partition, modulo their number.
        partition: u8,
        /// The replica, from 1, modulo their number; 0 is all of them.
        replica: u8,
        /// Whether old tombstones are removed too.
        tombstones: bool,
    },
    /// All processes die at once.
    Outage {
        /// How long they stay down, up to 16,383 ms.
        down_ms: u16,
        /// Whether the group's offsets expire meanwhile.
        expire: bool,
    },
    /// An instance fetches rarely.
    SlowConsumer {
        /// The instance.
        instance: u8,
        /// How long, up to 16,383 ms.
        for_ms: u16,
        /// Time between two fetches, up to 2,047 ms.
        gap_ms: u16,
    },
    /// Transaction markers are written late.
    SlowMarkers {
        /// How long, up to 16,383 ms.
        for_ms: u16,
        /// The longest delay, up to 2,047 ms.
        up_to_ms: u16,
    },
    /// An instance's requests and answers take long.
    SlowNetwork {
        /// The instance.
        instance: u8,
        /// How long, up to 16,383 ms.
        for_ms: u16,
        /// The longest delay, up to 2,047 ms.
        up_to_ms: u16,
    },
    /// `init_transactions` of a former owner's id fails.
    FencesFail {
        /// How long, up to 16,383 ms.
        for_ms: u16,
    },
    /// The topic of [`Target::Late`] cannot be produced to.
    TargetAway {
        /// The cause.
        away: Away,
        /// How long, up to 32,767 ms.
        for_ms: u16,
    },
    /// A process is told to stop, releases its partitions, and starts again.
    Stop {
        /// The instance.
        instance: u8,
        /// How long it stays down, up to 8,191 ms.
        down_ms: u16,
    },
    /// A consumer's position is no longer valid.
    Unreadable {
        /// The instance.
        instance: u8,
    },
    /// A partition is delivered to an instance again from its beginning.
    Rewind {
        /// The instance.
        instance: u8,
    },
    /// A schedules topic gets one more partition, up to 4.
    Grow {
        /// The topic, modulo their number.
        topic: u8,
    },
    /// The group takes long to rebalance.
    SlowRebalance {
        /// How long no rebalance ends, up to 8,191 ms.
        for_ms: u16,
    },
    /// Users write to every partition from now on, until some time after faults have stopped.
    Flood,
    /// Another replica in sync becomes the leader of a partition.
    ChangeLeader {
        /// The partition, modulo their number.
        partition: u8,
    },
    /// A replica goes away, unless it is the last one in sync, and comes back.
    ReplicaAway {
        /// The partition, modulo their number.
        partition: u8,
        /// The replica, modulo their number.
        replica: u8,
        /// How long.
        for_ms: u16,
    },
    /// An instance begins to take a snapshot of a partition.
    Snapshot {
        /// The instance, modulo their number.
        instance: u8,
        /// The partition, modulo their number.
        partition: u8,
        /// Entries of a step, less one.
        entries: u8,
        /// The longest time between two steps, up to 1,023 ms.
        gap_ms: u16,
    },
    /// A snapshot of another instance, or an older one, is put into an instance's directory.
    CopySnapshot {
        /// The instance, modulo their number.
        instance: u8,
        /// The partition, modulo their number.
        partition: u8,
        /// The instance that has taken it, modulo their number.
        from: u8,
        /// How many newer ones that has.
        age: u8,
    },
    /// `delete.retention.ms` is lowered for a while.
    LowerRetention {
        /// How long, up to 16,383 ms.
        for_ms: u16,
        /// The lower value: 20,000 to 24,095 ms.
        retention_ms: u16,
    },
}

/// The kind of a user's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// A schedule.
    Schedule,
    /// A null value.
    Cancel,
    /// No `scheduler-epoch`.
    NoEpoch,
    /// A `scheduler-epoch` that is not a number.
    BadEpoch,
    /// A schedule for a schedules topic.
    ToSchedules,
    /// A null value with an origin header, copied from another cluster.
    Copied,
    /// A schedule under a key that is reserved for the engine.
    ReservedKey,
    /// A schedule without a key.
    NoKey,
    /// A schedule that recurs at an interval.
    Recurring,
    /// A schedule that recurs by a cron expression in a time zone.
    Zoned,
    /// A schedule that expires soon after it is due.
    Expiring,
    /// An earlier progress record of the key, produced again.
    Replayed,
}

impl RecordKind {
    /// Whether it schedules something, which may fire.
    #[must_use]
    pub const fn is_schedule(self) -> bool {
        matches!(self, Self::Schedule | Self::Recurring | Self::Zoned | Self::Expiring)
    }

    /// Whether it schedules something that recurs.
    #[must_use]
    pub const fn recurs(self) -> bool {
        matches!(self, Self::Recurring | Self::Zoned)
    }
}

/// The target topic of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A topic that accepts everything.
    Open,
    /// A topic that exists most of the time.
    Late,
    /// A topic that never exists.
    Missing,
    /// A topic that the engine may describe but not write to.
    Forbidden,
    /// A topic that rejects every record as too large.
    Small,
    /// A topic that rejects every record, but not in a delivery report.
    Silent,
}

impl Target {
    /// All targets.
    pub const ALL: [Self; 6] = [Self::Open, Self::Late, Self::Missing, Self::Forbidden, Self::Small, Self::Silent];

    /// Returns the topic's name.
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

    /// Whether a schedule for it fires sooner or later.
    #[must_use]
    pub const fn delivers(self) -> bool {
        matches!(self, Self::Open | Self::Late)
    }
}

/// Why a topic cannot be produced to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Away {
    /// It does not exist.
    Missing,
    /// The engine may not describe it.
    Forbidden,
    /// The brokers do not answer.
    Silent,
    /// Its partition has no leader.
    Leaderless,
}

/// The point of a transaction at which a fault hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Point {
    /// At once, in a transaction or not.
    Now,
    /// Before the first record is sent.
    BeforeSend,
    /// After all records are acknowledged.
    AfterProduce,
    /// After the offsets are accepted.
    AfterOffsets,
    /// After the commit, before its answer arrives.
    AfterCommit,
}

/// How a transactional request fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RequestError {
    /// With an error that may be retried.
    Retriable,
    /// With an error that requires an abort.
    Abortable,
    /// With an error after which the producer cannot be used.
    Fatal,
    /// The request is lost.
    RequestLost,
    /// The answer is lost: the request was carried out.
    ReplyLost,
    /// The request arrives after its producer has given it up.
    Late,
}

impl Act {
    /// Returns the kind of fault, or `None` if it is not a fault.
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
            Self::Error { error: RequestError::Retriable, .. } => Fault::Retriable,
            Self::Error { error: RequestError::Abortable, .. } => Fault::Abortable,
            Self::Error { error: RequestError::Fatal, .. } => Fault::Fatal,
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
            Self::ChangeLeader { .. } => Fault::LeaderChange,
            Self::ReplicaAway { .. } => Fault::ReplicaAway,
            Self::LowerRetention { .. } => Fault::LowerRetention,
            Self::Snapshot { .. } => Fault::Snapshot,
            Self::CopySnapshot { .. } => Fault::OldSnapshot,
        })
    }
}
