//! The last word on each key of a partition: the fold over its log.
//!
//! A user's record is the last word on its key until a newer one comes or an engine tombstone ends it. An engine
//! record that lies after a newer word has *overtaken* it: compaction may now drop the word, so it must be written again.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hasher};

use super::bugs::{self, Bug};
use super::index::Index;
use super::io::Millis;
use super::payload::Payload;
use super::reason::Reason;
pub use super::shelves::Size;
use super::shelves::{Shelf, Shelves};

/// First wait of a word that the broker refused; it doubles up to [`PARK_MS_MAX`].
const PARK_MS_MIN: i64 = 2_000;
/// Longest wait of a parked word, but for its share.
const PARK_MS_MAX: i64 = 64_000;
/// The wait grows no more after one try less.
const TRIES_MAX: u8 = 6;
/// Parked words come back in as many shares, each a quarter of the wait after the other.
const SHARES: u8 = 4;
/// Parked words that are woken in one turn, so that many of them do not hold up the loop.
const WAKE_MAX: usize = 10_000;

/// Slots below which tables are not worth shrinking.
const SHRINK_SLOTS_MIN: usize = 4_096;

/// A schedule that is larger than this fires apart from small ones while throughput is the limit.
const SMALL_BYTES_MAX: usize = 1_024;

/// What a word costs beside its payload: its slot, its place in the index, its links on a shelf, and what an allocation
/// takes for itself. Tables double as they grow, so that this is an average.
const WORD_BYTES: usize = 128;

/// An engine record lies after the word in the log.
const OUTRUN: u8 = 1;
/// The broker has refused it, alone or together with others, and nobody says why.
const SUSPECT: u8 = 2;
/// It is given up: what is left to it is a dead letter.
const CONDEMNED: u8 = 4;
/// From here on, the reasons for which it was put off.
const PUT_OFF: u8 = 8;

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
    /// Of the bits above.
    flags: u8,
    wait: Wait,
    /// How often it has been parked.
    tries: u8,
    /// Why it was last put off.
    pub put_off: Option<Reason>,
}

/// Where a word waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// Nowhere: an engine record is outstanding, or it is silent.
    No,
    /// For its second.
    Due,
    /// For a batch of those that were refused together with it.
    Suspect,
    /// For its target.
    Held,
    /// For another try, because the broker refused its firing or its dead letter.
    Parked,
    /// For another try, because the broker refused to have it written again.
    Barred,
    /// For its dead letter.
    Letter,
}

impl Wait {
    fn is_parked(self) -> bool {
        !matches!(self, Self::No | Self::Due | Self::Suspect)
    }
}

impl<P> Word<P> {
    /// The second in which a schedule is due.
    pub fn due(&self) -> Option<u64> {
        match self.meaning {
            Meaning::Schedule { due, .. } => Some(due),
            Meaning::Cancel | Meaning::Unfit(_) => None,
        }
    }

    fn size(&self) -> Size
    where
        P: Payload,
    {
        if self.payload.size() > SMALL_BYTES_MAX { Size::Large } else { Size::Small }
    }

    /// Whether it waits for something else than its second.
    pub fn is_parked(&self) -> bool {
        self.wait.is_parked()
    }

    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    fn set(&mut self, flag: u8, on: bool) {
        self.flags = if on { self.flags | flag } else { self.flags & !flag };
    }

    /// How often it has been parked.
    pub fn tries(&self) -> u8 {
        self.tries
    }
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
    shelves: Shelves,
    /// When each shelf of parked words is next tried.
    racks: BTreeMap<(u8, u8), Millis>,
    /// Slots that may hold an outrun word; checked again when taken.
    outrun: VecDeque<u32>,
    /// Slots that may hold a cancel, until loading ends or no engine record can overtake it any more.
    cancels: Vec<u32>,
    /// Slots that may hold an unfit word, or a cancel that an engine record has overtaken, to be swept when loading ends.
    silent: Vec<u32>,
    /// How often entries have moved to other slots.
    moves: u8,
    loading: bool,
    pending: usize,
    parked: usize,
    /// What the words cost, as [`Words::bytes`] says.
    bytes: usize,
    /// Unfit words become dead letters.
    letters: bool,
    hash_seed: u64,
}

