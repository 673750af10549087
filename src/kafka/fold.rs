//! Folds a partition into the latest record for each key, by the rules of the core's fold.
//!
//! The engine's own fold keeps the records themselves. A command that shows or moves them reads the partition twice
//! instead and keeps 32 bytes a key in between, so its memory does not grow with the payloads. For a schedule that
//! recurs it also keeps its progress.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::time::Instant;

use rdkafka::Offset;

use super::broker_client::{BrokerClient, BrokerError};
use crate::core::fold::{Effect, Writer, effect};
use crate::core::io::{Header, Millis, Record};
use crate::core::origin::{ORIGIN_HEADER, Origin, PROGRESS_PREFIX, RESERVED_PREFIX, partition_hash};
use crate::core::progress::Progress;
use crate::core::recurrence::Position;

/// Hashes keys to 128 bits, so two keys practically never share a hash.
#[derive(Debug, Default)]
pub(crate) struct KeyHasher(RandomState, RandomState);

impl KeyHasher {
    /// Returns the key's hash.
    pub(crate) fn hash(&self, key: &[u8]) -> u128 {
        u128::from(self.0.hash_one(key)) << 64 | u128::from(self.1.hash_one(key))
    }
}

/// The latest record for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FoldEntry {
    /// Offset of the user's record.
    pub origin_offset: i64,
    /// Offset of its content: the same, or that of a copy that the engine has written. `None` if it has ended.
    pub content_offset: Option<i64>,
}

/// The latest record for each key of a partition.
#[derive(Debug)]
pub(crate) struct Fold {
    partition_hash: u64,
    entries: BTreeMap<u128, FoldEntry>,
    /// By the hash of the schedule's key: the offset of the user's record, and how far that has come.
    progress: BTreeMap<u128, (i64, Position)>,
    /// Remembers also the keys that the engine has ended.
    keep_ended: bool,
}

impl Fold {
    fn new(partition_hash: u64, keep_ended: bool) -> Self {
        Self { partition_hash, entries: BTreeMap::new(), progress: BTreeMap::new(), keep_ended }
    }

    fn take(&mut self, hasher: &KeyHasher, record: &Record<'_>) {
        if let Some(key) = progress_of(record) {
            return self.take_progress(hasher.hash(key), record);
        }
        let Some(key) = record.key.filter(|key| !key.starts_with(RESERVED_PREFIX)) else { return };
        let key_hash = hasher.hash(key);
        let content_offset = record.value.map(|_| record.offset);
        let writer = Writer::of(record, self.partition_hash);
        let origin_offset = match &writer {
            Writer::User => record.offset,
            Writer::Engine(origin) => origin.offset,
        };
        let known = self.entries.get(&key_hash).copied();
        match effect(known.map(|entry| entry.origin_offset), &writer, record.value.is_some()) {
            Effect::Replaces => {
                self.entries.insert(key_hash, FoldEntry { origin_offset, content_offset });
            }
            // What is remembered as ended stays so.
            Effect::Confirms if known.is_some_and(|entry| entry.content_offset.is_some()) => {
                self.entries.insert(key_hash, FoldEntry { origin_offset, content_offset });
            }
            Effect::Ends | Effect::None if self.keep_ended => {
                self.entries.insert(key_hash, FoldEntry { origin_offset, content_offset: None });
            }
            Effect::Ends => {
                self.entries.remove(&key_hash);
            }
            Effect::Confirms | Effect::Overtakes | Effect::None => {}
        }
    }

    /// Takes a progress record, by the rules of the engine's own table.
    fn take_progress(&mut self, key_hash: u128, record: &Record<'_>) {
        let Writer::Engine(origin) = Writer::of(record, self.partition_hash) else { return };
        let known = self.progress.get(&key_hash);
        let Some(value) = record.value else {
            if known.is_some_and(|(offset, _)| *offset <= origin.offset) {
                self.progress.remove(&key_hash);
            }
            return;
        };
        let Some(Progress { done, next, .. }) = Progress::decode(value) else { return };
        if known.is_none_or(|(offset, position)| (*offset, position.done) <= (origin.offset, done)) {
            self.progress.insert(key_hash, (origin.offset, Position { done, next: next.at() }));
        }
    }

