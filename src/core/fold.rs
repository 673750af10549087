//! The fold of a partition's log: how each record changes the latest record of its key. The engine and the command line
//! share these rules; the engine takes in users' records in `KeyTable::user_record`.

use std::cmp::Ordering;

use super::origin::Origin;
use super::types::Record;

/// The writer of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// A user: the record is the latest of its key.
    User,
    /// The engine: the record is a tombstone or a copy for the user record that the origin header names.
    Engine(Origin),
}

impl Writer {
    /// Returns the writer of a record in the partition with this hash. If an origin header does not match its record,
    /// it was copied there, and a user wrote the record.
    #[must_use]
    pub fn of(record: &Record<'_>, partition_hash: u64) -> Self {
        Origin::of(record, partition_hash).map_or(Self::User, Self::Engine)
    }
}

/// How a record changes the latest record of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It becomes the latest record, or is a copy of a record that becomes it.
    Replaces,
    /// It is a copy of the latest record, which is therefore not overtaken any more.
    Confirms,
    /// It is a tombstone that ends the latest record.
    Ends,
    /// It was written for an older record than the latest, and comes after the latest in the log. Compaction may remove
    /// the latest record, so the engine must rewrite it.
    Overtakes,
    /// It changes nothing.
    None,
}

/// Returns the effect of a record. `known` is the origin offset of the key's latest record; without a value the record
/// is a tombstone.
#[must_use]
pub fn effect(known: Option<i64>, writer: &Writer, has_value: bool) -> Effect {
    let Writer::Engine(origin) = writer else { return Effect::Replaces };
    match (known.map(|known| known.cmp(&origin.offset)), has_value) {
        // A copy of a newer record than the known one: compaction removed the original before it was read.
        (None, true) | (Some(Ordering::Less), true) => Effect::Replaces,
        (Some(Ordering::Equal), true) => Effect::Confirms,
        (Some(Ordering::Less | Ordering::Equal), false) => Effect::Ends,
        (Some(Ordering::Greater), _) => Effect::Overtakes,
        (None, false) => Effect::None,
    }
}
