//! Target topics: whether they can be produced to, and which schedules wait until they can.
//!
//! A transactional producer needs 30 s to find out that a topic is missing, so that a target is checked by metadata
//! before anything is sent to it.

use std::collections::HashMap;
use std::sync::Arc;

use super::io::{Millis, Partition, TargetState};

/// First wait before a missing target is looked for again; it doubles up to [`RETRY_MAX_MS`].
const RETRY_MIN_MS: i64 = 1_000;
/// Longest wait before a missing target is looked for again.
const RETRY_MAX_MS: i64 = 30_000;

/// A schedule that waits: where it lies, and its identity, by which a slot used anew is told.
pub type Waiting = (Partition, u32, i64);

#[derive(Debug)]
struct Target {
    name: Arc<str>,
    state: State,
    waiting: Vec<Waiting>,
    tries: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Checking,
    Known,
    Unusable { since: TargetState, retry_at: Millis },
}

/// Every target that a schedule has named.
#[derive(Debug, Default)]
pub struct Targets {
    list: Vec<Target>,
    by_name: HashMap<Arc<str>, u32>,
}

/// What an answer changed.
#[derive(Debug)]
pub struct Answer {
    /// Schedules to wake.
    pub wake: Vec<Waiting>,
    /// The target, if its state is news.
    pub changed: Option<Arc<str>>,
}

impl Targets {
    /// The number of a target, and whether it is new and has to be checked.
    pub fn intern(&mut self, name: &str) -> (u32, bool) {
        if let Some(target) = self.by_name.get(name) {
            return (*target, false);
        }
        let name: Arc<str> = name.into();
        let target = self.list.len() as u32;
        self.by_name.insert(Arc::clone(&name), target);
        self.list.push(Target { name, state: State::Checking, waiting: Vec::new(), tries: 0 });
        (target, true)
    }

    /// A target's name.
    pub fn name(&self, target: u32) -> Arc<str> {
        Arc::clone(&self.list[target as usize].name)
    }

    /// Whether schedules for this target may be sent.
    pub fn usable(&self, target: u32) -> bool {
        self.list[target as usize].state == State::Known
    }

    /// Lets a schedule wait for its target. True if the target has to be checked now.
    #[must_use]
    pub fn wait(&mut self, now: Millis, target: u32, waiting: Waiting) -> bool {
        let target = &mut self.list[target as usize];
        target.waiting.push(waiting);
        let check = matches!(target.state, State::Unusable { retry_at, .. } if retry_at <= now);
        if check {
            target.state = State::Checking;
        }
        check
    }

    /// The broker refused a record because of its target. True if the target has to be checked now.
    #[must_use]
    pub fn refused(&mut self, target: u32) -> bool {
        let target = &mut self.list[target as usize];
        let check = target.state == State::Known;
        if check {
            target.state = State::Checking;
        }
        check
    }

    /// Takes in what the metadata said.
    pub fn answered(&mut self, now: Millis, target: u32, answer: TargetState) -> Answer {
        let Some(target) = self.list.get_mut(target as usize) else {
            return Answer { wake: Vec::new(), changed: None };
        };
        if answer == TargetState::Exists {
            let changed = (target.tries > 0).then(|| Arc::clone(&target.name));
            target.state = State::Known;
            target.tries = 0;
            return Answer { wake: std::mem::take(&mut target.waiting), changed };
        }
        let delay = RETRY_MIN_MS.saturating_mul(1 << target.tries.min(10)).min(RETRY_MAX_MS);
        let changed = (target.tries == 0).then(|| Arc::clone(&target.name));
        target.tries += 1;
        target.state = State::Unusable { since: answer, retry_at: now.plus(delay) };
        Answer { wake: Vec::new(), changed }
    }

    /// Targets that are waited for and whose time to be checked again has come.
    pub fn take_unchecked(&mut self, now: Millis) -> Vec<u32> {
        let mut due = Vec::new();
        for (number, target) in self.list.iter_mut().enumerate() {
            let State::Unusable { retry_at, .. } = target.state else { continue };
            if retry_at <= now && !target.waiting.is_empty() {
                target.state = State::Checking;
                due.push(number as u32);
            }
        }
        due
    }

    /// When to ask [`Targets::take_unchecked`] next.
    pub fn next_check(&self) -> Option<Millis> {
        self.list
            .iter()
            .filter(|t| !t.waiting.is_empty())
            .filter_map(|t| match t.state {
                State::Unusable { retry_at, .. } => Some(retry_at),
                _ => None,
            })
            .min()
    }

    /// Forgets those who waited in partitions that are no longer held.
    pub fn forget(&mut self, held: impl Fn(Partition) -> bool) {
        for target in &mut self.list {
            target.waiting.retain(|(partition, ..)| held(*partition));
        }
    }
}
