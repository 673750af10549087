//! `list`

use std::collections::BinaryHeap;
use std::io::{BufWriter, Write};

use jiff::Timestamp;

use super::args;
use super::entry::{Entry, Rules};
use super::failure::Failure;
use super::instance::{Instance, schedules};
use super::table::table;
use super::topics_of;
use crate::config::Config;
use crate::core::io::Record;
use crate::kafka::broker_client::BrokerClient;
use crate::kafka::fold::{KeyHasher, Pending, pending};
use crate::logging;

/// Rows of a table without `--limit`.
const ROWS_DEFAULT: usize = 1_000;

const AFTER: &str = "\
list reads the topics, whether or not an instance is running. Give this command the engine's settings: which records can
fire depends on SCHEDULE_GRACE_INTERVAL and MAX_HORIZON. Schedules that a first start has skipped (see SINCE_DELTA) are
listed too. With --server the command asks a running instance instead, which knows the partitions that it holds.

Examples:
  kafka-scheduler list --due-before 2030-01-01T00:00:00Z --target-topic videos
  kafka-scheduler list --key-prefix order- --json
  kafka-scheduler list --server http://localhost:8000";

#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(super) struct Args {
    /// The schedules topic; otherwise all of SCHEDULES_TOPICS
    #[arg(long, value_parser = args::topic)]
    topic: Option<String>,
    /// Only schedules with this target topic
    #[arg(long, value_parser = args::topic)]
    target_topic: Option<String>,
    /// Only schedules whose key begins with this text
    #[arg(long, value_name = "TEXT")]
    key_prefix: Option<String>,
    /// Only schedules due before this date
    #[arg(long, value_name = "DATE", value_parser = date)]
    due_before: Option<u64>,
    /// Only schedules due at this date or later
    #[arg(long, value_name = "DATE", value_parser = date)]
    due_after: Option<u64>,
    /// The most schedules to list, those due first [default: 1000 for a table; for JSON all, unsorted]
    #[arg(long, value_name = "NUMBER", value_parser = limit)]
    limit: Option<usize>,
    /// Print lines of JSON, each like an object of REST's /schedules
    #[arg(long)]
    json: bool,
    /// Ask the instance whose REST API has this address, instead of reading the topics
    #[arg(long, value_name = "URL")]
    server: Option<Instance>,
}

fn date(text: &str) -> Result<u64, String> {
    let date: Timestamp =
        text.parse().map_err(|_| "must be a date with its zone, such as 2030-01-01T00:00:00Z".to_owned())?;
    Ok(u64::try_from(date.as_second()).unwrap_or(0))
}

fn limit(text: &str) -> Result<usize, String> {
    let limit = text.parse().ok().filter(|limit| (1..=1_000_000).contains(limit));
    limit.ok_or_else(|| "must be a whole number from 1 to 1000000".into())
}

impl Args {
    fn matches(&self, entry: &Entry) -> bool {
        self.topic.as_ref().is_none_or(|topic| *topic == entry.topic)
            && self.target_topic.as_ref().is_none_or(|target| *target == entry.target)
            && self.matches_key(&entry.key)
            && self.due_before.is_none_or(|before| entry.due_ms / 1000 < before)
            && self.due_after.is_none_or(|after| entry.due_ms / 1000 >= after)
    }

    fn matches_key(&self, key: &[u8]) -> bool {
        self.key_prefix.as_ref().is_none_or(|prefix| key.starts_with(prefix.as_bytes()))
    }
}

enum Output<W> {
    /// Prints entries at once.
    Lines(W),
    /// Keeps those that are due first.
    Earliest { heap: BinaryHeap<ByDue>, limit: usize, left_out: u64 },
}

/// Ordered by due time.
struct ByDue(Entry);

impl ByDue {
    fn order(&self) -> (u64, &str, &[u8]) {
        (self.0.due_ms, &self.0.topic, &self.0.key)
    }
}

impl PartialEq for ByDue {
    fn eq(&self, other: &Self) -> bool {
        self.order() == other.order()
    }
}

impl Eq for ByDue {}

impl PartialOrd for ByDue {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ByDue {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.order().cmp(&other.order())
    }
}

impl<W: Write> Output<W> {
    fn take(&mut self, entry: Entry) -> Result<(), Failure> {
        match self {
            Self::Lines(out) => writeln!(out, "{}", entry.to_json())?,
            Self::Earliest { heap, limit, left_out } => {
                heap.push(ByDue(entry));
                if heap.len() > *limit {
                    heap.pop();
                    *left_out += 1;
                }
            }
        }
        Ok(())
    }

    fn end(self, out: &mut W, json: bool) -> Result<(), Failure> {
        match self {
            Self::Lines(mut lines) => lines.flush()?,
            Self::Earliest { heap, left_out, .. } => {
                let entries = heap.into_sorted_vec().into_iter().map(|ByDue(entry)| entry);
                if json {
                    entries.into_iter().try_for_each(|entry| writeln!(out, "{}", entry.to_json()))?;
                } else {
                    writeln!(out, "{}", table(Entry::COLUMNS, entries.map(|entry| entry.row())))?;
                }
                out.flush()?;
                if left_out > 0 {
                    logging::note(&format!("{left_out} more schedules are due later; --limit shows more"));
                }
            }
        }
        Ok(())
    }
}

pub(super) fn run(config: Config, args: &Args) -> Result<(), Failure> {
    let stdout = || BufWriter::new(std::io::stdout());
    let mut output = match (args.json, args.limit) {
        (true, None) => Output::Lines(stdout()),
        (_, limit) => Output::Earliest { heap: BinaryHeap::new(), limit: limit.unwrap_or(ROWS_DEFAULT), left_out: 0 },
    };
    let mut take = |entry: Entry| if args.matches(&entry) { output.take(entry) } else { Ok(()) };
    let invalid = match &args.server {
        Some(server) => schedules(server, &mut take).map(|()| 0)?,
        None => from_topics(config, args, &mut take)?,
    };
    output.end(&mut stdout(), args.json)?;
    if invalid > 0 {
        logging::note(&format!("{invalid} records that cannot fire are not listed; `show` and `export` include them"));
    }
    Ok(())
}

/// Returns how many records cannot fire.
fn from_topics(
    config: Config,
    args: &Args,
    take: &mut impl FnMut(Entry) -> Result<(), Failure>,
) -> Result<u64, Failure> {
    let rules = Rules::new(&config);
    let topics = topics_of(&config, args.topic.as_ref());
    let broker = BrokerClient::connect(&config)?;
    broker.fix_ends(&topics)?;
    let hasher = KeyHasher::default();
    let mut invalid = 0;
    for topic in &topics {
        for partition in broker.partitions(topic)? {
            let concerns = |record: &Record<'_>| record.key.is_some_and(|key| args.matches_key(key));
            pending(&broker, &hasher, topic, partition, concerns, |record: &Pending<'_>| {
                match Entry::of(topic, &rules, record) {
                    Ok(entry) => take(entry),
                    Err(_) => {
                        invalid += 1;
                        Ok(())
                    }
                }
            })?;
        }
    }
    Ok(invalid)
}
