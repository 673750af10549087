//! Many seeds on several threads, and what they amount to.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::play::play;
use crate::scenario::{Scenario, shrink};
use crate::summary::Summary;

/// Scenarios that one shrinking plays at most.
pub const SHRINK_TRIES: usize = 1_500;

/// Which scenarios a swarm plays.
#[derive(Clone, Copy, Debug)]
pub struct Scenarios {
    /// A seed's.
    pub of: fn(u64) -> Scenario,
    /// The first seed.
    pub from: u64,
    /// How many.
    pub count: u64,
}

/// A seed that broke a promise.
#[derive(Clone, Debug)]
pub struct Broken {
    /// The seed.
    pub seed: u64,
    /// What it broke.
    pub failure: Failure,
}

/// What a swarm amounts to.
#[derive(Debug, Default)]
pub struct Report {
    /// Sum of all runs that ended well.
    pub total: Summary,
    /// Operations, firings and faults of each run.
    counts: Vec<[u64; 3]>,
    /// Broken seeds, lowest first.
    pub broken: Vec<Broken>,
}

/// What seeds amount to at the median.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Medians {
    /// Operations of the scenario.
    pub ops: u64,
    /// Target records.
    pub fired: u64,
    /// Faults that struck.
    pub faults: u64,
}

impl Medians {
    /// Less than this says little.
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

    /// Medians over the runs that ended well.
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

/// Plays scenarios on `jobs` threads; `prepare` runs once on each of them. Stops at the first broken seed if `stop` says
/// so.
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
                    // A thread that panicked outside of a run has ended the program.
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

/// A smaller scenario that breaks a promise of the same kind, and how.
#[must_use]
pub fn shrunk(scenario: &Scenario, failure: &Failure) -> (Scenario, Failure) {
    let same = |other: &Failure| other.exit_code() == failure.exit_code();
    let small = shrink(scenario, SHRINK_TRIES, |candidate| play(candidate, false).err().is_some_and(|f| same(&f)));
    let failure = play(&small, false).err().unwrap_or_else(|| failure.clone());
    (small, failure)
}
