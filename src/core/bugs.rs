//! Deliberate bugs, by which the simulator is tested: a bug that it does not find is a defect of the simulator.
//!
//! Without the feature `known-bad` nothing can switch one on, and [`on`] is a constant.

/// A rule that is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Schedules fire before the barrier has been read.
    FireBeforeBarrier,
    /// Former owners are fenced before the barrier stands.
    FenceBeforeBarrier,
    /// A dead owner is not fenced.
    DeadOwnerNotFenced,
    /// Every commit says that the partition was left clean.
    AlwaysClean,
    /// Loading ends at the offset that the group has committed.
    LoadsToCommitted,
    /// A partition without a committed offset commits a negative one.
    NegativeOffset,
    /// A word that an engine record has outrun is not written again.
    NoReassertion,
    /// A firing's tombstone names no user record.
    TombstoneNamesNothing,
    /// A copy of an earlier word revives a key that was cancelled.
    CopyRevivesCancelled,
    /// A copy's word has the copy's timestamp.
    CopyTakesNewTimestamp,
    /// A copy's word has the copy's offset.
    CopyTakesNewIdentity,
    /// A newer word may fire while an engine record for the key is outstanding.
    TwoOutstanding,
    /// A record that is committed counts as read.
    SettledTakenForRead,
    /// A record that cannot fire does not end earlier words.
    InvalidLeftOut,
    /// Cancels are forgotten while the log is read.
    CancelForgottenInLoading,
    /// What was lost to another owner goes on.
    LostPartitionsKept,
    /// What an aborted batch was to fire is forgotten.
    AbortedForgotten,
    /// Schedules fire one millisecond early.
    OneMillisecondEarly,
    /// What is due last fires first.
    LatestFirst,
    /// Floor records are not read.
    FloorForgotten,
    /// A new floor always counts from today.
    SinceForgotten,
    /// What was left behind before the first start fires.
    LeftoversFire,
    /// A clock that was set back before the floor changes nothing.
    ClockSetBackIgnored,
    /// A schedule that was refused is never tried again.
    RefusedForgotten,
    /// A schedule that was refused is tried again at once, with its neighbours.
    RefusedNotParked,
    /// A partition waits for ever for a sibling that was taken away.
    SiblingsNotAskedAgain,
    /// A batch that ran out of time is tried again as large as it was.
    BatchesKeepTheirSize,
}

/// Every bug, by name.
#[cfg(feature = "known-bad")]
pub const ALL: [(Bug, &str); 27] = [
    (Bug::FireBeforeBarrier, "fire-before-barrier"),
    (Bug::FenceBeforeBarrier, "fence-before-barrier"),
    (Bug::DeadOwnerNotFenced, "dead-owner-not-fenced"),
    (Bug::AlwaysClean, "always-clean"),
    (Bug::LoadsToCommitted, "loads-to-committed"),
    (Bug::NegativeOffset, "negative-offset"),
    (Bug::NoReassertion, "no-reassertion"),
    (Bug::TombstoneNamesNothing, "tombstone-names-nothing"),
    (Bug::CopyRevivesCancelled, "copy-revives-cancelled"),
    (Bug::CopyTakesNewTimestamp, "copy-takes-new-timestamp"),
    (Bug::CopyTakesNewIdentity, "copy-takes-new-identity"),
    (Bug::TwoOutstanding, "two-outstanding"),
    (Bug::SettledTakenForRead, "settled-taken-for-read"),
    (Bug::InvalidLeftOut, "unfit-left-out"),
    (Bug::CancelForgottenInLoading, "cancel-forgotten-in-loading"),
    (Bug::LostPartitionsKept, "lost-partitions-kept"),
    (Bug::AbortedForgotten, "aborted-forgotten"),
    (Bug::OneMillisecondEarly, "one-millisecond-early"),
    (Bug::LatestFirst, "latest-first"),
    (Bug::FloorForgotten, "floor-forgotten"),
    (Bug::SinceForgotten, "since-forgotten"),
    (Bug::LeftoversFire, "leftovers-fire"),
    (Bug::ClockSetBackIgnored, "clock-set-back-ignored"),
    (Bug::RefusedForgotten, "refused-forgotten"),
    (Bug::RefusedNotParked, "refused-not-parked"),
    (Bug::SiblingsNotAskedAgain, "siblings-not-asked-again"),
    (Bug::BatchesKeepTheirSize, "batches-keep-their-size"),
];

#[cfg(feature = "known-bad")]
thread_local! {
    static SWITCHED_ON: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Switches a bug on, or all off, for this thread.
#[cfg(feature = "known-bad")]
pub fn switch(bug: Option<Bug>) {
    SWITCHED_ON.set(bug);
}

/// Whether a bug is switched on.
#[cfg(feature = "known-bad")]
#[must_use]
pub fn on(bug: Bug) -> bool {
    SWITCHED_ON.get() == Some(bug)
}

/// Never.
#[cfg(not(feature = "known-bad"))]
#[must_use]
pub const fn on(_: Bug) -> bool {
    false
}
