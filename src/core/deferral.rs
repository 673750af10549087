//! Defers schedules that cannot be delivered now: parks them until their target is usable or until a retry, or makes
//! them dead letters.

use super::bugs::{self, Bug};
use super::in_flight::BatchEntry;
use super::io::Output;
use super::partition::OwnedPartition;
use super::payload::Payload;
use super::reason::Reason;
use super::report::Report;
use super::targets::TargetState;
use super::targets::Verdict;
use super::{Scheduler, TopicPartition};

/// Retries of a record that a broker rejects without a clear cause before it becomes a dead letter, if a topic is set.
const RETRIES_BEFORE_DEAD_LETTER: u8 = 3;

/// How long progress records are not rewritten after a broker rejected one.
const REPAIR_RETRY_MS: i64 = 10_000;

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
            TargetState::Exists => self.partitions.values_mut().for_each(|owned| owned.keys.wake_waiting_for(target)),
            _ => self.park_waiting(target),
        }
    }

    /// Parks the schedules that wait for an unusable target under its present state, or makes them dead letters.
    fn park_waiting(&mut self, target: u32) {
        let verdict = self.targets.verdict(self.now, target);
        let waits = |owned: &OwnedPartition<P>| owned.keys.waiting_for(target).collect::<Vec<_>>();
        let waiting: Vec<_> = self.partitions.values().map(|owned| (owned.id, waits(owned))).collect();
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
        let Some(owned) = self.partitions.get_mut(&id) else { return true };
        match verdict {
            Verdict::DeadLetter(reason)
                if self.config.dead_letter.is_some() && !owned.keys.has_failed_for(slot, reason) =>
            {
                self.make_dead_letter(id, slot, reason);
                return true;
            }
            Verdict::Park(Some(reason)) | Verdict::DeadLetter(reason) => {
                owned.keys.await_target(slot);
                // No report: the target's state has its own.
                self.count_once(id, slot, reason);
            }
            Verdict::Park(None) => owned.keys.await_target(slot),
            Verdict::Fire => {}
        }
        false
    }

    /// Parks an entry until its dead letter is written.
    pub(super) fn make_dead_letter(&mut self, id: TopicPartition, slot: u32, reason: Reason) {
        let Some(owned) = self.partitions.get_mut(&id) else { return };
        let Some(offset) = owned.keys.get(slot).map(|entry| entry.origin_offset) else { return };
        owned.keys.await_dead_letter(slot);
        self.count_once(id, slot, reason);
        self.report(Report::ToDeadLetter { partition: id, offset, reason });
    }

    /// Handles that a broker rejected a record of this entry.
    pub(super) fn rejected(&mut self, entry: &BatchEntry, reason: Reason) {
        if bugs::on(Bug::RejectedNotParked) {
            return;
        }
        let Some(owned) = self.partitions.get_mut(&entry.partition) else { return };
        if entry.slot == BatchEntry::NO_SLOT {
            owned.repairs_after = self.now.plus(REPAIR_RETRY_MS);
            return;
        }
        let latest = owned.keys.get(entry.slot).filter(|latest| latest.origin_offset == entry.origin_offset);
        let Some(latest) = latest else { return };
        let has_dead_letter_topic = self.config.dead_letter.is_some() && !owned.keys.has_failed_for(entry.slot, reason);
        match decide(Written::of(entry), reason, latest.retries(), has_dead_letter_topic) {
            Decision::CheckTarget(target) => self.await_lookup(entry, target),
            Decision::Quarantine(target, state) => self.quarantine(entry, reason, target, state),
            Decision::MakeDeadLetter => self.make_dead_letter(entry.partition, entry.slot, reason),
            Decision::Retry { retries_max, is_isolated } => self.await_retry(entry, reason, retries_max, is_isolated),
        }
    }

    /// Looks the target up again, which a firing waits for. A dead letter waits by itself: its lane asks for the topic.
    fn await_lookup(&mut self, entry: &BatchEntry, target: u32) {
        self.await_target(entry);
        let check = self.targets.check_again(target);
        if self.targets.add_waiter(self.now, target) || check {
            self.check_target(target);
        }
    }

    /// Parks all schedules of a target that takes no records.
    fn quarantine(&mut self, entry: &BatchEntry, reason: Reason, target: u32, state: TargetState) {
        if self.await_target(entry) {
            self.count_once(entry.partition, entry.slot, reason);
        }
        if let Some(name) = self.targets.quarantine(self.now, target, state) {
            self.report(Report::TargetChanged { name, state });
        }
    }

    /// Lets a firing wait for its target. Returns whether the entry is one.
    fn await_target(&mut self, entry: &BatchEntry) -> bool {
        let fires = matches!(Written::of(entry), Written::Firing(_));
        if let Some(owned) = self.partitions.get_mut(&entry.partition).filter(|_| fires) {
            owned.keys.await_target(entry.slot);
        }
        fires
    }

    /// Parks an entry until it is tried again.
    fn await_retry(&mut self, entry: &BatchEntry, reason: Reason, retries_max: Option<u8>, is_isolated: bool) {
        let BatchEntry { partition, slot, origin_offset: offset, .. } = *entry;
        let Some(owned) = self.partitions.get_mut(&partition) else { return };
        if let Some(retries_max) = retries_max {
            owned.keys.limit_retries(slot, retries_max);
        }
        if is_isolated {
            owned.keys.isolate(slot, offset);
        }
        let retry_at = match Written::of(entry) {
            Written::Rewrite => owned.keys.await_rewrite_retry(slot, self.now),
            Written::Firing(_) | Written::DeadLetter(_) => owned.keys.await_retry(slot, self.now),
        };
        if self.count_once(partition, slot, reason) {
            self.report(Report::Parked { partition, offset, reason, retry_at });
        }
    }

    /// Counts a reason of an entry once for each kind of reason. Returns true the first time.
    fn count_once(&mut self, id: TopicPartition, slot: u32, reason: Reason) -> bool {
        let is_new = self.partitions.get_mut(&id).is_some_and(|owned| owned.keys.remember_reason(slot, reason));
        self.counters.by_reason[reason] += u64::from(is_new);
        is_new
    }
}

