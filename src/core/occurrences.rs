//! Computes when schedules that recur are due, and decides what fires, within a budget of calendar steps for each turn.

use super::batch::{AfterFiring, Fired};
use super::bugs::{self, Bug};
use super::due::Due;
use super::key_table::UserRequest;
use super::partition::OwnedPartition;
use super::payload::Payload;
use super::reason::Reason;
use super::recurrence::{self, JitterSeed, Occurrence, Plan, Position, Recurring};
use super::report::Report;
use super::when::{Expiry, Form};
use super::{Millis, Scheduler, TopicPartition};

/// Due times that are computed in one turn of the loop: some milliseconds.
const DATES_MAX: u32 = 10_000;

/// What a batch writes for a schedule that is due.
#[derive(Clone, Copy, Debug)]
pub(super) enum DuePlan {
    /// It fires.
    Fire(Fired, AfterFiring),
    /// It is too late to fire.
    Expire(Fired, AfterFiring),
    /// As many occurrences are over without a firing.
    Skip(u64, AfterFiring),
    /// Nothing: it was queued again.
    Nothing,
}

impl<P: Payload> Scheduler<P> {
    /// Returns whether due times of live partitions remain to be computed.
    pub(super) fn has_dates_to_compute(&self) -> bool {
        let has = |owned: &OwnedPartition<P>| {
            owned.may_fire_once_dated() && (owned.awaits_dates || owned.keys.first_undated().is_some())
        };
        self.partitions.values().any(has)
    }

    /// Computes the due times that live partitions wait for, up to a number.
    pub(super) fn compute_dates(&mut self) {
        if !self.has_dates_to_compute() {
            return;
        }
        let live: Vec<_> =
            self.partitions.values().filter(|owned| owned.may_fire_once_dated()).map(|owned| owned.id).collect();
        let mut remaining = DATES_MAX;
        for id in live {
            while remaining > 0 && self.compute_date(id) {
                remaining -= 1;
            }
            if let Some(owned) = self.partitions.get_mut(&id) {
                owned.awaits_dates = owned.keys.awaits_dates();
            }
        }
    }

    /// Computes one due time. Returns false if there is none to compute.
    fn compute_date(&mut self, id: TopicPartition) -> bool {
        let Some(owned) = self.partitions.get(&id) else { return false };
        let Some(slot) = owned.keys.first_undated() else { return false };
        let Some(recurring) = self.recurring(owned, slot) else { return false };
        let (Some(entry), Some(timed)) = (owned.keys.get(slot), owned.keys.timed(slot)) else { return false };
        let first = || recurring.first(owned.owed_since(entry.origin_offset));
        let position = timed.position.or_else(|| first().map(|next| Position { done: 0, next }));
        // A user may have set progress that is beyond the schedule's end.
        let position = position.filter(|p| p.done < recurring.spec.count && p.next <= recurring.spec.until);
        match position.map(|position| (position, recurring.due(position))) {
            Some((position, due)) => {
                let is_new = timed.position.is_none();
                self.set_due(id, slot, position, due, is_new);
            }
            None => self.never_due(id, slot),
        }
        true
    }

    fn recurring<'a>(&'a self, owned: &'a OwnedPartition<P>, slot: u32) -> Option<Recurring<'a>> {
        let (entry, timed) = (owned.keys.get(slot)?, owned.keys.timed(slot)?);
        Some(Recurring {
            spec: &timed.spec,
            rule: timed.spec.rule.as_ref()?,
            jitter_seed: JitterSeed { partition_hash: owned.partition_hash, offset: entry.origin_offset },
            calendar: self.calendar.as_ref(),
        })
    }

    fn set_due(&mut self, id: TopicPartition, slot: u32, position: Position, due: Due, is_new: bool) {
        let Some(owned) = self.partitions.get_mut(&id) else { return };
        if let Some(timed) = owned.keys.timed_mut(slot) {
            timed.position = Some(position);
        }
        owned.keys.set_due(slot, due);
        if is_new && !owned.awaits_dates {
            self.counters.planned += 1;
            let Some(owned) = self.partitions.get(&id) else { return };
            let Some(entry) = owned.keys.get(slot) else { return };
            let UserRequest::Schedule { target, .. } = entry.request else { return };
            let offset = entry.origin_offset;
            self.report(Report::Accepted { partition: id, offset, due, target: self.targets.name(target) });
        }
    }

    /// Handles that a schedule has no occurrence at all.
    fn never_due(&mut self, id: TopicPartition, slot: u32) {
        let Some(owned) = self.partitions.get_mut(&id) else { return };
        let Some(offset) = owned.keys.get(slot).map(|entry| entry.origin_offset) else { return };
        self.counters.invalid += 1;
        self.counters.by_reason[Reason::NeverDue] += 1;
        if self.config.dead_letter.is_some() {
            owned.keys.await_dead_letter(slot);
            owned.keys.remember_reason(slot, Reason::NeverDue);
        } else {
            owned.keys.drop_entry(slot);
        }
        self.report(Report::Invalid { partition: id, offset, reason: Reason::NeverDue });
    }

