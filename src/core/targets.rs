//! Target topics: whether they can be produced to, and which schedules wait until they can.
//!
//! A transactional producer needs 30 s to find out that a topic is missing, so that a target is checked by metadata
//! before anything is sent to it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::reason::Reason;
use super::types::Millis;

/// First wait before a missing target is looked for again; it doubles up to [`RETRY_MAX_MS`].
const RETRY_MIN_MS: i64 = 1_000;
/// Longest wait before a missing target is looked for again.
const RETRY_MAX_MS: i64 = 30_000;

/// Tries after which the schedules of a target that is missing or forbidden become dead letters, where there are any.
const TRIES_MAX: u32 = 3;
/// First wait of a target that has taken no records, though the metadata shows nothing wrong; it doubles up to
/// [`QUARANTINE_MAX_MS`].
const QUARANTINE_MIN_MS: i64 = 2_000;
const QUARANTINE_MAX_MS: i64 = 64_000;
/// A target that has taken records for so long begins with the first wait again.
const PROBATION_MS: i64 = 60_000;
/// Names kept before those that no schedule uses any more are looked for.
const SWEEP_MIN: usize = 1_024;

/// What the cluster's metadata says of a target topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetState {
    /// It can be produced to.
    Exists,
    /// The cluster answered that there is no such topic.
    Missing,
    /// The cluster answered that we may not see it.
    Forbidden,
    /// It is there, but one of its partitions takes no records: it has no leader, or too few replicas in sync.
    Leaderless,
    /// It is there, but refuses the engine's timestamps. No metadata says so: the delivery reports do.
    RefusesTimestamps,
    /// The cluster did not answer in time, which says nothing of the topic.
    NoAnswer,
}

#[derive(Debug)]
struct Target {
    name: Arc<str>,
    state: State,
    /// Somebody waits for it.
    has_waiters: bool,
    /// Looks in a row that have found it unusable.
    tries: u32,
    /// What was last said of it, while it is unusable.
    last_reported: Option<TargetState>,
    /// How often in a row it has taken no records, and until when that is remembered.
    consecutive_failures: u32,
    failures_reset_at: Millis,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Checking,
    Known,
    Unusable { state: TargetState, retry_at: Millis },
}

/// Every target that a schedule names. Numbers are not used twice.
#[derive(Debug)]
pub struct Targets {
    list: BTreeMap<u32, Target>,
    by_name: BTreeMap<Arc<str>, u32>,
    next: u32,
    /// Names at which those that are not used are looked for.
    sweep_at: usize,
    /// A target was quarantined, and has not taken a record since.
    has_quarantined: bool,
}

/// What to do with a schedule for a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Send it.
    Send,
    /// Keep it until the target is usable.
    Hold(Option<Reason>),
    /// Trying again has not helped.
    GiveUp(Reason),
}

impl Default for Targets {
    fn default() -> Self {
        Self { list: BTreeMap::new(), by_name: BTreeMap::new(), next: 0, sweep_at: SWEEP_MIN, has_quarantined: false }
    }
}

impl Target {
    /// Notes what is wrong with it. Gives its name if that is news; that nobody answers is none beside what was known.
    fn says(&mut self, state: TargetState) -> Option<Arc<str>> {
        let old =
            self.last_reported.is_some_and(|last_reported| last_reported == state || state == TargetState::NoAnswer);
        if old {
            return None;
        }
        self.last_reported = Some(state);
        Some(Arc::clone(&self.name))
    }
}

impl Targets {
    /// The number of a target, and whether it is new and has to be checked.
    pub fn intern(&mut self, name: &str) -> (u32, bool) {
        if let Some(target) = self.by_name.get(name) {
            return (*target, false);
        }
        let name: Arc<str> = name.into();
        let target = self.next;
        self.next += 1;
        self.by_name.insert(Arc::clone(&name), target);
        let new = Target {
            name,
            state: State::Checking,
            has_waiters: false,
            tries: 0,
            last_reported: None,
            consecutive_failures: 0,
            failures_reset_at: Millis(i64::MIN),
        };
        self.list.insert(target, new);
        (target, true)
    }

    /// Names kept.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether so many names are kept that it is time to [`sweep`](Self::sweep).
    pub fn is_full(&self) -> bool {
        self.list.len() >= self.sweep_at
    }

    /// Forgets the names that are not used.
    pub fn sweep(&mut self, used: &BTreeSet<u32>) {
        self.list.retain(|target, _| used.contains(target));
        self.by_name.retain(|_, target| used.contains(target));
        self.sweep_at = (self.list.len() * 2).max(SWEEP_MIN);
    }

    /// A target's name.
    pub fn name(&self, target: u32) -> Arc<str> {
        self.list.get(&target).map_or_else(|| Arc::from(""), |target| Arc::clone(&target.name))
    }

    /// What to do with a schedule for this target.
    pub fn verdict(&self, now: Millis, target: u32) -> Verdict {
        let Some(target) = self.list.get(&target) else { return Verdict::Hold(None) };
        match target.state {
            State::Known => Verdict::Send,
            State::Checking => Verdict::Hold(None),
            State::Unusable { state, retry_at } => match reason(state) {
                // Only the last look counts: the topic may have been created since. A partition without a leader and a
                // wrong clock are no fault of a schedule.
                Some(reason @ (Reason::UnknownTarget | Reason::Forbidden))
                    if target.tries >= TRIES_MAX && retry_at > now =>
                {
                    Verdict::GiveUp(reason)
                }
                reason => Verdict::Hold(reason),
            },
        }
    }

