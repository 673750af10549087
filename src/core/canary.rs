//! Canaries: records by which a fold of a partition knows its age.
//!
//! The owner of a partition writes one now and then, under a key that is never used again. Every record after a canary
//! was appended after the time that it carries, so a tombstone after it is still in the log until `delete.retention.ms`
//! later. A fold that holds a young canary has therefore missed no tombstone, whichever replica it reads next.

use super::origin::CANARY_PREFIX;
use super::types::Millis;

/// What a canary says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Canary {
    /// The owner's time when it decided to write the canary.
    pub at: Millis,
    /// The owner had read all records below this offset before it decided any record that comes after the canary.
    pub read_to: i64,
}

impl Canary {
    /// Returns the header's value: `v1 partition=… time=… read=…`.
    #[must_use]
    pub fn encode(&self, partition_hash: u64) -> String {
        format!("v1 partition={partition_hash:016x} time={} read={}", self.at.0, self.read_to)
    }

    /// Reads a header's value. Returns `None` also if it was copied from another cluster, topic or partition.
    #[must_use]
    pub fn decode(value: &[u8], partition_hash: u64) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?.strip_prefix("v1 partition=")?;
        let (named, rest) = text.split_once(" time=")?;
        let (at, read_to) = rest.split_once(" read=")?;
        // A later version may add fields.
        let read_to = read_to.split(' ').next()?;
        if named.len() != 16 || u64::from_str_radix(named, 16).ok()? != partition_hash {
            return None;
        }
        Some(Self { at: Millis(at.parse().ok()?), read_to: read_to.parse().ok()? })
    }
}

/// Returns the key of the canary with this label.
#[must_use]
pub fn canary_key(label: &str) -> Vec<u8> {
    [CANARY_PREFIX, label.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_canary_is_decoded_only_for_its_own_partition() {
        let canary = Canary { at: Millis(86_400_000), read_to: 12 };
        let text = canary.encode(9);
        assert_eq!(Canary::decode(text.as_bytes(), 9), Some(canary));
        assert_eq!(Canary::decode(format!("{text} colour=blue").as_bytes(), 9), Some(canary));
        assert_eq!(Canary::decode(text.as_bytes(), 10), None);
        assert_eq!(Canary::decode(b"v1 partition=0000000000000009 time=x read=1", 9), None);
    }
}
