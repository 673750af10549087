//! Plays scenarios: one seed, many seeds, or many seeds with a deliberate bug.

use std::process::{Command, ExitCode};

use clap::{Parser, Subcommand};
use sim::swarm::{self, Report, Scenarios};
use sim::{Scenario, play};

/// Number of seeds that a swarm first checks for the same trace in two processes.
const META_SEEDS: u64 = 3;
/// A swarm of this size fails if a kind of fault has not met every activity that it can meet.
const COVERED_SEEDS_MIN: u64 = 20_000;

/// Exit code: the swarm did too little.
const TOO_LITTLE: u8 = 5;
/// Exit code: a seed has different traces in two processes.
const NOT_REPEATABLE: u8 = 6;
/// Exit code: no seed found a deliberate bug.
#[cfg(feature = "known-bad")]
const ESCAPED: u8 = 7;

/// Runs the scheduler's core against a model of Kafka. Exits with 0 if all is well, 1 if something happened that must
/// not happen, 2 for wrong usage, 3 if something did not happen that must happen, 4 after a panic, 5 if a swarm did too
/// little, 6 if a seed is not repeatable, 7 if no seed found a deliberate bug.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Plays one scenario and prints its trace.
    Run {
        /// Play the scenario of this seed.
        #[arg(long, required_unless_present = "bytes", conflicts_with = "bytes")]
        seed: Option<u64>,
        /// Use one key, one partition and two instances.
        #[arg(long)]
        narrow: bool,
        /// Play the scenario with these bytes, in hexadecimal digits.
        #[arg(long)]
        bytes: Option<String>,
        /// Switch this bug on.
        #[cfg(feature = "known-bad")]
        #[arg(long)]
        bug: Option<String>,
    },
    /// Plays many seeds.
    Swarm {
        /// Number of seeds.
        #[arg(long)]
        seeds: u64,
        /// The first seed.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// Use one key, one partition and two instances.
        #[arg(long)]
        narrow: bool,
        /// Number of threads [default: the number of cores].
        #[arg(long)]
        jobs: Option<usize>,
    },
    /// Checks that a seed gives the same trace in two processes.
    Meta {
        /// Number of seeds.
        #[arg(long, default_value_t = 20)]
        seeds: u64,
        /// The first seed.
        #[arg(long, default_value_t = 0)]
        from: u64,
    },
    /// Plays seeds with each deliberate bug, until one breaks a promise.
    #[cfg(feature = "known-bad")]
    Bugs {
        /// Number of seeds for each bug.
        #[arg(long, default_value_t = 2_000)]
        seeds: u64,
        /// The first seed.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// Play only bugs whose name contains this.
        #[arg(long, default_value = "")]
        only: String,
        /// Begin with the seed that docs/simulator.md lists for the bug, which takes seconds for all of them together.
        #[arg(long)]
        listed: bool,
        /// Number of threads [default: the number of cores].
        #[arg(long)]
        jobs: Option<usize>,
    },
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        #[cfg(not(feature = "known-bad"))]
        Task::Run { seed, narrow, bytes } => run(seed, narrow, bytes.as_deref()),
        #[cfg(feature = "known-bad")]
        Task::Run { seed, narrow, bytes, bug } => {
            if !sim::bugs::switch(bug.as_deref()) {
                eprintln!("no bug has this name; there are {}", sim::bugs::names().join(", "));
                return ExitCode::from(2);
            }
            run(seed, narrow, bytes.as_deref())
        }
        Task::Swarm { seeds, from, narrow, jobs } => many(from, seeds, narrow, threads(jobs)),
        Task::Meta { seeds, from } => meta(from, seeds),
        #[cfg(feature = "known-bad")]
        Task::Bugs { seeds, from, only, listed, jobs } => bugs(from, seeds, &only, listed, threads(jobs)),
    }
}

fn threads(jobs: Option<usize>) -> usize {
    jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
}

fn kind(narrow: bool) -> fn(u64) -> Scenario {
    if narrow { Scenario::narrow } else { Scenario::from_seed }
}

