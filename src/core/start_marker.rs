//! The floor: the record that tells leftovers from what is owed.

use super::types::Millis;

/// The value of a floor record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartMarker {
    /// What is due before this may be a leftover.
    pub since: Millis,
    /// What lies below this offset may be a leftover.
    pub offset: i64,
}

impl StartMarker {
    /// The record's value: `v1 partition_hash=… since=… offset=…`.
    #[must_use]
    pub fn encode(&self, partition_hash: u64) -> String {
        format!("v1 partition={partition_hash:016x} since={} offset={}", self.since.0, self.offset)
    }

    /// Reads a floor record's value. A floor of another cluster, topic or partition is not this one's.
    #[must_use]
    pub fn decode(value: &[u8], partition_hash: u64) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?.strip_prefix("v1 partition=")?;
        let (named, requeue) = text.split_once(" since=")?;
        let (since, offset) = requeue.split_once(" offset=")?;
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
