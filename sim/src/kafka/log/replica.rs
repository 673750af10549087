//! A replica of a partition's log, with a cleaner of its own.
//!
//! The replicas share the records. A replica knows which of them it has, and when it may remove tombstones. What is
//! open or aborted is the same for all: a replica that is away takes no part.

use std::collections::{BTreeMap, BTreeSet};

use super::{Compacted, Compaction, Entry, is_aborted};

/// A replica of a partition's log.
#[derive(Clone, Debug, Default)]
pub(super) struct Replica {
    /// Whether it still has each offset up to the end of its copy. Its cleaner or, for what it has copied, a leader's
    /// has removed the others.
    has: Vec<bool>,
    /// When each tombstone that a pass has left may be removed: the delete horizon of KIP-534.
    horizons: BTreeMap<usize, i64>,
    is_away: bool,
}

impl Replica {
    pub(super) fn has(&self, offset: usize) -> bool {
        self.has.get(offset).copied().unwrap_or(false)
    }

    pub(super) const fn is_away(&self) -> bool {
        self.is_away
    }

    pub(super) fn append(&mut self) {
        self.has.push(true);
    }

    pub(super) const fn go_away(&mut self) {
        self.is_away = true;
    }

    /// Returns this replica in sync with the leader. It gets what the leader still has: it never learns of a record
    /// that the leader has removed, and keeps an older one that it has itself.
    pub(super) fn copied_from(mut self, leader: &Self) -> Self {
        let end = self.has.len();
        self.has.extend_from_slice(&leader.has[end..]);
        self.horizons.extend(leader.horizons.range(end..));
        self.is_away = false;
        self
    }

    /// Does a pass over the decided records. The first pass that leaves a tombstone stamps it with its horizon, and
    /// lowering the retention later does not change that.
    pub(super) fn clean(
        &mut self,
        decided: &[Entry],
        aborted: &BTreeSet<u64>,
        now_ms: i64,
        how: Compaction,
    ) -> Compacted {
        let mut gone = Compacted::default();
        if self.is_away {
            return gone;
        }
        let mut last: BTreeMap<&[u8], usize> = BTreeMap::new();
        let mut cleanable = Vec::new();
        for (offset, entry) in decided.iter().enumerate().filter(|(offset, _)| self.has[*offset]) {
            let Entry::Data(stored) = entry else { continue };
            if stored.at_ms >= how.before_ms {
                break;
            }
            cleanable.push((offset, stored));
            if let Some(key) = stored.key.as_deref().filter(|_| !is_aborted(aborted, stored)) {
                last.insert(key, offset);
            }
        }
        for (offset, stored) in cleanable {
            let is_newest = stored.key.as_deref().is_none_or(|key| last.get(key) == Some(&offset));
            let is_replaced = !is_newest || is_aborted(aborted, stored);
            let horizon = (stored.value.is_none() && !is_replaced).then(|| {
                *self.horizons.entry(offset).or_insert_with(|| {
                    gone.stamped += 1;
                    now_ms + how.retention_ms
                })
            });
            let is_expired = how.tombstones && horizon.is_some_and(|horizon| horizon < now_ms);
            // The last record of a log is never removed.
            if (is_replaced || is_expired) && offset + 1 < self.has.len() {
                self.has[offset] = false;
                self.horizons.remove(&offset);
                gone.records += usize::from(is_replaced);
                gone.tombstones += usize::from(is_expired);
            }
        }
        gone
    }
}
