//! What schedules have beside a due time: rules, options, and how far those that recur have come.

use super::super::bugs::{self, Bug};
use super::super::calendar::Rule;
use super::super::due::Due;
use super::super::payload::{Parts, Payload, Stored};
use super::super::progress::{Folded, KnownProgress, Progress, Repair};
use super::super::reason::Reason;
use super::super::recurrence::Position;
use super::super::wait_queues::Queue;
use super::super::when::Spec;
use super::entry::{OVERTAKEN, Waiting};
use super::{KeyTable, UserRequest};

/// What a schedule of a new form has beside its due time.
#[derive(Debug)]
pub(in super::super) struct Timed {
    pub(in super::super) spec: Box<Spec>,
    /// How far a schedule that recurs has come; `None` until its first occurrence is known.
    pub(in super::super) position: Option<Position>,
    /// Missed occurrences that have fired one by one.
    pub(in super::super) fired_in_a_row: u32,
    /// The number of the last of these.
    pub(in super::super) last_in_a_row: u64,
    /// The code of the reason for which the last occurrence became a dead letter.
    pub(in super::super) failed: Option<Box<str>>,
    /// The entry's due time is that of the position.
    is_dated: bool,
}

impl Timed {
    /// Returns the estimated memory, in bytes, with this struct's share of the map that holds it.
    pub(super) fn memory_bytes(&self) -> usize {
        let rule = match &self.spec.rule {
            Some(Rule::Cron { expression, zone }) => expression.len() + zone.len(),
            Some(Rule::Every { zone, .. }) => zone.len(),
            None => 0,
        };
        2 * size_of::<Self>() + size_of::<Spec>() + rule + size_of_val(&*self.spec.except)
    }
}

/// What a committed batch means for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Committed {
    /// The entry stays as it is: a copy was written.
    Nothing,
    /// A tombstone ended it.
    End,
    /// An occurrence is over, and the schedule is at this position.
    Progress {
        position: Position,
        /// The reason for which the occurrence became a dead letter.
        failed: Option<Reason>,
    },
}

impl<P: Payload> KeyTable<P> {
    pub(super) fn put_timed(&mut self, slot: u32, spec: Option<Box<Spec>>) {
        match spec {
            Some(spec) => {
                let position = spec.moved.map(|moved| Position { done: moved.done, next: moved.next.at() });
                let timed =
                    Timed { spec, position, fired_in_a_row: 0, last_in_a_row: 0, failed: None, is_dated: false };
                self.timed.insert(slot, timed);
            }
            None if self.timed.is_empty() => {}
            None => {
                self.timed.remove(&slot);
            }
        }
    }

    pub(in super::super) fn timed(&self, slot: u32) -> Option<&Timed> {
        self.timed.get(&slot)
    }

    pub(in super::super) fn timed_mut(&mut self, slot: u32) -> Option<&mut Timed> {
        self.timed.get_mut(&slot)
    }

    /// Returns a slot whose due time the calendar has to compute.
    pub(in super::super) fn first_undated(&self) -> Option<u32> {
        self.queues.first(Queue::Date)
    }

    /// Sets when the schedule of a slot is due.
    pub(in super::super) fn set_due(&mut self, slot: u32, new: Due) {
        self.unlink(slot);
        if let UserRequest::Schedule { due, .. } = &mut self.entry_mut(slot).request {
            *due = new;
        }
        if let Some(timed) = self.timed.get_mut(&slot) {
            timed.is_dated = true;
        }
        self.enqueue_or_drop(slot);
    }

    /// Lets the calendar compute when the schedule of a slot is due.
    pub(in super::super) fn date_again(&mut self, slot: u32) {
        if let Some(timed) = self.timed.get_mut(&slot) {
            timed.is_dated = false;
        }
        self.unlink(slot);
        self.enqueue_or_drop(slot);
    }

    /// Returns whether the last occurrence of a schedule became a dead letter for this reason. Then the next ones wait:
    /// they are missed together, and no further dead letter tells the same.
    pub(in super::super) fn has_failed_for(&self, slot: u32, reason: Reason) -> bool {
        let failed = self.timed.get(&slot).and_then(|timed| timed.failed.as_deref());
        failed.is_some_and(|failed| failed == reason.code())
    }

    /// Lets a schedule go on whose occurrence need not become a dead letter any more.
    pub(in super::super) fn forgive(&mut self, slot: u32) {
        self.entry_mut(slot).forgive();
        self.enqueue_or_drop(slot);
    }

    /// Forgets a schedule that has no occurrence.
    pub(in super::super) fn drop_entry(&mut self, slot: u32) {
        self.remove(slot);
    }

