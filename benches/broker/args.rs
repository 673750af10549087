//! The command line.

use std::path::PathBuf;

use clap::Parser;

/// Measures the engine against a Kafka broker: one of its own, or that at KAFKA_BOOTSTRAP.
#[derive(Clone, Debug, Parser)]
#[command(name = "broker")]
pub struct Args {
    /// Small counts and one run: proves that the benchmark works, and measures nothing
    #[arg(long)]
    pub quick: bool,
    /// Runs of each scenario, of which the median is given [default: 5]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    runs: Option<u32>,
    /// Only scenarios whose names begin with this; may be repeated
    #[arg(long, value_name = "NAME")]
    pub only: Vec<String>,
    /// Schedules in place of a scenario's own count; for steady, schedules a second
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub count: Option<u32>,
    /// Schedules that are pending beside a burst, due in a year
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub beside: u32,
    /// Partitions of each topic
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(i32).range(1..))]
    pub partitions: i32,
    /// CONFIGURATION_FILE for the engine, such as one with compression.type: lz4
    #[arg(long, value_name = "PATH")]
    pub configuration: Option<PathBuf>,
    /// Writes everything measured to this file
    #[arg(long, value_name = "PATH")]
    pub json: Option<PathBuf>,
    /// Cargo adds it
    #[arg(long, hide = true)]
    bench: bool,
}

impl Args {
    /// From the command line; ends the process where it makes no sense.
    pub fn read() -> Self {
        Self::parse()
    }

    /// How often each scenario is measured.
    pub fn runs(&self) -> u32 {
        self.runs.unwrap_or(if self.quick { 1 } else { 5 })
    }
}
