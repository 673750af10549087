//! What entries wait for: their due time, their target, a retry, a place in a batch.

use super::super::bugs::{self, Bug};
use super::super::due::second_of;
use super::super::payload::Payload;
use super::super::reason::Reason;
use super::super::types::Millis;
use super::super::wait_queues::{Queue, Size};
use super::entry::{OVERTAKEN, QUARANTINED, TO_DEAD_LETTER, Waiting};
use super::{KeyTable, Request};

/// First wait of an entry whose record a broker rejected; it doubles up to [`RETRY_MS_MAX`].
const RETRY_MS_MIN: i64 = 2_000;
/// Longest wait before a retry, without jitter.
const RETRY_MS_MAX: i64 = 64_000;
/// Retry queues by the number of retries: the wait has its full length in the last two.
const RETRY_SLOTS: u8 = 6;
/// Entries that wait equally long are retried in so many parts, each a quarter of the wait after the other.
const JITTER_SLOTS: u8 = 4;
/// Entries that are woken in one turn, so that many of them do not hold up the loop.
const WAKE_MAX: usize = 10_000;

impl<P: Payload> KeyTable<P> {
    /// Takes the first schedule of one of these sizes that is due by `now`. The caller must fire or park it.
    pub(in super::super) fn take_due(&mut self, now: Millis, sizes: &[Size]) -> Option<u32> {
        let (second, slot) = self.queues.first_due(sizes)?;
        if second_of(now).is_none_or(|now| second > now) {
            return None;
        }
        self.unlink(slot);
        Some(slot)
    }

    /// Takes the next quarantined schedule. The caller must fire or park it.
    pub(in super::super) fn take_quarantined(&mut self, now: Millis) -> Option<u32> {
        while let Some(slot) = self.queues.first(Queue::Quarantined) {
            self.unlink(slot);
            if self.entry(slot).due().is_some_and(|due| due.is_due(now)) {
                return Some(slot);
            }
            // The clock was set back since it was due.
            self.link(slot, Waiting::Due);
        }
        None
    }

    /// Whether a quarantined schedule waits.
    pub(in super::super) fn has_quarantined(&self) -> bool {
        self.queues.first(Queue::Quarantined).is_some()
    }

    /// A broker rejected this schedule, or an unknown one of its batch: it fires apart from others from now on.
    pub(in super::super) fn quarantine(&mut self, slot: u32, origin_offset: i64) {
        if self.get(slot).is_some_and(|entry| entry.origin_offset == origin_offset) {
            self.entry_mut(slot).set(QUARANTINED, true);
            if self.entry(slot).waiting == Waiting::Due {
                self.unlink(slot);
                self.requeue(slot);
            }
        }
    }

    /// Takes the next entry that waits for its dead letter. The caller must write that.
    pub(in super::super) fn take_dead_letter(&mut self) -> Option<u32> {
        let slot = self.queues.first(Queue::DeadLetter)?;
        self.unlink(slot);
        Some(slot)
    }

    /// Whether an entry waits for its dead letter.
    pub(in super::super) fn has_dead_letters(&self) -> bool {
        self.queues.first(Queue::DeadLetter).is_some()
    }

    /// Takes the next overtaken entry that can be written again. A schedule that is due by `now` is left out: firing it ends
    /// it, so it need not be written again.
    pub(in super::super) fn take_rewrite(&mut self, now: Millis) -> Option<u32> {
        while let Some(slot) = self.rewrites.pop_front() {
            let Some(entry) = self.get(slot) else { continue };
            let fires = entry.due().is_some_and(|due| due.is_due(now)) && entry.waiting == Waiting::Due;
            if entry.has(OVERTAKEN) && !entry.is_outstanding() && entry.waiting != Waiting::RewriteRetry && !fires {
                self.unlink(slot);
                return Some(slot);
            }
        }
        None
    }

    /// Whether an overtaken entry may wait to be written again.
    pub(in super::super) fn has_rewrites(&self) -> bool {
        !self.rewrites.is_empty()
    }

    /// Parks a schedule until its target is usable.
    pub(in super::super) fn await_target(&mut self, slot: u32) {
        self.park(slot, Waiting::Target);
    }

    /// Parks an entry whose firing or dead letter a broker rejected. Returns when it is retried.
    pub(in super::super) fn await_retry(&mut self, slot: u32, now: Millis) -> Millis {
        self.park(slot, Waiting::Retry);
        self.retry_at(slot, now)
    }

    /// Parks an entry that a broker refused to have written again. Returns when that is retried.
    pub(in super::super) fn await_rewrite_retry(&mut self, slot: u32, now: Millis) -> Millis {
        self.unlink(slot);
        self.link(slot, Waiting::RewriteRetry);
        self.retry_at(slot, now)
    }

