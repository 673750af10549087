//! Deliberate bugs that test the simulator: if it does not find one, the simulator has a defect.
//!
//! Without the feature `known-bad` no bug can be switched on, and [`on`] is a constant.

/// A rule of the protocol that the engine breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Schedules fire before the barrier has been read.
    FireBeforeBarrier,
    /// Former owners are fenced before the barrier is committed.
    FenceBeforeBarrier,
    /// No former owner is fenced.
    DeadOwnerNotFenced,
    /// Every commit declares the partition clean.
    AlwaysClean,
    /// Loading ends at the offset that the group has committed.
    LoadsToCommitted,
    /// A partition without a committed offset commits a negative one.
    NegativeOffset,
    /// An overtaken record is not rewritten.
    NoRewrite,
    /// A firing's tombstone names no user record.
    TombstoneNamesNothing,
    /// A copy of an earlier record revives a key that was cancelled.
    CopyRevivesCancelled,
    /// An entry takes the timestamp of a copy instead of the original's.
    CopyTakesNewTimestamp,
    /// An entry takes the offset of a copy instead of the original's.
    CopyTakesNewOriginOffset,
    /// A newer schedule may fire while an engine record for the key is outstanding.
    TwoOutstanding,
    /// Committed records count as read.
    SettledTakenForRead,
    /// An invalid record does not end the key's earlier schedule.
    InvalidLeftOut,
    /// Cancels are forgotten during loading.
    CancelForgottenInLoading,
    /// Partitions that were lost to another owner continue to fire.
    LostPartitionsKept,
    /// The schedules of an aborted batch are forgotten.
    AbortedForgotten,
    /// Schedules fire one millisecond early.
    OneMillisecondEarly,
    /// Schedules of a batch fire in reverse due order.
    LatestFirst,
    /// Start markers are not read.
    StartMarkerForgotten,
    /// A new start marker always has the current cutoff.
    SinceForgotten,
    /// Leftovers fire.
    LeftoversFire,
    /// A start marker stays in the future after the clock was set back.
    ClockSetBackIgnored,
    /// A rejected schedule is never retried.
    RejectedForgotten,
    /// A rejected schedule is retried at once, in the same batch as others.
    RejectedNotParked,
    /// A partition waits forever for another one of its topic that was revoked.
    SiblingsNotAskedAgain,
    /// A batch that timed out is retried at the same size.
    BatchesKeepTheirSize,
    /// An occurrence is fired without a progress record.
    ProgressNotWritten,
    /// A progress record with fewer occurrences counts, if it comes after one with more.
    LesserProgressCounts,
    /// A schedule recurs once more often than it says.
    CountOffByOne,
    /// Missed occurrences fire one by one, whatever the schedule says.
    MisfireFiresAll,
    /// A schedule that has expired fires if it had not expired when it was read.
    ExpiryJudgedOnArrival,
    /// Cron expressions are taken for UTC, whatever their zone.
    ZoneIgnored,
    /// The progress record of a schedule that has ended stays in the log.
    ProgressKeptAfterEnd,
    /// A firing that leaves an overtaken schedule on its key counts as its rewrite.
    FiringSettlesOvertaken,
    /// A progress record counts for whatever record is the latest of its key.
    ProgressTakenForAny,
    /// A restored fold counts however old it is.
    AgeNotChecked,
    /// A snapshot leaves out what a batch in flight is to end.
    DecisionsInSnapshot,
    /// A snapshot says that it has read one record more than it has.
    SnapshotPositionTooFar,
}

/// Every bug, by name.
#[cfg(feature = "known-bad")]
pub const ALL: [(Bug, &str); 39] = [
    (Bug::FireBeforeBarrier, "fire-before-barrier"),
    (Bug::FenceBeforeBarrier, "fence-before-barrier"),
    (Bug::DeadOwnerNotFenced, "dead-owner-not-fenced"),
    (Bug::AlwaysClean, "always-clean"),
    (Bug::LoadsToCommitted, "loads-to-committed"),
    (Bug::NegativeOffset, "negative-offset"),
    (Bug::NoRewrite, "no-rewrite"),
    (Bug::TombstoneNamesNothing, "tombstone-names-nothing"),
    (Bug::CopyRevivesCancelled, "copy-revives-cancelled"),
    (Bug::CopyTakesNewTimestamp, "copy-takes-new-timestamp"),
    (Bug::CopyTakesNewOriginOffset, "copy-takes-new-origin-offset"),
    (Bug::TwoOutstanding, "two-outstanding"),
    (Bug::SettledTakenForRead, "settled-taken-for-read"),
    (Bug::InvalidLeftOut, "invalid-left-out"),
    (Bug::CancelForgottenInLoading, "cancel-forgotten-in-loading"),
    (Bug::LostPartitionsKept, "lost-partitions-kept"),
    (Bug::AbortedForgotten, "aborted-forgotten"),
    (Bug::OneMillisecondEarly, "one-millisecond-early"),
    (Bug::LatestFirst, "latest-first"),
    (Bug::StartMarkerForgotten, "start-marker-forgotten"),
    (Bug::SinceForgotten, "since-forgotten"),
    (Bug::LeftoversFire, "leftovers-fire"),
    (Bug::ClockSetBackIgnored, "clock-set-back-ignored"),
    (Bug::RejectedForgotten, "rejected-forgotten"),
    (Bug::RejectedNotParked, "rejected-not-parked"),
    (Bug::SiblingsNotAskedAgain, "siblings-not-asked-again"),
    (Bug::BatchesKeepTheirSize, "batches-keep-their-size"),
    (Bug::ProgressNotWritten, "progress-not-written"),
    (Bug::LesserProgressCounts, "lesser-progress-counts"),
    (Bug::CountOffByOne, "count-off-by-one"),
    (Bug::MisfireFiresAll, "misfire-fires-all"),
    (Bug::ExpiryJudgedOnArrival, "expiry-judged-on-arrival"),
    (Bug::ZoneIgnored, "zone-ignored"),
    (Bug::ProgressKeptAfterEnd, "progress-kept-after-end"),
    (Bug::FiringSettlesOvertaken, "firing-settles-overtaken"),
    (Bug::ProgressTakenForAny, "progress-taken-for-any"),
    (Bug::AgeNotChecked, "age-not-checked"),
    (Bug::DecisionsInSnapshot, "decisions-in-snapshot"),
    (Bug::SnapshotPositionTooFar, "snapshot-position-too-far"),
];

#[cfg(feature = "known-bad")]
thread_local! {
    static SWITCHED_ON: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Switches one bug on and all others off, for this thread.
#[cfg(feature = "known-bad")]
pub fn switch(bug: Option<Bug>) {
    SWITCHED_ON.set(bug);
}

/// Returns whether a bug is switched on.
#[cfg(feature = "known-bad")]
#[must_use]
pub fn on(bug: Bug) -> bool {
    SWITCHED_ON.get() == Some(bug)
}

/// Returns false.
#[cfg(not(feature = "known-bad"))]
#[must_use]
pub const fn on(_: Bug) -> bool {
    false
}
