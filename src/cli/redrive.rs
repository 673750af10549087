//! `redrive`
//!
//! Letters may hold more than memory does. So the dead-letter topic is read twice: once for where the newest letter on each
//! key lies, of which a few dozen bytes are kept, and once for these letters themselves.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use super::args::{self, decode};
use super::entry::{Rules, shown};
use super::failure::Failure;
use super::fold::{Names, fold};
use super::link::{Link, refused};
use super::topics_of;
use super::writer::{Out, Writer};
use crate::config::Config;
use crate::core::io::{Header, Millis, Record};
use crate::core::reason::Reason;
use crate::core::headers;
use crate::logging;

/// Headers that the engine has added to a dead letter.
const ADDED: [&[u8]; 5] = [headers::ERROR, headers::ERROR_DETAIL, headers::TOPIC, headers::PARTITION, headers::OFFSET];

const AFTER: &str = "\
A dead letter goes back as the schedule it was, to the topic and the partition it came from, if that topic is one of
SCHEDULES_TOPICS or the one that --topic names. It is left where a newer word on its key has been said since: another
schedule, a cancel, or the same letter redriven before. It is also left if the engine would refuse it again on arrival, for
example because it has no scheduler-epoch, unless --key or --error asks for it. Give this command the engine's settings:
SCHEDULE_GRACE_INTERVAL and MAX_HORIZON decide, too. What a run has looked at, the next one does not look at again; the
group GROUP_ID.redrive remembers how far. With --topic, --key, --error or --all everything is looked at, and nothing
remembered. An engine that has seen a target topic missing looks for it again after at most 30 s: wait for that before
letters with unknown-target go back.

Examples:
  kafka-scheduler redrive --dry-run
  kafka-scheduler redrive --error unknown-target
  kafka-scheduler redrive --key reminder-17
  kafka-scheduler redrive --key /wA= --base64";

#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub struct Args {
    /// The dead-letter topic; otherwise DEAD_LETTER_TOPIC
    #[arg(long, value_parser = args::topic)]
    from: Option<String>,
    /// Only letters to this schedules topic; otherwise to all of SCHEDULES_TOPICS
    #[arg(long, value_parser = args::topic)]
    topic: Option<String>,
    /// Only the letter with this key
    #[arg(long)]
    key: Option<String>,
    /// --key is in base64, for keys that are not text
    #[arg(long, requires = "key")]
    base64: bool,
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

/// Which letters go back.
struct Wanted<'a> {
    topics: Vec<String>,
    key: Option<Vec<u8>>,
    error: Option<&'a str>,
    /// Which records can fire.
    rules: Rules,
}

/// Why a letter is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Left {
    NoPartition,
    NewerWord,
    /// The engine would refuse the record again, and write another letter.
    CannotFire(Reason),
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPartition => f.write_str("the topic has no such partition"),
            Self::NewerWord => f.write_str("there is a newer word on its key"),
            Self::CannotFire(reason) => write!(f, "cannot fire ({})", reason.code()),
        }
    }
}

/// A dead letter: what it is to be again.
struct Letter<'a> {
    topic: &'a str,
    partition: i32,
    /// Where the record lay that it was.
    offset: i64,
    key: &'a [u8],
    error: &'a str,
}

/// The newest letter on a key.
struct Newest {
    /// Partition and offset of the letter.
    lies: (i32, i64),
    /// Offset of the record that it was.
    offset: i64,
    /// Why it is left, if it is.
    left: Option<Left>,
}

/// By the topic and partition that they go back to, the newest letter on each key.
type Letters = BTreeMap<(String, i32), BTreeMap<u128, Newest>>;

/// From where each partition of the dead-letter topic is read.
type Begins = BTreeMap<i32, i64>;

