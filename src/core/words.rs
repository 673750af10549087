//! The last word on each key of a partition: the fold over its log.
//!
//! A user's record is the last word on its key until a newer one comes or an engine tombstone ends it. An engine
//! record that lies behind a newer word has *outrun* it: compaction may now drop the word, so it must be written again.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hasher};

use super::index::Index;
use super::io::Millis;
use super::payload::Payload;
use super::reason::Reason;
use super::timeline::Timeline;

/// What a user's last word on a key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Fire it.
    Schedule {
        /// Seconds since 1970.
        due: u64,
        /// Interned topic.
        target: u32,
    },
    /// Forget what came before.
    Cancel,
    /// Neither: it ends earlier words like a cancel, and stays in the log.
    Unfit(Reason),
}

/// A word that was just read.
#[derive(Debug)]
pub struct New<P> {
    /// Offset of the user's record.
    pub identity: i64,
    /// Its timestamp.
    pub timestamp: Millis,
    /// What it says.
    pub meaning: Meaning,
    /// Its bytes; for a cancel the key alone.
    pub payload: P,
}

/// The last word on a key.
#[derive(Debug)]
pub struct Word<P> {
    /// Offset of the user's record.
    pub identity: i64,
    /// Its timestamp.
    pub timestamp: Millis,
    /// What it says.
    pub meaning: Meaning,
    /// Its bytes.
    pub payload: P,
    /// The batch with the engine record that is outstanding for the key; 0 where none is.
    busy: u32,
    /// An engine record lies behind it in the log.
    outrun: bool,
    wait: Wait,
}

/// Where a schedule waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// Nowhere: an engine record is outstanding, or it is no schedule.
    No,
    /// In the timeline.
    Due,
    /// With its target, which will wake it.
    Held,
    /// On its own, because the broker refused it: it is neither fired nor written again until it is woken.
    Parked,
}

/// How a user's record changed the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The record replaced or cancelled a schedule that was still to fire.
    pub ended_pending: bool,
}

/// Every word of one partition.
#[derive(Debug)]
pub struct Words<P> {
    slots: Vec<Option<Word<P>>>,
    free: Vec<u32>,
    index: Index,
    timeline: Timeline,
    /// Slots that may hold an outrun word; checked again when taken.
    outrun: VecDeque<u32>,
    /// Slots that may hold a cancel or an unfit word, to be swept when loading ends.
    silent: Vec<u32>,
    loading: bool,
    pending: usize,
    hash_seed: u64,
}

