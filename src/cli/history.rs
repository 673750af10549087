//! `history`

use std::io::Write;

use rdkafka::Offset;

use super::args::{self, KeyArgs};
use super::entry::{date, header_text, is_of_key, printable};
use super::export_line::ExportLine;
use super::failure::Failure;
use super::table::table;
use crate::config::Config;
use crate::core::headers;
use crate::kafka::broker_client::BrokerClient;

const AFTER: &str = "\
history reads all of HISTORY_TOPIC, because history records are partitioned by the key of the message.

Examples:
  kafka-scheduler history reminder-17
  kafka-scheduler history reminder-17 --json";

#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(super) struct Args {
    #[command(flatten)]
    key: KeyArgs,
    /// Only firings of schedules in this topic
    #[arg(long, value_parser = args::topic)]
    topic: Option<String>,
    /// Print lines of JSON, with the whole value
    #[arg(long)]
    json: bool,
}

pub(super) fn run(config: Config, args: &Args) -> Result<(), Failure> {
    let key = args.key.bytes()?;
    let history = config.history_topic().to_owned();
    let broker = BrokerClient::connect(&config)?;
    broker.fix_ends([&history])?;
    let mut fired = Vec::new();
    for partition in broker.partitions(&history)? {
        broker.read(&history, partition, Offset::Beginning, |record| {
            let from = header_text(record.headers, headers::TOPIC);
            if is_of_key(record, &key) && (args.topic.is_none() || args.topic == from) {
                fired.push((record.timestamp.0, ExportLine::of_record(&history, record), from.unwrap_or_default()));
            }
            Ok::<(), Failure>(())
        })?;
    }
    if fired.is_empty() {
        return Err(Failure::not_found(format!("{history} has no firing for the key {}", printable(&key))));
    }
    fired.sort_by_key(|(at, ..)| *at);
    let mut out = std::io::stdout().lock();
    if args.json {
        for (_, line, _) in &fired {
            let line = serde_json::to_string(line).map_err(|e| Failure::new(e.to_string()))?;
            writeln!(out, "{line}")?;
        }
        return Ok(());
    }
    let rows = fired.iter().map(|(at, line, from)| {
        let headers = line.headers();
        let due = header_text(&headers, headers::EPOCH).unwrap_or_default();
        [
            date(u64::try_from(at.div_euclid(1000)).unwrap_or(0)),
            due.parse().map_or(due, date),
            from.clone(),
            header_text(&headers, headers::TARGET_TOPIC).unwrap_or_default(),
            line.key.as_ref().map_or("null".into(), |key| printable(&key.0)),
            line.value.as_ref().map_or("null".into(), |value| printable(&value.0)),
        ]
    });
    writeln!(out, "{}", table(["FIRED", "DUE", "TOPIC", "TARGET", "TARGET KEY", "VALUE"], rows))?;
    Ok(())
}
