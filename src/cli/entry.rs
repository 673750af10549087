//! A schedule as a listing shows it: a row of a table, or the object that REST shows.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::fold::Pending;
use crate::config::Config;
use crate::core::io::{Header, Millis, Record};
use crate::core::reason::Reason;
use crate::core::schedule::{self, AcceptanceRules};
use crate::core::{io::TopicPartition, headers};

/// Characters of a key or a value in a table.
const SHOWN_MAX: usize = 40;

/// What the settings say about which records can fire.
#[derive(Clone, Debug)]
pub struct Rules {
    topics: Vec<String>,
    limits: AcceptanceRules,
}

impl Rules {
    /// Those of an engine with these settings.
    pub fn new(config: &Config) -> Self {
        Self {
            topics: config.schedules_topics.clone(),
            // How large a record may be is the brokers' to say, and only judged by the engine.
            limits: AcceptanceRules { grace_s: config.grace_s, horizon_s: config.horizon_s, record_bytes_max: Vec::new() },
        }
    }
}

impl Rules {
    /// Why the engine would refuse this record of a schedules topic, if it would.
    pub fn refuses(&self, record: &Record<'_>) -> Option<Reason> {
        schedule::parse(record, record.value?, record.timestamp, &self.topics, &self.limits).err()
    }
}

/// A pending schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub topic: String,
    /// `None` where an instance tells neither partition nor offset.
    pub partition: Option<i32>,
    pub offset: Option<i64>,
    pub key: Vec<u8>,
    /// Seconds since 1970.
    pub due_s: u64,
    /// Of the user's record, in seconds since 1970.
    pub timestamp_s: i64,
    pub target: String,
    pub target_key: Option<Vec<u8>>,
    pub value: Vec<u8>,
}

impl Entry {
    /// From a pending word, judged as the engine judges it.
    ///
    /// # Errors
    /// Why it cannot fire.
    pub fn of(topic: &str, rules: &Rules, word: &Pending<'_>) -> Result<Self, Reason> {
        let record = Record {
            partition: TopicPartition { topic: 0, number: word.partition },
            offset: word.offset,
            timestamp: word.timestamp,
            key: Some(word.key),
            value: Some(word.value),
            headers: &word.headers,
        };
        let request = schedule::parse(&record, word.value, word.timestamp, &rules.topics, &rules.limits)?;
        Ok(Self {
            topic: topic.to_owned(),
            partition: Some(word.partition),
            offset: Some(word.offset),
            key: word.key.to_vec(),
            due_s: request.due,
            timestamp_s: word.timestamp.0.div_euclid(1000),
            target: request.target.to_owned(),
            target_key: request.parts.target_key.map(<[u8]>::to_vec),
            value: word.value.to_vec(),
        })
    }

    /// From an object of REST's `/schedules`.
    pub fn from_json(json: &Value) -> Option<Self> {
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

    /// The object that REST shows, with its place where that is known.
    pub fn to_json(&self) -> Value {
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

    /// What is probably wrong with it, although it fires.
    pub fn warning(&self) -> Option<&'static str> {
        schedule::far_ahead(self.due_s, Millis(self.timestamp_s.saturating_mul(1000)))
    }

    /// The names of the table's columns.
    pub const COLUMNS: [&'static str; 7] = ["DUE", "KEY", "TOPIC", "PARTITION", "TARGET", "TARGET KEY", "VALUE"];

    /// A row of the table.
    pub fn row(&self) -> [String; 7] {
        [
            self.warning().map_or_else(|| date(self.due_s), |warning| format!("{} ({warning})", date(self.due_s))),
            shown(&self.key),
            self.topic.clone(),
            self.partition.map_or_else(String::new, |partition| partition.to_string()),
            self.target.clone(),
            self.target_key.as_deref().map_or_else(String::new, shown),
            shown(&self.value),
        ]
    }
}

/// Bytes as text and, where that loses something, in base64 as well.
fn put(map: &mut Map<String, Value>, name: &str, bytes: Option<&[u8]>) {
    map.insert(name.into(), bytes.map(String::from_utf8_lossy).map_or(Value::Null, |text| text.into()));
    if let Some(bytes) = bytes.filter(|bytes| std::str::from_utf8(bytes).is_err()) {
        map.insert(format!("{name}-base64"), BASE64_STANDARD.encode(bytes).into());
    }
}

/// Seconds since 1970 as a date, where the calendar goes so far.
pub fn date(seconds: u64) -> String {
    let date = i64::try_from(seconds).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    date.map_or_else(|| format!("{seconds} s after 1970"), |date| date.to_string())
}

/// Bytes as text that cannot disturb a terminal, cut where it gets long.
pub fn shown(bytes: &[u8]) -> String {
    // A character has at most four bytes, so this holds all that is shown.
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN_MAX * 4 + 4)]);
    let mut shown: String = text.chars().take(SHOWN_MAX).flat_map(char::escape_debug).collect();
    if text.chars().count() > SHOWN_MAX {
        shown.push('…');
    }
    shown
}

/// A request header of a record, as text.
pub fn header_text(headers: &[Header<'_>], name: &[u8]) -> Option<String> {
    let value = headers.iter().find(|header| header.name == name)?.value?;
    Some(String::from_utf8_lossy(value).into_owned())
}

/// Whether a record of the history topic came from a schedule with this key.
pub fn is_of_key(record: &Record<'_>, key: &[u8]) -> bool {
    record.headers.iter().any(|header| header.name == headers::KEY && header.value == Some(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_survives_json() {
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
