//! The command line.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use kafka_scheduler::app::{self, Error, Stopper};
use kafka_scheduler::config::{self, Config};
use kafka_scheduler::http::Listeners;
use kafka_scheduler::logging::Logging;
use kafka_scheduler::mini::{self, Topic};

/// Schedules messages on Apache Kafka, exactly once. Settings come from the environment.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the scheduler (what happens without a command, too)
    Run,
    /// Try it out: the scheduler with a Kafka broker inside the process, which keeps nothing
    Mini {
        /// A further topic for the embedded broker; may be given more than once
        #[arg(long = "topic", value_name = "NAME:PARTITIONS")]
        topics: Vec<Topic>,
    },
}

fn main() -> ExitCode {
    let args = Args::parse();
    match start(args.command.unwrap_or(Command::Run)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("kafka-scheduler: {e}");
            ExitCode::from(e.exit_code())
        }
    }
}

fn start(command: Command) -> Result<(), Error> {
    config::check_unicode()?;
    let env = &|name: &str| std::env::var(name).ok();
    let logging = Logging::load(env)?;
    match command {
        Command::Run => {
            let config = Config::load(env)?;
            logging.start();
            let stopper = Stopper::start()?;
            let listeners = Listeners::bind(&config)?;
            app::run(config, listeners, &stopper, None)
        }
        Command::Mini { topics } => {
            let config = Config::load(&mini::env(env))?;
            logging.start();
            mini::run(config, &topics)
        }
    }
}
