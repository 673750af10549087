//! Records as JSON lines, which `import` produces again byte for byte.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::entry::Rules;
use crate::core::calendar::Rule;
use crate::core::headers;
use crate::core::io::{Header, Record};
use crate::core::when::{self, When};
use crate::kafka::fold::Pending;

/// Bytes: text if they are UTF-8, else `{"base64": "..."}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bytes(pub Vec<u8>);

#[derive(Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Encoded {
    Text(String),
    Base64 { base64: String },
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => Encoded::Base64 { base64: BASE64_STANDARD.encode(&self.0) }.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Encoded::deserialize(deserializer) {
            Ok(Encoded::Text(text)) => Ok(Self(text.into_bytes())),
            Ok(Encoded::Base64 { base64 }) => {
                BASE64_STANDARD.decode(base64).map(Self).map_err(serde::de::Error::custom)
            }
            Err(_) => Err(serde::de::Error::custom("must be text, or {\"base64\": \"...\"}")),
        }
    }
}

/// A record. `topic`, `partition`, `offset` and `timestamp` are those of the exported one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExportLine {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<i64>,
    /// Milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<i64>,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    /// Names and values, in order.
    #[serde(default)]
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

impl ExportLine {
    /// Converts a pending record. Its headers say when it fires whatever the timestamp of the imported record is.
    pub(super) fn of(topic: &str, rules: &Rules, record: &Pending<'_>) -> Self {
        Self {
            topic: Some(topic.to_owned()),
            partition: Some(record.partition),
            offset: Some(record.offset),
            timestamp: Some(record.timestamp.0),
            key: Some(Bytes(record.key.to_vec())),
            value: Some(Bytes(record.value.to_vec())),
            headers: movable(rules, record),
        }
    }

    /// Converts a record of any topic.
    pub(super) fn of_record(topic: &str, record: &Record<'_>) -> Self {
        Self {
            topic: Some(topic.to_owned()),
            partition: Some(record.partition.number),
            offset: Some(record.offset),
            timestamp: Some(record.timestamp.0),
            key: record.key.map(|key| Bytes(key.to_vec())),
            value: record.value.map(|value| Bytes(value.to_vec())),
            headers: pairs(record.headers),
        }
    }

    /// Borrows the headers.
    pub(super) fn headers<'a>(&'a self) -> Vec<Header<'a>> {
        let header = |pair: &'a (Bytes, Option<Bytes>)| Header {
            name: &pair.0.0,
            value: pair.1.as_ref().map(|value| value.0.as_slice()),
        };
        self.headers.iter().map(header).collect()
    }
}

type Pairs = Vec<(Bytes, Option<Bytes>)>;

/// Returns the headers of a pending record, without what counts from the record's own timestamp, and with its progress.
fn movable(rules: &Rules, record: &Pending<'_>) -> Pairs {
    let mut pairs = pairs(&record.headers);
    let Ok(when) = when::parse(&record.headers, record.timestamp, rules.calendar()) else { return pairs };
    let has =
        |name| record.headers.iter().any(|header| header.name == name && header.value.is_some_and(|v| !v.is_empty()));
    match when {
        When::Once { due, .. } if has(headers::DELAY) => {
            pairs.retain(|(name, _)| name.0 != headers::DELAY);
            set(&mut pairs, headers::EPOCH_MS, due.epoch_ms().to_string());
        }
        When::Once { .. } => {}
        When::Recurring(spec) => {
            if let Some(position) = rules.position(&spec, record.position) {
                set(&mut pairs, headers::DONE, position.done.to_string());
                set(&mut pairs, headers::NEXT, position.next.0.to_string());
            }
            if let Some(Rule::Every { first, .. }) = spec.rule
                && !has(headers::START)
                && let Ok(first) = Timestamp::from_millisecond(first.0)
            {
                set(&mut pairs, headers::START, first.to_string());
            }
        }
    }
    pairs
}

/// Sets a header, in the place of any that has this name.
fn set(pairs: &mut Pairs, name: &[u8], text: String) {
    pairs.retain(|(other, _)| other.0 != name);
    pairs.push((Bytes(name.to_vec()), Some(Bytes(text.into_bytes()))));
}