pub fn run(config: Config, args: &Args) -> Result<(), Failure> {
    let from = args.from.clone().or_else(|| config.dead_letter_topic.clone());
    let from = from.ok_or_else(|| Failure::usage("--from is missing, and DEAD_LETTER_TOPIC is not set: name one"))?;
    let key = args.key.as_ref().map(|key| decode("--key", key, args.base64)).transpose()?;
    let topics = topics_of(&config, args.topic.as_ref());
    let wanted = Wanted { topics, key, error: args.error.as_deref(), rules: Rules::new(&config) };
    let link = Link::new(config)?;
    let remembers = !args.all && args.key.is_none() && args.error.is_none() && args.topic.is_none();
    let marks = Marks::new(&link, &from)?;
    let begins = begins(&link, &from, &if remembers { marks.read()? } else { BTreeMap::new() })?;
    let names = Names::default();
    let (mut letters, ends) = find(&link, &names, &from, &wanted, &begins)?;
    for ((topic, partition), letters) in &mut letters {
        leave(&link, &names, topic, *partition, letters)?;
    }
    let mut out = std::io::stdout().lock();
    let (back, left) = send(&link, &names, &from, &letters, &begins, args.dry_run, &mut out)?;
    if remembers && !args.dry_run {
        marks.write(&ends)?;
    }
    let verb = if args.dry_run { "would go back" } else { "went back" };
    writeln!(out, "{back} dead letters {verb}, {} were left", left.values().sum::<u64>())?;
    for (why, count) in left {
        writeln!(out, "{count} left: {why}")?;
    }
    Ok(())
}

/// Where reading begins: where earlier runs have ended or, where retention has been faster or the topic was made anew,
/// at its first record.
fn begins(link: &Link, from: &str, marks: &BTreeMap<i32, i64>) -> Result<Begins, Failure> {
    let mut begins = Begins::new();
    for number in link.partitions(from)? {
        let (low, end) = link.bounds(from, number)?;
        let mark = marks.get(&number).copied().filter(|mark| (low..=end).contains(mark));
        begins.insert(number, mark.unwrap_or(low));
    }
    Ok(begins)
}

/// Looks for the letters that are wanted. Tells how far it has read, too.
fn find(
    link: &Link,
    names: &Names,
    from: &str,
    wanted: &Wanted<'_>,
    begins: &Begins,
) -> Result<(Letters, BTreeMap<i32, i64>), Failure> {
    let mut letters = Letters::new();
    let mut ends = BTreeMap::new();
    let (mut strange, mut foreign) = (0u64, 0u64);
    let mut example = String::new();
    for (number, begin) in begins {
        link.read(from, *number, Offset::Offset(*begin), |record| {
            ends.insert(*number, record.offset + 1);
            let Some(letter) = letter(record) else {
                strange += 1;
                return Ok(());
            };
            if !wanted.topics.iter().any(|topic| topic == letter.topic) {
                foreign += 1;
                example = shown(letter.topic.as_bytes());
            } else if wanted.takes(&letter) {
                let left = wanted.refused(record).map(Left::CannotFire);
                let newest = Newest { lies: (*number, record.offset), offset: letter.offset, left };
                let of_partition = letters.entry((letter.topic.to_owned(), letter.partition)).or_default();
                let name = names.of(letter.key);
                if of_partition.get(&name).is_none_or(|other| other.offset < newest.offset) {
                    of_partition.insert(name, newest);
                }
            }
            Ok(())
        })?;
    }
    if strange > 0 {
        let text = format!("{strange} records of {from} are no dead letters of this scheduler and are left");
        logging::note(&text);
    }
    if foreign > 0 {
        let text = format!(
            "{foreign} letters are for other topics than {} (one of them for {example}) and are left; --topic names a \
             topic that they may go back to",
            wanted.topics.join(", ")
        );
        logging::note(&text);
    }
    Ok((letters, ends))
}

