//! Parses a user's record: returns a schedule, or the reason why the record is invalid.

use super::calendar::Calendar;
use super::due::Due;
use super::headers;
use super::origin::{ORIGIN_HEADER, RESERVED_PREFIX};
use super::payload::Parts;
use super::reason::Reason;
use super::types::{Millis, Record};
use super::when::{self, Form, When, single};

/// Longest legal topic name, by Kafka's own rule.
const TOPIC_NAME_MAX: usize = 249;

/// Internal topics of the brokers.
const INTERNAL: [&[u8]; 4] =
    [b"__consumer_offsets", b"__transaction_state", b"__share_group_state", b"__cluster_metadata"];

/// A due time that is more seconds ahead of its record's timestamp is probably a mistake. The schedule is accepted
/// unless a horizon forbids it.
pub const FAR_S: u64 = 100 * 365 * 86_400;

/// The operator's limits on schedules.
#[derive(Clone, Debug, Default)]
pub struct AcceptanceRules {
    /// How long it may be overdue by its record's timestamp, in seconds.
    pub grace_s: Option<u64>,
    /// How far ahead of its record's timestamp it may be due, in seconds.
    pub horizon_s: Option<u64>,
    /// By index of the schedules topic: [`SchedulesTopic::record_bytes_max`](super::SchedulesTopic::record_bytes_max).
    pub record_bytes_max: Vec<Option<usize>>,
}

/// A valid schedule, borrowed from its record.
#[derive(Debug, PartialEq, Eq)]
pub struct ParsedSchedule<'a> {
    /// When it fires.
    pub when: When,
    /// The topic of the triggered record.
    pub target: &'a str,
    /// Key, value and headers to keep: those of the user and, unless it has the old form, those that say when.
    pub parts: Parts<'a>,
}

impl ParsedSchedule<'_> {
    /// Returns when it fires, without jitter, if it fires once.
    #[must_use]
    pub fn due(&self) -> Option<Due> {
        match self.when {
            When::Once { due, .. } => Some(due),
            When::Recurring(_) => None,
        }
    }

    /// Returns the form in which it says when it fires.
    #[must_use]
    pub fn form(&self) -> Form {
        match self.when {
            When::Once { form, .. } => form,
            When::Recurring(_) => Form::Recurring,
        }
    }
}

/// Parses a record with a value. `timestamp` is that of the user's record, of which `record` may be a copy.
///
/// # Errors
/// Returns the reason why it cannot fire.
pub fn parse<'a>(
    record: &Record<'a>,
    value: &'a [u8],
    timestamp: Millis,
    topics: &[String],
    rules: &AcceptanceRules,
    calendar: &dyn Calendar,
) -> Result<ParsedSchedule<'a>, Reason> {
    let key = record.key.ok_or(Reason::NoKey)?;
    if key.starts_with(RESERVED_PREFIX) {
        return Err(Reason::ReservedKey);
    }
    let when = when::parse(record.headers, timestamp, calendar)?;
    let target = target(single(record.headers, headers::TARGET_TOPIC)?.flatten().ok_or(Reason::NoTarget)?)?;
    let target_key = single(record.headers, headers::TARGET_KEY)?.flatten();
    if topics.iter().any(|t| t == target) {
        return Err(Reason::TargetIsSchedules);
    }
    if let When::Once { due, .. } = when {
        within(due, timestamp, rules)?;
    }
    let is_old = matches!(when, When::Once { form: Form::Epoch, .. });
    let is_kept = |name: &[u8]| !is_own(name) && if is_old { !when::is_when(name) } else { !when::is_fired(name) };
    let headers = record.headers.iter().filter(|h| is_kept(h.name)).copied().collect();
    let parsed = ParsedSchedule { when, target, parts: Parts { key, target_key, headers, value } };
    let topic = usize::from(record.partition.topic);
    let limit = rules.record_bytes_max.get(topic).copied().flatten();
    match limit.filter(|max| least_bytes(&parsed, topics.get(topic)) > *max) {
        Some(_) => Err(Reason::TooLarge),
        None => Ok(parsed),
    }
}

/// Returns the least size in bytes of the larger of the schedule's copy and its history record, each alone in its
/// record batch.
fn least_bytes(parsed: &ParsedSchedule<'_>, topic: Option<&String>) -> usize {
    /// Of a record batch with one record in Kafka's message format v2. Lengths count one byte each, their minimum.
    const OVERHEAD: usize = 61 + 7;
    const HEADER_OVERHEAD: usize = 2;
    const ORIGIN_VALUE: usize = 33;
    let Parts { key, target_key, headers, value } = &parsed.parts;
    let bytes = |value: Option<&[u8]>| value.map_or(0, <[u8]>::len);
    let user_headers: usize = headers.iter().map(|h| h.name.len() + bytes(h.value) + HEADER_OVERHEAD).sum();
    let target_key_bytes = bytes(*target_key);
    // Of new forms, what says when is among the headers already, and fired records have more instead.
    let of_form = match parsed.form() {
        Form::Epoch => headers::EPOCH.len() + 1 + HEADER_OVERHEAD,
        Form::Once | Form::Recurring => 0,
    };
    let request_headers = of_form
        + headers::TARGET_TOPIC.len()
        + parsed.target.len()
        + HEADER_OVERHEAD
        + target_key.map_or(0, |_| headers::TARGET_KEY.len() + target_key_bytes + HEADER_OVERHEAD);
    let common = OVERHEAD + value.len() + user_headers + request_headers;
    let copy = key.len() + ORIGIN_HEADER.len() + ORIGIN_VALUE + HEADER_OVERHEAD;
    let triggered = headers::TIMESTAMP.len()
        + 1
        + headers::KEY.len()
        + key.len()
        + headers::TOPIC.len()
        + topic.map_or(0, String::len)
        + 3 * HEADER_OVERHEAD;
    common + copy.max(triggered + target_key_bytes)
}

