//! Forms batches of dead letters.

use super::batch::{AfterFiring, Batch, DeadRequest, Kind};
use super::batching::{add_entry, partitions_of};
use super::in_flight::{BatchEntry, Lane, Purpose};
use super::key_table::UserRequest;
use super::occurrences::DuePlan;
use super::partition::OwnedPartition;
use super::payload::Payload;
use super::reason::Reason;
use super::targets::Verdict;
use super::{Scheduler, TopicPartition};

impl<P: Payload> Scheduler<P> {
    /// Moves records that cannot fire to the dead-letter topic, in batches of their own: trouble with that topic delays
    /// no firing.
    pub(super) fn dead_letters(&mut self) -> bool {
        let Some(name) = self.names.dead_letter.clone() else { return false };
        if !self.partitions.values().any(|owned| owned.may_fire() && owned.keys.has_dead_letters()) {
            return false;
        }
        let (topic, new) = self.targets.intern(&name);
        self.dead_letter_target = Some(topic);
        if self.targets.verdict(self.now, topic) != Verdict::Fire {
            if self.targets.add_waiter(self.now, topic) || new {
                self.check_target(topic);
            }
            return false;
        }
        let mut batch = self.new_batch();
        let mut entries = Vec::new();
        for id in self.ids(OwnedPartition::may_fire) {
            while !self.is_full(&batch, Lane::DeadLetters) && self.add_dead_letter(&mut batch, &mut entries, id, topic)
            {
            }
        }
        self.send(batch, Purpose::Entries(Lane::DeadLetters), partitions_of(&entries), entries)
    }

    fn add_dead_letter(
        &mut self,
        batch: &mut Batch,
        entries: &mut Vec<BatchEntry>,
        id: TopicPartition,
        topic: u32,
    ) -> bool {
        let Some(owned) = self.partitions.get_mut(&id) else { return false };
        let Some(slot) = owned.keys.take_dead_letter() else { return false };
        let Some(entry) = owned.keys.get(slot) else { return false };
        let (origin_offset, timestamp) = (entry.origin_offset, entry.timestamp);
        let reason = entry.parked_for.unwrap_or(Reason::Rejected);
        let end = AfterFiring::End { ends_progress: entry.recurs() && owned.keys.progress_slot(slot).is_some() };
        let recurs = entry.recurs();
        if recurs && owned.keys.is_progress_outstanding(slot) {
            owned.keys.await_progress(slot);
            return true;
        }
        let Some(entry) = owned.keys.get(slot) else { return false };
        let (reason, request, after) = match entry.request {
            UserRequest::Schedule { target, due, .. } if reason == Reason::NeverDue => {
                let target = self.targets.name(target);
                (reason, Some(DeadRequest { target, due, fired: None }), end)
            }
            UserRequest::Schedule { due, target, .. } => {
                let target = self.targets.name(target);
                match self.decide(id, slot) {
                    // The expired one has become part of one that can still fire.
                    DuePlan::Fire(..) if recurs && reason == Reason::Expired => {
                        self.occurrence_over(id, slot);
                        return true;
                    }
                    DuePlan::Fire(fired, after) | DuePlan::Expire(fired, after) => {
                        let due = fired.nominal.unwrap_or(due);
                        (reason, Some(DeadRequest { target, due, fired: Some(fired) }), after.failed(reason))
                    }
                    DuePlan::Skip(..) | DuePlan::Nothing => {
                        self.occurrence_over(id, slot);
                        return true;
                    }
                }
            }
            UserRequest::Invalid(reason) => (reason, None, end),
            UserRequest::Cancel | UserRequest::Unknown(_) => return true,
        };
        let kind = Kind::DeadLetter { reason, request, timestamp, after };
        let Some(owned) = self.partitions.get_mut(&id) else { return false };
        let (progress, has_expired) = (owned.keys.own_progress(slot), reason == Reason::Expired);
        let entry = BatchEntry::new(id, slot, origin_offset, after.written());
        let entry = BatchEntry { target: Some(topic), is_dead_letter: true, has_expired, progress, ..entry };
        add_entry(batch, entries, &mut owned.keys, kind, entry);
        true
    }
}
