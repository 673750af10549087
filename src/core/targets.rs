//! Tracks target topics: whether they take records, and whether schedules wait until they do.
//!
//! A transactional producer needs 30 s to find out that a topic is missing, so the shell looks a target up in the
//! cluster's metadata before any record is sent to it. A target is *quarantined* if one of its partitions takes no
//! records, or if it rejects our timestamps: each record that is sent there would cost its batch the delivery timeout
//! or an abort.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::reason::Reason;
use super::types::Millis;

/// First wait before an unusable target is looked up again; it doubles up to [`LOOKUP_RETRY_MS_MAX`].
const LOOKUP_RETRY_MS_MIN: i64 = 1_000;
/// Longest wait before an unusable target is looked up again.
const LOOKUP_RETRY_MS_MAX: i64 = 30_000;

/// Lookups in a row that find a target missing or forbidden before its schedules become dead letters, if a topic for
/// them is set. A lookup without an answer does not count.
const LOOKUPS_BEFORE_DEAD_LETTER: u32 = 3;
/// First quarantine of a target that takes no records though its metadata shows no fault; it doubles up to
/// [`QUARANTINE_MS_MAX`].
const QUARANTINE_MS_MIN: i64 = 2_000;
const QUARANTINE_MS_MAX: i64 = 64_000;
/// After this time without a failure, the next quarantine is the first again.
const PROBATION_MS: i64 = 60_000;
/// Number of names below which unused ones are not removed.
const SWEEP_MIN: usize = 1_024;

/// The state of a target topic, by the cluster's metadata or by its delivery reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TargetState {
    /// It exists and takes records.
    Exists,
    /// It does not exist.
    Missing,
    /// The engine is not authorized to describe or write it.
    Forbidden,
    /// It exists, but one of its partitions takes no records: it has no leader, or too few replicas in sync.
    Leaderless,
    /// It exists, but rejects the engine's timestamps. This follows from delivery reports, not from metadata.
    RejectsTimestamps,
    /// The cluster did not answer in time, so its state is unknown.
    NoAnswer,
}

#[derive(Debug)]
struct Target {
    name: Arc<str>,
    usability: Usability,
    /// Schedules wait for it.
    has_waiters: bool,
    /// Consecutive lookups that found it unusable.
    failed_lookups: u32,
    /// Of these, how many found it missing or forbidden.
    final_lookups: u32,
    /// The last reported state, while it is unusable.
    last_reported: Option<TargetState>,
    /// Consecutive quarantines, which count until `failures_reset_at`.
    consecutive_failures: u32,
    failures_reset_at: Millis,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Usability {
    Checking,
    Usable,
    Unusable { state: TargetState, retry_at: Millis },
}

/// The targets of all schedules, by number. Numbers are not reused.
#[derive(Debug)]
pub(super) struct Targets {
    list: BTreeMap<u32, Target>,
    by_name: BTreeMap<Arc<str>, u32>,
    next: u32,
    /// Number of names at which unused ones are removed.
    sweep_at: usize,
    /// Some target was quarantined and has not taken a record since.
    has_quarantined: bool,
}

/// The decision about a schedule for a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Fire it.
    Fire,
    /// Park it until the target takes records, for this reason if it is known.
    Park(Option<Reason>),
    /// Make it a dead letter, or park it if there is no topic for them.
    DeadLetter(Reason),
}

impl Default for Targets {
    fn default() -> Self {
        Self { list: BTreeMap::new(), by_name: BTreeMap::new(), next: 0, sweep_at: SWEEP_MIN, has_quarantined: false }
    }
}

impl Target {
    /// Notes the state of an unusable target. Returns its name if the state changed. `NoAnswer` never overrides a known
    /// state.
    fn note_state(&mut self, state: TargetState) -> Option<Arc<str>> {
        let known = self.last_reported.is_some_and(|last| last == state || state == TargetState::NoAnswer);
        if known {
            return None;
        }
        self.last_reported = Some(state);
        Some(Arc::clone(&self.name))
    }
}

