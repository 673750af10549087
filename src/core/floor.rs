//! The floor: the record that tells leftovers from what is owed.

use super::io::Millis;

/// The value of a floor record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Floor {
    /// What is due before this may be a leftover.
    pub since: Millis,
    /// What lies below this offset may be a leftover.
    pub offset: i64,
}

impl Floor {
    /// The record's value: `v1 place=… since=… offset=…`.
    #[must_use]
    pub fn encode(&self, place: u64) -> String {
        format!("v1 place={place:016x} since={} offset={}", self.since.0, self.offset)
    }

    /// Reads a floor record's value. A floor of another cluster, topic or partition is not this one's.
    #[must_use]
    pub fn decode(value: &[u8], place: u64) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?.strip_prefix("v1 place=")?;
        let (named, rest) = text.split_once(" since=")?;
        let (since, offset) = rest.split_once(" offset=")?;
        if named.len() != 16 || u64::from_str_radix(named, 16).ok()? != place {
            return None;
        }
        Some(Self { since: Millis(since.parse().ok()?), offset: offset.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_floor_is_read_back_in_its_place_only() {
        let floor = Floor { since: Millis(86_400_000), offset: 12 };
        assert_eq!(Floor::decode(floor.encode(9).as_bytes(), 9), Some(floor));
        assert_eq!(Floor::decode(floor.encode(9).as_bytes(), 10), None);
        assert_eq!(Floor::decode(b"v1 place=0000000000000009 since=x offset=1", 9), None);
    }
}
