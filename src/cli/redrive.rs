//! `redrive`
//!
//! Dead letters may be larger than memory. So the dead-letter topic is read twice: first for the position of the newest
//! dead letter for each key, of which a few dozen bytes are kept, and then for these dead letters themselves.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;

use rdkafka::Offset;

use super::args::{self, decode};
use super::entry::{Rules, printable};
use super::failure::Failure;
use super::progress_offsets::ProgressOffsets;
use super::topics_of;
use crate::config::Config;
use crate::core::headers;
use crate::core::io::{Header, Millis, Record};
use crate::core::reason::Reason;
use crate::kafka::broker_client::BrokerClient;
use crate::kafka::fold::{KeyHasher, fold};
use crate::kafka::publish::{NewRecord, Publisher};
use crate::logging;

/// Headers that the engine has added to a dead letter.
const ADDED: [&[u8]; 5] = [headers::ERROR, headers::ERROR_DETAIL, headers::TOPIC, headers::PARTITION, headers::OFFSET];

const AFTER: &str = "\
redrive produces a dead letter again as the schedule that it was, to the topic and partition it came from, if that topic is
one of SCHEDULES_TOPICS or the one that --topic names. A single occurrence of a schedule that recurs gets a key of its own,
KEY/PARTITION-OFFSET.OCCURRENCE, so the schedule itself goes on. redrive skips a dead letter if its key has a newer record: another
schedule, a cancel, or the same dead letter redriven before. It also skips a dead letter that the engine would reject again
on arrival, for example because it has no scheduler-epoch, unless --key or --error selects it. Give this command the
engine's settings: SCHEDULE_GRACE_INTERVAL and MAX_HORIZON count too. The group GROUP_ID.redrive remembers how far a run
read, so the next run reads only newer dead letters. With --topic, --key, --error or --all the command reads everything and
remembers nothing. An engine that has found a target topic missing checks it again after at most 30 s: wait that long
before you redrive dead letters with unknown-target.

Examples:
  kafka-scheduler redrive --dry-run
  kafka-scheduler redrive --error unknown-target
  kafka-scheduler redrive --key reminder-17
  kafka-scheduler redrive --key /wA= --base64";

#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(super) struct Args {
    /// The dead-letter topic; otherwise DEAD_LETTER_TOPIC
    #[arg(long, value_parser = args::topic)]
    from: Option<String>,
    /// Only dead letters from this schedules topic; otherwise from all of SCHEDULES_TOPICS
    #[arg(long, value_parser = args::topic)]
    topic: Option<String>,
    /// Only the dead letter with this key
    #[arg(long)]
    key: Option<String>,
    /// --key is in base64, for keys that are not text
    #[arg(long, requires = "key")]
    base64: bool,
    /// Only dead letters with this scheduler-error
    #[arg(long, value_name = "CODE")]
    error: Option<String>,
    /// All dead letters, including those that an earlier run has read
    #[arg(long)]
    all: bool,
    /// Print what would be redriven, and produce nothing
    #[arg(long)]
    dry_run: bool,
}

/// Selects dead letters.
struct Selection<'a> {
    topics: Vec<String>,
    key: Option<Vec<u8>>,
    error: Option<&'a str>,
    rules: Rules,
}

/// Why a dead letter is skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Skip {
    NoPartition,
    NewerRecord,
    /// The engine would reject the record again, and write another dead letter.
    CannotFire(Reason),
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPartition => f.write_str("the topic has no such partition"),
            Self::NewerRecord => f.write_str("its key has a newer record"),
            Self::CannotFire(reason) => write!(f, "cannot fire ({})", reason.code()),
        }
    }
}

/// A dead letter. Topic, partition and offset are those of the original record.
struct DeadLetter<'a> {
    topic: &'a str,
    partition: i32,
    offset: i64,
    /// The key of the record.
    record_key: &'a [u8],
    /// The key to redrive it under: that of the record or, for an occurrence of a schedule that recurs, one of its own.
    key: Cow<'a, [u8]>,
    error: &'a str,
}

