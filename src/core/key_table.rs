//! The last word on each key of a partition: the fold over its log.
//!
//! A user's record is the last word on its key until a newer one comes or an engine tombstone ends it. An engine
//! record that lies after a newer word has *overtaken* it: compaction may now drop the word, so it must be written again.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hasher};

use super::bugs::{self, Bug};
use super::io::Millis;
use super::key_index::Index;
use super::payload::Payload;
use super::reason::Reason;
pub use super::wait_queues::Size;
use super::wait_queues::{Queue, WaitQueues};

/// First wait of a word that the broker refused; it doubles up to [`PARK_MS_MAX`].
const PARK_MS_MIN: i64 = 2_000;
/// Longest wait of a parked word, but for its share.
const PARK_MS_MAX: i64 = 64_000;
/// The wait grows no more after one try less.
const TRIES_MAX: u8 = 6;
/// Parked words come back in as many shares, each a quarter of the wait after the other.
const JITTER_SLOTS: u8 = 4;
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
const NEEDS_REWRITE: u8 = 1;
/// The broker has refused it, alone or together with others, and nobody says why.
const QUARANTINED: u8 = 2;
/// It is given up: what is left to it is a dead letter.
const TO_DEAD_LETTER: u8 = 4;
/// From here on, the reasons for which it was put off.
const FIRST_REASON: u8 = 8;

/// What a user's last word on a key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
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
    Invalid(Reason),
}

/// A word that was just read.
#[derive(Debug)]
pub struct NewEntry<P> {
    /// Offset of the user's record.
    pub origin_offset: i64,
    /// Its timestamp.
    pub timestamp: Millis,
    /// What it says.
    pub request: Request,
    /// Its bytes; for a cancel the key alone.
    pub payload: P,
}

/// The last word on a key.
#[derive(Debug)]
pub struct KeyEntry<P> {
    /// Offset of the user's record.
    pub origin_offset: i64,
    /// Its timestamp.
    pub timestamp: Millis,
    /// What it says.
    pub request: Request,
    /// Its bytes.
    pub payload: P,
    /// The batch with the engine record that is outstanding for the key; 0 where none is.
    in_flight_batch: u32,
    /// Of the bits above.
    flags: u8,
    wait: Wait,
    /// How often it has been parked.
    tries: u8,
    /// Why it was last put off.
    pub deferred: Option<Reason>,
}

/// Where a word waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// Nowhere: an engine record is outstanding, or it is silent.
    No,
    /// For its second.
    Due,
    /// For a batch of those that were refused together with it.
    Quarantined,
    /// For its target.
    Target,
    /// For another try, because the broker refused its firing or its dead letter.
    Parked,
    /// For another try, because the broker refused to have it written again.
    Rewrite,
    /// For its dead letter.
    DeadLetter,
}

impl Wait {
    fn is_parked(self) -> bool {
        !matches!(self, Self::No | Self::Due | Self::Quarantined)
    }
}

