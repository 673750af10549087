//! `schedule`

use std::io::Read;
use std::path::PathBuf;

use jiff::{Timestamp, Zoned};

use super::args::{self, Partitioner, decode, placement};
use super::entry::{date, printable};
use super::failure::Failure;
use super::topic_of;
use crate::client::{Moment, Schedule};
use crate::config::Config;
use crate::kafka::broker_client::BrokerClient;
use crate::kafka::publish::{NewRecord, Publisher};
use crate::{logging, span};

const AFTER: &str = "\
If the key is pending, its schedule is replaced: the command reads the topic to find the partition of the old record, and
produces the new one to it. --partition skips the reading.

Examples:
  kafka-scheduler schedule --at 2030-01-01T00:00:00Z --key k --target-topic t --target-key tk --value hello
  kafka-scheduler schedule --in 1h30m --key k --target-topic t --header source=cli --file message.json
  echo hello | kafka-scheduler schedule --in 10m --key k --target-topic t -";

#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
#[command(group(clap::ArgGroup::new("when").required(true).args(["at", "within"])))]
#[command(group(clap::ArgGroup::new("what").required(true).args(["value", "file", "stdin"])))]
pub(super) struct Args {
    /// The date to fire at: 2030-01-01T00:00:00Z, or 2030-01-01T00:00:00[Europe/Berlin]
    #[arg(long, value_name = "DATE", value_parser = moment)]
    at: Option<Moment>,
    /// The delay from now: 90s, 10m, 1h30m, 2d, 1mo, 1y or PT10M
    #[arg(long = "in", value_name = "DURATION", value_parser = delay)]
    within: Option<Moment>,
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

fn moment(text: &str) -> Result<Moment, String> {
    let zoned = || text.parse::<Zoned>().map(|zoned| zoned.timestamp());
    text.parse::<Timestamp>().or_else(|_| zoned()).map(Moment::from).map_err(|_| {
        "must be a date with its zone, such as 2030-01-01T00:00:00Z or 2030-01-01T00:00:00[Europe/Berlin]".into()
    })
}

fn delay(text: &str) -> Result<Moment, String> {
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
}

pub(super) fn run(config: Config, args: Args) -> Result<(), Failure> {
    let topic = topic_of(&config, args.topic.as_ref())?;
    let key = decode("--key", &args.key, args.base64)?;
    let mut schedule = Schedule::new(key.clone()).to(args.target_topic.as_str());
    if let Some(target_key) = &args.target_key {
        schedule = schedule.target_key(decode("--target-key", target_key, args.base64)?);
    }
    for (name, value) in &args.headers {
        schedule = schedule.header(name.as_str(), value.as_str());
    }
    // Group "when" requires one of them.
    if let Some(moment) = args.at.or(args.within) {
        schedule = schedule.at(moment);
    }
    let record = schedule.value(args.payload()?).build().map_err(|e| Failure::usage(e.to_string()))?;
    if config.schedules_topics().contains(&args.target_topic) {
        return Err(Failure::usage(format!(
            "--target-topic is {:?}, but must not be a schedules topic",
            args.target_topic
        )));
    }
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
    let due = record.header("scheduler-epoch").and_then(|epoch| std::str::from_utf8(epoch).ok()?.parse().ok());
    let verb = if published.replaces_pending { "rescheduled" } else { "scheduled" };
    let (key, due) = (printable(&key), date(due.unwrap_or(0)));
    println!("{verb} {key} to {due} in {topic} (partition {}, offset {})", published.partition, published.offset);
    Ok(())
}