fn run(seed: Option<u64>, narrow: bool, bytes: Option<&str>) -> ExitCode {
    let scenario = match bytes {
        Some(bytes) => Scenario::from_hex(bytes),
        None => seed.map(kind(narrow)),
    };
    let Some(scenario) = scenario else {
        eprintln!("--bytes takes an even number of hexadecimal digits");
        return ExitCode::from(2);
    };
    println!("{:?}", scenario.setup);
    match play(&scenario, true) {
        Ok(summary) => {
            println!("{summary:?}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("{failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}

/// Checks that a seed gives the same trace in two processes: otherwise seeds are worthless.
fn meta(from: u64, seeds: u64) -> ExitCode {
    for seed in (0..seeds).map(|n| from.wrapping_add(n)) {
        let trace = || {
            let program = std::env::current_exe()?;
            Command::new(program).args(["run", "--seed", &seed.to_string()]).output()
        };
        match (trace(), trace()) {
            (Ok(one), Ok(other)) if one.stdout == other.stdout && !one.stdout.is_empty() => {}
            (Ok(_), Ok(_)) => {
                eprintln!(
                    "seed {seed} gives different traces in two processes: something does not depend on the seed alone"
                );
                return ExitCode::from(NOT_REPEATABLE);
            }
            (Err(error), _) | (_, Err(error)) => {
                eprintln!("the program could not start itself: {error}");
                return ExitCode::from(NOT_REPEATABLE);
            }
        }
    }
    println!("{seeds} seeds from {from} on give the same trace in two processes");
    ExitCode::SUCCESS
}

fn many(from: u64, seeds: u64, narrow: bool, jobs: usize) -> ExitCode {
    if meta(from, META_SEEDS.min(seeds)) != ExitCode::SUCCESS {
        return ExitCode::from(NOT_REPEATABLE);
    }
    println!("seeds {from} to {}", from.wrapping_add(seeds.saturating_sub(1)));
    std::panic::set_hook(Box::new(|_| {}));
    let scenarios = Scenarios { of: kind(narrow), from, count: seeds };
    let report = swarm::swarm(scenarios, jobs, false, || {}, true);
    println!("{}", report.total.coverage.table());
    let total = &report.total;
    println!(
        "{} produced, {} fired, {} dead letters, {} rewritten, {} raced by a newer record, which was readable for \
         at most {} ms",
        total.produced, total.fired, total.dead_letters, total.rewritten, total.raced, total.raced_ms_max
    );
    println!("{} seeds, {} broken, {:?}", seeds, report.broken.len(), report.medians());
    if let Some(first) = report.broken.first() {
        return ExitCode::from(explain(&report, first, narrow));
    }
    if narrow { ExitCode::SUCCESS } else { verdict(&report, seeds) }
}

/// Prints the broken seeds, and shrinks the first one.
fn explain(report: &Report, first: &swarm::Broken, narrow: bool) -> u8 {
    let how = if narrow { " --narrow" } else { "" };
    for broken in report.broken.iter().take(20) {
        println!("seed {}: {}", broken.seed, broken.failure);
        println!("  {} --seed {}{how}", sim::REPLAY, broken.seed);
    }
    let (small, failure) = swarm::shrunk(&kind(narrow)(first.seed), &first.failure);
    println!("seed {} shrunk: {failure}\n{small:#?}", first.seed);
    println!("  {} --bytes {}", sim::REPLAY, small.to_hex());
    first.failure.exit_code()
}

fn verdict(report: &Report, seeds: u64) -> ExitCode {
    let missing = report.total.coverage.missing();
    if seeds >= COVERED_SEEDS_MIN && !missing.is_empty() {
        println!("these never met: {missing:?}");
        return ExitCode::from(TOO_LITTLE);
    }
    if !report.medians().are_enough() {
        println!("the median seed does too little");
        return ExitCode::from(TOO_LITTLE);
    }
    ExitCode::SUCCESS
}

#[cfg(feature = "known-bad")]
fn bugs(from: u64, seeds: u64, only: &str, listed: bool, jobs: usize) -> ExitCode {
    std::panic::set_hook(Box::new(|_| {}));
    let mut escaped = 0;
    for name in sim::bugs::names().into_iter().filter(|name| name.contains(only)) {
        let prepare = || assert!(sim::bugs::switch(Some(name)), "names come from the list");
        let play = |from, count| {
            let scenarios = Scenarios { of: Scenario::from_seed, from, count };
            swarm::swarm(scenarios, jobs, true, prepare, false).broken.into_iter().next()
        };
        let known = if listed { listed_seed(name).and_then(|seed| play(seed, 1)) } else { None };
        match known.or_else(|| play(from, seeds)) {
            Some(first) => {
                // Threads run ahead of one another, but they have played every seed before the first broken one.
                let what = first.failure.to_string();
                let line = what.lines().next().unwrap_or_default().chars().take(150).collect::<String>();
                println!("{name:<28} {:>5} seeds  {line}", first.seed.wrapping_sub(from) + 1);
            }
            None => {
                escaped += 1;
                println!("{name:<28} ESCAPED {seeds} seeds");
            }
        }
    }
    if escaped == 0 { ExitCode::SUCCESS } else { ExitCode::from(ESCAPED) }
}

/// Returns the seed that has revealed a bug, by the table in docs/simulator.md: a row has the number of seeds up to it.
#[cfg(feature = "known-bad")]
fn listed_seed(name: &str) -> Option<u64> {
    let table = include_str!("../../docs/simulator.md");
    let row = table.lines().find_map(|line| line.strip_prefix(&format!("| `{name}` | ")))?;
    let seeds: u64 = row.trim_end_matches(" |").replace(',', "").parse().ok()?;
    seeds.checked_sub(1)
}
