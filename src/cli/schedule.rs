//! `schedule`

use std::io::Read;
use std::path::PathBuf;

use jiff::Zoned;

use super::args::{self, Partitioner, decode, placement};
use super::entry::{Rules, date_ms, printable};
use super::failure::Failure;
use super::rule_args::{self, Expiry, RuleArgs};
use super::topic_of;
use crate::client::{Delay, Misfire, Moment, Record, Schedule, ScheduleError};
use crate::config::Config;
use crate::core::io::{Millis, Record as ReadRecord, TopicPartition};
use crate::core::reason::Reason;
use crate::kafka::broker_client::BrokerClient;
use crate::kafka::publish::{NewRecord, Publisher};
use crate::{logging, span};

const AFTER: &str = "\
If the key is pending, its schedule is replaced: the command reads the topic to find the partition of the old record, and
produces the new one to it. --partition skips the reading. The command rejects a schedule that an engine with the same
settings would reject. `preview` prints the dates of --cron and --every.

Examples:
  kafka-scheduler schedule --at 2030-01-01T00:00:00Z --key k --target-topic t --target-key tk --value hello
  kafka-scheduler schedule --in 1h30m --key k --target-topic t --header source=cli --file message.json
  kafka-scheduler schedule --cron '0 9 * * MON-FRI' --timezone Europe/Paris --key k --target-topic t --value hello
  kafka-scheduler schedule --every 10m --count 6 --expires 1m --key k --target-topic t --value hello
  echo hello | kafka-scheduler schedule --in 10m --key k --target-topic t -";

#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
#[command(group(clap::ArgGroup::new("when").required(true).args(["at", "within", "delay", "cron", "every"])))]
#[command(group(clap::ArgGroup::new("what").required(true).args(["value", "file", "stdin"])))]
pub(super) struct Args {
    /// The date to fire at: 2030-01-01T00:00:00.250Z, or 2030-01-01T00:00:00[Europe/Berlin]
    #[arg(long, value_name = "DATE", value_parser = rule_args::moment)]
    at: Option<Moment>,
    /// The delay from now: 90s, 10m, 1h30m, 2d, 1mo, 1y or PT10M
    #[arg(long = "in", value_name = "DURATION", value_parser = within)]
    within: Option<Moment>,
    /// The delay from the record's timestamp, which a topic may leave to the broker: 90s, 10m, 1h30m, 2d or PT10M
    #[arg(long, value_name = "DURATION", value_parser = rule_args::span)]
    delay: Option<Delay>,
    #[command(flatten)]
    rule: RuleArgs,
    /// What happens to missed occurrences: once, skip, skip;10m or all
    #[arg(long, value_name = "POLICY", value_parser = rule_args::misfire)]
    misfire: Option<Misfire>,
    /// A random delay below this is added to each firing
    #[arg(long, value_name = "DURATION", value_parser = rule_args::span)]
    jitter: Option<Delay>,
    /// The latest firing: a duration after it is due, or a date
    #[arg(long, value_name = "DURATION|DATE", value_parser = rule_args::expiry)]
    expires: Option<Expiry>,
    /// The schedules topic; required if SCHEDULES_TOPICS has several
    #[arg(long, value_parser = args::topic)]
    topic: Option<String>,
    /// The schedule's key; a pending schedule with the same key is replaced
    #[arg(long)]
    key: String,
    /// The topic that the message is sent to
    #[arg(long, value_parser = args::topic)]
    target_topic: String,
    /// The message's key [default: null]
    #[arg(long)]
    target_key: Option<String>,
    /// --key and --target-key are in base64, for keys that are not text
    #[arg(long)]
    base64: bool,
    /// A header of the message; repeatable
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// The message's value
    #[arg(long)]
    value: Option<String>,
    /// A file with the message's value; - for standard input
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,
    /// Read the message's value from standard input
    #[arg(value_name = "-", value_parser = ["-"])]
    stdin: Option<String>,
    /// The partitioner for a new key
    #[arg(long, value_enum, conflicts_with = "partition")]
    partitioner: Option<Partitioner>,
    /// The partition to produce to
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
}

fn within(text: &str) -> Result<Moment, String> {
    let delay = span::parse(text, &Zoned::now()).map_err(|e| e.to_string())?;
    Ok(Moment::now().plus(delay.into()))
}

fn header(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("must be a name, an equals sign and a value, such as source=cli".into()),
    }
}

impl Args {
    fn payload(&self) -> Result<Vec<u8>, Failure> {
        if let Some(value) = &self.value {
            return Ok(value.as_bytes().to_vec());
        }
        let mut bytes = Vec::new();
        match self.file.as_ref().filter(|path| path.as_os_str() != "-") {
            Some(path) => std::fs::read(path).map_err(|e| Failure::usage(format!("--file {}: {e}", path.display()))),
            None => std::io::stdin()
                .read_to_end(&mut bytes)
                .map(|_| bytes)
                .map_err(|e| Failure::new(format!("standard input: {e}"))),
        }
    }

