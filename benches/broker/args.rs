//! The command-line options.

use std::path::PathBuf;

use clap::Parser;

/// Measures the engine against a Kafka broker: the one at KAFKA_BOOTSTRAP, or one that the benchmark starts
#[derive(Clone, Debug, Parser)]
#[command(name = "broker")]
pub struct Args {
    /// Runs each scenario once with small counts: checks that the benchmark works, and measures nothing
    #[arg(long)]
    pub quick: bool,
    /// Number of runs of each scenario; the report shows their median [default: 5]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    runs: Option<u32>,
    /// Runs only scenarios whose names begin with this; may be repeated
    #[arg(long, value_name = "NAME")]
    pub only: Vec<String>,
    /// Number of schedules, instead of each scenario's own; for steady, schedules per second
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub count: Option<u32>,
    /// Number of schedules, due in a year, that are pending during a burst
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub beside: u32,
    /// Number of partitions of each topic
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(i32).range(1..))]
    pub partitions: i32,
    /// CONFIGURATION_FILE for the engine, such as one with compression.type: lz4
    #[arg(long, value_name = "PATH")]
    pub configuration: Option<PathBuf>,
    /// Writes all measurements to this file
    #[arg(long, value_name = "PATH")]
    pub json: Option<PathBuf>,
    /// Cargo adds this option
    #[arg(long, hide = true)]
    bench: bool,
}

impl Args {
    /// Parses the command line; exits with a message if it is invalid.
    pub fn read() -> Self {
        Self::parse()
    }

    /// Returns the number of runs of each scenario.
    pub fn runs(&self) -> u32 {
        self.runs.unwrap_or(if self.quick { 1 } else { 5 })
    }
}
