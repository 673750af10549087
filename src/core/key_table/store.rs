//! Stores entries in slots, finds them by key, and counts their memory.

use super::super::bugs::{self, Bug};
use super::super::key_index::KeyIndex;
use super::super::payload::{Payload, Stored};
use super::super::wait_queues::Queue;
use super::entry::{OVERTAKEN, Waiting};
use super::timed::Timed;
use super::{KeyEntry, KeyTable, NewEntry, UserRequest};

/// A smaller table is not worth shrinking.
const SHRINK_SLOTS_MIN: usize = 4_096;

/// Estimated memory of an entry without its payload: its slot, its place in the index, its links in a queue, and the
/// allocator's overhead. The slots double as they grow, and the index grows by half, so this is an average.
const ENTRY_BYTES: usize = 128;

impl<P: Payload> KeyTable<P> {
    /// Returns how often entries have moved to other slots: older slot numbers are stale.
    pub(in super::super) fn moves(&self) -> u8 {
        self.moves
    }

    /// Frees unused memory of the tables, if at most one of `slots_per_entry` slots is in use. Entries move to other
    /// slots, so nothing may be outstanding. Returns whether it was done.
    pub(in super::super) fn shrink(&mut self, slots_per_entry: usize) -> bool {
        let used = self.slots.len() - self.free.len();
        if self.slots.len() < SHRINK_SLOTS_MIN || used > self.slots.len() / slots_per_entry {
            return false;
        }
        let mut places = vec![u32::MAX; self.slots.len()];
        let mut slots = Vec::with_capacity(used);
        let mut index = KeyIndex::default();
        for (old, entry) in std::mem::take(&mut self.slots).into_iter().enumerate() {
            let Some(entry) = entry else { continue };
            debug_assert!(!entry.is_outstanding(), "nothing is outstanding");
            places[old] = slots.len() as u32;
            index.insert(entry.payload.hash(self.hash_seed), slots.len() as u32);
            slots.push(Some(entry));
        }
        (self.slots, self.index, self.free) = (slots, index, Vec::new());
        self.queues = self.queues.moved(&places);
        self.timed = std::mem::take(&mut self.timed).into_iter().map(|(old, t)| (places[old as usize], t)).collect();
        debug_assert!(self.cancels.is_empty() && self.non_schedules.is_empty(), "only loading fills these lists");
        // The list may name entries that have been removed.
        let moved = |slot: u32| Some(places[slot as usize]).filter(|place| *place != u32::MAX);
        self.rewrites = std::mem::take(&mut self.rewrites).into_iter().filter_map(moved).collect();
        self.moves = self.moves.wrapping_add(1);
        true
    }

    pub(super) fn find(&self, key: &[u8]) -> Option<u32> {
        self.index.find(P::hash_of(key, self.hash_seed), |slot| self.entry(slot).payload.has_key(key))
    }