/// Returns an invalid record with all of its headers, so it can be rewritten unchanged.
#[must_use]
pub fn verbatim<'a>(record: &Record<'a>, value: &'a [u8]) -> Parts<'a> {
    let headers = record.headers.iter().filter(|h| h.name != ORIGIN_HEADER).copied().collect();
    Parts { key: record.key.unwrap_or_default(), target_key: None, headers, value }
}

/// Returns whether the engine sets this header itself, whatever the form, so the user's is dropped.
fn is_own(name: &[u8]) -> bool {
    [headers::TARGET_TOPIC, headers::TARGET_KEY, headers::TIMESTAMP, headers::KEY, headers::TOPIC, ORIGIN_HEADER]
        .contains(&name)
}

fn is_quoted(bytes: &[u8]) -> bool {
    matches!(bytes, [b'"', .., b'"'])
}

/// Returns the probable mistake in a due time that is over a century ahead of its record: producers use the wrong unit.
#[must_use]
pub fn far_ahead(due_s: u64, timestamp: Millis) -> Option<&'static str> {
    /// The due time may be in the past by this much, in seconds.
    const PAST_S: u64 = 366 * 86_400;
    let written = u64::try_from(timestamp.0.div_euclid(1000)).unwrap_or(0);
    let likely = written.saturating_sub(PAST_S)..=written.saturating_add(FAR_S);
    match due_s {
        _ if due_s <= *likely.end() => None,
        _ if likely.contains(&(due_s / 1_000)) => Some("due more than 100 years ahead: looks like milliseconds"),
        _ if likely.contains(&(due_s / 1_000_000)) => Some("due more than 100 years ahead: looks like microseconds"),
        _ => Some("due more than 100 years ahead"),
    }
}

/// Returns whether users can produce to a topic of this name: 1 to 249 of `a-z A-Z 0-9 . _ -`, neither `.` nor `..`,
/// and not an internal topic.
#[must_use]
pub fn is_topic(name: &[u8]) -> bool {
    (1..=TOPIC_NAME_MAX).contains(&name.len())
        && name != b"."
        && name != b".."
        && name.iter().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(b))
        && !INTERNAL.contains(&name)
}

fn target(name: &[u8]) -> Result<&str, Reason> {
    if name.is_empty() {
        return Err(Reason::NoTarget);
    }
    let bad = if is_quoted(name) { Reason::QuotedTarget } else { Reason::BadTarget };
    std::str::from_utf8(name).ok().filter(|_| is_topic(name)).ok_or(bad)
}

