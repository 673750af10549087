//! `redrive`

use std::collections::BTreeMap;
use std::io::Write;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use super::args;
use super::entry::shown;
use super::failure::Failure;
use super::fold::{Names, fold};
use super::line::Line;
use super::link::{Link, refused};
use super::writer::{Out, Writer};
use crate::config::Config;
use crate::core::io::{Header, Record};
use crate::core::request;

/// Headers that the engine has added to a dead letter.
const ADDED: [&[u8]; 5] = [request::ERROR, request::ERROR_DETAIL, request::TOPIC, request::PARTITION, request::OFFSET];

const AFTER: &str = "\
A dead letter goes back as the schedule it was, to the topic and the partition it came from. It is left where a newer word
on its key has been said since: another schedule, a cancel, or the same letter redriven before. What a run has looked at, the
next one does not look at again; the group GROUP_ID.redrive remembers how far. With --key, --error or --all everything is
looked at, and nothing remembered. An engine that has seen a target topic missing looks for it again after at most 30 s:
wait for that before letters with unknown-target go back.

Examples:
  kafka-scheduler redrive --dry-run
  kafka-scheduler redrive --error unknown-target
  kafka-scheduler redrive --key reminder-17";

#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub struct Args {
    /// The dead-letter topic; otherwise DEAD_LETTER_TOPIC
    #[arg(long, value_parser = args::topic)]
    from: Option<String>,
    /// Only letters to this schedules topic
    #[arg(long, value_parser = args::topic)]
    topic: Option<String>,
    /// Only the letter with this key
    #[arg(long)]
    key: Option<String>,
    /// Only letters with this scheduler-error
    #[arg(long, value_name = "CODE")]
    error: Option<String>,
    /// Look at all letters, also at those that an earlier run has looked at
    #[arg(long)]
    all: bool,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
}

/// A dead letter and where it came from.
struct Letter {
    line: Line,
    error: String,
    partition: i32,
    offset: i64,
}

/// The newest letter of each key of a partition of a topic.
type Letters = BTreeMap<(String, i32), BTreeMap<Vec<u8>, Letter>>;

pub fn run(config: Config, args: &Args) -> Result<(), Failure> {
    let from = args.from.clone().or_else(|| config.dead_letter_topic.clone());
    let from = from.ok_or_else(|| Failure::usage("--from is missing, and DEAD_LETTER_TOPIC is not set: name one"))?;
    let link = Link::new(config)?;
    let remembers = !args.all && args.key.is_none() && args.error.is_none() && args.topic.is_none();
    let marks = Marks::new(&link, &from)?;
    let begin = if remembers { marks.read()? } else { BTreeMap::new() };
    let (letters, ends) = read(&link, &from, args, &begin)?;
    let writer = Writer::new(&link, None)?;
    let (mut back, mut left) = (0u64, 0u64);
    let mut out = std::io::stdout().lock();
    for ((topic, partition), letters) in &letters {
        let newer = newer(&link, topic, *partition, letters)?;
        for (key, letter) in letters {
            let what = format!("{} ({}) of {topic}, partition {partition}", shown(key), letter.error);
            if newer.contains(&key.as_slice()) {
                writeln!(out, "left {what}: there is a newer word on its key")?;
                left += 1;
                continue;
            }
            back += 1;
            if args.dry_run {
                writeln!(out, "would redrive {what}")?;
                continue;
            }
            let headers = letter.line.headers();
            let headers: Vec<Header<'_>> = headers.into_iter().filter(|h| !ADDED.contains(&h.name)).collect();
            let value = letter.line.value.as_ref().map(|value| value.0.as_slice());
            writer.send(topic, Out { partition: Some(letter.partition), key: Some(key), value, headers: &headers })?;
            writeln!(out, "redriven {what}")?;
        }
    }
    writer.finish()?;
    if remembers && !args.dry_run {
        marks.write(&ends)?;
    }
    let verb = if args.dry_run { "would go back" } else { "went back" };
    writeln!(out, "{back} dead letters {verb}, {left} were left")?;
    Ok(())
}

