//! Whose turn it is to commit.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// After so many batches in a row that ran out of time, what was formed after them keeps its turn: these may never get
/// through, such as to a partition without a leader, and must not hold up everything else.
const LATE_IN_A_ROW_MAX: u32 = 3;

/// How a batch settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    Committed,
    Aborted,
    Unknown,
}

/// Lets batches send their offsets in the order of their ids, each after the one before has settled.
#[derive(Debug, Default)]
pub struct Turnstile {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    next: Option<u64>,
    settled: BTreeSet<u64>,
    /// An outcome is not known: nobody else gets a turn.
    broken: bool,
    /// Batches that fire schedules and have not settled.
    firing: BTreeSet<u64>,
    /// Those of them that get no turn any more.
    late: BTreeSet<u64>,
    /// Batches that ran out of time since one was committed.
    late_in_a_row: u32,
}

impl Turnstile {
    /// A batch is handed out. The first one of all begins the order.
    pub fn enter(&self, id: u64, fires: bool) {
        let mut state = self.lock();
        state.next.get_or_insert(id);
        if fires {
            state.firing.insert(id);
        }
    }

    /// Waits until all batches before this one have settled, at most `limit`. False: there is no turn.
    #[must_use]
    pub fn wait(&self, id: u64, limit: Duration) -> bool {
        let refused = |state: &State| state.broken || state.late.contains(&id);
        let waiting = |state: &mut State| !refused(state) && state.next.is_some_and(|next| next < id);
        let (state, _) =
            self.changed.wait_timeout_while(self.lock(), limit, waiting).unwrap_or_else(PoisonError::into_inner);
        !refused(&state) && state.next == Some(id)
    }

    /// A batch that fires ran out of time. What was formed after it, and is due later, must not commit before it is tried
    /// again.
    pub fn runs_late(&self, id: u64) {
        let mut state = self.lock();
        if state.firing.contains(&id) {
            state.late_in_a_row = state.late_in_a_row.saturating_add(1);
        }
        if state.firing.contains(&id) && state.late_in_a_row <= LATE_IN_A_ROW_MAX {
            let after: Vec<u64> = state.firing.range(id + 1..).copied().collect();
            state.late.extend(after);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// The batch has settled.
    pub fn leave(&self, id: u64, left: Left) {
        let mut state = self.lock();
        state.broken |= left == Left::Unknown;
        if left == Left::Committed && state.firing.contains(&id) {
            state.late_in_a_row = 0;
        }
        state.settled.insert(id);
        state.firing.remove(&id);
        state.late.remove(&id);
        while let Some(next) = state.next.filter(|next| state.settled.contains(next)) {
            state.settled.remove(&next);
            state.next = Some(next + 1);
        }
        drop(state);
        self.changed.notify_all();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_commit_in_order_and_none_after_an_unknown_outcome() {
        let turn = Turnstile::default();
        for id in 5..9 {
            turn.enter(id, true);
        }
        assert!(turn.wait(5, Duration::ZERO));
        assert!(!turn.wait(6, Duration::ZERO));
        turn.leave(6, Left::Committed);
        turn.leave(5, Left::Committed);
        assert!(turn.wait(7, Duration::ZERO), "6 gave up before 5 settled");
        turn.leave(7, Left::Unknown);
        assert!(!turn.wait(8, Duration::ZERO));
    }

    #[test]
    fn batches_after_one_that_timed_out_do_not_commit() {
        let turn = Turnstile::default();
        (1..4).for_each(|id| turn.enter(id, id < 3));
        turn.runs_late(1);
        turn.leave(1, Left::Aborted);
        assert!(!turn.wait(2, Duration::ZERO), "it would commit before what is due earlier");
        turn.leave(2, Left::Committed);
        assert!(turn.wait(3, Duration::ZERO), "it fires nothing");
        turn.runs_late(3);
        turn.leave(3, Left::Committed);
        turn.enter(4, true);
        assert!(turn.wait(4, Duration::ZERO), "nor is it late");
    }

    #[test]
    fn batches_that_keep_timing_out_do_not_block_the_others() {
        let turn = Turnstile::default();
        let next_is_held_up = |id: u64| {
            turn.enter(id, true);
            turn.enter(id + 1, true);
            turn.runs_late(id);
            turn.leave(id, Left::Aborted);
            let held_up = !turn.wait(id + 1, Duration::ZERO);
            turn.leave(id + 1, if held_up { Left::Aborted } else { Left::Committed });
            held_up
        };
        assert_eq!([1, 3, 5, 7, 9].map(next_is_held_up), [true, true, true, false, true]);
    }

    #[test]
    fn a_batch_waits_for_its_turn_until_the_timeout() {
        let turn = Turnstile::default();
        turn.enter(1, true);
        turn.enter(2, true);
        let limit = Duration::from_millis(50);
        let begun = std::time::Instant::now();
        assert!(!turn.wait(2, limit), "the one before is in flight");
        assert!(begun.elapsed() >= limit);
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| turn.wait(2, Duration::from_secs(60)));
            turn.leave(1, Left::Committed);
            assert!(waits.join().expect("it ends"), "it goes on when that has settled");
        });
    }
}
