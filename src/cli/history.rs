//! `history`

use std::io::Write;

use rdkafka::Offset;

use super::args::{self, KeyArgs};
use super::entry::{date, date_ms, header_text, is_of_key, printable};
use super::export_line::ExportLine;
use super::failure::Failure;
use super::table::table;
use crate::config::Config;
use crate::core::headers;
use crate::core::io::Header;
use crate::core::reason::Reason;
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
        [
            fired_at(*at, &headers),
            due(&headers),
            occurrence(&headers),
            from.clone(),
            header_text(&headers, headers::TARGET_TOPIC).unwrap_or_default(),
            line.key.as_ref().map_or("null".into(), |key| printable(&key.0)),
            line.value.as_ref().map_or("null".into(), |value| printable(&value.0)),
        ]
    });
    writeln!(out, "{}", table(["FIRED", "DUE", "OCCURRENCE", "TOPIC", "TARGET", "TARGET KEY", "VALUE"], rows))?;
    Ok(())
}

/// Returns the time of the record, which for a schedule that expired is not that of a firing.
fn fired_at(at_ms: i64, headers: &[Header<'_>]) -> String {
    let at = date(u64::try_from(at_ms.div_euclid(1000)).unwrap_or(0));
    let expired = Reason::Expired.code();
    match header_text(headers, headers::ERROR).filter(|code| code == expired) {
        Some(_) => format!("{at} ({expired})"),
        None => at,
    }
}

/// Returns the due time: schedules of new forms have milliseconds.
fn due(headers: &[Header<'_>]) -> String {
    let due_ms = header_text(headers, headers::DUE).and_then(|ms| ms.parse().ok());
    let due = header_text(headers, headers::EPOCH).unwrap_or_default();
    due_ms.map_or_else(|| due.parse().map_or_else(|_| due.clone(), date), date_ms)
}

/// Returns the number of the occurrence, and how many missed ones are part of it.
fn occurrence(headers: &[Header<'_>]) -> String {
    let number = header_text(headers, headers::OCCURRENCE).unwrap_or_default();
    match header_text(headers, headers::MISSED).filter(|missed| missed != "0") {
        Some(missed) => format!("{number} ({missed} missed)"),
        None => number,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn firings_of_each_form_have_their_dates() {
        let row = |headers: &[(&'static str, &'static str)]| {
            let header = |(name, value): &(&'static str, &'static str)| Header {
                name: name.as_bytes(),
                value: Some(value.as_bytes()),
            };
            let headers: Vec<Header<'_>> = headers.iter().map(header).collect();
            [fired_at(1_893_456_060_999, &headers), due(&headers), occurrence(&headers)]
        };
        assert_eq!(row(&[("scheduler-epoch", "1893456000")]), ["2030-01-01T00:01:00Z", "2030-01-01T00:00:00Z", ""]);
        let recurring = [
            ("scheduler-epoch", "1893456000"),
            ("scheduler-due", "1893456000250"),
            ("scheduler-occurrence", "7"),
            ("scheduler-missed", "2"),
        ];
        assert_eq!(row(&recurring), ["2030-01-01T00:01:00Z", "2030-01-01T00:00:00.250Z", "7 (2 missed)"]);
        assert_eq!(row(&[("scheduler-error", "expired")])[0], "2030-01-01T00:01:00Z (expired)");
    }
}