/// The newest dead letter for a key.
struct Newest {
    /// Its partition and offset in the dead-letter topic.
    position: (i32, i64),
    /// Offset of the original record.
    origin_offset: i64,
    skip: Option<Skip>,
}

/// The newest dead letter for each key, by the topic and partition of the original record.
type DeadLetters = BTreeMap<(String, i32), BTreeMap<u128, Newest>>;

/// An offset for each partition of the dead-letter topic.
type Offsets = BTreeMap<i32, i64>;

pub(super) fn run(config: Config, args: &Args) -> Result<(), Failure> {
    let from = args.from.clone().or_else(|| config.dead_letter_topic().map(str::to_owned));
    let from =
        from.ok_or_else(|| Failure::usage("--from is missing, and DEAD_LETTER_TOPIC is not set: set one of them"))?;
    let key = args.key.as_ref().map(|key| decode("--key", key, args.base64)).transpose()?;
    let topics = topics_of(&config, args.topic.as_ref());
    let selection = Selection { topics, key, error: args.error.as_deref(), rules: Rules::new(&config) };
    let broker = BrokerClient::connect(&config)?;
    let remembers = !args.all && args.key.is_none() && args.error.is_none() && args.topic.is_none();
    let progress = ProgressOffsets::new(&broker, format!("{}.redrive", config.group_id()), &from)?;
    let begins = begins(&broker, &from, &if remembers { progress.read()? } else { BTreeMap::new() })?;
    let hasher = KeyHasher::default();
    let (mut dead_letters, ends) = find(&broker, &hasher, &from, &selection, &begins)?;
    for ((topic, partition), of_partition) in &mut dead_letters {
        skip_outdated(&broker, &hasher, topic, *partition, of_partition)?;
    }
    let mut out = std::io::stdout().lock();
    let (redriven, skipped) = send(&broker, &hasher, &from, &dead_letters, &begins, args.dry_run, &mut out)?;
    if remembers && !args.dry_run {
        progress.commit(&ends)?;
    }
    let verb = if args.dry_run { "would be redriven" } else { "redriven" };
    writeln!(out, "{redriven} dead letters {verb}, {} skipped", skipped.values().sum::<u64>())?;
    for (why, count) in skipped {
        writeln!(out, "{count} skipped: {why}")?;
    }
    Ok(())
}

/// Returns the first offset to read of each partition: where earlier runs ended, or the first record if retention has
/// deleted that one or the topic was recreated.
fn begins(broker: &BrokerClient, from: &str, progress: &Offsets) -> Result<Offsets, Failure> {
    let mut begins = Offsets::new();
    for number in broker.partitions(from)? {
        let (low, end) = broker.bounds(from, number)?;
        let reached = progress.get(&number).copied().filter(|reached| (low..=end).contains(reached));
        begins.insert(number, reached.unwrap_or(low));
    }
    Ok(begins)
}

/// Returns the selected dead letters, and the offset after the last record of each partition.
fn find(
    broker: &BrokerClient,
    hasher: &KeyHasher,
    from: &str,
    selection: &Selection<'_>,
    begins: &Offsets,
) -> Result<(DeadLetters, Offsets), Failure> {
    let mut dead_letters = DeadLetters::new();
    let mut ends = Offsets::new();
    let (mut unknown, mut foreign) = (0u64, 0u64);
    let mut example = String::new();
    for (number, begin) in begins {
        broker.read(from, *number, Offset::Offset(*begin), |record| {
            ends.insert(*number, record.offset + 1);
            let Some(dead_letter) = dead_letter(record) else {
                unknown += 1;
                return Ok::<(), Failure>(());
            };
            if !selection.topics.iter().any(|topic| topic == dead_letter.topic) {
                foreign += 1;
                example = printable(dead_letter.topic.as_bytes());
            } else if selection.contains(&dead_letter) {
                let skip = selection.rejects(record).map(Skip::CannotFire);
                let newest = Newest { position: (*number, record.offset), origin_offset: dead_letter.offset, skip };
                let of_partition =
                    dead_letters.entry((dead_letter.topic.to_owned(), dead_letter.partition)).or_default();
                let key_hash = hasher.hash(&dead_letter.key);
                if of_partition.get(&key_hash).is_none_or(|other| other.origin_offset < newest.origin_offset) {
                    of_partition.insert(key_hash, newest);
                }
            }
            Ok(())
        })?;
    }
    if unknown > 0 {
        logging::note(&format!("{unknown} records of {from} are not dead letters of this scheduler and are skipped"));
    }
    if foreign > 0 {
        let text = format!(
            "{foreign} dead letters come from topics other than {} (one of them from {example}) and are skipped; to redrive \
             them to their topic, name it with --topic",
            selection.topics.join(", ")
        );
        logging::note(&text);
    }
    Ok((dead_letters, ends))
}