impl Targets {
    /// Returns the number of a target, and whether it is new and has to be looked up.
    pub(super) fn intern(&mut self, name: &str) -> (u32, bool) {
        if let Some(target) = self.by_name.get(name) {
            return (*target, false);
        }
        let name: Arc<str> = name.into();
        let target = self.next;
        self.next += 1;
        self.by_name.insert(Arc::clone(&name), target);
        let new = Target {
            name,
            usability: Usability::Checking,
            has_waiters: false,
            failed_lookups: 0,
            final_lookups: 0,
            last_reported: None,
            consecutive_failures: 0,
            failures_reset_at: Millis(i64::MIN),
        };
        self.list.insert(target, new);
        (target, true)
    }

    /// Returns the number of names in memory.
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// Returns whether it is time to [`sweep`](Self::sweep).
    pub(super) fn is_full(&self) -> bool {
        self.list.len() >= self.sweep_at
    }

    /// Forgets unused names.
    pub(super) fn sweep(&mut self, used: &BTreeSet<u32>) {
        self.list.retain(|target, _| used.contains(target));
        self.by_name.retain(|_, target| used.contains(target));
        self.sweep_at = (self.list.len() * 2).max(SWEEP_MIN);
    }

    /// Returns a target's name, or an empty one if it was forgotten.
    pub(super) fn name(&self, target: u32) -> Arc<str> {
        self.list.get(&target).map_or_else(|| Arc::from(""), |target| Arc::clone(&target.name))
    }

    /// Decides about a schedule for this target.
    pub(super) fn verdict(&self, now: Millis, target: u32) -> Verdict {
        let Some(target) = self.list.get(&target) else { return Verdict::Park(None) };
        match target.usability {
            Usability::Usable => Verdict::Fire,
            Usability::Checking => Verdict::Park(None),
            Usability::Unusable { state, retry_at } => match reason(state) {
                // If the next lookup is due, the topic may have been created since the last. A partition without a
                // leader or a wrong clock is not a fault of the schedule.
                Some(reason @ (Reason::UnknownTarget | Reason::Forbidden))
                    if target.final_lookups >= LOOKUPS_BEFORE_DEAD_LETTER && retry_at > now =>
                {
                    Verdict::DeadLetter(reason)
                }
                reason => Verdict::Park(reason),
            },
        }
    }

    /// Notes that a schedule waits for this target. Returns true if the caller has to look the target up now.
    #[must_use]
    pub(super) fn add_waiter(&mut self, now: Millis, target: u32) -> bool {
        let Some(target) = self.list.get_mut(&target) else { return false };
        target.has_waiters = true;
        let check = matches!(target.usability, Usability::Unusable { retry_at, .. } if retry_at <= now);
        if check {
            target.usability = Usability::Checking;
        }
        check
    }

    /// Distrusts a target after a broker rejected a record for it. Returns true if the caller has to look it up now.
    #[must_use]
    pub(super) fn check_again(&mut self, target: u32) -> bool {
        let Some(target) = self.list.get_mut(&target) else { return false };
        let check = target.usability == Usability::Usable;
        if check {
            target.usability = Usability::Checking;
        }
        check
    }

    /// Quarantines a target that took no records: none are sent to it for a while, whatever its metadata says. Returns
    /// its name if its state changed.
    pub(super) fn quarantine(&mut self, now: Millis, target: u32, state: TargetState) -> Option<Arc<str>> {
        let target = self.list.get_mut(&target)?;
        // Its schedules wait, even if another batch has quarantined it before.
        target.has_waiters = true;
        if target.usability != Usability::Usable {
            return None;
        }
        if target.failures_reset_at < now {
            target.consecutive_failures = 0;
        }
        let delay = (QUARANTINE_MS_MIN << target.consecutive_failures.min(8)).min(QUARANTINE_MS_MAX);
        target.consecutive_failures = target.consecutive_failures.saturating_add(1);
        target.failures_reset_at = now.plus(delay + PROBATION_MS);
        target.usability = Usability::Unusable { state, retry_at: now.plus(delay) };
        self.has_quarantined = true;
        target.note_state(state)
    }

