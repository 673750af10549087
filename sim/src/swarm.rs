//! Plays many seeds on several threads, and sums them up.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::play::play;
use crate::scenario::{Scenario, shrink};
use crate::summary::Summary;

/// Scenarios that are played at most to shrink one.
pub const SHRINK_TRIES: usize = 1_500;

/// The scenarios of a swarm.
#[derive(Clone, Copy, Debug)]
pub struct Scenarios {
    /// Creates the scenario of a seed.
    pub of: fn(u64) -> Scenario,
    /// The first seed.
    pub from: u64,
    /// Number of seeds.
    pub count: u64,
}

/// A seed that broke a promise.
#[derive(Clone, Debug)]
pub struct Broken {
    /// The seed.
    pub seed: u64,
    /// The broken promise.
    pub failure: Failure,
}

/// The result of a swarm.
#[derive(Debug, Default)]
pub struct Report {
    /// Sum of all runs without a failure.
    pub total: Summary,
    /// Operations, firings and faults of each run.
    counts: Vec<[u64; 3]>,
    /// Broken seeds, lowest first.
    pub broken: Vec<Broken>,
}

/// Medians over seeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Medians {
    /// Operations of the scenario.
    pub ops: u64,
    /// Target records.
    pub fired: u64,
    /// Faults that hit.
    pub faults: u64,
}

impl Medians {
    /// Whether the seeds do enough to prove anything.
    #[must_use]
    pub const fn are_enough(self) -> bool {
        self.ops >= 200 && self.fired >= 50 && self.faults >= 3
    }
}

impl Report {
    /// Adds a run.
    pub fn add(&mut self, seed: u64, played: Result<Summary, Failure>) {
        match played {
            Ok(summary) => {
                self.counts.push([summary.ops, summary.fired, summary.coverage.total()]);
                self.total.add(&summary);
            }
            Err(failure) => self.broken.push(Broken { seed, failure }),
        }
    }

    /// Returns the medians over all runs without a failure.
    #[must_use]
    pub fn medians(&self) -> Medians {
        let median = |of: usize| {
            let mut all: Vec<u64> = self.counts.iter().map(|counts| counts[of]).collect();
            all.sort_unstable();
            all.get(all.len() / 2).copied().unwrap_or(0)
        };
        Medians { ops: median(0), fired: median(1), faults: median(2) }
    }
}

/// Plays scenarios on `jobs` threads, each of which calls `prepare` first. With `stop` it ends at the first broken
/// seed.
pub fn swarm(all: Scenarios, jobs: usize, stop: bool, prepare: impl Fn() + Sync, progress: bool) -> Report {
    let Scenarios { of, from, count: seeds } = all;
    let next = AtomicU64::new(0);
    let report = Mutex::new(Report::default());
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for job in 0..jobs.max(1) {
            let (next, report, prepare) = (&next, &report, &prepare);
            scope.spawn(move || {
                prepare();
                let mut reported = Instant::now();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= seeds {
                        return;
                    }
                    let seed = from.wrapping_add(number);
                    let played = play(&of(seed), false);
                    let broken = played.is_err();
                    // A panic outside of a run ends the program.
                    report.lock().expect("no thread panics while it holds the report").add(seed, played);
                    if broken && stop {
                        next.store(seeds, Ordering::Relaxed);
                    }
                    if progress && job == 0 && reported.elapsed() > Duration::from_secs(10) {
                        reported = Instant::now();
                        eprintln!("{} of {seeds} seeds after {} s", number + 1, begun.elapsed().as_secs());
                    }
                }
            });
        }
    });
    let mut report = report.into_inner().expect("no thread panics while it holds the report");
    report.broken.sort_by_key(|broken| broken.seed);
    report
}

/// Returns a smaller scenario that breaks a promise of the same kind, with its failure.
#[must_use]
pub fn shrunk(scenario: &Scenario, failure: &Failure) -> (Scenario, Failure) {
    let same = |other: &Failure| other.exit_code() == failure.exit_code();
    let small = shrink(scenario, SHRINK_TRIES, |candidate| play(candidate, false).err().is_some_and(|f| same(&f)));
    let failure = play(&small, false).err().unwrap_or_else(|| failure.clone());
    (small, failure)
}
