//! Measures throughput, lateness and resource usage of the engine against a real Kafka broker.
//!
//! `cargo bench --bench broker` starts the release binary as a separate process, produces schedules, and reads the
//! results from the target topic. The same run measures the broker without the engine: with a bare transactional
//! producer, and with a bare read_committed consumer. `-- --help` lists the options.

mod args;
mod bare;
mod feed;
// The benchmark uses only a part of the kit.
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
        eprintln!("this is not a release build: its figures are meaningless");
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
        // A scenario that panics must not lose the results of the others. The panic's message is already printed.
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
