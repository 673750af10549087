//! `show`

use std::io::Write;

use super::args::{self, KeyArgs};
use super::entry::{Entry, Rules, date, date_ms, printable, when_texts};
use super::export_line::ExportLine;
use super::failure::Failure;
use super::topics_of;
use crate::config::Config;
use crate::core::io::{Header, Record};
use crate::kafka::broker_client::BrokerClient;
use crate::kafka::fold::{KeyHasher, Pending, pending};

const AFTER: &str = "\
Examples:
  kafka-scheduler show reminder-17
  kafka-scheduler show reminder-17 --json";

#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(super) struct Args {
    #[command(flatten)]
    key: KeyArgs,
    /// The schedules topic; otherwise all of SCHEDULES_TOPICS
    #[arg(long, value_parser = args::topic)]
    topic: Option<String>,
    /// Print a line of JSON that `import` reads, with the whole value
    #[arg(long)]
    json: bool,
}

pub(super) fn run(config: Config, args: &Args) -> Result<(), Failure> {
    let key = args.key.bytes()?;
    let topics = topics_of(&config, args.topic.as_ref());
    let rules = Rules::new(&config);
    let broker = BrokerClient::connect(&config)?;
    broker.fix_ends(&topics)?;
    let hasher = KeyHasher::default();
    let is_key = |record: &Record<'_>| record.key == Some(&key);
    let mut out = std::io::stdout().lock();
    let mut found = 0;
    for topic in &topics {
        for partition in broker.partitions(topic)? {
            pending(&broker, &hasher, topic, partition, is_key, |record| {
                found += 1;
                if args.json {
                    let line = serde_json::to_string(&ExportLine::of(topic, &rules, record));
                    return Ok(writeln!(out, "{}", line.map_err(|e| Failure::new(e.to_string()))?)?);
                }
                Ok::<(), Failure>(out.write_all(text(topic, &rules, record).as_bytes())?)
            })?;
        }
    }
    if found == 0 {
        let topics = topics.join(", ");
        return Err(Failure::not_found(format!("nothing is pending for the key {} in {topics}", printable(&key))));
    }
    Ok(())
}

fn text(topic: &str, rules: &Rules, record: &Pending<'_>) -> String {
    let mut lines = vec![
        ("key", printable(record.key)),
        ("topic", format!("{topic}, partition {}, offset {}", record.partition, record.offset)),
        ("written", date(u64::try_from(record.timestamp.0.div_euclid(1000)).unwrap_or(0))),
    ];
    match Entry::of(topic, rules, record) {
        Ok(entry) => {
            lines.push(("due", date_ms(entry.due_ms)));
            lines.extend(entry.occurrence.map(|number| ("occurrence", number.to_string())));
            lines.extend(entry.warning().map(|warning| ("warning", warning.to_owned())));
            lines.extend([
                ("target topic", entry.target),
                ("target key", entry.target_key.as_deref().map_or("null".into(), printable)),
            ]);
        }
        Err(reason) => lines.push(("cannot fire", format!("{}: {}", reason.code(), reason.detail()))),
    }
    lines.extend(when_texts(&record.headers).map(|(name, text)| (name, printable(text.as_bytes()))));
    let value = |header: &Header<'_>| header.value.map_or("null".into(), printable);
    let headers = record.headers.iter().filter(|header| !header.name.starts_with(b"scheduler-"));
    lines.extend(headers.map(|header| ("header", format!("{} = {}", printable(header.name), value(header)))));
    lines.push(("value", format!("{} ({} bytes)", printable(record.value), record.value.len())));
    lines.iter().map(|(name, text)| format!("{name:<12}  {text}\n")).collect()
}
