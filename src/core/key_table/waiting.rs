//! Queues entries for what they wait for: their due time, their target, a retry, or a batch of their lane.

use super::super::bugs::{self, Bug};
use super::super::payload::Payload;
use super::super::reason::Reason;
use super::super::types::Millis;
use super::super::wait_queues::{Queue, RetryGroup, Size};
use super::entry::{ISOLATED, OVERTAKEN, TO_DEAD_LETTER, Waiting};
use super::{KeyEntry, KeyTable, UserRequest};

/// First wait of an entry whose record a broker rejected; it doubles up to [`ENTRY_RETRY_MS_MAX`].
const ENTRY_RETRY_MS_MIN: i64 = 2_000;
/// Longest wait, without jitter.
const ENTRY_RETRY_MS_MAX: i64 = 64_000;
/// Largest number of retries that is counted. Entries with this number and one less have the longest wait.
const RETRIES_MAX: u8 = 6;
/// Jitter: entries with the same wait are retried in this many groups, each a quarter of the wait after the other.
const JITTER_GROUPS: u8 = 4;
/// Maximum number of entries to wake at once, so a large number does not block the loop.
const WAKE_MAX: usize = 10_000;

impl<P: Payload> KeyTable<P> {
    /// Removes the first schedule of these sizes that is due by `now` from its queue. The caller must fire or park it.
    pub(in super::super) fn take_due(&mut self, now: Millis, sizes: &[Size]) -> Option<u32> {
        let slots = &self.slots;
        let due_of = |slot: u32| {
            let entry = slots[slot as usize].as_ref().and_then(KeyEntry::due);
            entry.expect("a slot in a queue of due times holds a schedule")
        };
        let slot = self.queues.first_due(u64::try_from(now.0).ok()?, sizes, due_of)?;
        self.unlink(slot);
        Some(slot)
    }

    /// Removes the next isolated schedule from its queue. The caller must fire or park it.
    pub(in super::super) fn take_isolated(&mut self, now: Millis) -> Option<u32> {
        while let Some(slot) = self.queues.first(Queue::Isolated) {
            self.unlink(slot);
            if self.entry(slot).due().is_some_and(|due| due.is_due(now)) {
                return Some(slot);
            }
            // Since it was due, the clock was set back.
            self.link(slot, Waiting::Due);
        }
        None
    }

    pub(in super::super) fn has_isolated(&self) -> bool {
        self.queues.first(Queue::Isolated).is_some()
    }

    /// Isolates a schedule after a broker rejected it, or an unknown one of its batch: from now on it fires apart
    /// from the others.
    pub(in super::super) fn isolate(&mut self, slot: u32, origin_offset: i64) {
        if self.get(slot).is_some_and(|entry| entry.origin_offset == origin_offset) {
            self.entry_mut(slot).set(ISOLATED, true);
            if self.entry(slot).waiting == Waiting::Due {
                self.unlink(slot);
                self.enqueue_or_drop(slot);
            }
        }
    }

    /// Removes the next entry that waits for its dead letter from its queue. The caller must write that.
    pub(in super::super) fn take_dead_letter(&mut self) -> Option<u32> {
        let slot = self.queues.first(Queue::DeadLetter)?;
        self.unlink(slot);
        Some(slot)
    }

    pub(in super::super) fn has_dead_letters(&self) -> bool {
        self.queues.first(Queue::DeadLetter).is_some()
    }

    /// Removes the next overtaken entry that can be rewritten from its queue. A schedule that is due by `now` is
    /// skipped: its firing ends it, so it need not be rewritten. One that recurs stays, so it is not skipped.
    pub(in super::super) fn take_rewrite(&mut self, now: Millis) -> Option<u32> {
        while let Some(slot) = self.rewrites.pop_front() {
            let Some(entry) = self.get(slot) else { continue };
            let ends = !entry.recurs() || bugs::on(Bug::FiringSettlesOvertaken);
            let fires = ends && entry.due().is_some_and(|due| due.is_due(now)) && entry.waiting == Waiting::Due;
            if entry.has(OVERTAKEN) && !entry.is_outstanding() && entry.waiting != Waiting::RewriteRetry && !fires {
                self.unlink(slot);
                return Some(slot);
            }
        }
        None
    }

    /// Returns whether an overtaken entry may wait for its rewrite; false positives are possible.
    pub(in super::super) fn has_rewrites(&self) -> bool {
        !self.rewrites.is_empty()
    }

    /// Parks a schedule until its target takes records.
    pub(in super::super) fn await_target(&mut self, slot: u32) {
        self.park(slot, Waiting::Target);
    }

    /// Parks an entry after a broker rejected its firing or dead letter. Returns when it is retried.
    pub(in super::super) fn await_retry(&mut self, slot: u32, now: Millis) -> Millis {
        self.park(slot, Waiting::Retry);
        self.retry_at(slot, now)
    }

    /// Parks an entry after a broker rejected its rewrite. Returns when that is retried.
    pub(in super::super) fn await_rewrite_retry(&mut self, slot: u32, now: Millis) -> Millis {
        self.unlink(slot);
        self.link(slot, Waiting::RewriteRetry);
        self.retry_at(slot, now)
    }

    /// Parks an entry until its dead letter is written: it does not fire any more.
    pub(in super::super) fn await_dead_letter(&mut self, slot: u32) {
        let entry = self.entry_mut(slot);
        entry.set(TO_DEAD_LETTER, true);
        // The caller names the reason.
        entry.parked_for = None;
        self.park(slot, Waiting::DeadLetter);
    }

