//! Keeps the order in which batches commit.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::core::TRANSACTORS_MAX;
use crate::core::io::{Abort, Outcome};

/// After this many timed-out batches of a transactor in a row, batches that were formed after them may commit: those
/// may never succeed, for instance with a partition without a leader, and must not block everything else.
const TIMEOUTS_IN_A_ROW_MAX: u32 = 5;

/// Lets batches send their offsets in the order of their ids, each after the one before has ended.
#[derive(Debug, Default)]
pub(super) struct CommitOrder {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    next: Option<u64>,
    /// Batches that ended before an earlier one.
    ended: BTreeSet<u64>,
    /// An outcome is unknown: no further batch may commit.
    is_broken: bool,
    /// Batches that fire schedules and have not ended.
    firing: BTreeSet<u64>,
    /// Those of them that may no longer commit.
    excluded: BTreeSet<u64>,
    /// By transactor: batches that timed out since one of them was committed, without those that might not commit
    /// anyway.
    timeouts_in_a_row: [u32; TRANSACTORS_MAX],
}

impl CommitOrder {
    /// Registers a batch. The first one starts the order.
    pub(super) fn register(&self, id: u64, fires: bool) {
        let mut state = self.lock();
        state.next.get_or_insert(id);
        if fires {
            state.firing.insert(id);
        }
    }

    /// Waits until all batches before this one have ended, at most `timeout`. Returns false if it must not commit.
    #[must_use]
    pub(super) fn wait_turn(&self, id: u64, timeout: Duration) -> bool {
        let is_excluded = |state: &State| state.is_broken || state.excluded.contains(&id);
        let is_waiting = |state: &mut State| !is_excluded(state) && state.next.is_some_and(|next| next < id);
        let (state, _) =
            self.changed.wait_timeout_while(self.lock(), timeout, is_waiting).unwrap_or_else(PoisonError::into_inner);
        !is_excluded(&state) && state.next == Some(id)
    }

    /// Ends a batch. If a batch that fires has timed out, those that were formed after it, and are due later, must not
    /// commit before it is tried again.
    pub(super) fn end(&self, id: u64, outcome: &Outcome) {
        let mut state = self.lock();
        let (fires, was_excluded) = (state.firing.remove(&id), state.excluded.remove(&id));
        let transactor = (id % TRANSACTORS_MAX as u64) as usize;
        match outcome {
            Outcome::Committed { .. } if fires => state.timeouts_in_a_row[transactor] = 0,
            // However it timed out: under a quota, a batch may be without any acknowledgement.
            Outcome::Aborted(Abort::TimedOut(_) | Abort::Retry) if fires && !was_excluded => {
                state.timeouts_in_a_row[transactor] = state.timeouts_in_a_row[transactor].saturating_add(1);
                if state.timeouts_in_a_row[transactor] <= TIMEOUTS_IN_A_ROW_MAX {
                    let after: Vec<u64> = state.firing.range(id + 1..).copied().collect();
                    state.excluded.extend(after);
                }
            }
            Outcome::Unknown => state.is_broken = true,
            Outcome::Committed { .. } | Outcome::Aborted(_) => {}
        }
        state.ended.insert(id);
        while let Some(next) = state.next.filter(|next| state.ended.contains(next)) {
            state.ended.remove(&next);
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
    use crate::core::io::BatchTimeout;

    const COMMITTED: Outcome = Outcome::Committed { last_offsets: Vec::new() };
    const ABORTED: Outcome = Outcome::Aborted(Abort::Retry);
    const TIMED_OUT: Outcome = Outcome::Aborted(Abort::TimedOut(BatchTimeout::Silent));

    #[test]
    fn batches_commit_in_order_and_none_after_an_unknown_outcome() {
        let order = CommitOrder::default();
        for id in 5..9 {
            order.register(id, true);
        }
        assert!(order.wait_turn(5, Duration::ZERO));
        assert!(!order.wait_turn(6, Duration::ZERO));
        order.end(6, &COMMITTED);
        order.end(5, &COMMITTED);
        assert!(order.wait_turn(7, Duration::ZERO), "6 gave up before 5 ended");
        order.end(7, &Outcome::Unknown);
        assert!(!order.wait_turn(8, Duration::ZERO));
    }

    #[test]
    fn batches_after_one_that_timed_out_do_not_commit() {
        let order = CommitOrder::default();
        (1..4).for_each(|id| order.register(id, id < 3));
        order.end(1, &TIMED_OUT);
        assert!(!order.wait_turn(2, Duration::ZERO), "it would commit before schedules that are due earlier");
        order.end(2, &COMMITTED);
        assert!(order.wait_turn(3, Duration::ZERO), "it fires nothing");
        order.register(4, true);
        order.end(3, &TIMED_OUT);
        assert!(order.wait_turn(4, Duration::ZERO), "nor does its time-out count");
    }

    #[test]
    fn batches_that_keep_timing_out_do_not_block_the_others() {
        let order = CommitOrder::default();
        let next_is_excluded = |id: u64| {
            order.register(id, true);
            order.register(id + 1, true);
            order.end(id, &TIMED_OUT);
            let is_excluded = !order.wait_turn(id + 1, Duration::ZERO);
            let outcome = if is_excluded { ABORTED } else { COMMITTED };
            order.end(id + 1, &outcome);
            is_excluded
        };
        // All of these are the same transactor's, whose coordinator may be away: the other one goes on for good.
        assert_eq!([1, 3, 5, 7, 9, 11, 13].map(next_is_excluded), [true, true, true, true, true, false, false]);
        order.register(15, true);
        order.end(15, &COMMITTED);
        order.register(16, true);
        order.end(16, &COMMITTED);
        assert!(next_is_excluded(17), "it is back");
    }

    #[test]
    fn time_outs_of_excluded_batches_do_not_count() {
        let order = CommitOrder::default();
        for id in [1, 3, 5, 7, 9] {
            order.register(id, true);
            order.register(id + 1, true);
            order.end(id, &TIMED_OUT);
            assert!(!order.wait_turn(id + 1, Duration::ZERO));
            order.end(id + 1, &TIMED_OUT);
        }
        (11..14).for_each(|id| order.register(id, true));
        order.end(11, &COMMITTED);
        order.end(12, &TIMED_OUT);
        assert!(!order.wait_turn(13, Duration::ZERO), "the first time-out of its transactor that counts");
    }

    #[test]
    fn a_batch_waits_for_its_turn_until_the_timeout() {
        let order = CommitOrder::default();
        order.register(1, true);
        order.register(2, true);
        let timeout = Duration::from_millis(50);
        let started = std::time::Instant::now();
        assert!(!order.wait_turn(2, timeout), "the one before is in flight");
        assert!(started.elapsed() >= timeout);
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| order.wait_turn(2, Duration::from_secs(60)));
            order.end(1, &COMMITTED);
            assert!(waits.join().expect("it ends"), "it continues when that one has ended");
        });
    }
}