    pub(super) fn insert(&mut self, new: NewEntry<P>) -> u32 {
        let hash = new.payload.hash(self.hash_seed);
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() as u32 - 1
        });
        self.index.insert(hash, slot);
        self.put(slot, new, 0);
        slot
    }

    pub(super) fn replace(&mut self, slot: u32, new: NewEntry<P>) {
        self.unlink(slot);
        let outstanding_batch = if bugs::on(Bug::TwoOutstanding) { 0 } else { self.entry(slot).outstanding_batch };
        self.count(slot, -1);
        self.put(slot, new, outstanding_batch);
    }

    /// Puts an entry of a restored fold into the table, which is not live yet.
    pub(in super::super) fn restore(&mut self, key: &[u8], new: NewEntry<P>, is_overtaken: bool) {
        let slot = match self.find(key) {
            // It has moved to another slot while the snapshot was taken.
            Some(slot) => {
                self.replace(slot, new);
                slot
            }
            None => self.insert(new),
        };
        if is_overtaken {
            self.entry_mut(slot).set(OVERTAKEN, true);
            self.rewrites.push_back(slot);
        }
        self.enqueue_or_drop(slot);
    }

    /// Replaces the targets of all schedules, which are indexes into `targets`.
    pub(in super::super) fn map_targets(&mut self, targets: &[u32]) {
        for entry in self.slots.iter_mut().flatten() {
            if let UserRequest::Schedule { target, .. } = &mut entry.request {
                *target = targets[*target as usize];
            }
        }
    }

    /// Takes over a copy's content if it differs from the original's: a later version may have added headers, which
    /// are kept when the record is rewritten. After compaction, only the copy would be there.
    pub(super) fn take_content(&mut self, slot: u32, copy: NewEntry<P>) {
        let differs = match (self.entry(slot).payload.stored(), copy.payload.stored()) {
            (Stored::Memory(known), Stored::Memory(copied)) => known != copied,
            _ => false,
        };
        if differs {
            self.replace(slot, copy);
        }
    }

    fn put(&mut self, slot: u32, mut new: NewEntry<P>, outstanding_batch: u32) {
        self.put_timed(slot, new.spec.take());
        self.slots[slot as usize] = Some(KeyEntry::new(new, outstanding_batch));
        self.count(slot, 1);
    }

    pub(super) fn remove(&mut self, slot: u32) {
        self.unlink(slot);
        self.count(slot, -1);
        self.index.remove(self.entry(slot).payload.hash(self.hash_seed), slot);
        self.put_timed(slot, None);
        self.slots[slot as usize] = None;
        self.free.push(slot);
    }

    /// Puts an entry into the queue that `waiting` names.
    pub(super) fn link(&mut self, slot: u32, waiting: Waiting) {
        self.entry_mut(slot).waiting = waiting;
        if let Some(queue) = self.queue(slot) {
            self.queues.insert(queue, slot);
        }
        self.parked += usize::from(waiting.is_parked());
    }

    /// Takes an entry out of its queue, if it waits in one.
    pub(super) fn unlink(&mut self, slot: u32) {
        if let Some(queue) = self.queue(slot) {
            self.queues.remove(queue, slot);
        }
        self.parked -= usize::from(self.entry(slot).is_parked());
        self.entry_mut(slot).waiting = Waiting::No;
    }

    fn queue(&self, slot: u32) -> Option<Queue> {
        let entry = self.entry(slot);
        match (entry.waiting, entry.request) {
            (Waiting::Due, UserRequest::Schedule { due, .. }) => Some(Queue::Due(due, entry.size())),
            (Waiting::Isolated, _) => Some(Queue::Isolated),
            (Waiting::Target, UserRequest::Schedule { target, .. }) => Some(Queue::Target(target)),
            (Waiting::Retry | Waiting::RewriteRetry, _) => Some(Queue::Retry(self.retry_group(slot))),
            (Waiting::DeadLetter, _) => Some(Queue::DeadLetter),
            (Waiting::Date, _) => Some(Queue::Date),
            (Waiting::Progress, _) => Some(Queue::Progress),
            (Waiting::No | Waiting::Due | Waiting::Target | Waiting::Unknown, _) => None,
        }
    }

    fn count(&mut self, slot: u32, by: isize) {
        let entry = self.entry(slot);
        let timed = self.timed(slot).map_or(0, Timed::memory_bytes);
        let bytes = (ENTRY_BYTES + entry.payload.memory_bytes() + timed) as isize * by;
        if matches!(entry.request, UserRequest::Schedule { .. }) {
            self.pending = self.pending.saturating_add_signed(by);
        }
        self.bytes = self.bytes.saturating_add_signed(bytes);
    }

    pub(super) fn entry(&self, slot: u32) -> &KeyEntry<P> {
        self.get(slot).expect("the slot comes from the index, a queue or a list that was checked")
    }

    pub(super) fn entry_mut(&mut self, slot: u32) -> &mut KeyEntry<P> {
        self.slots[slot as usize].as_mut().expect("the slot comes from the index, a queue or a checked list")
    }
}