    /// Parks an entry until its dead letter is written: it is not tried again.
    pub(in super::super) fn await_dead_letter(&mut self, slot: u32) {
        self.entry_mut(slot).set(TO_DEAD_LETTER, true);
        self.park(slot, Waiting::DeadLetter);
    }

    /// Lowers the number of retries to `retries_max`, so the entry waits no longer than after so many. The caller must park
    /// it.
    pub(in super::super) fn limit_retries(&mut self, slot: u32, retries_max: u8) {
        // Its queue may follow from its retries.
        self.unlink(slot);
        let entry = self.entry_mut(slot);
        entry.retries = entry.retries.min(retries_max);
    }

    /// Remembers why an entry is parked. True the first time for each kind of reason.
    pub(in super::super) fn remember_reason(&mut self, slot: u32, reason: Reason) -> bool {
        self.entry_mut(slot).remember(reason)
    }

    /// The schedules that wait for this target.
    pub(in super::super) fn waiting_for(&self, target: u32) -> impl Iterator<Item = u32> {
        self.queues.of(Queue::Target(target))
    }

    /// Wakes the schedules that wait for this target.
    pub(in super::super) fn wake_waiting_for(&mut self, target: u32) {
        while let Some(slot) = self.queues.first(Queue::Target(target)) {
            self.wake(slot);
        }
    }

    /// Wakes entries that are to be retried by `now`, at most [`WAKE_MAX`] at once.
    pub(in super::super) fn wake_retries(&mut self, now: Millis) {
        let mut woken = 0;
        let ready = self.retry_times.iter().filter(|(_, at)| **at <= now);
        for (retries, jitter_slot) in ready.map(|(slot, _)| *slot).collect::<Vec<_>>() {
            while let Some(slot) = self.queues.first(Queue::Retry(retries, jitter_slot)) {
                if woken == WAKE_MAX {
                    return;
                }
                woken += 1;
                self.unlink(slot);
                let entry = self.entry_mut(slot);
                // The last two queues take turns, so that what is parked again meanwhile is not woken at once.
                entry.retries = if entry.retries == RETRY_SLOTS { RETRY_SLOTS - 1 } else { entry.retries + 1 };
                self.wake(slot);
            }
            self.retry_times.remove(&(retries, jitter_slot));
        }
    }

    /// When entries are next to be retried.
    pub(in super::super) fn next_retry(&self) -> Option<Millis> {
        self.retry_times.values().min().copied()
    }

    /// The clock was set back: retries come that much earlier.
    pub(in super::super) fn set_back(&mut self, back_ms: i64) {
        self.retry_times.values_mut().for_each(|at| *at = at.plus(-back_ms));
    }

    /// Puts an entry with nothing outstanding into its queue. What is neither a schedule nor overtaken is removed once it is
    /// of no use any more.
    pub(super) fn requeue(&mut self, slot: u32) {
        let entry = self.entry(slot);
        if entry.is_outstanding() || entry.is_waiting() {
            return;
        }
        match entry.request {
            Request::Schedule { .. } if entry.has(TO_DEAD_LETTER) => self.link(slot, Waiting::DeadLetter),
            Request::Schedule { .. } if entry.has(QUARANTINED) => self.link(slot, Waiting::Quarantined),
            Request::Schedule { .. } => self.link(slot, Waiting::Due),
            Request::Cancel if bugs::on(Bug::CancelForgottenInLoading) => self.remove(slot),
            Request::Cancel if self.is_loading => self.cancels.push(slot),
            Request::Invalid(_) if self.is_loading => self.non_schedules.push(slot),
            Request::Invalid(_) if self.has_dead_letter_topic => self.link(slot, Waiting::DeadLetter),
            Request::Cancel | Request::Invalid(_) if entry.has(OVERTAKEN) => {}
            Request::Cancel | Request::Invalid(_) => self.remove(slot),
        }
    }

    /// A parked entry that is overtaken can still be written again.
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
        self.requeue(slot);
    }

    fn retry_at(&mut self, slot: u32, now: Millis) -> Millis {
        let (retries, jitter_slot) = self.retry_slot(slot);
        let delay = (RETRY_MS_MIN << retries).min(RETRY_MS_MAX);
        if bugs::on(Bug::RefusedForgotten) {
            return now;
        }
        let jitter = delay / i64::from(JITTER_SLOTS) * i64::from(jitter_slot);
        *self.retry_times.entry((retries, jitter_slot)).or_insert(now.plus(delay + jitter))
    }

    pub(super) fn retry_slot(&self, slot: u32) -> (u8, u8) {
        let entry = self.entry(slot);
        // Below JITTER_SLOTS, which fits.
        (entry.retries, entry.origin_offset.rem_euclid(i64::from(JITTER_SLOTS)) as u8)
    }
}