impl Selection<'_> {
    fn contains(&self, dead_letter: &DeadLetter<'_>) -> bool {
        self.key.as_ref().is_none_or(|key| key == dead_letter.record_key)
            && self.error.is_none_or(|error| error == dead_letter.error)
    }

    /// Returns why the engine would reject the record if it arrived now. A dead letter that --key or --error selects is
    /// redriven all the same.
    fn rejects(&self, record: &Record<'_>) -> Option<Reason> {
        if self.key.is_some() || self.error.is_some() {
            return None;
        }
        let headers = original_headers(record);
        let now = Millis(jiff::Timestamp::now().as_millisecond());
        self.rules.rejects(&Record { timestamp: now, headers: &headers, ..*record })
    }
}

fn original_headers<'a>(dead_letter: &Record<'a>) -> Vec<Header<'a>> {
    dead_letter.headers.iter().filter(|header| !ADDED.contains(&header.name)).copied().collect()
}

fn dead_letter<'a>(record: &Record<'a>) -> Option<DeadLetter<'a>> {
    let (key, _) = (record.key?, record.value?);
    // The engine's headers come last; a record may have carried some of these names before.
    let last = |name: &[u8]| {
        let value = record.headers.iter().rev().find(|header| header.name == name)?.value?;
        std::str::from_utf8(value).ok()
    };
    let (partition, offset) = (last(headers::PARTITION)?.parse().ok()?, last(headers::OFFSET)?.parse().ok()?);
    // A user may have copied headers of a triggered record: only the engine's own id names this dead letter's record.
    let id = last(headers::ID).filter(|id| *id == format!("{partition}-{offset}"));
    let occurrence = id.zip(last(headers::OCCURRENCE));
    Some(DeadLetter {
        topic: last(headers::TOPIC)?,
        partition,
        offset,
        record_key: key,
        key: match occurrence {
            Some((id, number)) => Cow::Owned([key, format!("/{id}.{number}").as_bytes()].concat()),
            None => Cow::Borrowed(key),
        },
        error: last(headers::ERROR)?,
    })
}

/// Skips dead letters whose keys have a newer record, and those whose partition does not exist.
fn skip_outdated(
    broker: &BrokerClient,
    hasher: &KeyHasher,
    topic: &str,
    partition: i32,
    dead_letters: &mut BTreeMap<u128, Newest>,
) -> Result<(), Failure> {
    if !broker.partitions(topic)?.contains(&partition) {
        dead_letters.values_mut().for_each(|newest| newest.skip = Some(Skip::NoPartition));
        return Ok(());
    }
    let concerns = |record: &Record<'_>| record.key.is_some_and(|key| dead_letters.contains_key(&hasher.hash(key)));
    let fold = fold::<Failure>(broker, hasher, topic, partition, true, None, concerns)?;
    for (key_hash, newest) in dead_letters {
        if fold.entry(*key_hash).is_some_and(|entry| entry.origin_offset > newest.origin_offset) {
            newest.skip = Some(Skip::NewerRecord);
        }
    }
    Ok(())
}

