//! A partition's log.

mod replica;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use replica::Replica;

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
}

/// A partition's log, on one or more replicas. Clients read from the leader.
#[derive(Debug)]
pub struct Log {
    /// Everything that was ever appended. Each replica has its own part of it.
    entries: Vec<Entry>,
    /// First offset of each transaction without a marker.
    open: BTreeMap<u64, i64>,
    aborted: BTreeSet<u64>,
    replicas: Vec<Replica>,
    leader: usize,
}

/// Counts of what a pass of the cleaner did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Records removed because they were replaced or aborted.
    pub records: usize,
    /// Tombstones removed because they were old enough.
    pub tombstones: usize,
    /// Tombstones whose retention began.
    pub stamped: usize,
}

impl Compacted {
    /// Adds another pass.
    pub const fn add(&mut self, other: Self) {
        self.records += other.records;
        self.tombstones += other.tombstones;
        self.stamped += other.stamped;
    }
}

/// How a log is compacted.
#[derive(Clone, Copy, Debug)]
pub struct Compaction {
    /// Only records appended before this are compacted.
    pub before_ms: i64,
    /// `delete.retention.ms`: a tombstone stays for this long after the first pass that leaves it.
    pub retention_ms: i64,
    /// Whether old tombstones are removed too.
    pub tombstones: bool,
}

impl Default for Log {
    fn default() -> Self {
        Self::new(1)
    }
}

impl Log {
    /// Creates an empty log with this number of replicas. The first is the leader.
    #[must_use]
    pub fn new(replicas: usize) -> Self {
        Self {
            entries: Vec::new(),
            open: BTreeMap::new(),
            aborted: BTreeSet::new(),
            replicas: vec![Replica::default(); replicas.max(1)],
            leader: 0,
        }
    }

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

    /// Returns the record at an offset, unless the leader's cleaner has removed it.
    #[must_use]
    pub fn get(&self, offset: i64) -> Option<&Stored> {
        let offset = usize::try_from(offset).ok()?;
        match self.entries.get(offset).filter(|_| self.replicas[self.leader].has(offset))? {
            Entry::Data(stored) => Some(stored),
            Entry::Marker => None,
        }
    }

    /// Appends a record and returns its offset.
    pub fn append(&mut self, stored: Stored) -> i64 {
        let offset = self.end();
        if let Some(transaction) = stored.transaction {
            self.open.entry(transaction).or_insert(offset);
        }
        self.push(Entry::Data(stored));
        offset
    }

    /// Appends the marker that ends a transaction.
    pub fn mark(&mut self, transaction: u64, commit: bool) {
        self.open.remove(&transaction);
        if !commit {
            self.aborted.insert(transaction);
        }
        self.push(Entry::Marker);
    }

    fn push(&mut self, entry: Entry) {
        self.entries.push(entry);
        self.replicas.iter_mut().filter(|replica| !replica.is_away()).for_each(Replica::append);
    }

    /// Returns the records that a read_committed consumer gets from `from` on, and the offset that it reads next.
    #[must_use]
    pub fn read(&self, from: i64, count_max: usize) -> (Vec<(i64, &Stored)>, i64) {
        self.read_until(self.last_stable(), (from, count_max), |stored| !is_aborted(&self.aborted, stored))
    }

    /// Returns the records that a read_uncommitted consumer gets: open and aborted ones as well.
    #[must_use]
    pub fn read_uncommitted(&self, from: i64, count_max: usize) -> (Vec<(i64, &Stored)>, i64) {
        self.read_until(self.end(), (from, count_max), |_| true)
    }

    fn read_until(
        &self,
        end: i64,
        (from, count_max): (i64, usize),
        is_visible: impl Fn(&Stored) -> bool,
    ) -> (Vec<(i64, &Stored)>, i64) {
        let mut found = Vec::new();
        let mut next = from;
        while next < end && found.len() < count_max {
            if let Some(stored) = self.get(next).filter(|stored| is_visible(stored)) {
                found.push((next, stored));
            }
            next += 1;
        }
        (found, next)
    }

    /// Compacts all replicas: each keeps the last record of each key among the decided ones that are old enough.
    pub fn compact(&mut self, now_ms: i64, how: Compaction) -> Compacted {
        let mut all = Compacted::default();
        for replica in 0..self.replicas.len() {
            all.add(self.clean(replica, now_ms, how));
        }
        all
    }

    /// Compacts one replica. Does nothing if it is away.
    pub fn clean(&mut self, replica: usize, now_ms: i64, how: Compaction) -> Compacted {
        let decided = self.last_stable() as usize;
        self.replicas[replica].clean(&self.entries[..decided], &self.aborted, now_ms, how)
    }

    /// Returns the number of replicas.
    #[must_use]
    pub const fn replicas(&self) -> usize {
        self.replicas.len()
    }

    /// Makes another replica that is in sync the leader. Returns whether there is one.
    pub fn change_leader(&mut self) -> bool {
        let count = self.replicas.len();
        let others = (1..count).map(|n| (self.leader + n) % count);
        let next = others.into_iter().find(|replica| !self.replicas[*replica].is_away());
        self.leader = next.unwrap_or(self.leader);
        next.is_some()
    }

    /// Takes a replica out of sync, and leadership from it. The last replica in sync stays. Returns whether it is away
    /// now, and was not before.
    pub fn go_away(&mut self, replica: usize) -> bool {
        if self.replicas[replica].is_away() || replica == self.leader && !self.change_leader() {
            return false;
        }
        self.replicas[replica].go_away();
        true
    }

    /// Lets a replica that was away copy what it misses from the leader, with the leader's stamps. It keeps what it
    /// had, or with `is_empty` copies the whole log.
    pub fn come_back(&mut self, replica: usize, is_empty: bool) {
        if self.replicas[replica].is_away() {
            let leader = self.replicas[self.leader].clone();
            let kept = if is_empty { Replica::default() } else { std::mem::take(&mut self.replicas[replica]) };
            self.replicas[replica] = kept.copied_from(&leader);
        }
    }
}

fn is_aborted(aborted: &BTreeSet<u64>, stored: &Stored) -> bool {
    stored.transaction.is_some_and(|transaction| aborted.contains(&transaction))
}