    /// Lowers the number of retries to `retries_max`, which bounds the wait. The caller must park the entry.
    pub(in super::super) fn limit_retries(&mut self, slot: u32, retries_max: u8) {
        // Its queue may depend on its retries.
        self.unlink(slot);
        let entry = self.entry_mut(slot);
        entry.retries = entry.retries.min(retries_max);
    }

    /// Remembers why an entry is parked. Returns true the first time for each kind of reason.
    pub(in super::super) fn remember_reason(&mut self, slot: u32, reason: Reason) -> bool {
        self.entry_mut(slot).remember(reason)
    }

    /// Iterates over the slots of schedules that wait for this target.
    pub(in super::super) fn waiting_for(&self, target: u32) -> impl Iterator<Item = u32> {
        self.queues.slots_of(Queue::Target(target))
    }

    /// Queues the schedules that wait for this target by their due time again.
    pub(in super::super) fn wake_waiting_for(&mut self, target: u32) {
        while let Some(slot) = self.queues.first(Queue::Target(target)) {
            self.wake(slot);
        }
    }

    /// Ends the wait of entries that are to be retried by `now`, at most [`WAKE_MAX`] at once.
    pub(in super::super) fn wake_retries(&mut self, now: Millis) {
        let mut woken = 0;
        let ready = self.retry_times.iter().filter(|(_, at)| **at <= now);
        for group in ready.map(|(group, _)| *group).collect::<Vec<_>>() {
            while let Some(slot) = self.queues.first(Queue::Retry(group)) {
                if woken == WAKE_MAX {
                    return;
                }
                woken += 1;
                self.unlink(slot);
                let entry = self.entry_mut(slot);
                // The last two queues alternate, so an entry that is parked again meanwhile is not woken by this loop.
                entry.retries = if entry.retries == RETRIES_MAX { RETRIES_MAX - 1 } else { entry.retries + 1 };
                self.wake(slot);
            }
            self.retry_times.remove(&group);
        }
    }

    /// Returns when entries are next to be retried.
    pub(in super::super) fn next_retry(&self) -> Option<Millis> {
        self.retry_times.values().min().copied()
    }

    pub(in super::super) fn set_back(&mut self, back_ms: i64) {
        self.retry_times.values_mut().for_each(|at| *at = at.plus(-back_ms));
    }

    /// Puts an entry without an outstanding record into its queue. After loading, keeps a cancel or invalid record only
    /// while it is to be rewritten or moved to the dead-letter topic.
    pub(super) fn enqueue_or_drop(&mut self, slot: u32) {
        let entry = self.entry(slot);
        if entry.is_outstanding() || entry.is_waiting() {
            return;
        }
        match entry.request {
            UserRequest::Schedule { .. } if entry.has(TO_DEAD_LETTER) => self.link(slot, Waiting::DeadLetter),
            UserRequest::Schedule { .. } if !self.is_dated(slot) => self.link(slot, Waiting::Date),
            UserRequest::Schedule { .. } if entry.has(ISOLATED) => self.link(slot, Waiting::Isolated),
            UserRequest::Schedule { .. } => self.link(slot, Waiting::Due),
            UserRequest::Unknown(_) => self.link(slot, Waiting::Unknown),
            UserRequest::Cancel if bugs::on(Bug::CancelForgottenInLoading) => self.remove(slot),
            UserRequest::Cancel if self.keeps_all => self.cancels.push(slot),
            UserRequest::Invalid(_) if self.keeps_all => self.non_schedules.push(slot),
            UserRequest::Invalid(_) if self.has_dead_letter_topic => self.link(slot, Waiting::DeadLetter),
            // In no queue: `rewrites` holds it.
            UserRequest::Cancel | UserRequest::Invalid(_) if entry.has(OVERTAKEN) => {}
            UserRequest::Cancel | UserRequest::Invalid(_) => self.remove(slot),
        }
    }

    /// Parks an entry. If it is overtaken, it can still be rewritten meanwhile.
    fn park(&mut self, slot: u32, waiting: Waiting) {
        self.unlink(slot);
        self.link(slot, waiting);
        if self.entry(slot).has(OVERTAKEN) {
            self.rewrites.push_back(slot);
        }
    }

    fn wake(&mut self, slot: u32) {
        self.unlink(slot);
        if self.entry(slot).has(OVERTAKEN) {
            self.rewrites.push_back(slot);
        }
        self.enqueue_or_drop(slot);
    }

    /// All entries of a retry queue are retried at one time, which the first of them sets: later ones wait less, so the
    /// waits are upper bounds.
    fn retry_at(&mut self, slot: u32, now: Millis) -> Millis {
        let group = self.retry_group(slot);
        let delay = (ENTRY_RETRY_MS_MIN << group.retries).min(ENTRY_RETRY_MS_MAX);
        if bugs::on(Bug::RejectedForgotten) {
            return now;
        }
        let jitter = delay / i64::from(JITTER_GROUPS) * i64::from(group.jitter_group);
        *self.retry_times.entry(group).or_insert(now.plus(delay + jitter))
    }

    pub(super) fn retry_group(&self, slot: u32) -> RetryGroup {
        let entry = self.entry(slot);
        // Below JITTER_GROUPS, which fits.
        let jitter_group = entry.origin_offset.rem_euclid(i64::from(JITTER_GROUPS)) as u8;
        RetryGroup { retries: entry.retries, jitter_group }
    }
}
