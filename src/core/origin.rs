//! The origin header, by which the engine recognizes its own records in a schedules topic.
//!
//! In every tombstone and copy that the engine writes there, it names the user record that they were written for. If it
//! does not match the partition, offset or content of its own record, a user copied it there with a record of its own.

use super::types::{Header, Millis, Record};

/// The header's name.
pub const ORIGIN_HEADER: &[u8] = b"scheduler-engine";

/// Keys that begin with this are reserved for the engine.
pub const RESERVED_PREFIX: &[u8] = b"__scheduler.";

/// The key of barrier records.
pub const BARRIER_KEY: &[u8] = b"__scheduler.barrier";

/// The key of start markers.
pub const START_MARKER_KEY: &[u8] = b"__scheduler.start-marker";

/// The keys of progress records begin with this; the schedule's key follows.
pub const PROGRESS_PREFIX: &[u8] = b"__scheduler.progress.";

/// The keys of canaries begin with this.
pub const CANARY_PREFIX: &[u8] = b"__scheduler.canary.";

const VERSION: u8 = 1;
const LENGTH: usize = 33;

/// The user record that an engine record was written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// [`partition_hash`] of both records' partition.
    pub partition_hash: u64,
    /// The user record's offset, which identifies it.
    pub offset: i64,
    /// The user record's timestamp.
    pub timestamp: Millis,
    /// [`content_hash`] of the engine's record.
    pub content_hash: u64,
}

impl Origin {
    /// Returns the header's value.
    #[must_use]
    pub fn encode(&self) -> [u8; LENGTH] {
        let mut bytes = [VERSION; LENGTH];
        bytes[1..9].copy_from_slice(&self.partition_hash.to_be_bytes());
        bytes[9..17].copy_from_slice(&self.offset.to_be_bytes());
        bytes[17..25].copy_from_slice(&self.timestamp.0.to_be_bytes());
        bytes[25..33].copy_from_slice(&self.content_hash.to_be_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; LENGTH] = bytes.try_into().ok()?;
        if bytes[0] != VERSION {
            return None;
        }
        let field = |at: usize| u64::from_be_bytes(std::array::from_fn(|i| bytes[at + i]));
        Some(Self {
            partition_hash: field(1),
            offset: field(9) as i64,
            timestamp: Millis(field(17) as i64),
            content_hash: field(25),
        })
    }

    /// Returns the origin of a record that the engine wrote; `None` if a user wrote it.
    #[must_use]
    pub fn of(record: &Record<'_>, partition_hash: u64) -> Option<Self> {
        let mut origins = record.headers.iter().filter(|h| h.name == ORIGIN_HEADER);
        let origin = Self::decode(origins.next()?.value?)?;
        let names_earlier_record =
            origin.partition_hash == partition_hash && (0..record.offset).contains(&origin.offset);
        (names_earlier_record
            && origins.next().is_none()
            && origin.content_hash == content_hash(record.key.unwrap_or_default(), record.value, record.headers))
        .then_some(origin)
    }
}

/// Returns a hash that identifies a partition across topics and clusters.
#[must_use]
pub fn partition_hash(cluster: &str, topic: &str, partition: i32) -> u64 {
    let mut hash = Fnv::default();
    hash.sized(cluster.as_bytes());
    hash.sized(topic.as_bytes());
    hash.write(&partition.to_be_bytes());
    hash.0
}

/// Returns a hash of a record's content without its origin header.
#[must_use]
pub fn content_hash(key: &[u8], value: Option<&[u8]>, headers: &[Header<'_>]) -> u64 {
    let mut hash = Fnv::default();
    hash.sized(key);
    hash.nullable(value);
    for header in headers.iter().filter(|h| h.name != ORIGIN_HEADER) {
        hash.sized(header.name);
        hash.nullable(header.value);
    }
    hash.0
}

/// FNV-1a, 64 bits: stable over versions and machines, which the standard library's hashers are not.
pub(super) struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    pub(super) fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub(super) fn finish(&self) -> u64 {
        self.0
    }

    fn sized(&mut self, bytes: &[u8]) {
        self.write(&(bytes.len() as u64).to_be_bytes());
        self.write(bytes);
    }

    fn nullable(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            None => self.write(&u64::MAX.to_be_bytes()),
            Some(bytes) => self.sized(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::types::TopicPartition;
    use super::*;

    const HERE: u64 = 77;

    fn record<'a>(key: &'a [u8], headers: &'a [Header<'a>], offset: i64) -> Record<'a> {
        Record {
            partition: TopicPartition { topic: 0, number: 0 },
            offset,
            timestamp: Millis(5),
            key: Some(key),
            value: None,
            headers,
        }
    }

    #[test]
    fn an_origin_matches_only_its_own_partition_and_content() {
        let origin = Origin {
            partition_hash: HERE,
            offset: 41,
            timestamp: Millis(-1),
            content_hash: content_hash(b"k", None, &[]),
        };
        let value = origin.encode();
        let headers = [Header { name: ORIGIN_HEADER, value: Some(&value) }];
        assert_eq!(Origin::of(&record(b"k", &headers, 42), HERE), Some(origin));
        assert_eq!(Origin::of(&record(b"k", &headers, 42), HERE + 1), None, "copied to another partition");
        assert_eq!(Origin::of(&record(b"k", &headers, 41), HERE), None, "names an offset that is not below its own");
        assert_eq!(Origin::of(&record(b"q", &headers, 42), HERE), None, "another key");
        let doubled = [headers[0], headers[0]];
        assert_eq!(Origin::of(&record(b"k", &doubled, 42), HERE), None, "two origin headers");
        let extended = [headers[0], Header { name: b"x", value: None }];
        assert_eq!(Origin::of(&record(b"k", &extended, 42), HERE), None, "another header");
        let cut = [Header { name: ORIGIN_HEADER, value: Some(&value[..32]) }];
        assert_eq!(Origin::of(&record(b"k", &cut, 42), HERE), None, "truncated");
    }
}
