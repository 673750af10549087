//! Whose turn it is to commit.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

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
}

impl Turnstile {
    /// A batch is handed out. The first one of all begins the order.
    pub fn enter(&self, id: u64) {
        self.lock().next.get_or_insert(id);
    }

    /// Waits until all batches before this one have settled, at most `limit`. False: there is no turn.
    #[must_use]
    pub fn wait(&self, id: u64, limit: Duration) -> bool {
        let waiting = |state: &mut State| !state.broken && state.next.is_some_and(|next| next < id);
        let (state, _) =
            self.changed.wait_timeout_while(self.lock(), limit, waiting).unwrap_or_else(PoisonError::into_inner);
        !state.broken && state.next == Some(id)
    }

    /// The batch has settled.
    pub fn leave(&self, id: u64, known: bool) {
        let mut state = self.lock();
        state.broken |= !known;
        state.settled.insert(id);
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
    fn batches_pass_in_order_and_none_after_an_unknown_outcome() {
        let turn = Turnstile::default();
        for id in 5..9 {
            turn.enter(id);
        }
        assert!(turn.wait(5, Duration::ZERO));
        assert!(!turn.wait(6, Duration::ZERO));
        turn.leave(6, true);
        turn.leave(5, true);
        assert!(turn.wait(7, Duration::ZERO), "6 gave up before 5 settled");
        turn.leave(7, false);
        assert!(!turn.wait(8, Duration::ZERO));
    }

    #[test]
    fn a_turn_is_waited_for_until_the_batch_before_has_settled_or_for_as_long_as_it_may_take() {
        let turn = Turnstile::default();
        turn.enter(1);
        turn.enter(2);
        let limit = Duration::from_millis(50);
        let begun = std::time::Instant::now();
        assert!(!turn.wait(2, limit), "the one before is in flight");
        assert!(begun.elapsed() >= limit);
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| turn.wait(2, Duration::from_secs(60)));
            turn.leave(1, true);
            assert!(waits.join().expect("it ends"), "it goes on when that has settled");
        });
    }
}