impl Wanted<'_> {
    fn takes(&self, letter: &Letter<'_>) -> bool {
        self.key.as_ref().is_none_or(|key| key == letter.key) && self.error.is_none_or(|error| error == letter.error)
    }

    /// Why the engine would refuse the record again if it arrived now. Letters that were asked for go back all the same.
    fn refused(&self, record: &Record<'_>) -> Option<Reason> {
        if self.key.is_some() || self.error.is_some() {
            return None;
        }
        let headers = headers(record);
        let now = Millis(jiff::Timestamp::now().as_millisecond());
        self.rules.refuses(&Record { timestamp: now, headers: &headers, ..*record })
    }
}

/// The headers of the record that the letter was.
fn headers<'a>(letter: &Record<'a>) -> Vec<Header<'a>> {
    letter.headers.iter().filter(|header| !ADDED.contains(&header.name)).copied().collect()
}

fn letter<'a>(record: &Record<'a>) -> Option<Letter<'a>> {
    let (key, _) = (record.key?, record.value?);
    // The engine's headers come last; a record may have carried some of these names before.
    let last = |name: &[u8]| {
        let value = record.headers.iter().rev().find(|header| header.name == name)?.value?;
        std::str::from_utf8(value).ok()
    };
    Some(Letter {
        topic: last(headers::TOPIC)?,
        partition: last(headers::PARTITION)?.parse().ok()?,
        offset: last(headers::OFFSET)?.parse().ok()?,
        key,
        error: last(headers::ERROR)?,
    })
}

/// Marks letters that are left: something newer has been said on their keys, or there is no such partition.
fn leave(
    link: &Link,
    names: &Names,
    topic: &str,
    partition: i32,
    letters: &mut BTreeMap<u128, Newest>,
) -> Result<(), Failure> {
    if !link.partitions(topic)?.contains(&partition) {
        letters.values_mut().for_each(|letter| letter.left = Some(Left::NoPartition));
        return Ok(());
    }
    let concerns = |record: &Record<'_>| record.key.is_some_and(|key| letters.contains_key(&names.of(key)));
    let fold = fold(link, names, topic, partition, true, concerns)?;
    for (name, letter) in letters {
        if fold.word(*name).is_some_and(|word| word.origin_offset > letter.offset) {
            letter.left = Some(Left::NewerWord);
        }
    }
    Ok(())
}

/// Sends the letters back that are not to be left. Counts both, the latter by why they are left.
fn send(
    link: &Link,
    names: &Names,
    from: &str,
    letters: &Letters,
    begins: &Begins,
    dry_run: bool,
    out: &mut impl Write,
) -> Result<(u64, BTreeMap<Left, u64>), Failure> {
    let writer = Writer::new(link, None)?;
    let (mut back, mut left) = (0u64, BTreeMap::new());
    for (number, begin) in begins {
        let lying = |newest: &&Newest| newest.lies.0 == *number;
        let Some(first) = letters.values().flat_map(BTreeMap::values).filter(lying).map(|n| n.lies.1).min() else {
            continue;
        };
        // Retention may have gone on.
        let first = first.max(*begin).max(link.bounds(from, *number)?.0);
        link.read(from, *number, Offset::Offset(first), |record| {
            let Some(letter) = letter(record) else { return Ok(()) };
            let of_partition = letters.get(&(letter.topic.to_owned(), letter.partition));
            let newest = of_partition.and_then(|letters| letters.get(&names.of(letter.key)));
            let Some(newest) = newest.filter(|newest| newest.lies == (*number, record.offset)) else { return Ok(()) };
            let Letter { topic, partition, key, error, .. } = letter;
            let what = format!("{} ({}) of {topic}, partition {partition}", shown(key), shown(error.as_bytes()));
            if let Some(why) = newest.left {
                *left.entry(why).or_default() += 1;
                return Ok(writeln!(out, "left {what}: {why}")?);
            }
            back += 1;
            if dry_run {
                return Ok(writeln!(out, "would redrive {what}")?);
            }
            let headers = headers(record);
            writer.send(
                topic,
                Out { partition: Some(partition), key: Some(key), value: record.value, headers: &headers },
            )?;
            Ok(writeln!(out, "redriven {what}")?)
        })?;
    }
    writer.finish()?;
    Ok((back, left))
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