    /// Builds the record.
    fn record(&self, key: &[u8]) -> Result<Record, Failure> {
        let mut schedule = Schedule::new(key).to(self.target_topic.as_str());
        if let Some(target_key) = &self.target_key {
            schedule = schedule.target_key(decode("--target-key", target_key, self.base64)?);
        }
        for (name, value) in &self.headers {
            schedule = schedule.header(name.as_str(), value.as_str());
        }
        // Group "when" requires one form, and allows no second one.
        if let Some(moment) = self.at.or(self.within) {
            schedule = schedule.at(moment);
        }
        if let Some(delay) = self.delay {
            schedule = schedule.delay(delay);
        }
        schedule = self.rule.apply(schedule);
        if let Some(misfire) = self.misfire {
            schedule = schedule.misfire(misfire);
        }
        if let Some(jitter) = self.jitter {
            schedule = schedule.jitter(jitter);
        }
        schedule = match &self.expires {
            Some(Expiry::After(after)) => schedule.expires(*after),
            Some(Expiry::At(date)) => schedule.expires_at(date),
            None => schedule,
        };
        // A delay counts from the moment at which it was read, and may be 0.
        let now = self.within.map_or_else(Moment::now, |moment| moment.min(Moment::now()));
        schedule.value(self.payload()?).build_at(now).map_err(|error| match error {
            ScheduleError::StrayOption(header) => {
                let option = header.replace("scheduler-", "--");
                Failure::usage(format!("{option} needs --cron or --every: leave it out, or set one of these"))
            }
            error => Failure::usage(error.to_string()),
        })
    }
}

/// Returns the options that a reason is about.
fn options(reason: Reason) -> &'static str {
    match reason {
        Reason::NoKey | Reason::ReservedKey => "--key",
        Reason::NoTarget | Reason::BadTarget | Reason::QuotedTarget | Reason::TargetIsSchedules => "--target-topic",
        Reason::OverGrace | Reason::BeyondHorizon => "--at, --in or --delay",
        Reason::BadAt | Reason::BadEpochMs => "--at or --in",
        Reason::BadDelay => "--delay",
        Reason::BadCron => "--cron",
        Reason::BadTimezone => "--timezone",
        Reason::BadEvery => "--every",
        Reason::BadStart => "--start",
        Reason::BadUntil => "--until",
        Reason::BadCount => "--count",
        Reason::BadExcept => "--except",
        Reason::BadMisfire => "--misfire",
        Reason::BadJitter => "--jitter",
        Reason::BadExpires => "--expires",
        Reason::NeverDue => "--cron or --every with --start, --until and --except",
        _ => "the arguments",
    }
}

/// Returns when a record of these rules is due first, and next, in milliseconds since 1970.
fn dates(rules: &Rules, key: &[u8], record: &Record) -> Result<(u64, Option<u64>), Failure> {
    let read = ReadRecord {
        partition: TopicPartition { topic: 0, number: 0 },
        offset: 0,
        timestamp: Millis(Moment::now().epoch_ms()),
        key: Some(key),
        value: record.value.as_deref(),
        headers: &record.raw_headers(),
    };
    rules.dates(&read).map_err(|reason| {
        let (options, code) = (options(reason), reason.code());
        Failure::usage(format!("the engine would reject {options} ({code}): {}", reason.detail()))
    })
}

pub(super) fn run(config: Config, args: &Args) -> Result<(), Failure> {
    let topic = topic_of(&config, args.topic.as_ref())?;
    let key = decode("--key", &args.key, args.base64)?;
    let record = args.record(&key)?;
    if config.schedules_topics().contains(&args.target_topic) {
        return Err(Failure::usage(format!(
            "--target-topic is {:?}, but must not be a schedules topic",
            args.target_topic
        )));
    }
    let (due_ms, next_ms) = dates(&Rules::new(&config), &key, &record)?;
    let broker = BrokerClient::connect(&config)?;
    if broker.partitions(&args.target_topic).is_err() {
        let text = format!(
            "the target topic {:?} does not exist, or this user may not see it; create it before the schedule is due",
            args.target_topic
        );
        logging::warning(&text);
    }
    let headers = record.raw_headers();
    let new = NewRecord { key: &key, value: record.value.as_deref(), headers: &headers };
    let mut publisher = Publisher::new(broker.clients(), args.partitioner.map(Partitioner::name))?;
    let published = publisher.schedule(&broker, &topic, new, placement(args.partition))?;
    let verb = if published.replaces_pending { "rescheduled" } else { "scheduled" };
    let (key, due) = (printable(&key), date_ms(due_ms));
    let next = next_ms.map_or_else(String::new, |next_ms| format!(", next {}", date_ms(next_ms)));
    println!("{verb} {key} to {due}{next} in {topic} (partition {}, offset {})", published.partition, published.offset);
    Ok(())
}