impl<P: Payload> Words<P> {
    /// No words yet, and loading.
    pub fn new(hash_seed: u64) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            index: Index::default(),
            timeline: Timeline::default(),
            outrun: VecDeque::new(),
            silent: Vec::new(),
            loading: true,
            pending: 0,
            hash_seed,
        }
    }

    /// Schedules held.
    pub fn pending(&self) -> usize {
        self.pending
    }

    /// The earliest second in which something is due.
    pub fn next_due(&self) -> Option<u64> {
        self.timeline.first().map(|(due, _)| due)
    }

    /// How many schedules are due at or before `second`.
    pub fn overdue(&self, second: u64) -> usize {
        self.timeline.count_until(second)
    }

    /// Slots in use are among these.
    pub fn slots(&self) -> u32 {
        self.slots.len() as u32
    }

    /// The word in a slot.
    pub fn get(&self, slot: u32) -> Option<&Word<P>> {
        self.slots.get(slot as usize)?.as_ref()
    }

    /// Takes in a user's record: it is the new last word.
    pub fn user(&mut self, new: New<P>) -> Change {
        let Some(slot) = self.find(new.payload.key()) else {
            if self.loading || matches!(new.meaning, Meaning::Schedule { .. }) {
                let slot = self.insert(new);
                self.rest(slot);
            }
            return Change { ended_pending: false };
        };
        let word = self.word(slot);
        let ended_pending = matches!(word.meaning, Meaning::Schedule { .. }) && word.busy == 0;
        self.replace(slot, new);
        self.rest(slot);
        Change { ended_pending }
    }

    /// Takes in an engine tombstone that names `identity`: it ends every word up to that one.
    pub fn tombstone(&mut self, key: &[u8], identity: i64) {
        let Some(slot) = self.find(key) else { return };
        self.word_mut(slot).busy = 0;
        if self.word(slot).identity <= identity {
            self.remove(slot);
        } else {
            self.overtaken(slot);
        }
    }

    /// Takes in an engine copy. `read` gives its word, where that is not known already.
    pub fn copy(&mut self, key: &[u8], identity: i64, read: impl FnOnce() -> New<P>) {
        let Some(slot) = self.find(key) else {
            let slot = self.insert(read());
            return self.rest(slot);
        };
        self.word_mut(slot).busy = 0;
        match self.word(slot).identity.cmp(&identity) {
            std::cmp::Ordering::Less => {
                self.replace(slot, read());
                self.rest(slot);
            }
            std::cmp::Ordering::Equal => {
                self.word_mut(slot).outrun = false;
                self.rest(slot);
            }
            std::cmp::Ordering::Greater => self.overtaken(slot),
        }
    }

    /// Ends loading: from now on cancels and unfit words that nothing has outrun are not kept. Returns the unfit ones.
    pub fn loaded(&mut self) -> Vec<(i64, Reason)> {
        self.loading = false;
        let mut unfit = Vec::new();
        for slot in std::mem::take(&mut self.silent) {
            let Some(word) = self.get(slot) else { continue };
            if let Meaning::Unfit(reason) = word.meaning {
                unfit.push((word.identity, reason));
            }
            self.rest(slot);
        }
        // A slot that was used twice is listed twice.
        unfit.sort_unstable_by_key(|(identity, _)| *identity);
        unfit.dedup();
        unfit
    }

    /// Drops the schedules below `offset` that are due before `end` (seconds since 1970), and counts them.
    pub fn drop_leftovers(&mut self, offset: i64, end: u64) -> u64 {
        let mut dropped = 0;
        for slot in self.timeline.before(end) {
            if self.word(slot).identity < offset {
                self.remove(slot);
                dropped += 1;
            }
        }
        dropped
    }

    /// Takes the first schedule due at or before `second` out of the timeline. The caller must fire it or hold it.
    pub fn take_due(&mut self, second: u64) -> Option<u32> {
        let (due, slot) = self.timeline.first().filter(|(due, _)| *due <= second)?;
        self.timeline.remove(due, slot);
        self.word_mut(slot).wait = Wait::No;
        Some(slot)
    }

    /// Takes the next outrun word that is free to be written again and is not due by `second`, when firing settles it.
    pub fn take_outrun(&mut self, second: u64) -> Option<u32> {
        while let Some(slot) = self.outrun.pop_front() {
            let Some(word) = self.get(slot) else { continue };
            let fires =
                matches!(word.meaning, Meaning::Schedule { due, .. } if due <= second) && word.wait == Wait::Due;
            if word.outrun && word.busy == 0 && word.wait != Wait::Parked && !fires {
                self.unlink(slot);
                return Some(slot);
            }
        }
        None
    }

    /// Whether an outrun word may be waiting.
    pub fn has_outrun(&self) -> bool {
        !self.outrun.is_empty()
    }

    /// An engine record for this word is decided, in batch `batch`.
    pub fn decided(&mut self, slot: u32, batch: u32) {
        let word = self.word_mut(slot);
        debug_assert!(word.busy == 0 && word.wait == Wait::No, "one engine record for a key at a time");
        word.busy = batch;
    }

    /// Puts a taken schedule with whoever will wake it.
    pub fn hold(&mut self, slot: u32) {
        self.unlink(slot);
        let word = self.word_mut(slot);
        word.wait = Wait::Held;
        if word.outrun {
            // Firing would have settled this; now it has to be written again.
            self.outrun.push_back(slot);
        }
    }

    /// Keeps back a word that the broker refused, until it is woken.
    pub fn park(&mut self, slot: u32) {
        self.unlink(slot);
        self.word_mut(slot).wait = Wait::Parked;
    }

    /// Wakes a held or parked word, if it is still the one that was kept back. Returns whether it was.
    pub fn wake(&mut self, slot: u32, identity: i64) -> bool {
        let kept_back =
            |w: &Word<P>| w.identity == identity && w.busy == 0 && matches!(w.wait, Wait::Held | Wait::Parked);
        if !self.get(slot).is_some_and(kept_back) {
            return false;
        }
        self.word_mut(slot).wait = Wait::No;
        if self.word(slot).outrun {
            self.outrun.push_back(slot);
        }
        self.rest(slot);
        true
    }

    /// The batch was aborted: nothing is outstanding for the word any more.
    pub fn aborted(&mut self, slot: u32, batch: u32) {
        if self.get(slot).is_some_and(|w| w.busy == batch) {
            self.word_mut(slot).busy = 0;
            if self.word(slot).outrun {
                self.outrun.push_back(slot);
            }
            self.rest(slot);
        }
    }

    /// The consumer has read past the batch's records. What is still outstanding was compacted away before we read it,
    /// which takes a newer record for the key, or a tombstone that has served its time.
    pub fn read_past(&mut self, slot: u32, identity: i64, batch: u32, ended: bool) {
        let Some(word) = self.get(slot).filter(|w| w.busy == batch) else { return };
        if ended && word.identity == identity {
            self.remove(slot);
        } else {
            self.word_mut(slot).busy = 0;
            self.rest(slot);
        }
    }

    /// A word with nothing outstanding finds its place: a schedule in the timeline, a silent word only while it counts.
    fn rest(&mut self, slot: u32) {
        let loading = self.loading;
        let word = self.word_mut(slot);
        if word.busy != 0 || word.wait != Wait::No {
            return;
        }
        match word.meaning {
            Meaning::Schedule { due, .. } => {
                word.wait = Wait::Due;
                self.timeline.insert(due, slot);
            }
            Meaning::Cancel | Meaning::Unfit(_) if loading => self.silent.push(slot),
            Meaning::Cancel | Meaning::Unfit(_) if word.outrun => {}
            Meaning::Cancel | Meaning::Unfit(_) => self.remove(slot),
        }
    }

    /// An engine record lies behind the word: it must be written again.
    fn overtaken(&mut self, slot: u32) {
        self.word_mut(slot).outrun = true;
        self.outrun.push_back(slot);
        self.rest(slot);
    }

    fn find(&self, key: &[u8]) -> Option<u32> {
        self.index.find(self.hash(key), |slot| self.word(slot).payload.key() == key)
    }

    fn insert(&mut self, new: New<P>) -> u32 {
        let hash = self.hash(new.payload.key());
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() as u32 - 1
        });
        self.index.insert(hash, slot);
        self.put(slot, new, 0);
        slot
    }

    fn replace(&mut self, slot: u32, new: New<P>) {
        self.unlink(slot);
        let busy = self.word(slot).busy;
        self.count(slot, -1);
        self.put(slot, new, busy);
    }

    fn put(&mut self, slot: u32, new: New<P>, busy: u32) {
        let New { identity, timestamp, meaning, payload } = new;
        self.slots[slot as usize] =
            Some(Word { identity, timestamp, meaning, payload, busy, outrun: false, wait: Wait::No });
        self.count(slot, 1);
    }

    fn remove(&mut self, slot: u32) {
        self.unlink(slot);
        self.count(slot, -1);
        self.index.remove(self.hash(self.word(slot).payload.key()), slot);
        self.slots[slot as usize] = None;
        self.free.push(slot);
    }

    fn unlink(&mut self, slot: u32) {
        let word = self.word_mut(slot);
        let waited = std::mem::replace(&mut word.wait, Wait::No);
        if let (Wait::Due, Meaning::Schedule { due, .. }) = (waited, word.meaning) {
            self.timeline.remove(due, slot);
        }
    }

    fn count(&mut self, slot: u32, by: isize) {
        if matches!(self.word(slot).meaning, Meaning::Schedule { .. }) {
            self.pending = self.pending.saturating_add_signed(by);
        }
    }

    fn hash(&self, key: &[u8]) -> u64 {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.hash_seed);
        hasher.write(key);
        hasher.finish()
    }

    fn word(&self, slot: u32) -> &Word<P> {
        self.get(slot).expect("the slot comes from the index, the timeline or a list that was checked")
    }

    fn word_mut(&mut self, slot: u32) -> &mut Word<P> {
        self.slots[slot as usize].as_mut().expect("the slot comes from the index, the timeline or a checked list")
    }
}
