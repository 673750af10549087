//! The command line: runs the engine or `mini`, and manages schedules and topics.
//!
//! Every command reads the same environment variables and the same `CONFIGURATION_FILE` as the engine, so TLS and SASL
//! work everywhere. Exit codes: 0 done; 1 failed; 2 wrong arguments or settings; 3 not found; 4 a check found a
//! problem.

mod args;
mod cancel;
mod entry;
mod export;
mod export_line;
mod failure;
mod history;
mod import;
mod instance;
mod list;
mod preview;
mod progress;
mod progress_offsets;
mod redrive;
mod rule_args;
mod schedule;
mod show;
mod table;
mod topics;

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::app::{self, Stopper};
use crate::config::{self, Config};
use crate::http::Listeners;
use crate::logging::{self, Logging};
use crate::mini::{self, Topic};
use crate::runner::Runner;
use failure::Failure;

const AFTER: &str = "\
Every command reads its settings from the environment (BOOTSTRAP_SERVERS, SCHEDULES_TOPICS, CONFIGURATION_FILE, ...).

Exit codes: 0 done; 1 failed; 2 wrong arguments or settings; 3 not found; 4 a check found a problem.

Examples:
  kafka-scheduler mini
  BOOTSTRAP_SERVERS=kafka:9092 kafka-scheduler run
  kafka-scheduler schedule --in 10m --key k --target-topic t --value hello
  kafka-scheduler list";

/// Schedules messages on Apache Kafka, exactly once
#[derive(Debug, Parser)]
#[command(name = "kafka-scheduler", version, after_help = AFTER)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the scheduler (the default command)
    Run,
    /// Run the scheduler with a Kafka broker in the same process, to try it out; it keeps nothing
    #[command(after_help = "Examples:\n  kafka-scheduler mini\n  kafka-scheduler mini --no-demo --topic reminders:3")]
    Mini {
        /// A further topic of the embedded broker; repeatable
        #[arg(long = "topic", value_name = "NAME:PARTITIONS")]
        topics: Vec<Topic>,
        /// Do not create the three demo schedules
        #[arg(long)]
        no_demo: bool,
    },
    /// Schedule a message, or replace a pending schedule
    Schedule(Box<schedule::Args>),
    /// Print the next dates of a cron expression or an interval, without Kafka
    Preview(preview::Args),
    /// Cancel a schedule
    Cancel(cancel::Args),
    /// List pending schedules
    List(list::Args),
    /// Show the pending schedule of a key
    Show(show::Args),
    /// Show the firings of a key
    History(history::Args),
    /// Produce dead letters again to the schedules topics they came from
    Redrive(redrive::Args),
    /// Create the engine's topics, or check their settings
    #[command(subcommand)]
    Topics(topics::Command),
    /// Export pending schedules as JSON lines
    Export(export::Args),
    /// Import the schedules that `export` has written
    Import(import::Args),
    /// Print a completion script for a shell
    #[command(after_help = "Example:\n  kafka-scheduler completions bash > /etc/bash_completion.d/kafka-scheduler")]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page, or write a page for each command
    #[command(
        after_help = "Examples:\n  kafka-scheduler man | man -l -\n  kafka-scheduler man --to /usr/share/man/man1"
    )]
    Man {
        /// Write the pages of all commands to this directory, instead of printing the first one
        #[arg(long, value_name = "DIRECTORY")]
        to: Option<std::path::PathBuf>,
    },
}

/// Runs the command of the process's arguments, and prints its error to stderr.
#[must_use]
pub fn main() -> ExitCode {
    if logging::is_json() {
        logging::panics_as_json();
    }
    let args = match Args::try_parse() {
        Ok(args) => args,
        // A log collector needs these errors in its format, too.
        Err(wrong) if wrong.use_stderr() && logging::is_json() => {
            logging::failure(wrong.to_string().trim_end());
            return ExitCode::from(u8::try_from(wrong.exit_code()).unwrap_or(2));
        }
        Err(other) => other.exit(),
    };
    match start(args.command.unwrap_or(Command::Run)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if failure.exit_code() != 0 {
                logging::failure(&failure.to_string());
            }
            ExitCode::from(failure.exit_code())
        }
    }
}

fn start(command: Command) -> Result<(), Failure> {
    match &command {
        Command::Completions { shell } => return complete(*shell),
        Command::Man { to } => return man(to.as_deref()),
        Command::Preview(args) => return preview::run(args),
        _ => {}
    }
    config::check_unicode()?;
    let env = &|name: &str| std::env::var(name).ok();
    let logging = Logging::load(env)?;
    if let Command::Mini { topics, no_demo } = command {
        let config = Config::load(&mini::env(env))?;
        let _flush = logging.start();
        return Ok(mini::run(config, &topics, !no_demo)?);
    }
    let config = Config::load(env)?;
    match command {
        Command::Run => {
            let _flush = logging.start();
            let stopper = Stopper::start()?;
            let listeners = Listeners::bind(&config).map_err(app::ProgramError::from)?;
            Ok(app::run(Runner::new(config), listeners, &stopper, None)?)
        }
        Command::Schedule(args) => schedule::run(config, &args),
        Command::Cancel(args) => cancel::run(config, &args),
        Command::List(args) => list::run(config, &args),
        Command::Show(args) => show::run(config, &args),
        Command::History(args) => history::run(config, &args),
        Command::Redrive(args) => redrive::run(config, &args),
        Command::Topics(command) => topics::run(config, &command),
        Command::Export(args) => export::run(config, &args),
        Command::Import(args) => import::run(config, &args),
        Command::Mini { .. } | Command::Completions { .. } | Command::Man { .. } | Command::Preview(_) => Ok(()),
    }
}

fn complete(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "kafka-scheduler", &mut script);
    Ok(std::io::stdout().write_all(&script)?)
}

fn man(to: Option<&std::path::Path>) -> Result<(), Failure> {
    match to {
        None => Ok(clap_mangen::Man::new(Args::command()).render(&mut std::io::stdout())?),
        Some(directory) => clap_mangen::generate_to(Args::command(), directory)
            .map_err(|e| Failure::usage(format!("--to {}: {e}", directory.display()))),
    }
}

/// Returns the topics that a command reads: the given one, or else all schedules topics.
fn topics_of(config: &Config, given: Option<&String>) -> Vec<String> {
    given.map_or_else(|| config.schedules_topics().to_vec(), |topic| vec![topic.clone()])
}

/// Returns the topic that a command writes to.
fn topic_of(config: &Config, given: Option<&String>) -> Result<String, Failure> {
    match (given, config.schedules_topics()) {
        (Some(topic), _) => Ok(topic.clone()),
        (None, [topic]) => Ok(topic.clone()),
        (None, topics) => Err(Failure::usage(format!(
            "--topic is missing: SCHEDULES_TOPICS has several ({}), choose one of them",
            topics.join(", ")
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Args::command().debug_assert();
    }
}
