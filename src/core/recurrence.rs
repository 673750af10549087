//! Decides which occurrence of a schedule fires next, and what becomes of those that were missed.
//!
//! An occurrence is *missed* if the one after it is due too, or if it is later than a tolerance, whatever the cause.
//! All functions here are pure: they take the time and the calendar as arguments.

use super::bugs::{self, Bug};
use super::calendar::{Calendar, Rule};
use super::due::Due;
use super::origin::Fnv;
use super::types::Millis;
use super::when::{Expiry, Misfire, Spec};

/// Missed occurrences of one schedule that fire one by one, with `scheduler-misfire: all`; the others become one
/// firing.
const FIRED_IN_A_ROW_MAX: u32 = 1_000;

/// A user's record, for the jitter of its occurrences: the hash of its partition, and its offset there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct JitterSeed {
    pub(super) partition_hash: u64,
    pub(super) offset: i64,
}

/// How far a schedule that recurs has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Occurrences that are over: fired, skipped, or part of a later one.
    pub done: u64,
    /// When the next one is due, without jitter.
    pub next: Millis,
}

/// An occurrence that is being looked at, and when the one after it is due, if there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Candidate {
    number: u64,
    nominal: Millis,
    following: Option<Millis>,
}

/// An occurrence that fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occurrence {
    /// Its number, from 1.
    pub number: u64,
    /// When it is due, without jitter.
    pub nominal: Due,
    /// Number of missed occurrences that are part of it.
    pub missed: u64,
}

/// What is to be done for a schedule that recurs and is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// An occurrence fires. Afterwards the schedule is at this position; `None` ends it. `in_a_row`: it was missed, and
    /// fires on its own.
    Fire { occurrence: Occurrence, then: Option<Position>, in_a_row: bool },
    /// Occurrences were missed, and none fires.
    Skip { skipped: u64, then: Option<Position> },
    /// An occurrence is too late to fire.
    Expire { occurrence: Occurrence, then: Option<Position>, in_a_row: bool },
    /// No occurrence is due: the clock was set back.
    NotDue,
}

/// A schedule that recurs, and the calendar to ask.
#[derive(Clone, Copy, Debug)]
pub(super) struct Recurring<'a> {
    pub(super) spec: &'a Spec,
    pub(super) rule: &'a Rule,
    pub(super) jitter_seed: JitterSeed,
    pub(super) calendar: &'a dyn Calendar,
}

