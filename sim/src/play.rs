//! Plays a run: faults, a quiet time in which everything must converge, and a restart from the compacted log.

#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::failure::Failure;
use crate::oracle::{self, Oracle};
use crate::scenario::{CONVERGE_TIMEOUT_MS, Point, SAFETY_MS, Scenario};
use crate::summary::Summary;
use crate::world::{Advanced, World};

/// A run with more events does not end.
const EVENTS_MAX: u64 = 5_000_000;
/// How long all partitions may be without an owner after all instances crash: a session, a rebalance, a takeover. It is
/// less than a transaction's timeout, for which a takeover must not wait.
const TAKEOVER_TIMEOUT_MS: i64 = 12_000;

/// Plays a scenario. With `verbose` it prints a trace.
///
/// # Errors
/// The first broken promise.
pub fn play(scenario: &Scenario, verbose: bool) -> Result<Summary, Failure> {
    let played = catch_unwind(AssertUnwindSafe(|| Run::new(scenario, verbose).play()));
    played.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a message");
        Err(Failure::Crash(text.to_owned()))
    })
}

/// A world, and the oracle that follows its history.
struct Run {
    world: World,
    oracle: Oracle,
}

impl Run {
    fn new(scenario: &Scenario, verbose: bool) -> Self {
        let world = World::new(scenario, verbose);
        let oracle = Oracle::new(&world.history);
        Self { world, oracle }
    }

    fn play(mut self) -> Result<Summary, Failure> {
        let safety_ms = i64::from(SAFETY_MS);
        self.until(safety_ms)?;
        oracle::safe(&self.world.history)?;
        self.world.quiesce();
        let quiet_ms = safety_ms + i64::from(CONVERGE_TIMEOUT_MS);
        self.until(quiet_ms - 15_000)?;
        self.world.probe(3);
        self.until(quiet_ms)?;
        oracle::fires_on_time(&self.world.history, &self.world.observe())?;
        oracle::converged(&self.world.history, &self.world.observe())?;
        let restarted_ms = self.crash_all(quiet_ms)?;
        self.until(restarted_ms + TAKEOVER_TIMEOUT_MS)?;
        oracle::served(&self.world.history, &self.world.observe())?;
        self.until(restarted_ms + TAKEOVER_TIMEOUT_MS + 30_000)?;
        let fired = oracle::converged(&self.world.history, &self.world.observe())?;
        self.wait_until_idle()?;
        oracle::recovered(&self.world.history, &self.world.observe())?;
        let (raced, raced_ms_max) = self.oracle.raced();
        let (dead_letters, schedules) = (fired.dead_letters.len() as u64, fired.schedules.len() as u64);
        let summary = self.world.summary;
        Ok(Summary { dead_letters, fired: schedules, rewritten: fired.rewritten, raced, raced_ms_max, ..summary })
    }

    /// Runs until `end_ms` after the start. The oracle judges each step.
    fn until(&mut self, end_ms: i64) -> Result<(), Failure> {
        while let Some(advanced) = self.world.advance(end_ms) {
            if self.world.summary.events > EVENTS_MAX {
                let description = self.world.observe().description;
                return Err(Failure::Liveness(format!("the run does not end{description}")));
            }
            self.judge(advanced).map_err(|broken| broken.at(self.world.now_ms - self.world.history.start_ms))?;
        }
        Ok(())
    }

    fn judge(&mut self, advanced: Advanced) -> Result<(), Failure> {
        for entry in self.world.history.take_entries() {
            self.oracle.follow(&self.world.history, entry)?;
        }
        if advanced == Advanced::World && self.oracle.is_comparison_due(self.world.now_ms) {
            self.oracle.folds(&self.world.history, &self.world.holdings())?;
        }
        Ok(())
    }

    /// Waits for a moment without a batch in flight, if there is one soon.
    fn wait_until_idle(&mut self) -> Result<(), Failure> {
        const TRIES: i64 = 500;
        const INTERVAL_MS: i64 = 10;
        let from_ms = self.world.now_ms - self.world.history.start_ms;
        for n in 1..=TRIES {
            if self.world.is_idle() {
                break;
            }
            self.until(from_ms + n * INTERVAL_MS)?;
        }
        Ok(())
    }

    /// Compacts the logs and crashes all instances in the middle of a transaction, which hangs. Returns the time.
    fn crash_all(&mut self, at_ms: i64) -> Result<i64, Failure> {
        self.world.compact_all();
        let points = [Point::AfterProduce, Point::AfterOffsets, Point::AfterCommit, Point::BeforeSend];
        self.world.arm_last_crash(points[(self.world.history.setup.seed % 4) as usize]);
        self.world.probe(2);
        self.until(at_ms + 4_000)?;
        self.world.force_last_crash();
        Ok(at_ms + 4_000)
    }
}