/// Redrives the dead letters that are not skipped. Returns how many they are, and how many are skipped for each reason.
fn send(
    broker: &BrokerClient,
    hasher: &KeyHasher,
    from: &str,
    dead_letters: &DeadLetters,
    begins: &Offsets,
    dry_run: bool,
    out: &mut impl Write,
) -> Result<(u64, BTreeMap<Skip, u64>), Failure> {
    let mut publisher = Publisher::new(broker.clients(), None)?;
    let (mut redriven, mut skipped) = (0u64, BTreeMap::new());
    for (number, begin) in begins {
        let positions = dead_letters.values().flat_map(BTreeMap::values).map(|newest| newest.position);
        let Some(first) = positions.filter(|(partition, _)| partition == number).map(|(_, offset)| offset).min() else {
            continue;
        };
        // Retention may have deleted some since.
        let first = first.max(*begin).max(broker.bounds(from, *number)?.0);
        broker.read(from, *number, Offset::Offset(first), |record| {
            let Some(dead_letter) = dead_letter(record) else { return Ok::<(), Failure>(()) };
            let of_partition = dead_letters.get(&(dead_letter.topic.to_owned(), dead_letter.partition));
            let newest = of_partition.and_then(|of_partition| of_partition.get(&hasher.hash(&dead_letter.key)));
            let Some(newest) = newest.filter(|newest| newest.position == (*number, record.offset)) else {
                return Ok(());
            };
            let DeadLetter { topic, partition, key, error, .. } = dead_letter;
            let what =
                format!("{} ({}) of {topic}, partition {partition}", printable(&key), printable(error.as_bytes()));
            if let Some(why) = newest.skip {
                *skipped.entry(why).or_default() += 1;
                return Ok(writeln!(out, "skipped {what}: {why}")?);
            }
            redriven += 1;
            if dry_run {
                return Ok(writeln!(out, "would redrive {what}")?);
            }
            let headers = original_headers(record);
            publisher.send(topic, Some(partition), NewRecord { key: &key, value: record.value, headers: &headers })?;
            Ok(writeln!(out, "redriven {what}")?)
        })?;
    }
    publisher.flush().confirmed()?;
    Ok((redriven, skipped))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::io::TopicPartition;

    fn redriven(more: &[(&'static str, &'static str)]) -> (Vec<u8>, Vec<&'static str>) {
        let own = [
            ("scheduler-error", "unknown-target"),
            ("scheduler-error-detail", "the target topic does not exist"),
            ("scheduler-topic", "schedules"),
            ("scheduler-partition", "2"),
            ("scheduler-offset", "41"),
        ];
        let headers = [more, &own].concat();
        let header = |(name, value): &(&'static str, &'static str)| Header {
            name: name.as_bytes(),
            value: Some(value.as_bytes()),
        };
        let headers: Vec<Header<'_>> = headers.iter().map(header).collect();
        let record = Record {
            partition: TopicPartition { topic: 0, number: 0 },
            offset: 9,
            timestamp: Millis(0),
            key: Some(b"report"),
            value: Some(b"v"),
            headers: &headers,
        };
        let dead_letter = dead_letter(&record).expect("it is a dead letter");
        assert_eq!((dead_letter.topic, dead_letter.partition, dead_letter.offset), ("schedules", 2, 41));
        assert_eq!(dead_letter.record_key, b"report");
        let kept = original_headers(&record).len();
        (dead_letter.key.into_owned(), more[..kept].iter().map(|(name, _)| *name).collect())
    }

    #[test]
    fn an_occurrence_has_a_key_of_its_own() {
        let once = [("scheduler-epoch", "7"), ("scheduler-target-topic", "t")];
        assert_eq!(redriven(&once), (b"report".to_vec(), vec!["scheduler-epoch", "scheduler-target-topic"]));
        let occurrence = |id| {
            let of = [("scheduler-epoch-ms", "7000"), ("scheduler-due", "7000"), ("scheduler-id", id)];
            redriven(&[&of[..], &[("scheduler-occurrence", "12"), ("scheduler-missed", "0")]].concat()).0
        };
        assert_eq!(occurrence("2-41"), b"report/2-41.12");
        assert_eq!(occurrence("2-40"), b"report", "headers that a user has copied from another record");
    }
}
