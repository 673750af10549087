//! The start marker: a record in each partition that tells old schedules from those that the engine has to fire.
//!
//! Schedules that were written and due before the engine's first start are *leftovers* and do not fire. All others are
//! *owed*: they fire, however long the engine is down.

use super::types::Millis;

/// The value of a start marker. A leftover is below `offset`, due before `since`, and due before the present
/// [`leftover_cutoff`](super::io::Input::Assigned): a more negative `SINCE_DELTA` set later lets more schedules
/// fire, never fewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartMarker {
    /// Schedules due at or after this time fire, however late: local midnight of the engine's first start on the topic,
    /// plus `SINCE_DELTA` days.
    pub since: Millis,
    /// Schedules below this offset may be leftovers.
    pub offset: i64,
}

impl StartMarker {
    /// Returns the record's value: `v1 partition=… since=… offset=…`.
    #[must_use]
    pub fn encode(&self, partition_hash: u64) -> String {
        format!("v1 partition={partition_hash:016x} since={} offset={}", self.since.0, self.offset)
    }

    /// Reads a record's value. Returns `None` also if it was copied from another cluster, topic or partition.
    #[must_use]
    pub fn decode(value: &[u8], partition_hash: u64) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?.strip_prefix("v1 partition=")?;
        let (named, rest) = text.split_once(" since=")?;
        let (since, offset) = rest.split_once(" offset=")?;
        if named.len() != 16 || u64::from_str_radix(named, 16).ok()? != partition_hash {
            return None;
        }
        Some(Self { since: Millis(since.parse().ok()?), offset: offset.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_marker_is_decoded_only_for_its_own_partition() {
        let start_marker = StartMarker { since: Millis(86_400_000), offset: 12 };
        assert_eq!(StartMarker::decode(start_marker.encode(9).as_bytes(), 9), Some(start_marker));
        assert_eq!(StartMarker::decode(start_marker.encode(9).as_bytes(), 10), None);
        assert_eq!(StartMarker::decode(b"v1 partition=0000000000000009 since=x offset=1", 9), None);
    }
}