    /// Returns whether [`Targets::took_record`] may return a name.
    pub(super) fn has_quarantined(&self) -> bool {
        self.has_quarantined
    }

    /// Notes that the target has taken a record. Returns its name if it was quarantined before.
    pub(super) fn took_record(&mut self, target: u32) -> Option<Arc<str>> {
        let target = self.list.get_mut(&target).filter(|target| target.usability == Usability::Usable)?;
        let name = target.last_reported.take().map(|_| Arc::clone(&target.name));
        if name.is_some() {
            self.has_quarantined = self.list.values().any(|target| target.last_reported.is_some());
        }
        name
    }

    /// Handles the answer to a lookup. Returns the target's name if its state changed.
    pub(super) fn answered(&mut self, now: Millis, target: u32, answer: TargetState) -> Option<Arc<str>> {
        let target = self.list.get_mut(&target)?;
        if answer == TargetState::Exists {
            (target.usability, target.has_waiters) = (Usability::Usable, false);
            (target.failed_lookups, target.final_lookups) = (0, 0);
            if target.consecutive_failures > 0 && target.failures_reset_at >= now {
                // The metadata did not show the fault before, so only its next record shows whether that is over.
                return None;
            }
            return target.last_reported.take().map(|_| Arc::clone(&target.name));
        }
        let delay = LOOKUP_RETRY_MS_MIN.saturating_mul(1 << target.failed_lookups.min(10)).min(LOOKUP_RETRY_MS_MAX);
        target.failed_lookups = target.failed_lookups.saturating_add(1);
        let is_final = matches!(reason(answer), Some(Reason::UnknownTarget | Reason::Forbidden));
        target.final_lookups = target.final_lookups.saturating_add(u32::from(is_final));
        target.usability = Usability::Unusable { state: answer, retry_at: now.plus(delay) };
        target.note_state(answer)
    }

    /// Returns the targets that have waiters and are due for a lookup. The caller must look them up.
    pub(super) fn take_due_lookups(&mut self, now: Millis) -> Vec<u32> {
        let mut due = Vec::new();
        for (number, target) in &mut self.list {
            let Usability::Unusable { retry_at, .. } = target.usability else { continue };
            if retry_at <= now && target.has_waiters {
                target.usability = Usability::Checking;
                due.push(*number);
            }
        }
        due
    }

    /// Returns when the next lookup is due.
    pub(super) fn next_check(&self) -> Option<Millis> {
        let retry_at = |target: &Target| match target.usability {
            Usability::Unusable { retry_at, .. } if target.has_waiters => Some(retry_at),
            _ => None,
        };
        self.list.values().filter_map(retry_at).min()
    }

    /// Moves lookups back with the clock. Targets that rejected its timestamps are looked up at once, since the clock
    /// may be right now.
    pub(super) fn set_back(&mut self, back_ms: i64) {
        for target in self.list.values_mut() {
            target.failures_reset_at = target.failures_reset_at.plus(-back_ms);
            if let Usability::Unusable { state, retry_at } = &mut target.usability {
                let earlier = retry_at.plus(-back_ms);
                *retry_at = if *state == TargetState::RejectsTimestamps { Millis(i64::MIN) } else { earlier };
            }
        }
    }

    /// Notes that no schedule waits for this target any more.
    pub(super) fn remove_waiters(&mut self, target: u32) {
        if let Some(target) = self.list.get_mut(&target) {
            target.has_waiters = false;
        }
    }

    /// Notes that no schedule waits for any target any more.
    pub(super) fn clear_waiters(&mut self) {
        self.list.values_mut().for_each(|target| target.has_waiters = false);
    }
}

fn reason(state: TargetState) -> Option<Reason> {
    match state {
        TargetState::Missing => Some(Reason::UnknownTarget),
        TargetState::Forbidden => Some(Reason::Forbidden),
        TargetState::Leaderless => Some(Reason::NoLeader),
        TargetState::RejectsTimestamps => Some(Reason::Timestamp),
        TargetState::Exists | TargetState::NoAnswer => None,
    }
}
