//! Progress records: how far schedules that recur have come.
//!
//! The progress of the schedule with the key K is under a key of its own, [`progress_key`], in the same partition. So a
//! firing that is not the last writes nothing to K: it copies no payload and overtakes no update. The record's origin
//! header names the user's record, and its value says which occurrences are over and when the next one is due. Anybody
//! can write to the log, so a record that does not fit is no reason to panic.

use std::collections::{BTreeMap, VecDeque};

use super::due::Due;
use super::origin::PROGRESS_PREFIX;
use super::types::Millis;

/// Returns the key of the progress record of a schedule's key.
#[must_use]
pub fn progress_key(key: &[u8]) -> Vec<u8> {
    [PROGRESS_PREFIX, key].concat()
}

/// The value of a progress record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Occurrences that are over.
    pub done: u64,
    /// When the next one is due, without jitter.
    pub next: Due,
    /// The code of the reason for which the last occurrence became a dead letter.
    pub failed: Option<Box<str>>,
    /// Fields of a later version, which are kept when the record is rewritten.
    pub other: Box<str>,
}

impl Progress {
    /// Returns the record's value: `v1 done=… next=…`, and `failed=…` after a dead letter.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = format!("v1 done={} next={}", self.done, self.next.epoch_ms());
        if let Some(failed) = &self.failed {
            text.push_str(" failed=");
            text.push_str(failed);
        }
        if !self.other.is_empty() {
            text.push(' ');
            text.push_str(&self.other);
        }
        text
    }

    /// Reads a record's value. Returns `None` if it is not of this version.
    #[must_use]
    pub fn decode(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?.strip_prefix("v1 ")?;
        let (mut done, mut next, mut failed, mut other) = (None, None, None, String::new());
        for field in text.split(' ') {
            match field.split_once('=') {
                Some(("done", number)) if done.is_none() => done = Some(number.parse().ok()?),
                Some(("next", ms)) if next.is_none() => next = Some(Due::from_epoch_ms(ms.parse().ok()?)?),
                Some(("failed", code)) if failed.is_none() => failed = Some(code.into()),
                _ => {
                    if !other.is_empty() {
                        other.push(' ');
                    }
                    other.push_str(field);
                }
            }
        }
        Some(Self { done: done?, next: next?, failed, other: other.into() })
    }
}

/// The progress record of a key.
#[derive(Clone, Debug)]
pub(super) struct KnownProgress {
    /// The key of the schedule.
    pub(super) key: Box<[u8]>,
    /// Offset of the user's record that it was written for.
    pub(super) origin_offset: i64,
    /// Timestamp of that record.
    pub(super) timestamp: Millis,
    pub(super) progress: Progress,
    /// [`short_batch_id`](super::in_flight::short_batch_id) of the batch with an outstanding record for its key, or 0.
    pub(super) outstanding_batch: u32,
    /// Another record comes after it in the log, so compaction may remove it: it must be rewritten.
    is_overtaken: bool,
}

impl KnownProgress {
    pub(super) fn is_overtaken(&self) -> bool {
        self.is_overtaken
    }

    pub(super) fn new(key: &[u8], origin_offset: i64, timestamp: Millis, progress: Progress) -> Self {
        Self { key: key.into(), origin_offset, timestamp, progress, outstanding_batch: 0, is_overtaken: false }
    }
}

/// What must be written to a progress key, beside what firings write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repair {
    /// The record again, after it was overtaken.
    Rewrite,
    /// A tombstone: its schedule is over.
    End,
}

/// The progress records of a partition, each in a slot that it keeps.
#[derive(Debug, Default)]
pub(super) struct ProgressTable {
    slots: Vec<Option<KnownProgress>>,
    free: Vec<u32>,
    by_key: BTreeMap<Box<[u8]>, u32>,
    /// Slots that may need a repair; checked when taken.
    repairs: VecDeque<u32>,
    /// The length of all keys.
    key_bytes: usize,
}

/// How a progress record that was read changed the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Folded {
    /// It is the progress of its key now.
    Known,
    /// It is older than the one that is known, and was produced again.
    Replayed,
}

impl ProgressTable {
    pub(super) fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    pub(super) fn slot_of(&self, key: &[u8]) -> Option<u32> {
        self.by_key.get(key).copied()
    }

    pub(super) fn get(&self, slot: u32) -> Option<&KnownProgress> {
        self.slots.get(slot as usize)?.as_ref()
    }

    pub(super) fn of_key(&self, key: &[u8]) -> Option<&KnownProgress> {
        self.slot_of(key).and_then(|slot| self.get(slot))
    }

