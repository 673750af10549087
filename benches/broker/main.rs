//! What the engine does a second, how late it is, and what it costs, against a real Kafka broker.
//!
//! `cargo bench --bench broker` starts the release binary as a process of its own, drives it from outside and reads what it
//! has done from the target topic. The same run measures what the broker lets through at all: a bare transactional
//! producer and a bare read_committed consumer. `-- --help` names the options.

mod args;
mod bare;
mod feed;
// The benchmark needs a part of it.
#[path = "../../tests/broker/kit/mod.rs"]
mod kit;
mod lateness;
mod process;
mod records;
mod report;
mod scenarios;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use args::Args;
use kit::broker::broker;
use records::Values;
use report::Report;
use scenarios::Bench;

fn main() -> ExitCode {
    let args = Args::read();
    let scenarios = match scenarios::chosen(&args) {
        Ok(scenarios) => scenarios,
        Err(error) => return failed(&error),
    };
    if cfg!(debug_assertions) {
        eprintln!("this is no release build: its figures say nothing");
    }
    let Some(broker) = broker() else { return failed("without a broker nothing can be measured") };
    let mut report = Report::new(&args);
    let bench = Bench { broker, values: Values::new(), args };
    if !bench.args.quick
        && let Err(error) = bench.warm_up()
    {
        return failed(&error);
    }
    let mut broken = Vec::new();
    for scenario in scenarios {
        eprintln!("{} ...", scenario.name());
        // What was measured before must not be lost with one that breaks; the panic's message has been printed.
        match catch_unwind(AssertUnwindSafe(|| scenario.run(&bench))) {
            Ok(Ok(runs)) => println!("{}", report.add(scenario.name(), runs)),
            Ok(Err(error)) => {
                eprintln!("{}: {error}", scenario.name());
                broken.push(scenario.name());
            }
            Err(_) => broken.push(scenario.name()),
        }
    }
    if let Some(path) = &bench.args.json
        && let Err(error) = std::fs::write(path, report.json())
    {
        return failed(&format!("{}: {error}", path.display()));
    }
    if broken.is_empty() { ExitCode::SUCCESS } else { failed(&format!("not measured: {}", broken.join(", "))) }
}

fn failed(why: &str) -> ExitCode {
    eprintln!("error: {why}");
    ExitCode::FAILURE
}
