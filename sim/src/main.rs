//! Plays seeds: `sim run --seed N`, `sim swarm --seeds N [--from N]`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |name: &str| -> Option<u64> {
        let at = arguments.iter().position(|a| a == name)?;
        arguments.get(at + 1)?.parse().ok()
    };
    match (arguments.first().map(String::as_str), number("--seed"), number("--seeds")) {
        (Some("run"), Some(seed), _) => run(seed),
        (Some("swarm"), _, Some(seeds)) => swarm(number("--from").unwrap_or(0), seeds),
        _ => {
            eprintln!("usage: sim run --seed N | sim swarm --seeds N [--from N]");
            ExitCode::from(2)
        }
    }
}

fn run(seed: u64) -> ExitCode {
    match sim::play(seed, true) {
        Ok(summary) => {
            println!("seed {seed}: {summary:?}");
            ExitCode::SUCCESS
        }
        Err(broken) => {
            println!("seed {seed}: {broken}");
            ExitCode::FAILURE
        }
    }
}

fn swarm(from: u64, seeds: u64) -> ExitCode {
    let mut failed = 0;
    let mut total = sim::world::Summary::default();
    for seed in from..from + seeds {
        match sim::play(seed, false) {
            Ok(summary) => total.add(&summary),
            Err(broken) => {
                failed += 1;
                println!("seed {seed}: {broken}\n  replay: cargo run --release -p sim -- run --seed {seed}");
            }
        }
    }
    println!("{seeds} seeds, {failed} failed: {total:?}");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