    /// Returns how far a schedule has come, if it recurs and an occurrence is over.
    fn position(&self, key_hash: u128, origin_offset: i64) -> Option<Position> {
        let (offset, position) = self.progress.get(&key_hash)?;
        (*offset == origin_offset).then_some(*position)
    }

    /// Returns the latest record for a key.
    pub(crate) fn entry(&self, key_hash: u128) -> Option<FoldEntry> {
        self.entries.get(&key_hash).copied()
    }

    /// Returns how many keys have a pending record.
    pub(crate) fn pending(&self) -> u64 {
        self.entries.values().filter(|entry| entry.content_offset.is_some()).count() as u64
    }

    /// Returns the hashes of the keys that have a pending record.
    pub(crate) fn pending_keys(&self) -> impl Iterator<Item = u128> {
        self.entries.iter().filter(|(_, entry)| entry.content_offset.is_some()).map(|(key_hash, _)| *key_hash)
    }
}

/// Returns the key of the schedule whose progress a record is about.
fn progress_of<'a>(record: &Record<'a>) -> Option<&'a [u8]> {
    record.key?.strip_prefix(PROGRESS_PREFIX)
}

/// Reads a partition and folds the records that `concerns` selects. It sees a progress record with the key of its
/// schedule.
///
/// # Errors
/// If it cannot be read, or not before the deadline.
pub(crate) fn fold<E: From<BrokerError>>(
    broker: &BrokerClient,
    hasher: &KeyHasher,
    topic: &str,
    partition: i32,
    keep_ended: bool,
    deadline: Option<Instant>,
    mut concerns: impl FnMut(&Record<'_>) -> bool,
) -> Result<Fold, E> {
    let mut fold = Fold::new(partition_hash(broker.cluster(), topic, partition), keep_ended);
    broker.read_before(deadline, topic, partition, Offset::Beginning, |record| {
        let key = progress_of(record).or(record.key);
        if concerns(&Record { key, ..*record }) {
            fold.take(hasher, record);
        }
        Ok::<(), E>(())
    })?;
    Ok(fold)
}

/// Passes each pending record of a partition to `visit`, in the order of the log.
///
/// # Errors
/// If the partition cannot be read, or `visit` returns an error.
pub(crate) fn pending<E: From<BrokerError>>(
    broker: &BrokerClient,
    hasher: &KeyHasher,
    topic: &str,
    partition: i32,
    mut concerns: impl FnMut(&Record<'_>) -> bool,
    mut visit: impl FnMut(&Pending<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let fold = fold::<E>(broker, hasher, topic, partition, false, None, &mut concerns)?;
    let mut left = fold.pending();
    if left == 0 {
        return Ok(());
    }
    let first = fold.entries.values().filter_map(|entry| entry.content_offset).min().unwrap_or(0);
    broker.read(topic, partition, Offset::Offset(first), |record| {
        let (Some(key), Some(value)) = (record.key, record.value) else { return Ok(()) };
        if left == 0 || !concerns(record) {
            return Ok(());
        }
        let key_hash = hasher.hash(key);
        match fold.entry(key_hash) {
            Some(entry) if entry.content_offset == Some(record.offset) => {
                left -= 1;
                let position = fold.position(key_hash, entry.origin_offset);
                let pending = Pending::of(record, key, value, entry.origin_offset, fold.partition_hash);
                visit(&Pending { position, ..pending })
            }
            _ => Ok(()),
        }
    })
}

/// A pending record: a schedule, or one that cannot fire and was left in the log.
#[derive(Debug)]
pub(crate) struct Pending<'a> {
    pub partition: i32,
    /// Offset of the user's record.
    pub offset: i64,
    /// Timestamp of the user's record.
    pub timestamp: Millis,
    pub key: &'a [u8],
    pub value: &'a [u8],
    /// All headers but the engine's own.
    pub headers: Vec<Header<'a>>,
    /// How far it has come, if it recurs and an occurrence is over.
    pub position: Option<Position>,
}

impl<'a> Pending<'a> {
    fn of(record: &Record<'a>, key: &'a [u8], value: &'a [u8], offset: i64, partition_hash: u64) -> Self {
        let timestamp = Origin::of(record, partition_hash).map_or(record.timestamp, |origin| origin.timestamp);
        let headers = record.headers.iter().filter(|header| header.name != ORIGIN_HEADER).copied().collect();
        Self { partition: record.partition.number, offset, timestamp, key, value, headers, position: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::io::TopicPartition;
    use crate::core::origin::content_hash;
    use crate::core::progress::progress_key;

    const HASH: u64 = 9;

    /// Folds a log for one key: `+` a schedule, `-` a cancel, `t3` an engine tombstone for 3, `c3` a copy of 3.
    fn folded(log: &[&str], keep_ended: bool) -> Option<FoldEntry> {
        let hasher = KeyHasher::default();
        let mut fold = Fold::new(HASH, keep_ended);
        for (offset, entry) in (0..).zip(log) {
            let value = matches!(entry.as_bytes()[0], b'+' | b'c').then_some(&b"v"[..]);
            let origin = entry.get(1..).and_then(|of| of.parse().ok()).map(|of| {
                Origin {
                    partition_hash: HASH,
                    offset: of,
                    timestamp: Millis(0),
                    content_hash: content_hash(b"k", value, &[]),
                }
                .encode()
            });
            let headers: Vec<Header<'_>> =
                origin.iter().map(|origin| Header { name: ORIGIN_HEADER, value: Some(origin) }).collect();
            let partition = TopicPartition { topic: 0, number: 0 };
            let record = Record { partition, offset, timestamp: Millis(0), key: Some(b"k"), value, headers: &headers };
            fold.take(&hasher, &record);
        }
        fold.entry(hasher.hash(b"k"))
    }

    #[test]
    fn the_latest_record_is_the_engines() {
        let pending = |origin_offset, content| Some(FoldEntry { origin_offset, content_offset: Some(content) });
        let ended = |origin_offset| Some(FoldEntry { origin_offset, content_offset: None });
        assert_eq!(folded(&["+"], false), pending(0, 0));
        assert_eq!(folded(&["+", "+"], false), pending(1, 1));
        assert_eq!(folded(&["+", "-"], false), ended(1));
        assert_eq!(folded(&["+", "t0"], false), None, "fired");
        assert_eq!(folded(&["+", "+", "t0"], false), pending(1, 1), "overtaken, not ended");
        assert_eq!(folded(&["+", "+", "t0", "c1"], false), pending(1, 3), "rewritten");
        assert_eq!(folded(&["+", "-", "c0"], false), ended(1), "a copy revives nothing");
        assert_eq!(folded(&["+", "t0"], true), ended(0));
    }

    #[test]
    fn the_latest_progress_of_the_pending_record_counts() {
        let hasher = KeyHasher::default();
        let key = progress_key(b"k");
        // Offset of the user's record, and the occurrences that are over; none is a tombstone.
        let position = |log: &[(i64, Option<u64>)], origin_offset| {
            let mut fold = Fold::new(HASH, false);
            for (offset, (of, done)) in (10..).zip(log) {
                let value = done.map(|done| format!("v1 done={done} next={}", done * 1_000));
                let value = value.as_deref().map(str::as_bytes);
                let content_hash = content_hash(&key, value, &[]);
                let origin = Origin { partition_hash: HASH, offset: *of, timestamp: Millis(0), content_hash }.encode();
                let headers = [Header { name: ORIGIN_HEADER, value: Some(&origin) }];
                let partition = TopicPartition { topic: 0, number: 0 };
                let timestamp = Millis(0);
                let record = Record { partition, offset, timestamp, key: Some(&key), value, headers: &headers };
                fold.take(&hasher, &record);
            }
            fold.position(hasher.hash(b"k"), origin_offset)
        };
        let at = |done, next_ms| Some(Position { done, next: Millis(next_ms) });
        assert_eq!(position(&[(3, Some(1)), (3, Some(2))], 3), at(2, 2_000));
        assert_eq!(position(&[(3, Some(2)), (3, Some(1))], 3), at(2, 2_000), "produced again");
        assert_eq!(position(&[(3, Some(2)), (5, Some(1))], 5), at(1, 1_000), "of a newer schedule");
        assert_eq!(position(&[(3, Some(2))], 5), None, "of an older schedule");
        assert_eq!(position(&[(3, Some(2)), (3, None)], 3), None, "ended");
        assert_eq!(position(&[(5, Some(2)), (3, None)], 5), at(2, 2_000), "the end of an older one");
    }
}
