//! `export`

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use super::args;
use super::failure::Failure;
use super::fold::{Names, pending};
use super::line::Line;
use super::link::Link;
use super::progress::Progress;
use super::topics_of;
use crate::config::Config;
use crate::core::io::Record;
use crate::logging;

const AFTER: &str = "\
Each line is a pending schedule as it was produced: key, value and headers, with its place and timestamp. Bytes that are not
UTF-8 stand as {\"base64\": \"...\"}. Records that cannot fire are written too: they are in the log and not ended.
The file holds what was pending when the command began. Schedules that fire meanwhile may be in it.

Examples:
  kafka-scheduler export --to schedules.jsonl
  kafka-scheduler export | gzip > schedules.jsonl.gz";

#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub struct Args {
    /// The schedules topic; otherwise all of SCHEDULES_TOPICS
    #[arg(long, value_parser = args::topic)]
    topic: Option<String>,
    /// The file to write; standard output without it
    #[arg(long, value_name = "PATH")]
    to: Option<PathBuf>,
}

pub fn run(config: Config, args: &Args) -> Result<(), Failure> {
    let topics = topics_of(&config, args.topic.as_ref());
    let file = args.to.as_deref().map(open).transpose()?;
    let link = Link::new(config)?;
    link.fix_ends(&topics)?;
    let names = Names::default();
    let mut partitions = Vec::new();
    let mut total = 0;
    for topic in &topics {
        for partition in link.partitions(topic)? {
            partitions.push((topic, partition));
            total += link.count_max(topic, partition);
        }
    }
    let mut out: BufWriter<Box<dyn Write>> = BufWriter::new(match file {
        None => Box::new(std::io::stdout()),
        Some(file) => Box::new(emptied(file)?),
    });
    // Each partition is read twice.
    let mut progress = Progress::new("records read", Some(total * 2));
    let mut written = 0u64;
    for (topic, partition) in partitions {
        let step = |_: &Record<'_>| {
            progress.step();
            true
        };
        pending(&link, &names, topic, partition, step, |word| {
            serde_json::to_writer(&mut out, &Line::of(topic, word))
                .map_err(|e| Failure::from(std::io::Error::from(e)))?;
            out.write_all(b"\n")?;
            written += 1;
            Ok(())
        })?;
    }
    out.flush()?;
    progress.end();
    logging::note(&format!("{written} schedules exported from {}", topics.join(", ")));
    Ok(())
}

/// Opens the file, and leaves what it holds: an earlier export is not given up before the topics are seen.
fn open(path: &Path) -> Result<File, Failure> {
    let opened = OpenOptions::new().write(true).create(true).truncate(false).open(path);
    opened.map_err(|e| Failure::usage(format!("--to {}: {e}", path.display())))
}

fn emptied(file: File) -> std::io::Result<File> {
    // A pipe or a terminal has no length.
    if file.metadata()?.is_file() {
        file.set_len(0)?;
    }
    Ok(file)
}