    /// Moves a schedule that recurs to its next occurrence. Nothing is held against it any more.
    pub(super) fn advance(&mut self, slot: u32, position: Position, failed: Option<Box<str>>) {
        let Some(timed) = self.timed.get_mut(&slot) else { return };
        let is_known = timed.position.is_some_and(|known| known.done >= position.done) && timed.is_dated;
        if is_known && !bugs::on(Bug::LesserProgressCounts) {
            return;
        }
        if timed.position.is_some_and(|known| known.done.saturating_add(1) < position.done) {
            timed.fired_in_a_row = 0;
        }
        timed.position = Some(position);
        timed.failed = failed;
        timed.is_dated = false;
        self.unlink(slot);
        if bugs::on(Bug::FiringSettlesOvertaken) {
            self.entry_mut(slot).set(OVERTAKEN, false);
        }
        if self.entry(slot).has(OVERTAKEN) {
            // It may have left that list while its occurrence was outstanding, and it stays on its key.
            self.rewrites.push_back(slot);
        }
        let has_jitter = self.timed.get(&slot).is_some_and(|timed| timed.spec.jitter_ms > 0);
        self.entry_mut(slot).forgive();
        match Due::from_epoch_ms(u64::try_from(position.next.0).unwrap_or(0)) {
            Some(due) if !has_jitter => self.set_due(slot, due),
            _ => self.enqueue_or_drop(slot),
        }
    }

    /// Folds a progress record of the engine's, for the user's record at `origin_offset`. Returns whether it is older
    /// than the known one.
    pub(in super::super) fn progress_record(&mut self, new: KnownProgress) -> bool {
        let key = new.key.clone();
        self.keep_accepted(&key, new.origin_offset);
        let folded = self.progress.fold(new, bugs::on(Bug::LesserProgressCounts));
        self.apply_progress(&key);
        if !self.keeps_all {
            self.check_progress(&key);
        }
        folded == Folded::Replayed
    }

    pub(in super::super) fn progress_after(&self, key: Option<&[u8]>) -> impl Iterator<Item = &KnownProgress> {
        self.progress.after(key)
    }

    pub(in super::super) fn knows_progress(&self, new: &KnownProgress) -> bool {
        self.progress.knows(new)
    }

    /// Folds a progress record of which a restored fold knows as much already: its schedule may have been read since.
    pub(in super::super) fn known_progress_record(&mut self, key: &[u8], origin_offset: i64) {
        self.keep_accepted(key, origin_offset);
        self.apply_progress(key);
    }

    /// Keeps a record whose progress has been read, although this version does not know its zone or its syntax: an
    /// engine has accepted it.
    fn keep_accepted(&mut self, key: &[u8], origin_offset: i64) {
        let Some(slot) = self.find(key) else { return };
        let entry = self.entry_mut(slot);
        if let UserRequest::Invalid(reason) = entry.request
            && entry.origin_offset == origin_offset
            && reason.may_be_of_later_version()
        {
            entry.request = UserRequest::Unknown(reason);
            self.unlink(slot);
            self.enqueue_or_drop(slot);
        }
    }

    /// Remembers progress that was committed and whose record was not delivered: compaction has removed it, because
    /// some record comes after it.
    pub(super) fn remember_progress(&mut self, slot: u32) {
        let entry = self.entry(slot);
        let Some(timed) = self.timed.get(&slot) else { return };
        let (Some(position), Stored::Memory(packed)) = (timed.position, entry.payload.stored()) else { return };
        let Some(next) = Due::from_epoch_ms(u64::try_from(position.next.0).unwrap_or(0)) else { return };
        let progress = Progress { done: position.done, next, failed: timed.failed.clone(), other: Box::default() };
        let key = Parts::key_of(packed).to_vec();
        let known = KnownProgress::new(&key, entry.origin_offset, entry.timestamp, progress);
        self.progress.committed(known);
        self.progress.overtaken(&key);
    }

    /// Folds a tombstone of the engine's under the progress key of `key`.
    pub(in super::super) fn progress_tombstone(&mut self, key: &[u8], origin_offset: i64) {
        self.progress.fold_tombstone(key, origin_offset);
    }

    /// Notes that a record which is not the engine's is under the progress key of `key`.
    pub(in super::super) fn foreign_progress(&mut self, key: &[u8]) {
        self.progress.overtaken(key);
    }

