//! A listed schedule: a row of a table, or the object of REST's `/schedules`.

use std::collections::BTreeMap;
use std::rc::Rc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::calendar::ZoneCalendar;
use crate::config::Config;
use crate::core::calendar::Calendar;
use crate::core::due::Due;
use crate::core::io::{Header, Millis, Record};
use crate::core::reason::Reason;
use crate::core::recurrence::Position;
use crate::core::schedule::{self, AcceptanceRules, ParsedSchedule};
use crate::core::when::{Spec, When, is_when};
use crate::core::{headers, io::TopicPartition};
use crate::kafka::fold::Pending;

/// The prefix of the headers that say when.
const PREFIX: &str = crate::client::HEADER_PREFIX;

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

    /// Returns the calendar, which keeps what it has parsed.
    pub(super) fn calendar(&self) -> &ZoneCalendar {
        &self.calendar
    }

    /// Returns how far a schedule that recurs has come: where its progress record says or, without one, where its own
    /// headers or its rule begin. `None` if it has no occurrence.
    pub(super) fn position(&self, spec: &Spec, known: Option<Position>) -> Option<Position> {
        let moved = || spec.moved.map(|moved| Position { done: moved.done, next: moved.next.at() });
        let first = || {
            let next = self.calendar.next(spec.rule.as_ref()?, &spec.except, spec.after, spec.first_until())?;
            Some(Position { done: 0, next })
        };
        known.or_else(moved).or_else(first)
    }

    /// Returns when a schedule is due, without jitter, and the number of that occurrence if it recurs.
    fn due(&self, request: &ParsedSchedule<'_>, known: Option<Position>) -> Option<(Due, Option<u64>)> {
        match &request.when {
            When::Once { due, .. } => Some((*due, None)),
            When::Recurring(spec) => {
                let Position { done, next } = self.position(spec, known)?;
                let due = Due::from_epoch_ms(u64::try_from(next.0).ok()?)?;
                Some((due, Some(done.saturating_add(1))))
            }
        }
    }

    /// Returns when a new schedule is due first, and when its following occurrence is due if there is one, in
    /// milliseconds since 1970.
    ///
    /// # Errors
    /// If the engine would reject the record: the reason.
    pub(super) fn dates(&self, record: &Record<'_>) -> Result<(u64, Option<u64>), Reason> {
        let request = self.parse(record, record.value.unwrap_or_default())?;
        let (due, number) = self.due(&request, None).ok_or(Reason::NeverDue)?;
        let following = match &request.when {
            When::Recurring(spec) if number.is_none_or(|number| number < spec.count) => {
                spec.rule.as_ref().and_then(|rule| self.calendar.next(rule, &spec.except, due.at(), spec.until))
            }
            _ => None,
        };
        Ok((due.epoch_ms(), following.and_then(|at| u64::try_from(at.0).ok())))
    }

    /// Returns why the engine would reject this record of a schedules topic, if it would.
    pub(super) fn rejects(&self, record: &Record<'_>) -> Option<Reason> {
        record.value?;
        self.dates(record).err()
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
    /// Milliseconds since 1970. Of one that recurs: its next occurrence.
    pub due_ms: u64,
    /// Of one that recurs: the number of the next occurrence, from 1.
    pub occurrence: Option<u64>,
    /// The headers that say when, without the prefix `scheduler-`; empty for seconds without options.
    pub when: BTreeMap<String, String>,
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
        let (due, occurrence) = rules.due(&request, pending.position).ok_or(Reason::NeverDue)?;
        Ok(Self {
            topic: topic.to_owned(),
            partition: Some(pending.partition),
            offset: Some(pending.offset),
            key: pending.key.to_vec(),
            due_ms: due.epoch_ms(),
            occurrence,
            when: when_texts(&request.parts.headers).map(|(name, text)| (name.to_owned(), text)).collect(),
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
        let when = json.as_object()?.iter().filter_map(|(name, value)| {
            let is_text_of_when = is_when(format!("{PREFIX}{name}").as_bytes());
            Some((name.clone(), value.as_str().filter(|_| is_text_of_when)?.to_owned()))
        });
        // Instances of older versions have seconds alone.
        let number = |name: &str| json.get(name).and_then(Value::as_u64);
        let due_ms = number("next").or_else(|| Some(number("epoch")?.saturating_mul(1000)))?;
        Some(Self {
            topic: text("topic")?.to_owned(),
            partition: json.get("partition").and_then(Value::as_i64).and_then(|n| i32::try_from(n).ok()),
            offset: json.get("offset").and_then(Value::as_i64),
            key: bytes("id")?,
            due_ms,
            occurrence: number("occurrence"),
            when: when.collect(),
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
        map.insert("epoch".into(), (self.due_ms / 1000).into());
        map.insert("next".into(), self.due_ms.into());
        if let Some(occurrence) = self.occurrence {
            map.insert("occurrence".into(), occurrence.into());
        }
        map.extend(self.when.iter().map(|(name, text)| (name.clone(), text.clone().into())));
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
        schedule::far_ahead(self.due_ms / 1000, Millis(self.timestamp_s.saturating_mul(1000)))
    }

    /// Returns the rule by which it recurs; empty if it fires once.
    fn repeats(&self) -> String {
        let text = |name: &str| self.when.get(name).map(|text| printable(text.as_bytes()));
        match (text("cron"), text("every")) {
            (Some(cron), _) => {
                [Some(format!("cron {cron}")), text("timezone")].into_iter().flatten().collect::<Vec<_>>().join(" ")
            }
            (None, Some(every)) => format!("every {every}"),
            (None, None) => String::new(),
        }
    }

    /// The table's columns.
    pub(super) const COLUMNS: [&'static str; 8] =
        ["DUE", "REPEATS", "KEY", "TOPIC", "PARTITION", "TARGET", "TARGET KEY", "VALUE"];

    /// Returns a row of the table.
    pub(super) fn row(&self) -> [String; 8] {
        let due = date_ms(self.due_ms);
        [
            self.warning().map_or_else(|| due.clone(), |warning| format!("{due} ({warning})")),
            self.repeats(),
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

/// Returns milliseconds since 1970 as a date, which has milliseconds only if there are any.
pub(super) fn date_ms(ms: u64) -> String {
    let at = i64::try_from(ms).ok().filter(|ms| ms % 1000 != 0).and_then(|ms| Timestamp::from_millisecond(ms).ok());
    at.map_or_else(|| date(ms / 1000), |at| format!("{at:.3}"))
}

/// Returns the headers that say when, as text and without their prefix. Those left out have fields of their own in
/// JSON.
pub(super) fn when_texts<'a>(headers: &[Header<'a>]) -> impl Iterator<Item = (&'a str, String)> {
    let names = |header: &&Header<'a>| {
        is_when(header.name) && ![headers::EPOCH, headers::DONE, headers::NEXT].contains(&header.name)
    };
    let text = |header: &Header<'a>| {
        let name = std::str::from_utf8(header.name).ok()?.strip_prefix(PREFIX)?;
        Some((name, String::from_utf8_lossy(header.value?).into_owned()))
    };
    headers.iter().filter(names).filter_map(text).collect::<Vec<_>>().into_iter()
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
            due_ms: 1_893_456_000_000,
            occurrence: None,
            when: BTreeMap::new(),
            timestamp_s: 5,
            target: "t".into(),
            target_key: None,
            value: vec![0, 1],
        };
        assert_eq!(Entry::from_json(&entry.to_json()), Some(entry.clone()));
        assert_eq!(entry.row()[0], "2030-01-01T00:00:00Z");
        let when = [("cron", "0 9 * * 1-5"), ("timezone", "Europe/Paris"), ("count", "3")];
        let when = when.map(|(name, text)| (name.to_owned(), text.to_owned())).into();
        let recurring = Entry { due_ms: 1_893_456_000_250, occurrence: Some(2), when, ..entry.clone() };
        let json = recurring.to_json();
        assert_eq!(Entry::from_json(&json), Some(recurring.clone()));
        assert_eq!((&json["epoch"], &json["next"]), (&1_893_456_000_u64.into(), &1_893_456_000_250_u64.into()));
        assert_eq!(
            (&json["occurrence"], &json["cron"], &json["count"]),
            (&2.into(), &"0 9 * * 1-5".into(), &"3".into())
        );
        assert_eq!(recurring.row()[..2], ["2030-01-01T00:00:00.250Z", "cron 0 9 * * 1-5 Europe/Paris"]);
        let far = Entry { due_ms: 1_893_456_000_000_000, timestamp_s: 1_700_000_000, ..entry };
        assert!(far.row()[0].contains("looks like milliseconds"), "{:?}", far.row());
        assert!(far.to_json()["warning"].as_str().is_some_and(|warning| warning.contains("looks like milliseconds")));
        assert_eq!(date(u64::MAX), "18446744073709551615 s after 1970");
    }
}