/// What a batch wrote for an entry, with the number of its target or dead-letter topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    Firing(u32),
    DeadLetter(u32),
    Rewrite,
}

impl Written {
    fn of(entry: &BatchEntry) -> Self {
        match entry.target {
            Some(topic) if entry.is_dead_letter => Self::DeadLetter(topic),
            Some(target) => Self::Firing(target),
            None => Self::Rewrite,
        }
    }
}

/// How an entry goes on after a broker has rejected a record of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    /// The topic is looked up again.
    CheckTarget(u32),
    /// The topic takes no records: all of its schedules are parked.
    Quarantine(u32, TargetState),
    /// The schedule becomes a dead letter.
    MakeDeadLetter,
    /// The entry is tried again after a wait that grows with the number of retries.
    Retry {
        /// The wait grows no further after this many.
        retries_max: Option<u8>,
        /// It fires apart from others.
        is_isolated: bool,
    },
}

fn decide(written: Written, reason: Reason, retries: u8, has_dead_letter_topic: bool) -> Decision {
    match (written, reason) {
        (Written::Firing(topic) | Written::DeadLetter(topic), Reason::UnknownTarget | Reason::Forbidden) => {
            Decision::CheckTarget(topic)
        }
        (Written::Firing(topic) | Written::DeadLetter(topic), Reason::NoLeader) => {
            Decision::Quarantine(topic, TargetState::Leaderless)
        }
        (Written::Firing(topic) | Written::DeadLetter(topic), Reason::Timestamp) => {
            Decision::Quarantine(topic, TargetState::RejectsTimestamps)
        }
        (Written::Firing(_), Reason::TooLarge) if has_dead_letter_topic => Decision::MakeDeadLetter,
        (Written::Firing(_), Reason::Rejected) if has_dead_letter_topic && retries >= RETRIES_BEFORE_DEAD_LETTER => {
            Decision::MakeDeadLetter
        }
        (Written::Firing(_), Reason::Rejected) => Decision::Retry { retries_max: None, is_isolated: true },
        // An operator may correct the topic's settings at any time, and nothing else stops the record.
        (_, Reason::OwnTopic) => Decision::Retry { retries_max: Some(OWN_TOPIC_RETRIES_MAX), is_isolated: false },
        _ => Decision::Retry { retries_max: None, is_isolated: false },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRING: Written = Written::Firing(7);
    const DEAD_LETTER: Written = Written::DeadLetter(8);
    const REWRITE: Written = Written::Rewrite;
    const RETRY: Decision = Decision::Retry { retries_max: None, is_isolated: false };
    const ISOLATED: Decision = Decision::Retry { retries_max: None, is_isolated: true };
    const OWN: Decision = Decision::Retry { retries_max: Some(OWN_TOPIC_RETRIES_MAX), is_isolated: false };

    #[test]
    fn each_reason_decides_by_what_was_written() {
        use Decision::{CheckTarget, MakeDeadLetter, Quarantine};
        use Reason::{Forbidden, NoLeader, OwnTopic, Rejected, Timestamp, TooLarge, UnknownTarget};
        let (leaderless, clock) = (TargetState::Leaderless, TargetState::RejectsTimestamps);
        // The reason, then the decision for a firing, for a dead letter and for a rewrite.
        for (reason, firing, dead_letter, rewrite) in [
            (UnknownTarget, CheckTarget(7), CheckTarget(8), RETRY),
            (Forbidden, CheckTarget(7), CheckTarget(8), RETRY),
            (NoLeader, Quarantine(7, leaderless), Quarantine(8, leaderless), RETRY),
            (Timestamp, Quarantine(7, clock), Quarantine(8, clock), RETRY),
            (TooLarge, MakeDeadLetter, RETRY, RETRY),
            (Rejected, MakeDeadLetter, RETRY, RETRY),
            (OwnTopic, OWN, OWN, OWN),
        ] {
            let decided = [FIRING, DEAD_LETTER, REWRITE].map(|written| decide(written, reason, u8::MAX, true));
            assert_eq!(decided, [firing, dead_letter, rewrite], "{reason:?}");
        }
    }

    #[test]
    fn a_firing_gives_up_only_with_a_dead_letter_topic() {
        const LAST: u8 = RETRIES_BEFORE_DEAD_LETTER - 1;
        for (reason, retries, has_topic, decision) in [
            (Reason::Rejected, 0, true, ISOLATED),
            (Reason::Rejected, LAST, true, ISOLATED),
            (Reason::Rejected, LAST + 1, true, Decision::MakeDeadLetter),
            (Reason::Rejected, u8::MAX, false, ISOLATED),
            (Reason::TooLarge, 0, true, Decision::MakeDeadLetter),
            (Reason::TooLarge, u8::MAX, false, RETRY),
            (Reason::OwnTopic, u8::MAX, true, OWN),
        ] {
            assert_eq!(decide(FIRING, reason, retries, has_topic), decision, "{reason:?} {retries} {has_topic}");
        }
    }
}
