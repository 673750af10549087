//! Schedules that cannot be delivered now: held for their target, parked, or given up.

use super::bugs::{self, Bug};
use super::io::{Output, Report, TargetState};
use super::payload::Payload;
use super::reason::Reason;
use super::settling::Entry;
use super::targets::Verdict;
use super::{Partition, Scheduler};

/// Tries of a record that the broker refuses without a clear cause before it becomes a dead letter, where there are any.
const TRIES_MAX: u8 = 3;

/// Tries that count for a record that one of the engine's own topics refuses: the wait stays at 8 s and a share.
const OWN_TOPIC_TRIES_MAX: u8 = 2;

impl<P: Payload> Scheduler<P> {
    pub(super) fn check_target(&mut self, target: u32) {
        self.outputs.push_back(Output::CheckTarget { target, name: self.targets.name(target) });
    }

    /// Puts a schedule off that its target cannot take. True if it was given up, so that it waits no longer.
    pub(super) fn put_off(&mut self, id: Partition, slot: u32, verdict: Verdict) -> bool {
        let Some(life) = self.lives.get_mut(&id) else { return true };
        match verdict {
            Verdict::GiveUp(reason) if self.config.dead_letter.is_some() => {
                life.words.condemn(slot);
                let offset = life.words.get(slot).map_or(-1, |word| word.identity);
                self.count_once(id, slot, reason);
                self.report(Report::GivenUp { partition: id, offset, reason });
                return true;
            }
            Verdict::Hold(Some(reason)) | Verdict::GiveUp(reason) => {
                life.words.hold(slot);
                // The target's state has its own line.
                self.count_once(id, slot, reason);
            }
            Verdict::Hold(None) => life.words.hold(slot),
            Verdict::Send => {}
        }
        false
    }

    /// The broker refused a record of this entry.
    pub(super) fn rejected(&mut self, entry: &Entry, reason: Reason) {
        if bugs::on(Bug::RefusedNotParked) {
            return;
        }
        let Entry { partition, slot, identity, target, letter, .. } = *entry;
        let Some(life) = self.lives.get_mut(&partition) else { return };
        let Some(word) = life.words.get(slot).filter(|word| word.identity == identity) else { return };
        let (tries, fires) = (word.tries(), target.is_some() && !letter);
        match (target, reason) {
            (Some(target), Reason::UnknownTarget | Reason::Forbidden) => {
                if fires {
                    life.words.hold(slot);
                }
                let check_again = self.targets.refused(target);
                if self.targets.wait(self.now, target) || check_again {
                    self.check_target(target);
                }
            }
            (Some(target), Reason::NoLeader | Reason::Timestamp) => {
                if fires {
                    life.words.hold(slot);
                    self.count_once(partition, slot, reason);
                }
                let state = match reason {
                    Reason::Timestamp => TargetState::RefusesTimestamps,
                    _ => TargetState::Leaderless,
                };
                if let Some(name) = self.targets.quarantined(self.now, target, state) {
                    self.report(Report::TargetChanged { name, state });
                }
            }
            (_, Reason::TooLarge | Reason::Refused)
                if fires && self.config.dead_letter.is_some() && (reason == Reason::TooLarge || tries >= TRIES_MAX) =>
            {
                self.put_off(partition, slot, Verdict::GiveUp(reason));
            }
            _ => {
                let again = target.is_none();
                if reason == Reason::OwnTopic {
                    // Its settings can be mended at any time, and nothing else keeps the record from firing.
                    life.words.limit_tries(slot, OWN_TOPIC_TRIES_MAX);
                }
                if reason == Reason::Refused && fires {
                    life.words.suspect(slot, identity);
                }
                let retry_at = if again { life.words.bar(slot, self.now) } else { life.words.park(slot, self.now) };
                if self.count_once(partition, slot, reason) {
                    self.report(Report::Parked { partition, offset: identity, reason, retry_at });
                }
            }
        }
    }

    /// Counts each reason of a word once. True if it is news.
    fn count_once(&mut self, id: Partition, slot: u32, reason: Reason) -> bool {
        let news = self.lives.get_mut(&id).is_some_and(|life| life.words.put_off(slot, reason));
        self.counters.refused[reason as usize] += u64::from(news);
        news
    }
}