impl Recurring<'_> {
    /// Returns the first occurrence, not before `since`.
    pub(super) fn first(&self, since: Millis) -> Option<Millis> {
        let after = self.spec.after.max(since.plus(-1));
        self.calendar.next(self.rule, &self.spec.except, after, self.spec.first_until())
    }

    /// Returns when the next occurrence of a position is due, with jitter.
    pub(super) fn due(&self, position: Position) -> Due {
        let candidate = match self.spec.jitter_ms {
            0 => Candidate { number: position.done.saturating_add(1), nominal: position.next, following: None },
            _ => self.candidate(position),
        };
        due_at(self.jittered(&candidate))
    }

    /// Decides what to do at `now`. `fired_in_a_row` is the number of missed occurrences that have fired one by one.
    pub(super) fn plan(&self, position: Position, fired_in_a_row: u32, now: Millis) -> Plan {
        let first = self.candidate(position);
        if self.jittered(&first) > now {
            return Plan::NotDue;
        }
        if !self.is_missed(&first, now) {
            return self.fire(&first, 0, now, false);
        }
        let is_each = self.spec.misfire == Misfire::All && fired_in_a_row < FIRED_IN_A_ROW_MAX;
        if is_each || bugs::on(Bug::MisfireFiresAll) {
            return self.fire(&first, 0, now, true);
        }
        let last = self.last_missed(&first, now);
        let missed = last.number - first.number;
        if self.spec.misfire != Misfire::Skip {
            return self.fire(&last, missed, now, false);
        }
        match self.then(&last) {
            // It is due and was not missed, or it would be the last one that was.
            Some(then) if self.jittered(&self.candidate(then)) <= now => {
                self.fire(&self.candidate(then), 0, now, false)
            }
            then => Plan::Skip { skipped: missed + 1, then },
        }
    }

    fn candidate(&self, position: Position) -> Candidate {
        let number = position.done.saturating_add(1);
        let count = self.spec.count.saturating_add(u64::from(bugs::on(Bug::CountOffByOne)));
        let (except, until) = (&self.spec.except, self.spec.until);
        let following = match number < count {
            true => self.calendar.next(self.rule, except, position.next, until),
            false => None,
        };
        Candidate { number, nominal: position.next, following }
    }

    /// Returns the time from which a candidate is due. It stays before the one after it.
    fn jittered(&self, candidate: &Candidate) -> Millis {
        let distance_ms = candidate.following.map_or(i64::MAX, |next| next.0.saturating_sub(candidate.nominal.0));
        let within_ms = self.spec.jitter_ms.min(distance_ms);
        candidate.nominal.plus(jitter_ms(self.jitter_seed, candidate.number, within_ms))
    }

    /// Returns whether a candidate that is due was missed.
    fn is_missed(&self, candidate: &Candidate, now: Millis) -> bool {
        let is_late = self.jittered(candidate).plus(self.spec.tolerance_ms) < now;
        let following = self.then(candidate).filter(|then| then.next <= now);
        is_late || following.is_some_and(|then| self.jittered(&self.candidate(then)) <= now)
    }

    /// Returns the last missed candidate; `first` is one.
    fn last_missed(&self, first: &Candidate, now: Millis) -> Candidate {
        let mut number = first.number;
        let until = now.min(self.spec.until);
        number = number.saturating_add(self.count(first.nominal, until)).min(self.spec.count.max(first.number));
        // The last one that is due by the rule may wait for its jitter, and the last one that is due may not be late.
        loop {
            let candidate = self.numbered(first, number, until);
            let is_due = self.jittered(&candidate) <= now;
            if number <= first.number || is_due && self.is_missed(&candidate, now) {
                return candidate;
            }
            number -= 1;
        }
    }

    /// Returns the number of occurrences after one moment and at or before another.
    fn count(&self, after: Millis, until: Millis) -> u64 {
        self.calendar.count(self.rule, &self.spec.except, after, until)
    }

    /// Returns the candidate with this number, which is at or before `until`.
    fn numbered(&self, first: &Candidate, number: u64, until: Millis) -> Candidate {
        let Some(after) = number.checked_sub(first.number).filter(|after| *after > 0) else { return *first };
        let (mut low, mut high) = (first.nominal.0, until.0);
        // The first moment by which so many have occurred.
        while low + 1 < high {
            let middle = low + (high - low) / 2;
            if self.count(first.nominal, Millis(middle)) >= after { high = middle } else { low = middle }
        }
        self.candidate(Position { done: number - 1, next: Millis(high) })
    }

    fn fire(&self, candidate: &Candidate, missed: u64, now: Millis, in_a_row: bool) -> Plan {
        let occurrence = Occurrence { number: candidate.number, nominal: due_at(candidate.nominal), missed };
        let then = self.then(candidate);
        if is_expired(self.spec.expiry, self.jittered(candidate), now) {
            Plan::Expire { occurrence, then, in_a_row }
        } else {
            Plan::Fire { occurrence, then, in_a_row }
        }
    }

    fn then(&self, candidate: &Candidate) -> Option<Position> {
        candidate.following.map(|next| Position { done: candidate.number, next })
    }
}

/// Returns a due time with its random delay, for a schedule that fires once.
pub(super) fn jittered(due: Due, within_ms: i64, jitter_seed: JitterSeed) -> Due {
    if within_ms == 0 { due } else { due_at(due.at().plus(jitter_ms(jitter_seed, 1, within_ms))) }
}

/// Returns whether what is due at `due` is too late to fire at `now`.
pub(super) fn is_expired(expiry: Expiry, due: Millis, now: Millis) -> bool {
    match expiry {
        Expiry::Never => false,
        Expiry::After(span_ms) => due.plus(span_ms) < now,
        Expiry::At(end) => end < now,
    }
}

/// Returns the random delay of an occurrence, below `within_ms`: the same whenever it is computed.
pub(super) fn jitter_ms(jitter_seed: JitterSeed, number: u64, within_ms: i64) -> i64 {
    let Some(within_ms) = u64::try_from(within_ms).ok().filter(|within_ms| *within_ms > 0) else { return 0 };
    let mut hash = Fnv::default();
    hash.write(&jitter_seed.partition_hash.to_be_bytes());
    hash.write(&jitter_seed.offset.to_be_bytes());
    hash.write(&number.to_be_bytes());
    // Below within_ms, which fits.
    (hash.finish() % within_ms) as i64
}

/// Occurrences are never before 1970: they are after a record's timestamp, which is -1 at the least.
pub(super) fn due_at(moment: Millis) -> Due {
    Due::from_epoch_ms(u64::try_from(moment.0).unwrap_or(0)).unwrap_or(Due::LAST)
}