/// Reads the letters that are wanted, and how far that was.
fn read(
    link: &Link,
    from: &str,
    args: &Args,
    begin: &BTreeMap<i32, i64>,
) -> Result<(Letters, BTreeMap<i32, i64>), Failure> {
    let mut letters = Letters::new();
    let mut ends = BTreeMap::new();
    let mut strange = 0u64;
    for number in link.partitions(from)? {
        let offset = begin.get(&number).map_or(Offset::Beginning, |offset| Offset::Offset(*offset));
        link.read(from, number, offset, |record| {
            ends.insert(number, record.offset + 1);
            match letter(from, record) {
                None => strange += 1,
                Some((topic, key, letter)) if wanted(args, &topic, &key, &letter) => {
                    let of_partition = letters.entry((topic, letter.partition)).or_default();
                    if of_partition.get(&key).is_none_or(|other| other.offset < letter.offset) {
                        of_partition.insert(key, letter);
                    }
                }
                Some(_) => {}
            }
            Ok(())
        })?;
    }
    if strange > 0 {
        eprintln!("{strange} records of {from} are no dead letters of this scheduler and are left");
    }
    Ok((letters, ends))
}

fn letter(from: &str, record: &Record<'_>) -> Option<(String, Vec<u8>, Letter)> {
    let (key, _) = (record.key?, record.value?);
    // The engine's headers come last; a record may have carried some of these names before.
    let last = |name: &[u8]| {
        let value = record.headers.iter().rev().find(|header| header.name == name)?.value?;
        std::str::from_utf8(value).ok()
    };
    let letter = Letter {
        line: Line::of_record(from, record),
        error: last(request::ERROR)?.to_owned(),
        partition: last(request::PARTITION)?.parse().ok()?,
        offset: last(request::OFFSET)?.parse().ok()?,
    };
    Some((last(request::TOPIC)?.to_owned(), key.to_vec(), letter))
}

fn wanted(args: &Args, topic: &str, key: &[u8], letter: &Letter) -> bool {
    args.topic.as_ref().is_none_or(|wanted| wanted == topic)
        && args.key.as_ref().is_none_or(|wanted| wanted.as_bytes() == key)
        && args.error.as_ref().is_none_or(|wanted| *wanted == letter.error)
}

/// Keys on which something newer has been said than their letter.
fn newer<'a>(
    link: &Link,
    topic: &str,
    partition: i32,
    letters: &'a BTreeMap<Vec<u8>, Letter>,
) -> Result<Vec<&'a [u8]>, Failure> {
    if !link.partitions(topic)?.contains(&partition) {
        return Err(Failure::new(format!("{topic:?} has no partition {partition} any more: it was made anew")));
    }
    let names = Names::default();
    let concerns = |record: &Record<'_>| record.key.is_some_and(|key| letters.contains_key(key));
    let fold = fold(link, &names, topic, partition, true, concerns)?;
    let is_newer = |key: &&[u8]| {
        let letter = letters.get(*key).map_or(i64::MAX, |letter| letter.offset);
        fold.word(names.of(key)).is_some_and(|word| word.identity > letter)
    };
    Ok(letters.keys().map(Vec::as_slice).filter(is_newer).collect())
}

/// How far earlier runs have come, as committed offsets of a group of its own.
struct Marks {
    client: BaseConsumer,
    list: TopicPartitionList,
    topic: String,
}

impl Marks {
    fn new(link: &Link, topic: &str) -> Result<Self, Failure> {
        let mut config = link.settings().consumer();
        config.set("group.id", format!("{}.redrive", link.config.group_id));
        let client = config.create().map_err(|e| refused(&e))?;
        let mut list = TopicPartitionList::new();
        for partition in link.partitions(topic)? {
            list.add_partition(topic, partition);
        }
        Ok(Self { client, list, topic: topic.to_owned() })
    }

    fn failed(&self, what: &str, error: &rdkafka::error::KafkaError) -> Failure {
        Failure::new(format!(
            "how far earlier runs came on {:?} cannot be {what}: {error}; grant Read on the group GROUP_ID.redrive, or use \
             --all",
            self.topic
        ))
    }

    fn read(&self) -> Result<BTreeMap<i32, i64>, Failure> {
        let limit = std::time::Duration::from_secs(8);
        let found = self.client.committed_offsets(self.list.clone(), limit).map_err(|e| self.failed("read", &e))?;
        let offset = |element: rdkafka::topic_partition_list::TopicPartitionListElem<'_>| match element.offset() {
            Offset::Offset(offset) => Some((element.partition(), offset)),
            _ => None,
        };
        Ok(found.elements().into_iter().filter_map(offset).collect())
    }

    fn write(&self, ends: &BTreeMap<i32, i64>) -> Result<(), Failure> {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in ends {
            let added = list.add_partition_offset(&self.topic, *partition, Offset::Offset(*offset));
            added.map_err(|e| self.failed("kept", &e))?;
        }
        if ends.is_empty() {
            return Ok(());
        }
        self.client.commit(&list, CommitMode::Sync).map_err(|e| self.failed("kept", &e))
    }
}