    /// Iterates over the progress of all keys after one, in order.
    pub(super) fn after(&self, key: Option<&[u8]>) -> impl Iterator<Item = &KnownProgress> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = key.map_or(Unbounded, Excluded);
        self.by_key.range::<[u8], _>((from, Unbounded)).filter_map(|(_, slot)| self.get(*slot))
    }

    /// Returns whether the progress of a key is known as far as that, for the same record or a later one.
    pub(super) fn knows(&self, new: &KnownProgress) -> bool {
        let order = |one: &KnownProgress| (one.origin_offset, one.progress.done);
        self.of_key(&new.key).is_some_and(|known| order(known) >= order(new))
    }

    /// Iterates over all slots in use.
    pub(super) fn slots(&self) -> impl Iterator<Item = u32> {
        self.by_key.values().copied()
    }

    /// Folds a progress record of the engine's.
    pub(super) fn fold(&mut self, new: KnownProgress, lesser_counts: bool) -> Folded {
        let Some(slot) = self.slot_of(&new.key) else {
            self.insert(new);
            return Folded::Known;
        };
        let Some(known) = self.slots[slot as usize].as_mut() else { return Folded::Known };
        let order = |one: &KnownProgress| (one.origin_offset, one.progress.done);
        if order(&new) < order(known) && !(lesser_counts && new.origin_offset == known.origin_offset) {
            known.is_overtaken = true;
            self.repairs.push_back(slot);
            return Folded::Replayed;
        }
        *known = KnownProgress { outstanding_batch: known.outstanding_batch, ..new };
        Folded::Known
    }

    /// Folds a tombstone that was written for the user's record at `origin_offset`.
    pub(super) fn fold_tombstone(&mut self, key: &[u8], origin_offset: i64) {
        let Some(slot) = self.slot_of(key) else { return };
        match self.slots[slot as usize].as_mut() {
            Some(known) if known.origin_offset > origin_offset => {
                known.is_overtaken = true;
                self.repairs.push_back(slot);
            }
            _ => self.remove(slot),
        }
    }

    /// Notes that a record which is not the engine's comes after the progress record of a key.
    pub(super) fn overtaken(&mut self, key: &[u8]) {
        let Some(slot) = self.slot_of(key) else { return };
        if let Some(known) = self.slots[slot as usize].as_mut() {
            known.is_overtaken = true;
            self.repairs.push_back(slot);
        }
    }

    /// Returns the estimated memory, in bytes.
    pub(super) fn bytes(&self) -> usize {
        // Each key is in the map and in its slot.
        self.by_key.len() * 2 * size_of::<KnownProgress>() + 2 * self.key_bytes
    }

    fn insert(&mut self, new: KnownProgress) -> u32 {
        self.key_bytes += new.key.len();
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() as u32 - 1
        });
        self.by_key.insert(new.key.clone(), slot);
        self.slots[slot as usize] = Some(new);
        slot
    }

    fn remove(&mut self, slot: u32) {
        if let Some(known) = self.slots[slot as usize].take() {
            self.by_key.remove(&known.key);
            self.key_bytes -= known.key.len();
            self.free.push(slot);
        }
    }

    /// Notes that a progress record may need a repair: its key has another request now.
    pub(super) fn check(&mut self, slot: u32) {
        self.repairs.push_back(slot);
    }

    pub(super) fn has_repairs(&self) -> bool {
        !self.repairs.is_empty()
    }

    /// Removes the next slot from the list that needs a repair. `is_current` says whether a record at this offset is
    /// the latest of its key and recurs.
    pub(super) fn take_repair(&mut self, is_current: impl Fn(&KnownProgress) -> bool) -> Option<(u32, Repair)> {
        while let Some(slot) = self.repairs.pop_front() {
            let Some(known) = self.get(slot).filter(|known| known.outstanding_batch == 0) else { continue };
            if !is_current(known) {
                return Some((slot, Repair::End));
            }
            if known.is_overtaken {
                return Some((slot, Repair::Rewrite));
            }
        }
        None
    }

    pub(super) fn mark_outstanding(&mut self, slot: u32, batch: u32) {
        if let Some(known) = self.slots.get_mut(slot as usize).and_then(Option::as_mut) {
            known.outstanding_batch = batch;
        }
    }

    /// Ends that a record for the key of this slot is outstanding. `written` is the repair that was committed, if one
    /// was.
    pub(super) fn settled(&mut self, slot: u32, batch: u32, written: Option<Repair>) {
        let Some(known) = self.slots.get_mut(slot as usize).and_then(Option::as_mut) else { return };
        if known.outstanding_batch != batch {
            return;
        }
        known.outstanding_batch = 0;
        if written == Some(Repair::End) {
            return self.remove(slot);
        }
        // If it was overtaken and its copy has not been read, another record may come after the copy too.
        self.repairs.push_back(slot);
    }

    /// Takes over progress that was committed, whether or not its record has been read.
    pub(super) fn committed(&mut self, new: KnownProgress) {
        match self.slot_of(&new.key) {
            Some(slot) => {
                let Some(known) = self.slots[slot as usize].as_mut() else { return };
                let order = |one: &KnownProgress| (one.origin_offset, one.progress.done);
                if order(&new) > order(known) {
                    *known = KnownProgress { outstanding_batch: known.outstanding_batch, ..new };
                }
            }
            None => {
                self.insert(new);
            }
        }
    }
}
