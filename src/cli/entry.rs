//! A listed schedule: a row of a table, or the object of REST's `/schedules`.

use std::rc::Rc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::calendar::ZoneCalendar;
use crate::client::Moment;
use crate::config::Config;
use crate::core::calendar::Calendar;
use crate::core::due::Due;
use crate::core::io::{Header, Millis, Record};
use crate::core::reason::Reason;
use crate::core::schedule::{self, AcceptanceRules, ParsedSchedule};
use crate::core::when::When;
use crate::core::{headers, io::TopicPartition};
use crate::kafka::fold::Pending;

/// Characters of a key or a value in a table.
const PRINTABLE_CHARS_MAX: usize = 40;

/// The engine's rules for records that can fire.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    topics: Vec<String>,
    limits: AcceptanceRules,
    calendar: Rc<ZoneCalendar>,
}

impl Rules {
    /// Returns the rules of an engine with these settings.
    pub(super) fn new(config: &Config) -> Self {
        Self {
            topics: config.schedules_topics().to_vec(),
            // Only the engine knows the brokers' limits on the size of records.
            limits: AcceptanceRules {
                grace_s: config.grace_interval().map(|grace| grace.as_secs()),
                horizon_s: config.max_horizon().map(|horizon| horizon.as_secs()),
                record_bytes_max: Vec::new(),
            },
            calendar: Rc::default(),
        }
    }

    fn parse<'a>(&self, record: &Record<'a>, value: &'a [u8]) -> Result<ParsedSchedule<'a>, Reason> {
        schedule::parse(record, value, record.timestamp, &self.topics, &self.limits, self.calendar.as_ref())
    }

    /// Returns when a schedule is due, without jitter. Of one that recurs it is the next occurrence by the calendar:
    /// an occurrence that the engine has missed is not known here.
    fn due(&self, request: &ParsedSchedule<'_>) -> Option<Due> {
        match &request.when {
            When::Once { due, .. } => Some(*due),
            When::Recurring(spec) => {
                let now = Millis(Moment::now().epoch_ms());
                let first = self.calendar.next(spec.rule.as_ref()?, &spec.except, spec.after, spec.first_until())?;
                let next = || self.calendar.next(spec.rule.as_ref()?, &spec.except, now.max(spec.after), spec.until);
                Due::from_epoch_ms(u64::try_from(next().unwrap_or(first).0).ok()?)
            }
        }
    }

    /// Returns why the engine would reject this record of a schedules topic, if it would.
    pub(super) fn rejects(&self, record: &Record<'_>) -> Option<Reason> {
        self.parse(record, record.value?).err()
    }
}

/// A pending schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub topic: String,
    /// `None` if an instance returns neither partition nor offset.
    pub partition: Option<i32>,
    pub offset: Option<i64>,
    pub key: Vec<u8>,
    /// Seconds since 1970.
    pub due_s: u64,
    /// Timestamp of the user's record, in seconds since 1970.
    pub timestamp_s: i64,
    pub target: String,
    pub target_key: Option<Vec<u8>>,
    pub value: Vec<u8>,
}

impl Entry {
    /// Parses a pending record as the engine does.
    ///
    /// # Errors
    /// If it cannot fire: the reason.
    pub(super) fn of(topic: &str, rules: &Rules, pending: &Pending<'_>) -> Result<Self, Reason> {
        let record = Record {
            partition: TopicPartition { topic: 0, number: pending.partition },
            offset: pending.offset,
            timestamp: pending.timestamp,
            key: Some(pending.key),
            value: Some(pending.value),
            headers: &pending.headers,
        };
        let request = rules.parse(&record, pending.value)?;
        let due = rules.due(&request).ok_or(Reason::NeverDue)?;
        Ok(Self {
            topic: topic.to_owned(),
            partition: Some(pending.partition),
            offset: Some(pending.offset),
            key: pending.key.to_vec(),
            due_s: due.epoch_s(),
            timestamp_s: pending.timestamp.0.div_euclid(1000),
            target: request.target.to_owned(),
            target_key: request.parts.target_key.map(<[u8]>::to_vec),
            value: pending.value.to_vec(),
        })
    }

    /// Parses an object of REST's `/schedules`.
    pub(super) fn from_json(json: &Value) -> Option<Self> {
        let text = |name: &str| json.get(name).and_then(Value::as_str);
        let bytes = |name: &str| match text(&format!("{name}-base64")) {
            Some(base64) => BASE64_STANDARD.decode(base64).ok(),
            None => text(name).map(|text| text.as_bytes().to_vec()),
        };
        Some(Self {
            topic: text("topic")?.to_owned(),
            partition: json.get("partition").and_then(Value::as_i64).and_then(|n| i32::try_from(n).ok()),
            offset: json.get("offset").and_then(Value::as_i64),
            key: bytes("id")?,
            due_s: json.get("epoch")?.as_u64()?,
            timestamp_s: json.get("timestamp")?.as_i64()?,
            target: text("target-topic")?.to_owned(),
            target_key: bytes("target-key"),
            value: BASE64_STANDARD.decode(text("value")?).ok()?,
        })
    }