impl<P: Payload> Words<P> {
    /// No words yet, and loading. With `letters` unfit words are kept until their dead letters are written.
    pub fn new(hash_seed: u64, letters: bool) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            index: Index::default(),
            shelves: Shelves::default(),
            racks: BTreeMap::new(),
            outrun: VecDeque::new(),
            cancels: Vec::new(),
            silent: Vec::new(),
            moves: 0,
            loading: true,
            pending: 0,
            parked: 0,
            bytes: 0,
            letters,
            hash_seed,
        }
    }

    /// Schedules held.
    pub fn pending(&self) -> usize {
        self.pending
    }

    /// Bytes that the words cost: their packed payloads and [`WORD_BYTES`] each.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Words put off: parked, held for their target or waiting for their dead letter.
    pub fn parked(&self) -> usize {
        self.parked
    }

    /// Schedules of one size in due order, without those that are put off.
    pub fn by_due(&self, size: Size) -> impl Iterator<Item = &Word<P>> {
        self.shelves.due(size).map(|slot| self.word(slot))
    }

    /// Schedules due at or after `begin`, in due order.
    pub fn due_from(&self, begin: u64) -> impl Iterator<Item = &Word<P>> {
        self.shelves.due_from(begin).map(|slot| self.word(slot))
    }

    /// The last word on a key.
    pub fn of_key(&self, key: &[u8]) -> Option<&Word<P>> {
        self.find(key).and_then(|slot| self.get(slot))
    }

    /// The earliest second in which a schedule of one of these sizes is due.
    pub fn next_due(&self, sizes: &[Size]) -> Option<u64> {
        self.shelves.first_due(sizes).map(|(due, _)| due)
    }

    /// How many schedules are due at or before `second`.
    pub fn overdue(&self, second: u64) -> usize {
        self.shelves.count_before(second.saturating_add(1)) + self.shelves.count(Shelf::Suspect)
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
            let kept = match new.meaning {
                Meaning::Schedule { .. } => true,
                Meaning::Cancel => self.loading,
                Meaning::Unfit(_) => self.loading || self.letters,
            };
            if kept {
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
            std::cmp::Ordering::Greater
                if bugs::on(Bug::CopyRevivesCancelled) && self.word(slot).meaning == Meaning::Cancel =>
            {
                self.replace(slot, read());
                self.rest(slot);
            }
            std::cmp::Ordering::Less => {
                self.replace(slot, read());
                self.rest(slot);
            }
            std::cmp::Ordering::Equal => {
                self.word_mut(slot).set(OUTRUN, false);
                self.rest(slot);
            }
            std::cmp::Ordering::Greater => self.overtaken(slot),
        }
    }

    /// A barrier of our group is at `offset`. Its writer had read everything before it when it decided its first engine
    /// record, and former owners wrote nothing after it. So no engine record that is read from now on
    /// speaks for a word that a cancel before it has ended, and the cancel need not be remembered.
    pub fn passed_barrier(&mut self, offset: i64) {
        if !self.loading {
            return;
        }
        for slot in std::mem::take(&mut self.cancels) {
            let Some(word) = self.get(slot).filter(|word| word.meaning == Meaning::Cancel) else { continue };
            if word.has(OUTRUN) {
                self.silent.push(slot);
            } else if word.identity < offset && word.busy == 0 {
                self.remove(slot);
            } else {
                self.cancels.push(slot);
            }
        }
    }

    /// Ends loading: from now on cancels and unfit words that nothing has outrun are not kept. Returns the unfit ones.
    pub fn loaded(&mut self) -> Vec<(i64, Reason)> {
        self.loading = false;
        let mut unfit = Vec::new();
        let cancels = std::mem::take(&mut self.cancels);
        for slot in std::mem::take(&mut self.silent).into_iter().chain(cancels) {
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

    /// How often entries have moved to other slots: what was found by its slot before lies elsewhere now.
    pub fn moves(&self) -> u8 {
        self.moves
    }

    /// Gives back what tables hold beyond their entries, if no more than one place of `share` is in use. Entries move to
    /// other slots: nothing may be outstanding. True if it was done.
    pub fn shrink(&mut self, share: usize) -> bool {
        let used = self.slots.len() - self.free.len();
        if self.slots.len() < SHRINK_SLOTS_MIN || used > self.slots.len() / share {
            return false;
        }
        let mut places = vec![u32::MAX; self.slots.len()];
        let mut slots = Vec::with_capacity(used);
        let mut index = Index::default();
        for (old, word) in std::mem::take(&mut self.slots).into_iter().enumerate() {
            let Some(word) = word else { continue };
            debug_assert!(word.busy == 0, "nothing is outstanding");
            places[old] = slots.len() as u32;
            index.insert(self.hash(word.payload.key()), slots.len() as u32);
            slots.push(Some(word));
        }
        (self.slots, self.index, self.free) = (slots, index, Vec::new());
        self.shelves = self.shelves.moved(&places);
        // Entries that were removed meanwhile are still listed.
        let moved = |slot: u32| Some(places[slot as usize]).filter(|place| *place != u32::MAX);
        self.outrun = std::mem::take(&mut self.outrun).into_iter().filter_map(moved).collect();
        self.moves = self.moves.wrapping_add(1);
        true
    }

    /// Whether a word lies below `offset`, or its original does if it was written again.
    pub fn reaches_below(&self, offset: i64) -> bool {
        self.slots.iter().flatten().any(|word| word.identity < offset)
    }

    /// Drops the schedules below `offset` that are due before `end` (seconds since 1970), and counts them.
    pub fn drop_leftovers(&mut self, offset: i64, end: u64) -> u64 {
        let mut dropped = 0;
        for slot in self.shelves.due_before(end).collect::<Vec<_>>() {
            if self.word(slot).identity < offset {
                self.remove(slot);
                dropped += 1;
            }
        }
        dropped
    }

    /// Takes the first schedule of one of these sizes that is due at or before `second`. The caller must fire it or put it
    /// off.
    pub fn take_due(&mut self, second: u64, sizes: &[Size]) -> Option<u32> {
        let (_, slot) = self.shelves.first_due(sizes).filter(|(due, _)| *due <= second)?;
        self.unlink(slot);
        Some(slot)
    }

    /// Takes the next schedule that was refused together with others. The caller must fire it or put it off.
    pub fn take_suspect(&mut self, second: u64) -> Option<u32> {
        while let Some(slot) = self.shelves.first(Shelf::Suspect) {
            self.unlink(slot);
            if self.word(slot).due().is_some_and(|due| due <= second) {
                return Some(slot);
            }
            // The clock was set back since it was due.
            self.link(slot, Wait::Due);
        }
        None
    }

    /// Whether a schedule waits that was refused together with others.
    pub fn has_suspects(&self) -> bool {
        self.shelves.first(Shelf::Suspect).is_some()
    }

    /// The broker has refused this schedule, or one of its batch: from now on it fires apart from those it has not.
    pub fn suspect(&mut self, slot: u32, identity: i64) {
        if self.get(slot).is_some_and(|word| word.identity == identity) {
            self.word_mut(slot).set(SUSPECT, true);
            if self.word(slot).wait == Wait::Due {
                self.unlink(slot);
                self.rest(slot);
            }
        }
    }

    /// Takes the next word that waits for its dead letter. The caller must write that.
    pub fn take_letter(&mut self) -> Option<u32> {
        let slot = self.shelves.first(Shelf::Letter)?;
        self.unlink(slot);
        Some(slot)
    }

    /// Whether a word waits for its dead letter.
    pub fn has_letters(&self) -> bool {
        self.shelves.first(Shelf::Letter).is_some()
    }

    /// Takes the next outrun word that is free to be written again and is not due by `second`, when firing settles it.
    pub fn take_outrun(&mut self, second: u64) -> Option<u32> {
        while let Some(slot) = self.outrun.pop_front() {
            let Some(word) = self.get(slot) else { continue };
            let fires =
                matches!(word.meaning, Meaning::Schedule { due, .. } if due <= second) && word.wait == Wait::Due;
            if word.has(OUTRUN) && word.busy == 0 && word.wait != Wait::Barred && !fires {
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

    /// Lets a taken schedule wait for its target.
    pub fn hold(&mut self, slot: u32) {
        self.keep_back(slot, Wait::Held);
    }

    /// Keeps back a word whose firing or dead letter the broker refused. Returns when it is tried again.
    pub fn park(&mut self, slot: u32, now: Millis) -> Millis {
        self.keep_back(slot, Wait::Parked);
        self.retry_at(slot, now)
    }

    /// Forgets tries beyond these, so that the word does not wait longer. The caller must put it off.
    pub fn limit_tries(&mut self, slot: u32, tries_max: u8) {
        // Its shelf may follow from its tries.
        self.unlink(slot);
        let word = self.word_mut(slot);
        word.tries = word.tries.min(tries_max);
    }

    /// Keeps back a word that the broker refused to have written again. Returns when it is tried again.
    pub fn bar(&mut self, slot: u32, now: Millis) -> Millis {
        self.unlink(slot);
        self.link(slot, Wait::Barred);
        self.retry_at(slot, now)
    }

    /// Where a word cannot go must not keep it from being written again.
    fn keep_back(&mut self, slot: u32, wait: Wait) {
        self.unlink(slot);
        self.link(slot, wait);
        if self.word(slot).has(OUTRUN) {
            self.outrun.push_back(slot);
        }
    }

    fn retry_at(&mut self, slot: u32, now: Millis) -> Millis {
        let (tries, share) = self.rack(slot);
        let delay = (PARK_MS_MIN << tries).min(PARK_MS_MAX);
        if bugs::on(Bug::RefusedForgotten) {
            return now;
        }
        *self.racks.entry((tries, share)).or_insert(now.plus(delay + delay / i64::from(SHARES) * i64::from(share)))
    }

    /// Lets a word wait for its dead letter.
    pub fn condemn(&mut self, slot: u32) {
        self.word_mut(slot).set(CONDEMNED, true);
        self.keep_back(slot, Wait::Letter);
    }

    /// Notes why a word is put off. True the first time for each reason.
    pub fn put_off(&mut self, slot: u32, reason: Reason) -> bool {
        let flag = PUT_OFF
            << match reason {
                Reason::UnknownTarget => 0,
                Reason::Forbidden => 1,
                Reason::TooLarge => 2,
                Reason::NoLeader => 3,
                _ => 4,
            };
        let word = self.word_mut(slot);
        let news = !word.has(flag);
        word.set(flag, true);
        word.put_off = Some(reason);
        news
    }

    /// The targets of all schedules, with repeats.
    pub fn targets(&self) -> impl Iterator<Item = u32> {
        self.slots.iter().flatten().filter_map(|word| match word.meaning {
            Meaning::Schedule { target, .. } => Some(target),
            _ => None,
        })
    }

    /// The schedules that wait for this target.
    pub fn held(&self, target: u32) -> impl Iterator<Item = u32> {
        self.shelves.on(Shelf::Held(target))
    }

    /// Wakes the schedules that wait for this target.
    pub fn wake_held(&mut self, target: u32) {
        while let Some(slot) = self.shelves.first(Shelf::Held(target)) {
            self.wake(slot);
        }
    }

    /// Wakes parked words whose time has come, at most [`WAKE_MAX`] at once.
    pub fn wake_parked(&mut self, now: Millis) {
        let mut woken = 0;
        for (tries, share) in self.racks.iter().filter(|(_, at)| **at <= now).map(|(rack, _)| *rack).collect::<Vec<_>>()
        {
            while let Some(slot) = self.shelves.first(Shelf::Parked(tries, share)) {
                if woken == WAKE_MAX {
                    return;
                }
                woken += 1;
                self.unlink(slot);
                let word = self.word_mut(slot);
                // The last two shelves take turns, so that what is parked again meanwhile is not woken at once.
                word.tries = if word.tries == TRIES_MAX { TRIES_MAX - 1 } else { word.tries + 1 };
                self.wake(slot);
            }
            self.racks.remove(&(tries, share));
        }
    }

    /// When parked words are next to be woken.
    pub fn next_wake(&self) -> Option<Millis> {
        self.racks.values().min().copied()
    }

    /// The clock was set back: parked words are woken that much earlier.
    pub fn set_back(&mut self, back_ms: i64) {
        self.racks.values_mut().for_each(|at| *at = at.plus(-back_ms));
    }

    fn wake(&mut self, slot: u32) {
        self.unlink(slot);
        if self.word(slot).has(OUTRUN) {
            self.outrun.push_back(slot);
        }
        self.rest(slot);
    }

    fn rack(&self, slot: u32) -> (u8, u8) {
        let word = self.word(slot);
        // Below SHARES, which fits.
        (word.tries, word.identity.rem_euclid(i64::from(SHARES)) as u8)
    }

    /// The batch was aborted: nothing is outstanding for the word any more.
    pub fn aborted(&mut self, slot: u32, batch: u32) {
        if self.get(slot).is_some_and(|w| w.busy == batch) {
            self.word_mut(slot).busy = 0;
            if self.word(slot).has(OUTRUN) {
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

    /// A word with nothing outstanding finds its place: a schedule with its second, a silent word only while it counts.
    fn rest(&mut self, slot: u32) {
        let word = self.word(slot);
        if word.busy != 0 || word.wait != Wait::No {
            return;
        }
        match word.meaning {
            Meaning::Schedule { .. } if word.has(CONDEMNED) => self.link(slot, Wait::Letter),
            Meaning::Schedule { .. } if word.has(SUSPECT) => self.link(slot, Wait::Suspect),
            Meaning::Schedule { .. } => self.link(slot, Wait::Due),
            Meaning::Cancel if bugs::on(Bug::CancelForgottenInLoading) => self.remove(slot),
            Meaning::Cancel if self.loading => self.cancels.push(slot),
            Meaning::Unfit(_) if self.loading => self.silent.push(slot),
            Meaning::Unfit(_) if self.letters => self.link(slot, Wait::Letter),
            Meaning::Cancel | Meaning::Unfit(_) if word.has(OUTRUN) => {}
            Meaning::Cancel | Meaning::Unfit(_) => self.remove(slot),
        }
    }

    /// An engine record lies after the word: it must be written again.
    fn overtaken(&mut self, slot: u32) {
        if !bugs::on(Bug::NoReassertion) {
            self.word_mut(slot).set(OUTRUN, true);
            self.outrun.push_back(slot);
        }
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
        let busy = if bugs::on(Bug::TwoOutstanding) { 0 } else { self.word(slot).busy };
        self.count(slot, -1);
        self.put(slot, new, busy);
    }

    fn put(&mut self, slot: u32, new: New<P>, busy: u32) {
        let New { identity, timestamp, meaning, payload } = new;
        self.slots[slot as usize] = Some(Word {
            identity,
            timestamp,
            meaning,
            payload,
            busy,
            flags: 0,
            wait: Wait::No,
            tries: 0,
            put_off: None,
        });
        self.count(slot, 1);
    }

    fn remove(&mut self, slot: u32) {
        self.unlink(slot);
        self.count(slot, -1);
        self.index.remove(self.hash(self.word(slot).payload.key()), slot);
        self.slots[slot as usize] = None;
        self.free.push(slot);
    }

    fn link(&mut self, slot: u32, wait: Wait) {
        self.word_mut(slot).wait = wait;
        if let Some(shelf) = self.shelf(slot) {
            self.shelves.insert(shelf, slot);
            self.parked += usize::from(wait.is_parked());
        }
    }

    fn unlink(&mut self, slot: u32) {
        if let Some(shelf) = self.shelf(slot) {
            self.shelves.remove(shelf, slot);
            self.parked -= usize::from(self.word(slot).is_parked());
        }
        self.word_mut(slot).wait = Wait::No;
    }

    /// Where a word lies follows from what it waits for.
    fn shelf(&self, slot: u32) -> Option<Shelf> {
        let word = self.word(slot);
        match (word.wait, word.meaning) {
            (Wait::Due, Meaning::Schedule { due, .. }) => Some(Shelf::Due(due, word.size())),
            (Wait::Suspect, _) => Some(Shelf::Suspect),
            (Wait::Held, Meaning::Schedule { target, .. }) => Some(Shelf::Held(target)),
            (Wait::Parked | Wait::Barred, _) => {
                let (tries, share) = self.rack(slot);
                Some(Shelf::Parked(tries, share))
            }
            (Wait::Letter, _) => Some(Shelf::Letter),
            (Wait::No | Wait::Due | Wait::Held, _) => None,
        }
    }

    fn count(&mut self, slot: u32, by: isize) {
        let word = self.word(slot);
        let bytes = (WORD_BYTES + word.payload.size()) as isize * by;
        if matches!(word.meaning, Meaning::Schedule { .. }) {
            self.pending = self.pending.saturating_add_signed(by);
        }
        self.bytes = self.bytes.saturating_add_signed(bytes);
    }

    fn hash(&self, key: &[u8]) -> u64 {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.hash_seed);
        hasher.write(key);
        hasher.finish()
    }

    fn word(&self, slot: u32) -> &Word<P> {
        self.get(slot).expect("the slot comes from the index, a shelf or a list that was checked")
    }

    fn word_mut(&mut self, slot: u32) -> &mut Word<P> {
        self.slots[slot as usize].as_mut().expect("the slot comes from the index, a shelf or a checked list")
    }
}
