//! `export`

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use super::args;
use super::entry::Rules;
use super::export_line::ExportLine;
use super::failure::Failure;
use super::progress::Progress;
use super::topics_of;
use crate::config::Config;
use crate::core::io::Record;
use crate::kafka::broker_client::BrokerClient;
use crate::kafka::fold::{KeyHasher, pending};
use crate::logging;

const AFTER: &str = "\
Each line is a pending schedule as it was produced: key, value and headers, with its topic, partition, offset and timestamp.
Bytes that are not UTF-8 are {\"base64\": \"...\"}. Records that cannot fire are exported too: they are in the log and have
not ended. A schedule that recurs has its progress in scheduler-done and scheduler-next, and a delay becomes a due time, so an
import goes on where the export was. The file has the schedules that were pending when the command began; some of them may fire before it ends.

Examples:
  kafka-scheduler export --to schedules.jsonl
  kafka-scheduler export | gzip > schedules.jsonl.gz";

#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(super) struct Args {
    /// The schedules topic; otherwise all of SCHEDULES_TOPICS
    #[arg(long, value_parser = args::topic)]
    topic: Option<String>,
    /// The file to write [default: standard output]
    #[arg(long, value_name = "PATH")]
    to: Option<PathBuf>,
}

pub(super) fn run(config: Config, args: &Args) -> Result<(), Failure> {
    let topics = topics_of(&config, args.topic.as_ref());
    let rules = Rules::new(&config);
    let file = args.to.as_deref().map(open).transpose()?;
    let broker = BrokerClient::connect(&config)?;
    broker.fix_ends(&topics)?;
    let hasher = KeyHasher::default();
    let mut partitions = Vec::new();
    let mut total = 0;
    for topic in &topics {
        for partition in broker.partitions(topic)? {
            partitions.push((topic, partition));
            total += broker.count_max(topic, partition);
        }
    }
    let mut out: BufWriter<Box<dyn Write>> = BufWriter::new(match file {
        None => Box::new(std::io::stdout()),
        Some(file) => Box::new(truncated(file)?),
    });
    // Each partition is read twice.
    let mut progress = Progress::new("records read", Some(total * 2));
    let mut written = 0u64;
    for (topic, partition) in partitions {
        let step = |_: &Record<'_>| {
            progress.step();
            true
        };
        pending(&broker, &hasher, topic, partition, step, |record| {
            serde_json::to_writer(&mut out, &ExportLine::of(topic, &rules, record))
                .map_err(|e| Failure::from(std::io::Error::from(e)))?;
            out.write_all(b"\n")?;
            written += 1;
            Ok::<(), Failure>(())
        })?;
    }
    out.flush()?;
    progress.end();
    logging::note(&format!("{written} schedules exported from {}", topics.join(", ")));
    Ok(())
}

/// Opens the file without emptying it: a failing export must not destroy an earlier one.
fn open(path: &Path) -> Result<File, Failure> {
    let opened = OpenOptions::new().write(true).create(true).truncate(false).open(path);
    opened.map_err(|e| Failure::usage(format!("--to {}: {e}", path.display())))
}

fn truncated(file: File) -> std::io::Result<File> {
    // A pipe or a terminal has no length.
    if file.metadata()?.is_file() {
        file.set_len(0)?;
    }
    Ok(file)
}