    /// Lets the schedule of a key go on where its progress record says.
    pub(super) fn apply_progress(&mut self, key: &[u8]) {
        if self.progress.is_empty() {
            return;
        }
        let Some(slot) = self.find(key) else { return };
        let Some(known) = self.progress.of_key(key) else { return };
        let entry = self.entry(slot);
        let is_its = entry.origin_offset == known.origin_offset || bugs::on(Bug::ProgressTakenForAny);
        if !entry.recurs() || !is_its {
            return;
        }
        let is_new =
            self.timed.get(&slot).and_then(|timed| timed.position).is_none_or(|p| p.done < known.progress.done);
        let is_new = is_new || bugs::on(Bug::LesserProgressCounts);
        if is_new {
            let position = Position { done: known.progress.done, next: known.progress.next.at() };
            let failed = known.progress.failed.clone();
            // The firing that wrote it is no longer outstanding.
            self.entry_mut(slot).outstanding_batch = 0;
            self.advance(slot, position, failed);
        }
    }

    /// Lets the progress record of a key be ended, if its schedule is over, or be rewritten.
    pub(super) fn check_progress(&mut self, key: &[u8]) {
        if let Some(slot) = self.progress.slot_of(key) {
            self.progress.check(slot);
        }
    }

    /// Does the same for the key of an entry whose outstanding record has settled: a repair may have waited for it.
    pub(super) fn check_progress_of(&mut self, slot: u32) {
        if let Some(slot) = self.progress_slot(slot) {
            self.progress.check(slot);
        }
    }

    /// Checks all progress records when loading ends.
    pub(super) fn check_all_progress(&mut self) {
        for slot in self.progress.slots().collect::<Vec<_>>() {
            self.progress.check(slot);
        }
    }

    pub(in super::super) fn has_repairs(&self) -> bool {
        self.progress.has_repairs()
    }

    /// Removes the next progress record that needs a repair from the list. The caller must write that.
    pub(in super::super) fn take_repair(&mut self) -> Option<(u32, Repair)> {
        let mut progress = std::mem::take(&mut self.progress);
        let taken = progress.take_repair(|known| {
            let slot = self.find(&known.key);
            let is_busy = slot.is_some_and(|slot| self.entry(slot).is_outstanding());
            // What is outstanding may write the progress key too. Once it has settled, the progress is checked again.
            is_busy || slot.is_some_and(|slot| self.is_progress_of(slot, known.origin_offset))
        });
        self.progress = progress;
        taken
    }

    fn is_progress_of(&self, slot: u32, origin_offset: i64) -> bool {
        let entry = self.entry(slot);
        entry.origin_offset == origin_offset && (entry.recurs() || matches!(entry.request, UserRequest::Unknown(_)))
    }

    pub(in super::super) fn progress(&self, slot: u32) -> Option<&KnownProgress> {
        self.progress.get(slot)
    }

    /// Returns the slot of a key's progress record.
    pub(in super::super) fn progress_slot(&self, slot: u32) -> Option<u32> {
        if self.progress.is_empty() {
            return None;
        }
        let Stored::Memory(packed) = self.entry(slot).payload.stored() else { return None };
        self.progress.slot_of(Parts::key_of(packed))
    }

    /// Returns the slot of the progress record that a batch for this entry writes, if it recurs and has one. It is no
    /// repair.
    pub(in super::super) fn own_progress(&self, slot: u32) -> Option<(u32, Option<Repair>)> {
        let progress = if self.entry(slot).recurs() { self.progress_slot(slot) } else { None };
        progress.map(|progress| (progress, None))
    }

    /// Returns whether a record for the progress key of an entry's key is outstanding.
    pub(in super::super) fn is_progress_outstanding(&self, slot: u32) -> bool {
        let known = self.progress_slot(slot).and_then(|slot| self.progress.get(slot));
        known.is_some_and(|known| known.outstanding_batch != 0)
    }

    pub(in super::super) fn set_progress_outstanding(&mut self, slot: u32, batch: u32) {
        self.progress.mark_outstanding(slot, batch);
    }

    pub(in super::super) fn progress_settled(&mut self, slot: u32, batch: u32, written: Option<Repair>) {
        self.progress.settled(slot, batch, written);
        while let Some(slot) = self.queues.first(Queue::Progress) {
            self.unlink(slot);
            self.enqueue_or_drop(slot);
        }
    }

    /// Lets a schedule wait until no record for its progress key is outstanding.
    pub(in super::super) fn await_progress(&mut self, slot: u32) {
        self.link(slot, Waiting::Progress);
    }

    /// Returns whether an entry's due time is known.
    pub(super) fn is_dated(&self, slot: u32) -> bool {
        !self.entry(slot).recurs() || self.timed.get(&slot).is_some_and(|timed| timed.is_dated)
    }
}
