//! Deliberate bugs in an instance's shell, and the names of all bugs. [`kafka_scheduler::core`] has the core's own.

/// A rule that the shell leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Batches commit without their offsets.
    NoOffsets,
    /// Offsets are sent before the records are acknowledged.
    OffsetsBeforeRecords,
    /// Group metadata is taken when offsets are sent, not when the batch is formed.
    MetadataLate,
    /// Group metadata names no member and no generation.
    MetadataBlank,
    /// The consumer commits its position on its own as well.
    PlainCommits,
    /// Tombstones go to the partition that a partitioner chooses.
    PartitionerTombstones,
    /// A restart stays in the group and does not fence its own former ids.
    NoSelfFence,
    /// New transactional ids are ignored: the old ones stay in use.
    KeepsIds,
    /// A producer is replaced while its transaction is open, and the batch goes on with the new one.
    ReplacesOpenProducers,
    /// A partition is released while batches on it are in flight.
    ReleaseBeforeSettle,
    /// A batch does not wait until the one before it has settled.
    OutOfTurn,
    /// An unknown outcome counts as an abort.
    UnknownTakenForAborted,
    /// An unknown outcome counts as a commit.
    UnknownTakenForCommitted,
    /// Loading ends at the last stable offset.
    LoadsToLastStable,
    /// The consumer reads open and aborted records.
    ReadUncommitted,
    /// The consumer starts at the committed offset instead of the beginning.
    StartsAtCommittedOffset,
    /// Records are blamed for timestamps that the brokers reject.
    ClockBlamesRecords,
    /// The search for start markers waits until a fetch returns no records.
    WaitsForEmptyFetch,
}

#[cfg(not(feature = "known-bad"))]
pub(crate) const fn on(_: Bug) -> bool {
    false
}

#[cfg(feature = "known-bad")]
pub(crate) use switches::on;
#[cfg(feature = "known-bad")]
pub use switches::{names, switch};

#[cfg(feature = "known-bad")]
mod switches {
    use std::cell::Cell;

    use kafka_scheduler::core::bugs as core;

    use super::Bug;

    const SHELL: [(Bug, &str); 18] = [
        (Bug::NoOffsets, "no-offsets"),
        (Bug::OffsetsBeforeRecords, "offsets-before-records"),
        (Bug::MetadataLate, "metadata-late"),
        (Bug::MetadataBlank, "metadata-blank"),
        (Bug::PlainCommits, "plain-commits"),
        (Bug::PartitionerTombstones, "partitioner-tombstones"),
        (Bug::NoSelfFence, "no-self-fence"),
        (Bug::KeepsIds, "keeps-ids"),
        (Bug::ReplacesOpenProducers, "replaces-open-producers"),
        (Bug::ReleaseBeforeSettle, "release-before-settle"),
        (Bug::OutOfTurn, "out-of-turn"),
        (Bug::UnknownTakenForAborted, "unknown-taken-for-aborted"),
        (Bug::UnknownTakenForCommitted, "unknown-taken-for-committed"),
        (Bug::LoadsToLastStable, "loads-to-last-stable"),
        (Bug::ReadUncommitted, "read-uncommitted"),
        (Bug::StartsAtCommittedOffset, "starts-at-committed-offset"),
        (Bug::ClockBlamesRecords, "clock-blames-records"),
        (Bug::WaitsForEmptyFetch, "waits-for-empty-fetch"),
    ];

    thread_local! {
        static SWITCHED_ON: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Whether a bug is switched on.
    pub(crate) fn on(bug: Bug) -> bool {
        SWITCHED_ON.get() == Some(bug)
    }

    /// Returns the names of all known bugs, the shell's and the core's.
    pub fn names() -> Vec<&'static str> {
        SHELL.iter().map(|(_, name)| *name).chain(core::ALL.iter().map(|(_, name)| *name)).collect()
    }

    /// Switches the bug of this name on for this thread, and any other off. Returns false if there is no such bug.
    pub fn switch(name: Option<&str>) -> bool {
        let shell = SHELL.iter().find(|(_, other)| name == Some(*other)).map(|(bug, _)| *bug);
        let core = core::ALL.iter().find(|(_, other)| name == Some(*other)).map(|(bug, _)| *bug);
        SWITCHED_ON.set(shell);
        core::switch(core);
        name.is_none() || shell.is_some() || core.is_some()
    }
}
