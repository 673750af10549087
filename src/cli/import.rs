//! `import`

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;

use super::args::{self, Partitioner};
use super::failure::Failure;
use super::fold::{Names, fold};
use super::line::Line;
use super::link::Link;
use super::progress::Progress;
use super::topic_of;
use super::writer::{Out, Writer};
use crate::config::Config;
use crate::core::origin::RESERVED_PREFIX;
use crate::logging;

/// The longest line: a record of 100 MB in base64, which no broker takes.
const LINE_MAX: u64 = 200 << 20;

const AFTER: &str = "\
Records get the time of the import as their timestamp, since compaction goes by it; scheduler-timestamp of what fires is that
one too. What is overdue by then fires at once. A key that is pending in the topic goes to the partition where it lies and
replaces what is there; a new one goes where --partitioner says or, with --same-partitions, where it came from: choose that
where the producers of these keys do not hash like Java's and the topic has as many partitions as the old one.

Examples:
  kafka-scheduler import schedules.jsonl
  zcat schedules.jsonl.gz | kafka-scheduler import - --topic other-schedules";

#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub struct Args {
    /// What `export` has written; - is standard input
    #[arg(value_name = "PATH")]
    from: PathBuf,
    /// The schedules topic to import to; needed where SCHEDULES_TOPICS names several
    #[arg(long, value_parser = args::topic)]
    topic: Option<String>,
    /// How to choose the partitions of new keys
    #[arg(long, value_enum, conflicts_with = "same_partitions")]
    partitioner: Option<Partitioner>,
    /// Put new keys into the partitions they came from
    #[arg(long)]
    same_partitions: bool,
}

pub fn run(config: Config, args: &Args) -> Result<(), Failure> {
    let topic = topic_of(&config, args.topic.as_ref())?;
    let mut lines: BufReader<Box<dyn Read>> = BufReader::with_capacity(
        1 << 16,
        if args.from.as_os_str() == "-" {
            Box::new(std::io::stdin())
        } else {
            let opened = File::open(&args.from);
            Box::new(opened.map_err(|e| Failure::usage(format!("PATH {}: {e}", args.from.display())))?)
        },
    );
    let link = Link::new(config)?;
    link.fix_ends([&topic])?;
    let all = link.partitions(&topic)?;
    let names = Names::default();
    let mut places: BTreeMap<u128, i32> = BTreeMap::new();
    for partition in &all {
        let fold = fold(&link, &names, &topic, *partition, false, |_| true)?;
        places.extend(fold.pending_names().map(|name| (name, *partition)));
    }
    let writer = Writer::new(&link, args.partitioner.map(Partitioner::name))?;
    let mut progress = Progress::new("schedules imported", None);
    let mut text = Vec::new();
    let sent = loop_lines(&mut lines, &mut text, |number, text| {
        let wrong = |why: String| Failure::new(format!("line {number}: {why}"));
        let line: Line = serde_json::from_slice(text).map_err(|e| wrong(e.to_string()))?;
        let key = line.key.as_ref().ok_or_else(|| wrong("there is no key".into()))?;
        let value = line.value.as_ref().ok_or_else(|| wrong("there is no value, which would cancel the key".into()))?;
        if key.0.starts_with(RESERVED_PREFIX) {
            return Err(wrong("the key begins with \"__scheduler.\", which is kept for the engine".into()));
        }
        let partition = match places.get(&names.of(&key.0)) {
            Some(partition) => Some(*partition),
            None if args.same_partitions => {
                let known = line.partition.filter(|partition| all.contains(partition));
                Some(known.ok_or_else(|| {
                    wrong(format!("{topic:?} has no partition {:?}: import without --same-partitions", line.partition))
                })?)
            }
            None => None,
        };
        writer.send(&topic, Out { partition, key: Some(&key.0), value: Some(&value.0), headers: &line.headers() })?;
        progress.step();
        Ok(())
    });
    progress.end();
    // What has been sent before a bad line is there, and must be said.
    let delivered = writer.finish();
    let count = writer.delivered();
    logging::note(&format!("{count} schedules imported to {topic}"));
    sent.and(delivered.map(|_| ()))
}

/// Shows each line that is not blank, with its number from 1 on.
fn loop_lines(
    lines: &mut BufReader<Box<dyn Read>>,
    text: &mut Vec<u8>,
    mut visit: impl FnMut(u64, &[u8]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    for number in 1.. {
        text.clear();
        let read = lines.by_ref().take(LINE_MAX).read_until(b'\n', text);
        let read = read.map_err(|e| Failure::new(format!("line {number}: {e}")))?;
        if read == 0 {
            break;
        }
        if read as u64 == LINE_MAX {
            return Err(Failure::new(format!("line {number}: it is longer than {LINE_MAX} bytes")));
        }
        if !text.trim_ascii().is_empty() {
            visit(number, text)?;
        }
    }
    Ok(())
}