    /// Decides what a batch writes for a schedule that is due.
    pub(super) fn decide(&mut self, id: TopicPartition, slot: u32) -> DuePlan {
        let Some(owned) = self.partitions.get(&id) else { return DuePlan::Nothing };
        let Some(entry) = owned.keys.get(slot) else { return DuePlan::Nothing };
        let UserRequest::Schedule { due, form, .. } = entry.request else { return DuePlan::Nothing };
        let by = self.fires_by();
        match form {
            Form::Epoch => DuePlan::Fire(Fired::OLD, AfterFiring::End { ends_progress: false }),
            Form::Once => self.decide_once(id, slot, due, by),
            Form::Recurring => self.decide_recurring(id, slot, by),
        }
    }

    fn decide_once(&self, id: TopicPartition, slot: u32, due: Due, by: Millis) -> DuePlan {
        let Some(owned) = self.partitions.get(&id) else { return DuePlan::Nothing };
        let Some(entry) = owned.keys.get(slot) else { return DuePlan::Nothing };
        let jitter_seed = JitterSeed { partition_hash: owned.partition_hash, offset: entry.origin_offset };
        let spec = owned.keys.timed(slot).map(|timed| &timed.spec);
        // The due time without jitter; the spec of a schedule that fires once has it as `after`.
        let nominal = spec.map_or(due, |spec| recurrence::due_at(spec.after));
        let fired = Fired { nominal: Some(nominal), occurrence: None };
        // If an earlier schedule has left a progress record, a repair ends it.
        let after = AfterFiring::End { ends_progress: false };
        let expiry = spec.map_or(Expiry::Never, |spec| spec.expiry);
        debug_assert!(spec.is_none_or(|spec| recurrence::jittered(nominal, spec.jitter_ms, jitter_seed) == due));
        let judged_at = if bugs::on(Bug::ExpiryJudgedOnArrival) { entry.timestamp } else { by };
        if recurrence::is_expired(expiry, due.at(), judged_at) {
            DuePlan::Expire(fired, after)
        } else {
            DuePlan::Fire(fired, after)
        }
    }

    fn decide_recurring(&mut self, id: TopicPartition, slot: u32, by: Millis) -> DuePlan {
        let Some(owned) = self.partitions.get(&id) else { return DuePlan::Nothing };
        let (Some(recurring), Some(timed)) = (self.recurring(owned, slot), owned.keys.timed(slot)) else {
            return DuePlan::Nothing;
        };
        let Some(position) = timed.position else { return DuePlan::Nothing };
        let plan = recurring.plan(position, timed.fired_in_a_row, by);
        let has_progress = owned.keys.progress_slot(slot).is_some();
        let fired = |occurrence: Occurrence| Fired {
            nominal: Some(occurrence.nominal),
            occurrence: Some((occurrence.number, occurrence.missed)),
        };
        let after = |then: Option<Position>| match then {
            Some(position) => AfterFiring::Progress { position, failed: None },
            None => AfterFiring::End { ends_progress: has_progress && !bugs::on(Bug::ProgressKeptAfterEnd) },
        };
        match plan {
            Plan::Fire { occurrence, then, in_a_row } => {
                let plan = DuePlan::Fire(fired(occurrence), after(then));
                self.count_in_a_row(id, slot, occurrence, in_a_row);
                plan
            }
            Plan::Expire { occurrence, then, in_a_row } => {
                let plan = DuePlan::Expire(fired(occurrence), after(then));
                self.count_in_a_row(id, slot, occurrence, in_a_row);
                plan
            }
            Plan::Skip { skipped, then } => DuePlan::Skip(skipped, after(then)),
            Plan::NotDue => {
                self.date_again(id, slot);
                DuePlan::Nothing
            }
        }
    }

    /// Counts a missed occurrence that fires on its own, once. One that is on time ends the row. So does one that
    /// missed ones have become part of, but only when it is committed: its batch may be aborted.
    fn count_in_a_row(&mut self, id: TopicPartition, slot: u32, occurrence: Occurrence, in_a_row: bool) {
        let Some(owned) = self.partitions.get_mut(&id) else { return };
        let Some(timed) = owned.keys.timed_mut(slot) else { return };
        if in_a_row && timed.last_in_a_row != occurrence.number {
            timed.fired_in_a_row = timed.fired_in_a_row.saturating_add(1);
            timed.last_in_a_row = occurrence.number;
        } else if !in_a_row && occurrence.missed == 0 {
            timed.fired_in_a_row = 0;
        }
    }

    /// Lets a schedule go on whose occurrence was to become a dead letter, and has become part of a later one.
    pub(super) fn occurrence_over(&mut self, id: TopicPartition, slot: u32) {
        if let Some(owned) = self.partitions.get_mut(&id) {
            owned.keys.forgive(slot);
        }
    }

    /// Lets the calendar compute a due time again: the clock was set back.
    fn date_again(&mut self, id: TopicPartition, slot: u32) {
        if let Some(owned) = self.partitions.get_mut(&id) {
            owned.keys.date_again(slot);
        }
    }
}