    /// Somebody waits for this target. True if it has to be checked now.
    #[must_use]
    pub fn wait(&mut self, now: Millis, target: u32) -> bool {
        let Some(target) = self.list.get_mut(&target) else { return false };
        target.has_waiters = true;
        let check = matches!(target.state, State::Unusable { retry_at, .. } if retry_at <= now);
        if check {
            target.state = State::Checking;
        }
        check
    }

    /// The broker refused a record because of its target. True if the target has to be checked now.
    #[must_use]
    pub fn refused(&mut self, target: u32) -> bool {
        let Some(target) = self.list.get_mut(&target) else { return false };
        let check = target.state == State::Known;
        if check {
            target.state = State::Checking;
        }
        check
    }

    /// A partition of the target took no records, each of which costs its whole batch seconds to find out: nothing more
    /// is sent to it for a while, whatever the metadata says. Gives the target's name if that is news.
    pub fn quarantined(&mut self, now: Millis, target: u32, state: TargetState) -> Option<Arc<str>> {
        let target = self.list.get_mut(&target)?;
        // Its schedules wait, even if another batch has found this out before.
        target.has_waiters = true;
        if target.state != State::Known {
            return None;
        }
        if target.failures_reset_at < now {
            target.consecutive_failures = 0;
        }
        let delay = (QUARANTINE_MIN_MS << target.consecutive_failures.min(8)).min(QUARANTINE_MAX_MS);
        target.consecutive_failures = target.consecutive_failures.saturating_add(1);
        target.failures_reset_at = now.plus(delay + PROBATION_MS);
        target.state = State::Unusable { state, retry_at: now.plus(delay) };
        self.has_quarantined = true;
        target.says(state)
    }

    /// Whether [`Targets::took`] may have something to say.
    pub fn has_quarantined(&self) -> bool {
        self.has_quarantined
    }

    /// The target has taken a record. Gives its name if it was quarantined before.
    pub fn took(&mut self, target: u32) -> Option<Arc<str>> {
        let target = self.list.get_mut(&target).filter(|target| target.state == State::Known)?;
        let name = target.last_reported.take().map(|_| Arc::clone(&target.name));
        if name.is_some() {
            self.has_quarantined = self.list.values().any(|target| target.last_reported.is_some());
        }
        name
    }

    /// Takes in what the metadata said. Gives the target's name if its state is news.
    pub fn answered(&mut self, now: Millis, target: u32, answer: TargetState) -> Option<Arc<str>> {
        let target = self.list.get_mut(&target)?;
        if answer == TargetState::Exists {
            (target.state, target.tries, target.has_waiters) = (State::Known, 0, false);
            if target.consecutive_failures > 0 && target.failures_reset_at >= now {
                // The metadata did not show what was wrong with it. Whether that is over, its next record shows.
                return None;
            }
            return target.last_reported.take().map(|_| Arc::clone(&target.name));
        }
        let delay = RETRY_MIN_MS.saturating_mul(1 << target.tries.min(10)).min(RETRY_MAX_MS);
        target.tries = target.tries.saturating_add(1);
        target.state = State::Unusable { state: answer, retry_at: now.plus(delay) };
        target.says(answer)
    }

    /// Targets that are waited for and whose time to be checked again has come.
    pub fn take_unchecked(&mut self, now: Millis) -> Vec<u32> {
        let mut due = Vec::new();
        for (number, target) in &mut self.list {
            let State::Unusable { retry_at, .. } = target.state else { continue };
            if retry_at <= now && target.has_waiters {
                target.state = State::Checking;
                due.push(*number);
            }
        }
        due
    }

    /// When to ask [`Targets::take_unchecked`] next.
    pub fn next_check(&self) -> Option<Millis> {
        let retry_at = |target: &Target| match target.state {
            State::Unusable { retry_at, .. } if target.has_waiters => Some(retry_at),
            _ => None,
        };
        self.list.values().filter_map(retry_at).min()
    }

    /// The clock was set back: targets are checked again that much earlier. Those that refused its timestamps are checked
    /// at once, since it may be right now.
    pub fn set_back(&mut self, back_ms: i64) {
        for target in self.list.values_mut() {
            target.failures_reset_at = target.failures_reset_at.plus(-back_ms);
            if let State::Unusable { state, retry_at } = &mut target.state {
                let earlier = retry_at.plus(-back_ms);
                *retry_at = if *state == TargetState::RefusesTimestamps { Millis(i64::MIN) } else { earlier };
            }
        }
    }

    /// Nobody waits for this target any more.
    pub fn unawaited(&mut self, target: u32) {
        if let Some(target) = self.list.get_mut(&target) {
            target.has_waiters = false;
        }
    }

    /// Nobody waits for any target any more.
    pub fn forget(&mut self) {
        self.list.values_mut().for_each(|target| target.has_waiters = false);
    }
}

fn reason(state: TargetState) -> Option<Reason> {
    match state {
        TargetState::Missing => Some(Reason::UnknownTarget),
        TargetState::Forbidden => Some(Reason::Forbidden),
        TargetState::Leaderless => Some(Reason::NoLeader),
        TargetState::RefusesTimestamps => Some(Reason::Timestamp),
        TargetState::Exists | TargetState::NoAnswer => None,
    }
}