impl<P> KeyEntry<P> {
    /// The second in which a schedule is due.
    pub fn due(&self) -> Option<u64> {
        match self.request {
            Request::Schedule { due, .. } => Some(due),
            Request::Cancel | Request::Invalid(_) => None,
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
pub struct KeyTable<P> {
    slots: Vec<Option<KeyEntry<P>>>,
    free: Vec<u32>,
    index: Index,
    queues: WaitQueues,
    /// When each shelf of parked words is next tried.
    retry_times: BTreeMap<(u8, u8), Millis>,
    /// Slots that may hold an outrun word; checked again when taken.
    rewrites: VecDeque<u32>,
    /// Slots that may hold a cancel, until loading ends or no engine record can overtake it any more.
    cancels: Vec<u32>,
    /// Slots that may hold an unfit word, or a cancel that an engine record has overtaken, to be swept when loading ends.
    non_schedules: Vec<u32>,
    /// How often entries have moved to other slots.
    moves: u8,
    loading: bool,
    pending: usize,
    parked: usize,
    /// What the words cost, as [`KeyTable::bytes`] says.
    bytes: usize,
    /// Unfit words become dead letters.
    dead_letters: bool,
    hash_seed: u64,
}

impl<P: Payload> KeyTable<P> {
    /// No words yet, and loading. With `dead_letters` unfit words are kept until their dead letters are written.
    pub fn new(hash_seed: u64, dead_letters: bool) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            index: Index::default(),
            queues: WaitQueues::default(),
            retry_times: BTreeMap::new(),
            rewrites: VecDeque::new(),
            cancels: Vec::new(),
            non_schedules: Vec::new(),
            moves: 0,
            loading: true,
            pending: 0,
            parked: 0,
            bytes: 0,
            dead_letters,
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
    pub fn by_due(&self, size: Size) -> impl Iterator<Item = &KeyEntry<P>> {
        self.queues.due(size).map(|slot| self.entry(slot))
    }

    /// Schedules due at or after `begin`, in due order.
    pub fn due_from(&self, begin: u64) -> impl Iterator<Item = &KeyEntry<P>> {
        self.queues.due_from(begin).map(|slot| self.entry(slot))
    }

    /// The last word on a key.
    pub fn of_key(&self, key: &[u8]) -> Option<&KeyEntry<P>> {
        self.find(key).and_then(|slot| self.get(slot))
    }

    /// The earliest second in which a schedule of one of these sizes is due.
    pub fn next_due(&self, sizes: &[Size]) -> Option<u64> {
        self.queues.first_due(sizes).map(|(due, _)| due)
    }

    /// How many schedules are due at or before `second`.
    pub fn overdue(&self, second: u64) -> usize {
        self.queues.count_before(second.saturating_add(1)) + self.queues.count(Queue::Quarantined)
    }

    /// Slots in use are among these.
    pub fn slots(&self) -> u32 {
        self.slots.len() as u32
    }

    /// The word in a slot.
    pub fn get(&self, slot: u32) -> Option<&KeyEntry<P>> {
        self.slots.get(slot as usize)?.as_ref()
    }

    /// Takes in a user's record: it is the new last word.
    pub fn user(&mut self, new: NewEntry<P>) -> Change {
        let Some(slot) = self.find(new.payload.key()) else {
            let kept = match new.request {
                Request::Schedule { .. } => true,
                Request::Cancel => self.loading,
                Request::Invalid(_) => self.loading || self.dead_letters,
            };
            if kept {
                let slot = self.insert(new);
                self.requeue(slot);
            }
            return Change { ended_pending: false };
        };
        let entry = self.entry(slot);
        let ended_pending = matches!(entry.request, Request::Schedule { .. }) && entry.in_flight_batch == 0;
        self.replace(slot, new);
        self.requeue(slot);
        Change { ended_pending }
    }

    /// Takes in an engine tombstone that names `origin_offset`: it ends every word up to that one.
    pub fn tombstone(&mut self, key: &[u8], origin_offset: i64) {
        let Some(slot) = self.find(key) else { return };
        self.entry_mut(slot).in_flight_batch = 0;
        if self.entry(slot).origin_offset <= origin_offset {
            self.remove(slot);
        } else {
            self.overtaken(slot);
        }
    }

    /// Takes in an engine copy. `read` gives its word, where that is not known already.
    pub fn copy(&mut self, key: &[u8], origin_offset: i64, read: impl FnOnce() -> NewEntry<P>) {
        let Some(slot) = self.find(key) else {
            let slot = self.insert(read());
            return self.requeue(slot);
        };
        self.entry_mut(slot).in_flight_batch = 0;
        match self.entry(slot).origin_offset.cmp(&origin_offset) {
            std::cmp::Ordering::Greater
                if bugs::on(Bug::CopyRevivesCancelled) && self.entry(slot).request == Request::Cancel =>
            {
                self.replace(slot, read());
                self.requeue(slot);
            }
            std::cmp::Ordering::Less => {
                self.replace(slot, read());
                self.requeue(slot);
            }
            std::cmp::Ordering::Equal => {
                self.entry_mut(slot).set(NEEDS_REWRITE, false);
                self.requeue(slot);
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
            let Some(entry) = self.get(slot).filter(|entry| entry.request == Request::Cancel) else { continue };
            if entry.has(NEEDS_REWRITE) {
                self.non_schedules.push(slot);
            } else if entry.origin_offset < offset && entry.in_flight_batch == 0 {
                self.remove(slot);
            } else {
                self.cancels.push(slot);
            }
        }
    }

    /// Ends loading: from now on cancels and unfit words that nothing has outrun are not kept. Returns the unfit ones.
    pub fn loaded(&mut self) -> Vec<(i64, Reason)> {
        self.loading = false;
        let mut invalid = Vec::new();
        let cancels = std::mem::take(&mut self.cancels);
        for slot in std::mem::take(&mut self.non_schedules).into_iter().chain(cancels) {
            let Some(entry) = self.get(slot) else { continue };
            if let Request::Invalid(reason) = entry.request {
                invalid.push((entry.origin_offset, reason));
            }
            self.requeue(slot);
        }
        // A slot that was used twice is listed twice.
        invalid.sort_unstable_by_key(|(origin_offset, _)| *origin_offset);
        invalid.dedup();
        invalid
    }

    /// How often entries have moved to other slots: what was found by its slot before lies elsewhere now.
    pub fn moves(&self) -> u8 {
        self.moves
    }

    /// Gives back what tables hold beyond their entries, if no more than one place of `jitter_slot` is in use. Entries move to
    /// other slots: nothing may be outstanding. True if it was done.
    pub fn shrink(&mut self, jitter_slot: usize) -> bool {
        let used = self.slots.len() - self.free.len();
        if self.slots.len() < SHRINK_SLOTS_MIN || used > self.slots.len() / jitter_slot {
            return false;
        }
        let mut places = vec![u32::MAX; self.slots.len()];
        let mut slots = Vec::with_capacity(used);
        let mut index = Index::default();
        for (old, entry) in std::mem::take(&mut self.slots).into_iter().enumerate() {
            let Some(entry) = entry else { continue };
            debug_assert!(entry.in_flight_batch == 0, "nothing is outstanding");
            places[old] = slots.len() as u32;
            index.insert(self.hash(entry.payload.key()), slots.len() as u32);
            slots.push(Some(entry));
        }
        (self.slots, self.index, self.free) = (slots, index, Vec::new());
        self.queues = self.queues.moved(&places);
        // Entries that were removed meanwhile are still listed.
        let moved = |slot: u32| Some(places[slot as usize]).filter(|partition_hash| *partition_hash != u32::MAX);
        self.rewrites = std::mem::take(&mut self.rewrites).into_iter().filter_map(moved).collect();
        self.moves = self.moves.wrapping_add(1);
        true
    }

    /// Whether a word lies below `offset`, or its original does if it was written again.
    pub fn reaches_below(&self, offset: i64) -> bool {
        self.slots.iter().flatten().any(|entry| entry.origin_offset < offset)
    }

    /// Drops the schedules below `offset` that are due before `end` (seconds since 1970), and counts them.
    pub fn drop_leftovers(&mut self, offset: i64, end: u64) -> u64 {
        let mut dropped = 0;
        for slot in self.queues.due_before(end).collect::<Vec<_>>() {
            if self.entry(slot).origin_offset < offset {
                self.remove(slot);
                dropped += 1;
            }
        }
        dropped
    }

    /// Takes the first schedule of one of these sizes that is due at or before `second`. The caller must fire it or put it
    /// off.
    pub fn take_due(&mut self, second: u64, sizes: &[Size]) -> Option<u32> {
        let (_, slot) = self.queues.first_due(sizes).filter(|(due, _)| *due <= second)?;
        self.unlink(slot);
        Some(slot)
    }

    /// Takes the next schedule that was refused together with others. The caller must fire it or put it off.
    pub fn take_quarantined(&mut self, second: u64) -> Option<u32> {
        while let Some(slot) = self.queues.first(Queue::Quarantined) {
            self.unlink(slot);
            if self.entry(slot).due().is_some_and(|due| due <= second) {
                return Some(slot);
            }
            // The clock was set back since it was due.
            self.link(slot, Wait::Due);
        }
        None
    }

    /// Whether a schedule waits that was refused together with others.
    pub fn has_quarantined(&self) -> bool {
        self.queues.first(Queue::Quarantined).is_some()
    }

    /// The broker has refused this schedule, or one of its batch: from now on it fires apart from those it has not.
    pub fn quarantine(&mut self, slot: u32, origin_offset: i64) {
        if self.get(slot).is_some_and(|entry| entry.origin_offset == origin_offset) {
            self.entry_mut(slot).set(QUARANTINED, true);
            if self.entry(slot).wait == Wait::Due {
                self.unlink(slot);
                self.requeue(slot);
            }
        }
    }

    /// Takes the next word that waits for its dead letter. The caller must write that.
    pub fn take_dead_letter(&mut self) -> Option<u32> {
        let slot = self.queues.first(Queue::DeadLetter)?;
        self.unlink(slot);
        Some(slot)
    }

    /// Whether a word waits for its dead letter.
    pub fn has_dead_letters(&self) -> bool {
        self.queues.first(Queue::DeadLetter).is_some()
    }

    /// Takes the next outrun word that is free to be written again and is not due by `second`, when firing settles it.
    pub fn take_rewrite(&mut self, second: u64) -> Option<u32> {
        while let Some(slot) = self.rewrites.pop_front() {
            let Some(entry) = self.get(slot) else { continue };
            let fires =
                matches!(entry.request, Request::Schedule { due, .. } if due <= second) && entry.wait == Wait::Due;
            if entry.has(NEEDS_REWRITE) && entry.in_flight_batch == 0 && entry.wait != Wait::Rewrite && !fires {
                self.unlink(slot);
                return Some(slot);
            }
        }
        None
    }

    /// Whether an outrun word may be waiting.
    pub fn has_rewrites(&self) -> bool {
        !self.rewrites.is_empty()
    }

    /// An engine record for this word is decided, in batch `batch`.
    pub fn decided(&mut self, slot: u32, batch: u32) {
        let entry = self.entry_mut(slot);
        debug_assert!(entry.in_flight_batch == 0 && entry.wait == Wait::No, "one engine record for a key at a time");
        entry.in_flight_batch = batch;
    }

    /// Lets a taken schedule wait for its target.
    pub fn await_target(&mut self, slot: u32) {
        self.defer(slot, Wait::Target);
    }

    /// Keeps back a word whose firing or dead letter the broker refused. Returns when it is tried again.
    pub fn park(&mut self, slot: u32, now: Millis) -> Millis {
        self.defer(slot, Wait::Parked);
        self.retry_at(slot, now)
    }

    /// Forgets tries beyond these, so that the word does not wait longer. The caller must put it off.
    pub fn limit_tries(&mut self, slot: u32, tries_max: u8) {
        // Its shelf may follow from its tries.
        self.unlink(slot);
        let entry = self.entry_mut(slot);
        entry.tries = entry.tries.min(tries_max);
    }

    /// Keeps back a word that the broker refused to have written again. Returns when it is tried again.
    pub fn defer_rewrite(&mut self, slot: u32, now: Millis) -> Millis {
        self.unlink(slot);
        self.link(slot, Wait::Rewrite);
        self.retry_at(slot, now)
    }

    /// Where a word cannot go must not keep it from being written again.
    fn defer(&mut self, slot: u32, wait: Wait) {
        self.unlink(slot);
        self.link(slot, wait);
        if self.entry(slot).has(NEEDS_REWRITE) {
            self.rewrites.push_back(slot);
        }
    }

    fn retry_at(&mut self, slot: u32, now: Millis) -> Millis {
        let (tries, jitter_slot) = self.retry_slot(slot);
        let delay = (PARK_MS_MIN << tries).min(PARK_MS_MAX);
        if bugs::on(Bug::RefusedForgotten) {
            return now;
        }
        *self
            .retry_times
            .entry((tries, jitter_slot))
            .or_insert(now.plus(delay + delay / i64::from(JITTER_SLOTS) * i64::from(jitter_slot)))
    }

    /// Lets a word wait for its dead letter.
    pub fn await_dead_letter(&mut self, slot: u32) {
        self.entry_mut(slot).set(TO_DEAD_LETTER, true);
        self.defer(slot, Wait::DeadLetter);
    }

    /// Notes why a word is put off. True the first time for each reason.
    pub fn deferred(&mut self, slot: u32, reason: Reason) -> bool {
        let flag = FIRST_REASON
            << match reason {
                Reason::UnknownTarget => 0,
                Reason::Forbidden => 1,
                Reason::TooLarge => 2,
                Reason::NoLeader => 3,
                _ => 4,
            };
        let entry = self.entry_mut(slot);
        let news = !entry.has(flag);
        entry.set(flag, true);
        entry.deferred = Some(reason);
        news
    }

    /// The targets of all schedules, with repeats.
    pub fn targets(&self) -> impl Iterator<Item = u32> {
        self.slots.iter().flatten().filter_map(|entry| match entry.request {
            Request::Schedule { target, .. } => Some(target),
            _ => None,
        })
    }

    /// The schedules that wait for this target.
    pub fn waiting_for(&self, target: u32) -> impl Iterator<Item = u32> {
        self.queues.on(Queue::Target(target))
    }

    /// Wakes the schedules that wait for this target.
    pub fn wake_waiting_for(&mut self, target: u32) {
        while let Some(slot) = self.queues.first(Queue::Target(target)) {
            self.wake(slot);
        }
    }

    /// Wakes parked words whose time has come, at most [`WAKE_MAX`] at once.
    pub fn wake_parked(&mut self, now: Millis) {
        let mut woken = 0;
        for (tries, jitter_slot) in
            self.retry_times.iter().filter(|(_, at)| **at <= now).map(|(retry_slot, _)| *retry_slot).collect::<Vec<_>>()
        {
            while let Some(slot) = self.queues.first(Queue::Parked(tries, jitter_slot)) {
                if woken == WAKE_MAX {
                    return;
                }
                woken += 1;
                self.unlink(slot);
                let entry = self.entry_mut(slot);
                // The last two shelves take turns, so that what is parked again meanwhile is not woken at once.
                entry.tries = if entry.tries == TRIES_MAX { TRIES_MAX - 1 } else { entry.tries + 1 };
                self.wake(slot);
            }
            self.retry_times.remove(&(tries, jitter_slot));
        }
    }

    /// When parked words are next to be woken.
    pub fn next_wake(&self) -> Option<Millis> {
        self.retry_times.values().min().copied()
    }

    /// The clock was set back: parked words are woken that much earlier.
    pub fn set_back(&mut self, back_ms: i64) {
        self.retry_times.values_mut().for_each(|at| *at = at.plus(-back_ms));
    }

    fn wake(&mut self, slot: u32) {
        self.unlink(slot);
        if self.entry(slot).has(NEEDS_REWRITE) {
            self.rewrites.push_back(slot);
        }
        self.requeue(slot);
    }

    fn retry_slot(&self, slot: u32) -> (u8, u8) {
        let entry = self.entry(slot);
        // Below SHARES, which fits.
        (entry.tries, entry.origin_offset.rem_euclid(i64::from(JITTER_SLOTS)) as u8)
    }

    /// The batch was aborted: nothing is outstanding for the word any more.
    pub fn aborted(&mut self, slot: u32, batch: u32) {
        if self.get(slot).is_some_and(|w| w.in_flight_batch == batch) {
            self.entry_mut(slot).in_flight_batch = 0;
            if self.entry(slot).has(NEEDS_REWRITE) {
                self.rewrites.push_back(slot);
            }
            self.requeue(slot);
        }
    }

    /// The consumer has read past the batch's records. What is still outstanding was compacted away before we read it,
    /// which takes a newer record for the key, or a tombstone that has served its time.
    pub fn read_past(&mut self, slot: u32, origin_offset: i64, batch: u32, ended: bool) {
        let Some(entry) = self.get(slot).filter(|w| w.in_flight_batch == batch) else { return };
        if ended && entry.origin_offset == origin_offset {
            self.remove(slot);
        } else {
            self.entry_mut(slot).in_flight_batch = 0;
            self.requeue(slot);
        }
    }

    /// A word with nothing outstanding finds its place: a schedule with its second, a silent word only while it counts.
    fn requeue(&mut self, slot: u32) {
        let entry = self.entry(slot);
        if entry.in_flight_batch != 0 || entry.wait != Wait::No {
            return;
        }
        match entry.request {
            Request::Schedule { .. } if entry.has(TO_DEAD_LETTER) => self.link(slot, Wait::DeadLetter),
            Request::Schedule { .. } if entry.has(QUARANTINED) => self.link(slot, Wait::Quarantined),
            Request::Schedule { .. } => self.link(slot, Wait::Due),
            Request::Cancel if bugs::on(Bug::CancelForgottenInLoading) => self.remove(slot),
            Request::Cancel if self.loading => self.cancels.push(slot),
            Request::Invalid(_) if self.loading => self.non_schedules.push(slot),
            Request::Invalid(_) if self.dead_letters => self.link(slot, Wait::DeadLetter),
            Request::Cancel | Request::Invalid(_) if entry.has(NEEDS_REWRITE) => {}
            Request::Cancel | Request::Invalid(_) => self.remove(slot),
        }
    }

    /// An engine record lies after the word: it must be written again.
    fn overtaken(&mut self, slot: u32) {
        if !bugs::on(Bug::NoReassertion) {
            self.entry_mut(slot).set(NEEDS_REWRITE, true);
            self.rewrites.push_back(slot);
        }
        self.requeue(slot);
    }

    fn find(&self, key: &[u8]) -> Option<u32> {
        self.index.find(self.hash(key), |slot| self.entry(slot).payload.key() == key)
    }

    fn insert(&mut self, new: NewEntry<P>) -> u32 {
        let hash = self.hash(new.payload.key());
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() as u32 - 1
        });
        self.index.insert(hash, slot);
        self.put(slot, new, 0);
        slot
    }

    fn replace(&mut self, slot: u32, new: NewEntry<P>) {
        self.unlink(slot);
        let in_flight_batch = if bugs::on(Bug::TwoOutstanding) { 0 } else { self.entry(slot).in_flight_batch };
        self.count(slot, -1);
        self.put(slot, new, in_flight_batch);
    }

    fn put(&mut self, slot: u32, new: NewEntry<P>, in_flight_batch: u32) {
        let NewEntry { origin_offset, timestamp, request, payload } = new;
        self.slots[slot as usize] = Some(KeyEntry {
            origin_offset,
            timestamp,
            request,
            payload,
            in_flight_batch,
            flags: 0,
            wait: Wait::No,
            tries: 0,
            deferred: None,
        });
        self.count(slot, 1);
    }

    fn remove(&mut self, slot: u32) {
        self.unlink(slot);
        self.count(slot, -1);
        self.index.remove(self.hash(self.entry(slot).payload.key()), slot);
        self.slots[slot as usize] = None;
        self.free.push(slot);
    }

    fn link(&mut self, slot: u32, wait: Wait) {
        self.entry_mut(slot).wait = wait;
        if let Some(queue) = self.queue(slot) {
            self.queues.insert(queue, slot);
            self.parked += usize::from(wait.is_parked());
        }
    }

    fn unlink(&mut self, slot: u32) {
        if let Some(queue) = self.queue(slot) {
            self.queues.remove(queue, slot);
            self.parked -= usize::from(self.entry(slot).is_parked());
        }
        self.entry_mut(slot).wait = Wait::No;
    }

    /// Where a word lies follows from what it waits for.
    fn queue(&self, slot: u32) -> Option<Queue> {
        let entry = self.entry(slot);
        match (entry.wait, entry.request) {
            (Wait::Due, Request::Schedule { due, .. }) => Some(Queue::Due(due, entry.size())),
            (Wait::Quarantined, _) => Some(Queue::Quarantined),
            (Wait::Target, Request::Schedule { target, .. }) => Some(Queue::Target(target)),
            (Wait::Parked | Wait::Rewrite, _) => {
                let (tries, jitter_slot) = self.retry_slot(slot);
                Some(Queue::Parked(tries, jitter_slot))
            }
            (Wait::DeadLetter, _) => Some(Queue::DeadLetter),
            (Wait::No | Wait::Due | Wait::Target, _) => None,
        }
    }

    fn count(&mut self, slot: u32, by: isize) {
        let entry = self.entry(slot);
        let bytes = (WORD_BYTES + entry.payload.size()) as isize * by;
        if matches!(entry.request, Request::Schedule { .. }) {
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

    fn entry(&self, slot: u32) -> &KeyEntry<P> {
        self.get(slot).expect("the slot comes from the index, a shelf or a list that was checked")
    }

    fn entry_mut(&mut self, slot: u32) -> &mut KeyEntry<P> {
        self.slots[slot as usize].as_mut().expect("the slot comes from the index, a shelf or a checked list")
    }
}