    /// Returns the object of REST's `/schedules`, with partition and offset if they are known.
    pub(super) fn to_json(&self) -> Value {
        let mut map = Map::new();
        put(&mut map, "id", Some(&self.key));
        map.insert("epoch".into(), self.due_s.into());
        map.insert("timestamp".into(), self.timestamp_s.into());
        map.insert("topic".into(), self.topic.clone().into());
        if let (Some(partition), Some(offset)) = (self.partition, self.offset) {
            map.insert("partition".into(), partition.into());
            map.insert("offset".into(), offset.into());
        }
        map.insert("target-topic".into(), self.target.clone().into());
        put(&mut map, "target-key", self.target_key.as_deref());
        map.insert("value".into(), BASE64_STANDARD.encode(&self.value).into());
        if let Some(warning) = self.warning() {
            map.insert("warning".into(), warning.into());
        }
        Value::Object(map)
    }

    /// Returns a probable mistake in a schedule that fires all the same.
    pub(super) fn warning(&self) -> Option<&'static str> {
        schedule::far_ahead(self.due_s, Millis(self.timestamp_s.saturating_mul(1000)))
    }

    /// The table's columns.
    pub(super) const COLUMNS: [&'static str; 7] = ["DUE", "KEY", "TOPIC", "PARTITION", "TARGET", "TARGET KEY", "VALUE"];

    /// Returns a row of the table.
    pub(super) fn row(&self) -> [String; 7] {
        [
            self.warning().map_or_else(|| date(self.due_s), |warning| format!("{} ({warning})", date(self.due_s))),
            printable(&self.key),
            self.topic.clone(),
            self.partition.map_or_else(String::new, |partition| partition.to_string()),
            self.target.clone(),
            self.target_key.as_deref().map_or_else(String::new, printable),
            printable(&self.value),
        ]
    }
}

/// Inserts bytes as text, and in base64 too if they are not UTF-8.
fn put(map: &mut Map<String, Value>, name: &str, bytes: Option<&[u8]>) {
    map.insert(name.into(), bytes.map(String::from_utf8_lossy).map_or(Value::Null, |text| text.into()));
    if let Some(bytes) = bytes.filter(|bytes| std::str::from_utf8(bytes).is_err()) {
        map.insert(format!("{name}-base64"), BASE64_STANDARD.encode(bytes).into());
    }
}

/// Returns seconds since 1970 as a date, if it is within the calendar's range.
pub(super) fn date(seconds: u64) -> String {
    let date = i64::try_from(seconds).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    date.map_or_else(|| format!("{seconds} s after 1970"), |date| date.to_string())
}

/// Returns bytes as text without control characters, shortened if it is long.
pub(super) fn printable(bytes: &[u8]) -> String {
    // A character has at most four bytes, so this is enough for the printed part.
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(PRINTABLE_CHARS_MAX * 4 + 4)]);
    let mut printed: String = text.chars().take(PRINTABLE_CHARS_MAX).flat_map(char::escape_debug).collect();
    if text.chars().count() > PRINTABLE_CHARS_MAX {
        printed.push('…');
    }
    printed
}

/// Returns a header as text.
pub(super) fn header_text(headers: &[Header<'_>], name: &[u8]) -> Option<String> {
    let value = headers.iter().find(|header| header.name == name)?.value?;
    Some(String::from_utf8_lossy(value).into_owned())
}

/// Returns whether a record of the history topic came from a schedule with this key.
pub(super) fn is_of_key(record: &Record<'_>, key: &[u8]) -> bool {
    record.headers.iter().any(|header| header.name == headers::KEY && header.value == Some(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_round_trips_through_json() {
        let entry = Entry {
            topic: "schedules".into(),
            partition: Some(2),
            offset: Some(7),
            key: vec![0xff],
            due_s: 1_893_456_000,
            timestamp_s: 5,
            target: "t".into(),
            target_key: None,
            value: vec![0, 1],
        };
        assert_eq!(Entry::from_json(&entry.to_json()), Some(entry.clone()));
        assert_eq!(entry.row()[0], "2030-01-01T00:00:00Z");
        let far = Entry { due_s: 1_893_456_000_000, timestamp_s: 1_700_000_000, ..entry };
        assert!(far.row()[0].contains("looks like milliseconds"), "{:?}", far.row());
        assert!(far.to_json()["warning"].as_str().is_some_and(|warning| warning.contains("looks like milliseconds")));
        assert_eq!(date(u64::MAX), "18446744073709551615 s after 1970");
    }
}
