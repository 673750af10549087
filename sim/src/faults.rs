//! Kinds of fault, the engine's activities, and which of them met.

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
    /// A process pauses for less than its session.
    Pause,
    /// A process pauses for longer than its session.
    Zombie,
    /// A transactor's thread pauses, and its process goes on.
    Stall,
    /// A request fails with an error that may be retried.
    Retriable,
    /// A request fails, and its transaction must be aborted.
    Abortable,
    /// A request fails, and its producer cannot be used any more.
    Fatal,
    /// A request or its answer is lost.
    Unanswered,
    /// A clock steps.
    Skew,
    /// A log is compacted.
    Compaction,
    /// A log is compacted, and old tombstones are removed too.
    OldTombstones,
    /// All processes die at once.
    Outage,
    /// The group's offsets expire while all processes are down.
    Expiry,
    /// A user's transaction is open on a schedules partition.
    UserTransaction,
    /// A user's record is produced twice.
    Duplicate,
    /// A user's record arrives after later ones.
    Reordered,
    /// A schedule cannot be delivered.
    Poison,
    /// A target topic cannot be produced to for a while.
    TargetAway,
    /// A consumer fetches rarely.
    SlowConsumer,
    /// Transaction markers are late.
    SlowMarkers,
    /// Requests and answers are late.
    SlowNetwork,
    /// `init_transactions` of a former owner's id fails.
    FencesFail,
    /// A process is told to stop.
    Stop,
    /// A consumer's position is no longer valid.
    Unreadable,
    /// A partition is delivered again from its beginning.
    Rewind,
    /// A rebalance takes long.
    SlowRebalance,
    /// A schedules topic gets another partition.
    Growth,
    /// A batch is not sent within `message.timeout.ms`.
    Bandwidth,
    /// The brokers reject the timestamps of a clock that is far ahead.
    WrongClock,
    /// Users write to every partition all the time.
    Flood,
    /// Another replica becomes the leader of a partition.
    LeaderChange,
    /// A replica goes away, and comes back.
    ReplicaAway,
    /// Tombstones are stamped while `delete.retention.ms` is lower for a while.
    LowerRetention,
    /// An instance begins to take a snapshot.
    Snapshot,
    /// An older snapshot, or another instance's, is put into an instance's directory.
    OldSnapshot,
    /// An instance goes on from a snapshot.
    Restore,
}

/// All kinds.
pub const FAULTS: [Fault; 40] = [
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
    Fault::LeaderChange,
    Fault::ReplicaAway,
    Fault::LowerRetention,
    Fault::Snapshot,
    Fault::OldSnapshot,
    Fault::Restore,
];

/// What an engine does when a fault hits it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Activity {
    /// It owns no partition, or is not running.
    Nothing,
    /// It takes over a partition: metadata and barrier.
    TakingOver,
    /// It reads a partition up to its barrier, or writes its start marker.
    Loading,
    /// It is live, and waits for a schedule to be due.
    Idle,
    /// It is live, and a batch is in flight.
    Firing,
    /// It releases a partition.
    Releasing,
}

/// All activities.
pub const ACTIVITIES: [Activity; 6] =
    [Activity::Nothing, Activity::TakingOver, Activity::Loading, Activity::Idle, Activity::Firing, Activity::Releasing];

impl Fault {
    /// Whether the fault can hit an engine during this activity.
    #[must_use]
    pub fn can_hit(self, activity: Activity) -> bool {
        match self {
            // These hit inside a transaction.
            Self::CrashBeforeSend
            | Self::CrashAfterProduce
            | Self::CrashAfterOffsets
            | Self::CrashAfterCommit
            | Self::Stall
            | Self::Retriable
            | Self::Abortable
            | Self::Fatal
            | Self::Unanswered => !matches!(activity, Activity::Nothing | Activity::Idle),
            // An engine without partitions neither reads nor sends.
            Self::TargetAway | Self::SlowConsumer | Self::Rewind | Self::FencesFail => activity != Activity::Nothing,
            // A rebalance ends when all members have joined it, and none joins before it has released.
            Self::SlowRebalance => activity != Activity::Releasing,
            // Only firings are large.
            Self::Bandwidth => activity == Activity::Firing,
            // It hits instances that write records.
            Self::WrongClock => matches!(activity, Activity::TakingOver | Activity::Firing),
            // A live partition has a snapshot taken.
            Self::Snapshot => matches!(activity, Activity::Idle | Activity::Firing),
            // It comes right after the assignment.
            Self::Restore => activity == Activity::TakingOver,
            // Offsets expire when the group is empty.
            Self::Expiry => activity == Activity::Nothing,
            _ => true,
        }
    }
}

/// How often each kind of fault hit during each activity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage(pub BTreeMap<(Fault, Activity), u64>);

impl Coverage {
    /// Counts a hit.
    pub fn record_hit(&mut self, fault: Fault, activity: Activity) {
        *self.0.entry((fault, activity)).or_default() += 1;
    }

    /// Adds another run.
    pub fn add(&mut self, other: &Self) {
        for (cell, count) in &other.0 {
            *self.0.entry(*cell).or_default() += count;
        }
    }

    /// Returns the number of hits.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// Returns the pairs that can meet and did not.
    #[must_use]
    pub fn missing(&self) -> Vec<(Fault, Activity)> {
        let all = FAULTS.into_iter().flat_map(|fault| ACTIVITIES.map(|activity| (fault, activity)));
        all.filter(|(fault, activity)| fault.can_hit(*activity) && !self.0.contains_key(&(*fault, *activity))).collect()
    }

    /// Returns a table with a line for each kind, and a dash if it cannot hit.
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
