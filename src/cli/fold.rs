//! What is pending in a partition: the last word on each key, as the engine reads it.
//!
//! The engine's fold keeps the words themselves. A command that shows or moves them reads the partition twice instead and
//! keeps 32 bytes a key between, so that its memory does not grow with the payloads.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};

use rdkafka::Offset;

use super::failure::Failure;
use super::link::Link;
use crate::core::io::{Header, Millis, Record};
use crate::core::origin::{ORIGIN_HEADER, Origin, RESERVED_PREFIX, partition_hash};

/// Names keys by 128 bits: two keys that share them are not to be expected.
#[derive(Debug, Default)]
pub struct Names(RandomState, RandomState);

impl Names {
    /// The key's name.
    pub fn of(&self, key: &[u8]) -> u128 {
        u128::from(self.0.hash_one(key)) << 64 | u128::from(self.1.hash_one(key))
    }
}

/// The last word on a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word {
    /// Offset of the user's record.
    pub origin_offset: i64,
    /// Where its content lies: there, or in a copy that the engine has made. `None` for what has ended.
    pub position: Option<i64>,
}

/// The last word on each key of a partition.
#[derive(Debug)]
pub struct Fold {
    place: u64,
    words: BTreeMap<u128, Word>,
    /// Remembers also what the engine has ended.
    keep_ended: bool,
}

impl Fold {
    fn new(place: u64, keep_ended: bool) -> Self {
        Self { place, words: BTreeMap::new(), keep_ended }
    }

    fn take(&mut self, names: &Names, record: &Record<'_>) {
        let Some(key) = record.key.filter(|key| !key.starts_with(RESERVED_PREFIX)) else { return };
        let name = names.of(key);
        let position = record.value.map(|_| record.offset);
        let Some(origin) = Origin::of(record, self.place) else {
            self.words.insert(name, Word { origin_offset: record.offset, position });
            return;
        };
        let known = self.words.get(&name).copied();
        let is_news = known.is_none_or(|word| word.origin_offset < origin.offset);
        match position {
            // It ends every word up to the one it names.
            None if self.keep_ended && (is_news || known.is_some_and(|word| word.origin_offset == origin.offset)) => {
                self.words.insert(name, Word { origin_offset: origin.offset, position: None });
            }
            None if known.is_some_and(|word| word.origin_offset <= origin.offset) => drop(self.words.remove(&name)),
            None => {}
            Some(_) if is_news || known.is_some_and(|word| word.origin_offset == origin.offset && word.position.is_some()) => {
                self.words.insert(name, Word { origin_offset: origin.offset, position });
            }
            Some(_) => {}
        }
    }

    /// The last word on a key, if there is one.
    pub fn word(&self, name: u128) -> Option<Word> {
        self.words.get(&name).copied()
    }

    /// How many words are pending.
    pub fn pending(&self) -> u64 {
        self.words.values().filter(|word| word.position.is_some()).count() as u64
    }

    /// Names of the keys with pending words.
    pub fn pending_names(&self) -> impl Iterator<Item = u128> {
        self.words.iter().filter(|(_, word)| word.position.is_some()).map(|(name, _)| *name)
    }
}

