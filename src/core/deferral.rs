//! Defers schedules that cannot be delivered now: parks them until their target is usable or until a retry, or makes
//! them dead letters.

use super::bugs::{self, Bug};
use super::in_flight::BatchEntry;
use super::io::Output;
use super::partition::PartitionState;
use super::payload::Payload;
use super::reason::Reason;
use super::report::Report;
use super::targets::TargetState;
use super::targets::Verdict;
use super::{Scheduler, TopicPartition};

/// Retries of a record that a broker rejects without a clear cause before it becomes a dead letter, if a topic is set.
const RETRIES_BEFORE_DEAD_LETTER: u8 = 3;

/// Retries that count if one of the engine's own topics rejects a record: the wait doubles to at most 8 s plus jitter.
const OWN_TOPIC_RETRIES_MAX: u8 = 2;

impl<P: Payload> Scheduler<P> {
    pub(super) fn check_target(&mut self, target: u32) {
        self.outputs.push_back(Output::CheckTarget { target, name: self.targets.name(target) });
    }

    pub(super) fn on_target(&mut self, target: u32, state: TargetState) {
        if let Some(name) = self.targets.answered(self.now, target, state) {
            self.report(Report::TargetChanged { name, state });
        }
        match state {
            TargetState::Exists => self.partitions.values_mut().for_each(|state| state.keys.wake_waiting_for(target)),
            _ => self.park_waiting(target),
        }
    }

    /// Parks the schedules that wait for an unusable target under its present state, or makes them dead letters.
    fn park_waiting(&mut self, target: u32) {
        let verdict = self.targets.verdict(self.now, target);
        let waits = |state: &PartitionState<P>| state.keys.waiting_for(target).collect::<Vec<_>>();
        let waiting: Vec<_> = self.partitions.values().map(|state| (state.id, waits(state))).collect();
        let mut remaining = self.dead_letter_target == Some(target);
        for (id, slots) in waiting {
            for slot in slots {
                remaining |= !self.park_for_target(id, slot, verdict);
            }
        }
        if !remaining {
            self.targets.remove_waiters(target);
        }
    }

    /// Parks a schedule whose target takes no records. Returns true if it waits for the target no longer, because it
    /// becomes a dead letter.
    pub(super) fn park_for_target(&mut self, id: TopicPartition, slot: u32, verdict: Verdict) -> bool {
        let Some(state) = self.partitions.get_mut(&id) else { return true };
        match verdict {
            Verdict::GiveUp(reason) if self.config.dead_letter.is_some() => {
                self.make_dead_letter(id, slot, reason);
                return true;
            }
            Verdict::Hold(Some(reason)) | Verdict::GiveUp(reason) => {
                state.keys.await_target(slot);
                // No report: the target's state has its own.
                self.count_once(id, slot, reason);
            }
            Verdict::Hold(None) => state.keys.await_target(slot),
            Verdict::Send => {}
        }
        false
    }

    /// Parks an entry until its dead letter is written.
    fn make_dead_letter(&mut self, id: TopicPartition, slot: u32, reason: Reason) {
        let Some(state) = self.partitions.get_mut(&id) else { return };
        let Some(offset) = state.keys.get(slot).map(|entry| entry.origin_offset) else { return };
        state.keys.await_dead_letter(slot);
        self.count_once(id, slot, reason);
        self.report(Report::ToDeadLetter { partition: id, offset, reason });
    }

    /// Handles that a broker rejected a record of this entry.
    pub(super) fn rejected(&mut self, entry: &BatchEntry, reason: Reason) {
        if bugs::on(Bug::RejectedNotParked) {
            return;
        }
        let BatchEntry { partition, slot, origin_offset, target, is_dead_letter, .. } = *entry;
        let Some(state) = self.partitions.get_mut(&partition) else { return };
        let Some(latest) = state.keys.get(slot).filter(|latest| latest.origin_offset == origin_offset) else { return };
        let (retries, fires) = (latest.retries(), target.is_some() && !is_dead_letter);
        match (target, reason) {
            (Some(target), Reason::UnknownTarget | Reason::Forbidden) => {
                if fires {
                    state.keys.await_target(slot);
                }
                let check = self.targets.check_again(target);
                if self.targets.add_waiter(self.now, target) || check {
                    self.check_target(target);
                }
            }
            (Some(target), Reason::NoLeader | Reason::Timestamp) => {
                if fires {
                    state.keys.await_target(slot);
                    self.count_once(partition, slot, reason);
                }
                let target_state = match reason {
                    Reason::Timestamp => TargetState::RejectsTimestamps,
                    _ => TargetState::Leaderless,
                };
                if let Some(name) = self.targets.quarantine(self.now, target, target_state) {
                    self.report(Report::TargetChanged { name, state: target_state });
                }
            }
            (_, Reason::TooLarge | Reason::Rejected)
                if fires
                    && self.config.dead_letter.is_some()
                    && (reason == Reason::TooLarge || retries >= RETRIES_BEFORE_DEAD_LETTER) =>
            {
                self.make_dead_letter(partition, slot, reason);
            }
            _ => {
                let is_rewrite = target.is_none();
                if reason == Reason::OwnTopic {
                    // An operator may correct the topic's settings at any time, and nothing else stops the record.
                    state.keys.limit_retries(slot, OWN_TOPIC_RETRIES_MAX);
                }
                if reason == Reason::Rejected && fires {
                    state.keys.isolate(slot, origin_offset);
                }
                let retry_at = if is_rewrite {
                    state.keys.await_rewrite_retry(slot, self.now)
                } else {
                    state.keys.await_retry(slot, self.now)
                };
                if self.count_once(partition, slot, reason) {
                    self.report(Report::Parked { partition, offset: origin_offset, reason, retry_at });
                }
            }
        }
    }

    /// Counts a reason of an entry once for each kind of reason. Returns true the first time.
    fn count_once(&mut self, id: TopicPartition, slot: u32, reason: Reason) -> bool {
        let is_new = self.partitions.get_mut(&id).is_some_and(|state| state.keys.remember_reason(slot, reason));
        self.counters.by_reason[reason as usize] += u64::from(is_new);
        is_new
    }
}
