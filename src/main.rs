//! The command line.

use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use clap::{Parser, Subcommand};
use kafka_scheduler::config::{self, Config};
use kafka_scheduler::handle::{Handle, Observer};
use kafka_scheduler::http::Site;
use kafka_scheduler::kafka::Engine;
use kafka_scheduler::logging::Logging;
use kafka_scheduler::metrics::Metrics;
use kafka_scheduler::mini::{self, Mini};
use kafka_scheduler::watch::Watch;

/// A message scheduler for Apache Kafka. Settings come from the environment; see the README.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Task>,
}

#[derive(Subcommand)]
enum Task {
    /// Fire the schedules of a Kafka cluster (the default)
    Run,
    /// Run with a Kafka in this process, which keeps nothing: to try it out and for tests
    Mini {
        /// A further topic, as name:partitions
        #[arg(long = "topic", value_name = "NAME:PARTITIONS", value_parser = mini::topic)]
        topics: Vec<(String, i32)>,
    },
}

/// The exit code for settings that are wrong.
const WRONG_SETTINGS: u8 = 2;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let env = |name: &str| std::env::var(name).ok();
    let loaded = config::check_unicode().and_then(|()| Ok((Logging::load(&env)?, Config::load(&env)?)));
    let (logging, config) = match loaded {
        Ok(loaded) => loaded,
        Err(error) => {
            eprintln!("kafka-scheduler: {error}");
            return ExitCode::from(WRONG_SETTINGS);
        }
    };
    logging.start();
    let done = match arguments.command {
        None | Some(Task::Run) => run(config),
        Some(Task::Mini { topics }) => mini(config, &topics),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kafka-scheduler: {error}");
            ExitCode::FAILURE
        }
    }
}

type Done = Result<(), Box<dyn std::error::Error>>;

fn run(config: Config) -> Done {
    tracing::info!(version = env!("CARGO_PKG_VERSION"), servers = config.bootstrap_servers, "starting");
    let metrics = Arc::new(Mutex::new(Metrics::new()));
    let observer = Watch::new(Arc::clone(&metrics));
    serve(config, metrics, Box::new(observer))
}

fn mini(config: Config, topics: &[(String, i32)]) -> Done {
    let metrics = Arc::new(Mutex::new(Metrics::new()));
    let mini = Mini::start(config, topics)?;
    mini.greet();
    let observer = mini.observer(Watch::new(Arc::clone(&metrics)));
    serve(mini.config().clone(), metrics, Box::new(observer))
}

fn serve(config: Config, metrics: Arc<Mutex<Metrics>>, observer: Box<dyn Observer>) -> Done {
    let engine = Engine::new(config.clone(), observer)?;
    let handle = engine.handle();
    Site { handle: handle.clone(), metrics, config }.serve()?;
    stop_on_signal(handle)?;
    Ok(engine.run()?)
}

/// The first signal hands over and ends; a second one ends at once.
fn stop_on_signal(handle: Handle) -> std::io::Result<()> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        let mut pending = signals.forever();
        pending.next();
        handle.stop();
        pending.next();
        std::process::exit(130);
    })?;
    Ok(())
}
