//! Records of a log that own their bytes.

use kafka_scheduler::core::headers;
use kafka_scheduler::core::io::{Header, Millis, Record, TopicPartition};
use kafka_scheduler::core::origin::{self, ORIGIN_HEADER, Origin, RESERVED_PREFIX, START_MARKER_KEY};

use super::bytes::Bytes;

/// Noon: the time at which every input starts.
pub const NOON_S: i64 = 1_700_049_600;

/// A record that owns its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    pub timestamp: Millis,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Kept {
    /// Decodes a user's record: usually a schedule, otherwise anything.
    pub fn decode(bytes: &mut Bytes<'_>) -> Self {
        let shape = bytes.byte();
        let (kind, headers_more) = (shape & 7, shape >> 5);
        let timestamp = match bytes.byte() {
            0xff => Millis(bytes.long()),
            seconds => Millis((NOON_S + i64::from(seconds)) * 1000),
        };
        let key = key(bytes);
        let value = (kind != 1).then(|| bytes.slice().to_vec());
        let mut headers = Vec::new();
        if kind != 0 {
            headers.push((headers::EPOCH.to_vec(), Some(due(bytes))));
            headers.push((headers::TARGET_TOPIC.to_vec(), Some(target(bytes))));
        }
        for _ in 0..headers_more {
            headers.push(header(bytes));
        }
        Self { timestamp, key, value, headers }
    }

    /// Returns the headers, borrowed.
    pub fn headers(&self) -> Vec<Header<'_>> {
        self.headers.iter().map(|(name, value)| Header { name, value: value.as_deref() }).collect()
    }

    /// Returns the record at an offset of a log.
    pub fn at<'a>(&'a self, partition: TopicPartition, offset: i64, headers: &'a [Header<'a>]) -> Record<'a> {
        let (key, value) = (self.key.as_deref(), self.value.as_deref());
        Record { partition, offset, timestamp: self.timestamp, key, value, headers }
    }

    /// Returns the origin that the record would have if the engine had written it.
    pub fn origin(&self, partition_hash: u64, offset: i64) -> Origin {
        let content_hash =
            origin::content_hash(self.key.as_deref().unwrap_or_default(), self.value.as_deref(), &self.headers());
        Origin { partition_hash, offset, timestamp: self.timestamp, content_hash }
    }
}

/// Returns one of a few keys, so records often share one.
fn key(bytes: &mut Bytes<'_>) -> Option<Vec<u8>> {
    match bytes.byte() % 8 {
        0 => None,
        1 => Some(bytes.slice().to_vec()),
        // The engine trusts a start marker, so the input must not forge one.
        2 => Some([RESERVED_PREFIX, bytes.slice()].concat()).filter(|key| key != START_MARKER_KEY),
        few => Some(vec![b'k', few]),
    }
}

fn due(bytes: &mut Bytes<'_>) -> Vec<u8> {
    match bytes.byte() {
        0xff => bytes.slice().to_vec(),
        0xfe => (NOON_S + i64::from(bytes.short()) * 60).to_string().into_bytes(),
        seconds => (NOON_S + i64::from(seconds) - 60).to_string().into_bytes(),
    }
}

fn target(bytes: &mut Bytes<'_>) -> Vec<u8> {
    match bytes.byte() % 8 {
        0 => bytes.slice().to_vec(),
        1 => b"schedules".to_vec(),
        2 => b"other".to_vec(),
        _ => b"target".to_vec(),
    }
}

fn header(bytes: &mut Bytes<'_>) -> (Vec<u8>, Option<Vec<u8>>) {
    let name = match bytes.byte() % 16 {
        0 => headers::EPOCH,
        1 => headers::TARGET_TOPIC,
        2..=4 => headers::TARGET_KEY,
        5 => headers::TIMESTAMP,
        6 => headers::KEY,
        7 => headers::TOPIC,
        8 => headers::GROUP,
        9 => ORIGIN_HEADER,
        10 => bytes.slice(),
        _ => b"customer",
    };
    (name.to_vec(), (bytes.byte() & 1 == 0).then(|| bytes.slice().to_vec()))
}
