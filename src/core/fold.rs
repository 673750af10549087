//! What a record means for the latest record of its key. The engine and the command line fold a partition by these rules.

use std::cmp::Ordering;

use super::origin::Origin;
use super::types::Record;

/// Who wrote a record, and for which user record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// A user: the record is the latest of its key.
    User,
    /// The engine: the record is a tombstone or a copy.
    Engine(Origin),
}

impl Writer {
    /// Returns the writer of a record in the partition with this hash. An origin header that does not match its record was
    /// copied there, so a user wrote the record.
    #[must_use]
    pub fn of(record: &Record<'_>, partition_hash: u64) -> Self {
        Origin::of(record, partition_hash).map_or(Self::User, Self::Engine)
    }
}

/// What a record changes for its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It is the latest record, or a copy of the latest record, and there was none or an older one.
    Replaces,
    /// The latest record was written again: no engine record for an older one comes after it any more.
    Confirms,
    /// It ends the latest record.
    Ends,
    /// It speaks for an older record than the latest, and comes after that in the log: compaction may remove the latest
    /// record, so the engine must write it again.
    Overtakes,
    /// Nothing.
    None,
}

/// Returns what a record changes if `known` is the origin offset of the latest record of its key, and `has_value` says
/// that the record is no tombstone.
#[must_use]
pub fn effect(known: Option<i64>, writer: &Writer, has_value: bool) -> Effect {
    let Writer::Engine(origin) = writer else { return Effect::Replaces };
    match (known.map(|known| known.cmp(&origin.offset)), has_value) {
        (None, true) | (Some(Ordering::Less), true) => Effect::Replaces,
        (Some(Ordering::Equal), true) => Effect::Confirms,
        (Some(Ordering::Less | Ordering::Equal), false) => Effect::Ends,
        (Some(Ordering::Greater), _) => Effect::Overtakes,
        (None, false) => Effect::None,
    }
}
