//! Kinds of fault, the engine's phases, and which of them met.

use std::collections::BTreeMap;

/// A kind of fault. Each scenario from a seed has some of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A process dies at any time.
    Crash,
    /// A process dies before a transaction's first record.
    CrashBeforeSend,
    /// A process dies when all records are acknowledged: its transaction hangs.
    CrashAfterProduce,
    /// A process dies when its offsets are accepted: they hang.
    CrashAfterOffsets,
    /// A process dies between the broker's commit and the answer.
    CrashAfterCommit,
    /// A process stands still for less than its session.
    Pause,
    /// A process stands still for longer than its session.
    Zombie,
    /// A transactor stands still, and nothing else does.
    Stall,
    /// A request may be sent again.
    Retriable,
    /// A transaction must be aborted.
    Abortable,
    /// A producer is of no use any more.
    Fatal,
    /// A request, or its answer, is lost.
    Unanswered,
    /// A clock steps.
    Skew,
    /// A log is compacted.
    Compaction,
    /// A log is compacted, and old tombstones go too.
    OldTombstones,
    /// All processes die at once.
    Outage,
    /// The group's offsets expire while all processes are down.
    Expiry,
    /// A user's own transaction is open on a schedules partition.
    UserTransaction,
    /// A user's record is sent twice.
    Duplicate,
    /// A user's record arrives after later ones.
    Reordered,
    /// A schedule that cannot be delivered.
    Poison,
    /// A target topic cannot be produced to for a while.
    TargetAway,
    /// A consumer reads rarely.
    SlowConsumer,
    /// Transaction markers are late.
    SlowMarkers,
    /// Requests and answers are late.
    SlowNetwork,
    /// Nobody can be fenced.
    FencesFail,
    /// A process is told to stop.
    Stop,
    /// A consumer's position is no longer valid.
    Unreadable,
    /// What was delivered is delivered again.
    Rewind,
    /// A rebalance takes long.
    SlowRebalance,
    /// A schedules topic gets another partition.
    Growth,
    /// A batch does not get through in the time that its records have.
    Bandwidth,
    /// The brokers refuse the timestamps of a clock that is far ahead.
    WrongClock,
    /// Users write to every partition all the time.
    Flood,
}

/// Every kind.
pub const FAULTS: [Fault; 34] = [
    Fault::Crash,
    Fault::CrashBeforeSend,
    Fault::CrashAfterProduce,
    Fault::CrashAfterOffsets,
    Fault::CrashAfterCommit,
    Fault::Pause,
    Fault::Zombie,
    Fault::Stall,
    Fault::Retriable,
    Fault::Abortable,
    Fault::Fatal,
    Fault::Unanswered,
    Fault::Skew,
    Fault::Compaction,
    Fault::OldTombstones,
    Fault::Outage,
    Fault::Expiry,
    Fault::UserTransaction,
    Fault::Duplicate,
    Fault::Reordered,
    Fault::Poison,
    Fault::TargetAway,
    Fault::SlowConsumer,
    Fault::SlowMarkers,
    Fault::SlowNetwork,
    Fault::FencesFail,
    Fault::Stop,
    Fault::Unreadable,
    Fault::Rewind,
    Fault::SlowRebalance,
    Fault::Growth,
    Fault::Bandwidth,
    Fault::WrongClock,
    Fault::Flood,
];

/// What an engine is doing when a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Activity {
    /// It owns nothing, or is not running.
    Nothing,
    /// It takes a partition over: metadata and barrier.
    TakingOver,
    /// It reads a partition up to its barrier, or writes its floor.
    Loading,
    /// It fires, and waits for something to be due.
    Idle,
    /// It fires, and a batch is in flight.
    Firing,
    /// It gives a partition back.
    Releasing,
}

/// Every phase.
pub const ACTIVITIES: [Activity; 6] =
    [Activity::Nothing, Activity::TakingOver, Activity::Loading, Activity::Idle, Activity::Firing, Activity::Releasing];

impl Fault {
    /// Whether the fault can strike in that phase at all.
    #[must_use]
    pub fn can_hit(self, activity: Activity) -> bool {
        match self {
            // These strike inside a transaction.
            Self::CrashBeforeSend
            | Self::CrashAfterProduce
            | Self::CrashAfterOffsets
            | Self::CrashAfterCommit
            | Self::Stall
            | Self::Retriable
            | Self::Abortable
            | Self::Fatal
            | Self::Unanswered => !matches!(activity, Activity::Nothing | Activity::Idle),
            // Who owns nothing reads nothing and sends nothing.
            Self::TargetAway | Self::SlowConsumer | Self::Rewind | Self::FencesFail => activity != Activity::Nothing,
            // A rebalance ends when everybody has joined it, and nobody joins before it has released.
            Self::SlowRebalance => activity != Activity::Releasing,
            // Only firings are large.
            Self::Bandwidth => activity == Activity::Firing,
            // It strikes instances that write records.
            Self::WrongClock => matches!(activity, Activity::TakingOver | Activity::Firing),
            // Offsets expire when nobody is left.
            Self::Expiry => activity == Activity::Nothing,
            _ => true,
        }
    }
}

/// How often each kind of fault struck in each phase.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage(pub BTreeMap<(Fault, Activity), u64>);

impl Coverage {
    /// One more.
    pub fn record_hit(&mut self, fault: Fault, activity: Activity) {
        *self.0.entry((fault, activity)).or_default() += 1;
    }

    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        for (cell, count) in &other.0 {
            *self.0.entry(*cell).or_default() += count;
        }
    }

    /// Faults that struck.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// Pairs that can meet and did not.
    #[must_use]
    pub fn missing(&self) -> Vec<(Fault, Activity)> {
        let all = FAULTS.into_iter().flat_map(|fault| ACTIVITIES.map(|activity| (fault, activity)));
        all.filter(|(fault, activity)| fault.can_hit(*activity) && !self.0.contains_key(&(*fault, *activity))).collect()
    }

    /// A table with a line for each kind; a dash is where it cannot strike.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = format!("{:<18}", "");
        for activity in ACTIVITIES {
            text.push_str(&format!("{:>12}", format!("{activity:?}")));
        }
        for fault in FAULTS {
            text.push_str(&format!("\n{:<18}", format!("{fault:?}")));
            for activity in ACTIVITIES {
                let count = self.0.get(&(fault, activity)).copied().unwrap_or(0);
                let cell = if count == 0 && !fault.can_hit(activity) { "-".to_owned() } else { count.to_string() };
                text.push_str(&format!("{cell:>12}"));
            }
        }
        text
    }
}
