//! The scenarios.

mod burst;
mod idle;
mod load;
mod recurring;
mod running;
mod steady;

use crate::args::Args;
use crate::bare::{self, Landed};
use crate::kit::Case;
use crate::kit::broker::Broker;
use crate::kit::client;
use crate::records::Values;
use crate::report::Figures;

/// The bare producer writes this many schedules, this often, to warm the broker up.
const WARM_UP: u32 = 400_000;
const WARM_UPS: u32 = 4;

/// The configuration of all scenarios.
pub struct Bench {
    pub broker: &'static Broker,
    pub values: Values,
    pub args: Args,
}

impl Bench {
    /// Creates the topics of one run.
    fn case(&self, name: &str) -> Case {
        Case::on(self.broker, name, self.args.partitions, 1)
    }

    /// Waits until the broker's JIT compiler has finished: a cold broker is several times slower.
    pub fn warm_up(&self) -> Result<(), String> {
        for _ in 0..WARM_UPS {
            let case = self.case("warm-up");
            bare::produce(&case, &self.values, WARM_UP)?;
            let per_s = Landed::of(&case, WARM_UP)?.appended_per_s();
            eprintln!("  warming up: {per_s:.0}/s");
            sweep(&case);
        }
        Ok(())
    }

    /// Runs a scenario repeatedly. The first run, in which the broker compiles code for this kind of load, does not
    /// count.
    fn runs(&self, mut run: impl FnMut() -> Result<Figures, String>) -> Result<Vec<Figures>, String> {
        let all = self.args.runs();
        if !self.args.quick {
            eprintln!("  warm-up run");
            run()?;
        }
        (1..=all)
            .map(|number| {
                eprintln!("  run {number} of {all}");
                run()
            })
            .collect()
    }
}

/// Deletes the topics of a case: many runs could fill the disk.
fn sweep(case: &Case) {
    for topic in case.schedules.iter().chain([&case.target, &case.history]) {
        client::delete_topic(case.bootstrap(), topic);
    }
}

/// A scenario with its number of schedules.
#[derive(Clone, Copy)]
pub enum Scenario {
    /// This many schedules are due in the same second.
    Burst { count: u32 },
    /// This many schedules are due in each second, for a while.
    Steady { per_s: u32, seconds: u32 },
    /// The same, evenly over the milliseconds of each second.
    Spread { per_s: u32, seconds: u32 },
    /// The engine starts with this many pending schedules.
    Load { count: u32 },
    /// The same, each with a millisecond of its own.
    LoadSpread { count: u32 },
    /// The engine goes on from snapshots of this many pending schedules.
    Warm { count: u32 },
    /// This many schedules recur each second.
    Recurring { count: u32, seconds: u32 },
    /// This many schedules are pending, and none is due.
    Idle { count: u32, seconds: u32 },
}

impl Scenario {
    pub fn name(self) -> String {
        match self {
            Self::Burst { count } => format!("burst-{count}"),
            Self::Steady { per_s, .. } => format!("steady-{per_s}"),
            Self::Spread { per_s, .. } => format!("spread-{per_s}"),
            Self::Load { count } => format!("load-{count}"),
            Self::LoadSpread { count } => format!("loadspread-{count}"),
            Self::Warm { count } => format!("warm-{count}"),
            Self::Recurring { count, .. } => format!("recurring-{count}"),
            Self::Idle { count, .. } => format!("idle-{count}"),
        }
    }

    pub fn run(self, bench: &Bench) -> Result<Vec<Figures>, String> {
        match self {
            Self::Burst { count } => bench.runs(|| burst::run(bench, count)),
            Self::Steady { per_s, seconds } => bench.runs(|| steady::run(bench, per_s, seconds, false)),
            Self::Spread { per_s, seconds } => bench.runs(|| steady::run(bench, per_s, seconds, true)),
            Self::Load { count } => load::run(bench, count, false),
            Self::LoadSpread { count } => load::run(bench, count, true),
            Self::Warm { count } => load::run_warm(bench, count),
            Self::Recurring { count, seconds } => bench.runs(|| recurring::run(bench, count, seconds)),
            Self::Idle { count, seconds } => idle::run(bench, count, seconds),
        }
    }

    /// Returns the same scenario with another number of schedules.
    fn with_count(self, count: u32) -> Self {
        match self {
            Self::Burst { .. } => Self::Burst { count },
            Self::Steady { seconds, .. } => Self::Steady { per_s: count, seconds },
            Self::Spread { seconds, .. } => Self::Spread { per_s: count, seconds },
            Self::Load { .. } => Self::Load { count },
            Self::LoadSpread { .. } => Self::LoadSpread { count },
            Self::Warm { .. } => Self::Warm { count },
            Self::Recurring { seconds, .. } => Self::Recurring { count, seconds },
            Self::Idle { seconds, .. } => Self::Idle { count, seconds },
        }
    }
}

const ALL: [Scenario; 12] = [
    Scenario::Burst { count: 200_000 },
    Scenario::Burst { count: 1_000_000 },
    Scenario::Steady { per_s: 1_000, seconds: 30 },
    Scenario::Steady { per_s: 5_000, seconds: 30 },
    Scenario::Steady { per_s: 20_000, seconds: 30 },
    Scenario::Spread { per_s: 1_000, seconds: 30 },
    Scenario::Warm { count: 1_000_000 },
    Scenario::Recurring { count: 10_000, seconds: 30 },
    Scenario::Load { count: 1_000_000 },
    Scenario::LoadSpread { count: 1_000_000 },
    Scenario::Load { count: 5_000_000 },
    Scenario::Idle { count: 1_000_000, seconds: 30 },
];

const QUICK: [Scenario; 6] = [
    Scenario::Burst { count: 5_000 },
    Scenario::Steady { per_s: 500, seconds: 3 },
    Scenario::Load { count: 10_000 },
    Scenario::Warm { count: 10_000 },
    Scenario::Recurring { count: 100, seconds: 3 },
    Scenario::Idle { count: 10_000, seconds: 2 },
];

/// Returns the scenarios that the command line selects.
pub fn chosen(args: &Args) -> Result<Vec<Scenario>, String> {
    let all: &[Scenario] = if args.quick { &QUICK } else { &ALL };
    let known = || all.iter().map(|scenario| scenario.name()).collect::<Vec<_>>().join(", ");
    if let Some(unknown) = args.only.iter().find(|only| !all.iter().any(|known| known.name().starts_with(*only))) {
        return Err(format!("no scenario begins with {unknown}; there are {}", known()));
    }
    let wanted = |scenario: &&Scenario| {
        args.only.is_empty() || args.only.iter().any(|only| scenario.name().starts_with(only.as_str()))
    };
    let mut chosen: Vec<Scenario> = all.iter().filter(wanted).copied().collect();
    if let Some(count) = args.count {
        chosen.iter_mut().for_each(|scenario| *scenario = scenario.with_count(count));
        chosen.dedup_by_key(|scenario| scenario.name());
    }
    Ok(chosen)
}
