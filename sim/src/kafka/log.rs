//! A partition's log.

use std::collections::{BTreeMap, BTreeSet};

/// Header names and values.
pub type Headers = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// When it was appended.
    pub at_ms: i64,
    /// `None` is null.
    pub key: Option<Vec<u8>>,
    /// `None` is null.
    pub value: Option<Vec<u8>>,
    /// In order.
    pub headers: Headers,
    /// The transaction that wrote it.
    pub transaction: Option<u64>,
}

#[derive(Debug)]
enum Entry {
    Data(Stored),
    /// A control marker: it takes an offset and is never delivered.
    Marker,
    /// Removed by compaction.
    Gone,
}

/// A partition's log.
#[derive(Debug, Default)]
pub struct Log {
    entries: Vec<Entry>,
    /// First offset of each transaction without a marker.
    open: BTreeMap<u64, i64>,
    aborted: BTreeSet<u64>,
    /// When each tombstone that a compaction has left may be removed.
    horizons: BTreeMap<usize, i64>,
}

/// Counts of what a compaction removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Records that were replaced or aborted.
    pub records: usize,
    /// Tombstones that were old enough.
    pub tombstones: usize,
}

/// How a log is compacted.
#[derive(Clone, Copy, Debug)]
pub struct Compaction {
    /// Only records appended before this are compacted.
    pub before_ms: i64,
    /// `delete.retention.ms`: a tombstone stays for this long after the first compaction that leaves it.
    pub retention_ms: i64,
    /// Whether old tombstones are removed too.
    pub tombstones: bool,
}

impl Log {
    /// Returns the offset after the last.
    #[must_use]
    pub fn end(&self) -> i64 {
        self.entries.len() as i64
    }

    /// Returns the last stable offset.
    #[must_use]
    pub fn last_stable(&self) -> i64 {
        self.open.values().copied().min().unwrap_or(self.end())
    }

    /// Returns the record at an offset, unless compaction has removed it.
    #[must_use]
    pub fn get(&self, offset: i64) -> Option<&Stored> {
        match self.entries.get(usize::try_from(offset).ok()?)? {
            Entry::Data(stored) => Some(stored),
            Entry::Marker | Entry::Gone => None,
        }
    }

    /// Appends a record and returns its offset.
    pub fn append(&mut self, stored: Stored) -> i64 {
        let offset = self.end();
        if let Some(transaction) = stored.transaction {
            self.open.entry(transaction).or_insert(offset);
        }
        self.entries.push(Entry::Data(stored));
        offset
    }

    /// Appends the marker that ends a transaction.
    pub fn mark(&mut self, transaction: u64, commit: bool) {
        self.open.remove(&transaction);
        if !commit {
            self.aborted.insert(transaction);
        }
        self.entries.push(Entry::Marker);
    }

    /// Returns the records that a read_committed consumer gets from `from` on, and the offset that it reads next.
    #[must_use]
    pub fn read(&self, from: i64, count_max: usize) -> (Vec<(i64, &Stored)>, i64) {
        let mut found = Vec::new();
        let mut next = from;
        while next < self.last_stable() && found.len() < count_max {
            if let Entry::Data(stored) = &self.entries[next as usize]
                && !self.is_aborted(stored)
            {
                found.push((next, stored));
            }
            next += 1;
        }
        (found, next)
    }

    /// Returns the records that a read_uncommitted consumer gets: open and aborted ones as well.
    #[must_use]
    pub fn read_uncommitted(&self, from: i64, count_max: usize) -> (Vec<(i64, &Stored)>, i64) {
        let mut found = Vec::new();
        let mut next = from;
        while next < self.end() && found.len() < count_max {
            if let Entry::Data(stored) = &self.entries[next as usize] {
                found.push((next, stored));
            }
            next += 1;
        }
        (found, next)
    }

    /// Compacts the log: keeps the last record of each key among the decided ones that are old enough.
    pub fn compact(&mut self, now_ms: i64, how: Compaction) -> Compacted {
        let end = self.last_stable() as usize;
        let mut last: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
        let mut cleanable = Vec::new();
        for (offset, entry) in self.entries[..end].iter().enumerate() {
            let Entry::Data(stored) = entry else { continue };
            if stored.at_ms >= how.before_ms {
                break;
            }
            cleanable.push(offset);
            if let Some(key) = stored.key.clone().filter(|_| !self.is_aborted(stored)) {
                last.insert(key, offset);
            }
        }
        let mut gone = Compacted::default();
        for offset in cleanable {
            let Entry::Data(stored) = &self.entries[offset] else { continue };
            let newest = stored.key.as_ref().is_none_or(|key| last.get(key) == Some(&offset));
            let overwritten = !newest || self.is_aborted(stored);
            let horizon = (stored.value.is_none() && !overwritten)
                .then(|| *self.horizons.entry(offset).or_insert(now_ms + how.retention_ms));
            let expired = how.tombstones && horizon.is_some_and(|horizon| horizon < now_ms);
            // The last record of a log is never removed.
            if (overwritten || expired) && offset + 1 < self.entries.len() {
                self.entries[offset] = Entry::Gone;
                gone.records += usize::from(overwritten);
                gone.tombstones += usize::from(expired);
            }
        }
        gone
    }

    fn is_aborted(&self, stored: &Stored) -> bool {
        stored.transaction.is_some_and(|t| self.aborted.contains(&t))
    }
}