/// Reads a partition and folds those records that `concerns` names. `count` is told of each record read.
///
/// # Errors
/// When it cannot be read.
pub fn fold(
    link: &Link,
    names: &Names,
    topic: &str,
    partition: i32,
    keep_ended: bool,
    mut concerns: impl FnMut(&Record<'_>) -> bool,
) -> Result<Fold, Failure> {
    let mut fold = Fold::new(partition_hash(link.cluster(), topic, partition), keep_ended);
    link.read(topic, partition, Offset::Beginning, |record| {
        if concerns(record) {
            fold.take(names, record);
        }
        Ok(())
    })?;
    Ok(fold)
}

/// Shows each pending word of a partition, in the order of the log.
///
/// # Errors
/// Whatever `visit` returns, or when it cannot be read.
pub fn pending(
    link: &Link,
    names: &Names,
    topic: &str,
    partition: i32,
    mut concerns: impl FnMut(&Record<'_>) -> bool,
    mut visit: impl FnMut(&Pending<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let fold = fold(link, names, topic, partition, false, &mut concerns)?;
    let mut left = fold.pending();
    if left == 0 {
        return Ok(());
    }
    let first = fold.words.values().filter_map(|word| word.position).min().unwrap_or(0);
    link.read(topic, partition, Offset::Offset(first), |record| {
        let (Some(key), Some(value)) = (record.key, record.value) else { return Ok(()) };
        if left == 0 || !concerns(record) {
            return Ok(());
        }
        match fold.word(names.of(key)) {
            Some(word) if word.position == Some(record.offset) => {
                left -= 1;
                visit(&Pending::of(record, key, value, word.origin_offset, fold.place))
            }
            _ => Ok(()),
        }
    })
}

/// A pending word: a schedule, or a record that cannot fire and was left in the log.
#[derive(Debug)]
pub struct Pending<'a> {
    /// The partition.
    pub partition: i32,
    /// Offset of the user's record.
    pub offset: i64,
    /// Timestamp of the user's record.
    pub timestamp: Millis,
    /// The key.
    pub key: &'a [u8],
    /// The value.
    pub value: &'a [u8],
    /// All headers but the engine's own.
    pub headers: Vec<Header<'a>>,
}

impl<'a> Pending<'a> {
    fn of(record: &Record<'a>, key: &'a [u8], value: &'a [u8], offset: i64, place: u64) -> Self {
        let timestamp = Origin::of(record, place).map_or(record.timestamp, |origin| origin.timestamp);
        let headers = record.headers.iter().filter(|header| header.name != ORIGIN_HEADER).copied().collect();
        Self { partition: record.partition.number, offset, timestamp, key, value, headers }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::io::TopicPartition;
    use crate::core::origin::content;

    const PLACE: u64 = 9;

    /// Folds a log for one key: `+` a schedule, `-` a cancel, `t3` an engine tombstone for 3, `c3` a copy of 3.
    fn folded(log: &[&str], keep_ended: bool) -> Option<Word> {
        let names = Names::default();
        let mut fold = Fold::new(PLACE, keep_ended);
        for (offset, entry) in (0..).zip(log) {
            let value = matches!(entry.as_bytes()[0], b'+' | b'c').then_some(&b"v"[..]);
            let origin = entry.get(1..).and_then(|of| of.parse().ok()).map(|of| {
                Origin { partition_hash: PLACE, offset: of, timestamp: Millis(0), content_hash: content(b"k", value, &[]) }.encode()
            });
            let headers: Vec<Header<'_>> =
                origin.iter().map(|origin| Header { name: ORIGIN_HEADER, value: Some(origin) }).collect();
            let partition = TopicPartition { topic: 0, number: 0 };
            let record = Record { partition, offset, timestamp: Millis(0), key: Some(b"k"), value, headers: &headers };
            fold.take(&names, &record);
        }
        fold.word(names.of(b"k"))
    }

    #[test]
    fn the_last_word_is_what_the_engine_takes_it_for() {
        let pending = |origin_offset, position| Some(Word { origin_offset, position: Some(position) });
        let ended = |origin_offset| Some(Word { origin_offset, position: None });
        assert_eq!(folded(&["+"], false), pending(0, 0));
        assert_eq!(folded(&["+", "+"], false), pending(1, 1));
        assert_eq!(folded(&["+", "-"], false), ended(1));
        assert_eq!(folded(&["+", "t0"], false), None, "fired");
        assert_eq!(folded(&["+", "+", "t0"], false), pending(1, 1), "outrun, not ended");
        assert_eq!(folded(&["+", "+", "t0", "c1"], false), pending(1, 3), "written again");
        assert_eq!(folded(&["+", "-", "c0"], false), ended(1), "a copy revives nothing");
        assert_eq!(folded(&["+", "t0"], true), ended(0));
    }
}