fn within(due: Due, timestamp: Millis, rules: &AcceptanceRules) -> Result<(), Reason> {
    let due_ms = i128::from(due.at().0);
    let timestamp_ms = i128::from(timestamp.0);
    let beyond = |limit_s: Option<u64>, by_ms: i128| limit_s.is_some_and(|s| by_ms > i128::from(s) * 1000);
    if beyond(rules.grace_s, timestamp_ms - due_ms) {
        return Err(Reason::OverGrace);
    }
    if beyond(rules.horizon_s, due_ms - timestamp_ms) {
        return Err(Reason::BeyondHorizon);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::calendar::NoCalendar;
    use super::super::due::EPOCH_S_MAX;
    use super::super::types::Header;
    use super::super::types::TopicPartition;
    use super::*;

    fn parse_with(
        key: Option<&[u8]>,
        headers: &[(&str, &str)],
        rules: &AcceptanceRules,
    ) -> Result<(u64, String), Reason> {
        let headers: Vec<Header<'_>> =
            headers.iter().map(|(n, v)| Header { name: n.as_bytes(), value: Some(v.as_bytes()) }).collect();
        let record = Record {
            partition: TopicPartition { topic: 0, number: 0 },
            offset: 3,
            timestamp: Millis(1_000_000),
            key,
            value: Some(b"v"),
            headers: &headers,
        };
        parse(&record, b"v", record.timestamp, &["schedules".to_owned()], rules, &NoCalendar)
            .map(|r| (r.due().expect("it fires once").epoch_s(), r.target.to_owned()))
    }

    #[test]
    fn each_way_to_be_invalid_has_its_reason() {
        let any = AcceptanceRules::default();
        let with = |epoch: &str, target: &str| {
            parse_with(Some(b"k"), &[("scheduler-epoch", epoch), ("scheduler-target-topic", target)], &any)
        };
        assert_eq!(with("1000", "t"), Ok((1000, "t".into())));
        assert_eq!(with("0001", "t"), Ok((1, "t".into())));
        for (epoch, reason) in [
            ("", Reason::NoEpoch),
            ("+1", Reason::BadEpoch),
            ("-1", Reason::BadEpoch),
            (" 1", Reason::BadEpoch),
            ("1.5", Reason::BadEpoch),
            ("9223372036854776", Reason::EpochOverflow),
            ("99999999999999999999999", Reason::EpochOverflow),
        ] {
            assert_eq!(with(epoch, "t"), Err(reason), "{epoch:?}");
        }
        for (target, reason) in [
            ("", Reason::NoTarget),
            (".", Reason::BadTarget),
            ("no such/topic!", Reason::BadTarget),
            ("__consumer_offsets", Reason::BadTarget),
            ("__transaction_state", Reason::BadTarget),
            ("schedules", Reason::TargetIsSchedules),
        ] {
            assert_eq!(with("1", target), Err(reason), "{target:?}");
        }
        assert_eq!(parse_with(None, &[], &any), Err(Reason::NoKey));
        assert_eq!(parse_with(Some(b"__scheduler.x"), &[], &any), Err(Reason::ReservedKey));
        assert_eq!(parse_with(Some(b"k"), &[], &any), Err(Reason::NoEpoch));
        assert_eq!(parse_with(Some(b"k"), &[("scheduler-epoch", "1")], &any), Err(Reason::NoTarget));
        let doubled = [("scheduler-epoch", "1"), ("scheduler-epoch", "2")];
        assert_eq!(parse_with(Some(b"k"), &doubled, &any), Err(Reason::DuplicateHeader));
    }

    #[test]
    fn a_request_header_may_be_repeated_with_the_same_value() {
        let request = [("scheduler-epoch", "1"), ("scheduler-target-topic", "t"), ("scheduler-target-key", "to")];
        let mut doubled = request.to_vec();
        doubled.extend(request);
        let any = AcceptanceRules::default();
        assert_eq!(parse_with(Some(b"k"), &doubled, &any), Ok((1, "t".into())));
        for (name, value) in [("scheduler-epoch", "01"), ("scheduler-target-topic", "u"), ("scheduler-target-key", "")]
        {
            let mut differing = doubled.clone();
            differing.push((name, value));
            assert_eq!(parse_with(Some(b"k"), &differing, &any), Err(Reason::DuplicateHeader), "{name}");
        }
    }

    #[test]
    fn a_quoted_target_is_told() {
        assert_eq!(target(b"\"greetings\""), Err(Reason::QuotedTarget));
        assert_eq!(target(b"a \"b\""), Err(Reason::BadTarget));
    }

    #[test]
    fn a_due_time_a_century_ahead_is_taken_for_other_units() {
        let written = Millis(1_700_000_000_000);
        let far = |due: u64| far_ahead(due, written);
        assert_eq!(far(1_893_456_000), None);
        assert_eq!(far(1_700_000_000 + FAR_S), None);
        assert_eq!(far(1_700_000_000 + FAR_S + 1), Some("due more than 100 years ahead"));
        assert_eq!(far(1_893_456_000_000), Some("due more than 100 years ahead: looks like milliseconds"));
        assert_eq!(far(1_700_000_000_000), Some("due more than 100 years ahead: looks like milliseconds"));
        assert_eq!(far(1_893_456_000_000_000), Some("due more than 100 years ahead: looks like microseconds"));
        assert_eq!(far(EPOCH_S_MAX), Some("due more than 100 years ahead"));
        assert_eq!(far_ahead(1_893_456_000, Millis(-1)), None, "a record without a timestamp");
    }

    #[test]
    fn grace_and_horizon_are_measured_from_the_records_timestamp() {
        let at = |epoch: &str, rules: &AcceptanceRules| {
            let headers = [("scheduler-epoch", epoch), ("scheduler-target-topic", "t")];
            parse_with(Some(b"k"), &headers, rules).map(|r| r.0)
        };
        let grace = AcceptanceRules { grace_s: Some(10), ..AcceptanceRules::default() };
        assert_eq!(at("990", &grace), Ok(990));
        assert_eq!(at("989", &grace), Err(Reason::OverGrace));
        let none = AcceptanceRules { grace_s: Some(0), ..AcceptanceRules::default() };
        assert_eq!(at("1000", &none), Ok(1000));
        assert_eq!(at("999", &none), Err(Reason::OverGrace));
        let horizon = AcceptanceRules { horizon_s: Some(5), ..AcceptanceRules::default() };
        assert_eq!(at("1005", &horizon), Ok(1005));
        assert_eq!(at("1006", &horizon), Err(Reason::BeyondHorizon));
    }
}