fn pairs(headers: &[Header<'_>]) -> Pairs {
    let pair = |header: &Header<'_>| (Bytes(header.name.to_vec()), header.value.map(|value| Bytes(value.to_vec())));
    headers.iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calendar::ZoneCalendar;
    use crate::config::Config;
    use crate::core::due::Due;
    use crate::core::io::Millis;
    use crate::core::recurrence::Position;
    use crate::core::when::{Expiry, Moved, Spec};

    #[test]
    fn any_bytes_round_trip() {
        let line = ExportLine {
            topic: None,
            partition: Some(3),
            offset: None,
            timestamp: None,
            key: Some(Bytes(vec![0xff, 0])),
            value: Some(Bytes("{\"base64\": \"no\"}\n\0é".into())),
            headers: vec![(Bytes(b"a".to_vec()), None), (Bytes(vec![0xfe]), Some(Bytes(Vec::new())))],
        };
        let text = serde_json::to_string(&line).expect("JSON");
        assert!(!text.contains('\n') && text.contains("\"key\":{\"base64\":\"/wA=\"}"), "{text}");
        assert_eq!(serde_json::from_str::<ExportLine>(&text).expect("a line"), line);
    }

    /// Exports a schedule with these headers and the timestamp 0, and imports it at 1,000,000 s.
    fn moved(headers: &[(&'static str, &'static str)], position: Option<Position>) -> (ExportLine, When) {
        let headers = [headers, &[("scheduler-target-topic", "t"), ("trace", "7")]].concat();
        let header = |(name, value): &(&'static str, &'static str)| Header {
            name: name.as_bytes(),
            value: Some(value.as_bytes()),
        };
        let headers = headers.iter().map(header).collect();
        let (timestamp, partition, offset) = (Millis(0), 0, 3);
        let pending = Pending { partition, offset, timestamp, key: b"k", value: b"v", headers, position };
        let config = Config::load(&|_| None).expect("settings");
        let line = ExportLine::of("schedules", &Rules::new(&config), &pending);
        let text = serde_json::to_string(&line).expect("JSON");
        let line: ExportLine = serde_json::from_str(&text).expect("a line");
        let when = when::parse(&line.headers(), Millis(1_000_000_000), &ZoneCalendar::default()).expect("it can fire");
        (line, when)
    }

    #[test]
    fn a_moved_schedule_fires_as_it_would_have() {
        let names = |line: &ExportLine| {
            line.headers.iter().map(|(name, _)| String::from_utf8_lossy(&name.0).into_owned()).collect::<Vec<_>>()
        };
        let (line, when) = moved(&[("scheduler-epoch", "7")], None);
        assert_eq!(names(&line), ["scheduler-epoch", "scheduler-target-topic", "trace"]);
        assert!(matches!(when, When::Once { due, options: None, .. } if due.epoch_ms() == 7_000));

        let (line, when) = moved(&[("scheduler-delay", "1500ms"), ("scheduler-expires", "10m")], None);
        assert_eq!(names(&line), ["scheduler-expires", "scheduler-target-topic", "trace", "scheduler-epoch-ms"]);
        let When::Once { due, options: Some(options), .. } = when else { panic!("{when:?}") };
        assert_eq!((due.epoch_ms(), options.expiry), (1_500, Expiry::After(600_000)));

        let spec = |headers: &[(&'static str, &'static str)], position| match moved(headers, position).1 {
            When::Recurring(spec) => *spec,
            other => panic!("{other:?}"),
        };
        let next = |done, next_ms| Some(Moved { done, next: Due::from_epoch_ms(next_ms).expect("a due time") });
        let every = [("scheduler-every", "7s"), ("scheduler-count", "9")];
        let Spec { rule, count, moved, .. } = spec(&every, None);
        assert_eq!((count, moved), (9, next(0, 7_000)), "it has not fired");
        let first = Millis(7_000);
        assert_eq!(rule, Some(Rule::Every { interval_ms: 7_000, first, zone: "UTC".into() }), "the same beat");
        let position = Some(Position { done: 4, next: Millis(35_000) });
        assert_eq!(spec(&every, position).moved, next(4, 35_000));
        let again = [("scheduler-cron", "@hourly"), ("scheduler-done", "2"), ("scheduler-next", "7200000")];
        assert_eq!(spec(&again, None).moved, next(2, 7_200_000), "it was moved before, and has not fired since");
        let position = Some(Position { done: 3, next: Millis(10_800_000) });
        assert_eq!(spec(&again, position).moved, next(3, 10_800_000));
    }

    #[test]
    fn errors_name_the_field() {
        for (text, part) in [
            ("{", "EOF"),
            (r#"{"key": 1, "value": "v"}"#, "base64"),
            (r#"{"key": {"base64": "?"}, "value": "v"}"#, "Invalid"),
            (r#"{"value": "v", "headres": []}"#, "headres"),
        ] {
            let error = serde_json::from_str::<ExportLine>(text).expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
