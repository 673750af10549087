//! Checks of single values.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::net::{Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use jiff::{Span, SpanRelativeTo, Unit};

use super::{ConfigError, REPLICAS_MAX};

/// The largest number of seconds that a setting takes: far from every overflow.
const CENTURY_S: u64 = 100 * 365 * 86_400;

/// `SESSION_TIMEOUT`, in milliseconds.
pub(super) const SESSION_MS: RangeInclusive<u32> = 1..=3_600_000;

/// `SCHEDULE_GRACE_INTERVAL`, in seconds.
pub(super) const GRACE_S: RangeInclusive<u64> = 0..=CENTURY_S;

/// `MAX_HORIZON`, in seconds.
pub(super) const HORIZON_S: RangeInclusive<u64> = 1..=CENTURY_S;

/// Larger than any machine's memory, and exactly representable as an `f64`.
const BYTES_MAX: u64 = 1 << 50;

/// Indexes of schedules topics have 16 bits.
const TOPICS_MAX: usize = 1_000;

/// Transactional ids begin with the group id, and topics of committed offsets hold it often.
const GROUP_CHARS_MAX: usize = 200;

const TOPIC_ALLOWED: &str = "1 to 249 of the characters a-z A-Z 0-9 . _ - (and not . or .. alone)";

/// Parses a whole number within a range.
pub(super) fn whole<T>(name: &str, text: &str, range: RangeInclusive<T>, unit: &str) -> Result<T, ConfigError>
where
    T: FromStr + PartialOrd + Display,
{
    text.parse().ok().filter(|number| range.contains(number)).ok_or_else(|| {
        let allowed = format!("a whole number of {unit} from {} to {}", range.start(), range.end());
        ConfigError::wrong(name, text, &allowed)
    })
}

/// Returns a duration as milliseconds, which must be whole and within a range.
pub(super) fn milliseconds<T>(name: &str, duration: Duration, range: RangeInclusive<T>) -> Result<T, ConfigError>
where
    T: TryFrom<u128> + PartialOrd + Display,
{
    units(name, duration, 1_000_000, range, "milliseconds")
}

/// Returns a duration as seconds, which must be whole and within a range.
pub(super) fn seconds<T>(name: &str, duration: Duration, range: RangeInclusive<T>) -> Result<T, ConfigError>
where
    T: TryFrom<u128> + PartialOrd + Display,
{
    units(name, duration, 1_000_000_000, range, "seconds")
}

fn units<T>(
    name: &str,
    duration: Duration,
    unit_ns: u128,
    range: RangeInclusive<T>,
    units: &str,
) -> Result<T, ConfigError>
where
    T: TryFrom<u128> + PartialOrd + Display,
{
    let is_whole = duration.as_nanos().is_multiple_of(unit_ns);
    let number = is_whole.then(|| T::try_from(duration.as_nanos() / unit_ns).ok()).flatten();
    number.filter(|number| range.contains(number)).ok_or_else(|| {
        let round = if is_whole { "" } else { ": round it" };
        let allowed = format!("a whole number of {units} from {} to {}{round}", range.start(), range.end());
        ConfigError::wrong(name, &format!("{duration:?}"), &allowed)
    })
}

/// `CREATE_TOPICS_REPLICATION_FACTOR`
pub(super) fn replicas(text: &str) -> Result<i32, ConfigError> {
    whole("CREATE_TOPICS_REPLICATION_FACTOR", text, 1..=REPLICAS_MAX, "replicas")
}

/// `MEMORY_WARN_BYTES`
pub(super) fn memory_warn_bytes(text: &str) -> Result<u64, ConfigError> {
    whole("MEMORY_WARN_BYTES", text, 1..=BYTES_MAX, "bytes")
}

/// Parses the names of headers to add to triggered records: `due` is the only one.
pub(super) fn triggered_headers(text: &str) -> Result<bool, ConfigError> {
    match text.trim() {
        "due" => Ok(true),
        _ => Err(ConfigError::wrong("TRIGGERED_HEADERS", text, "due, which is the only header that can be added")),
    }
}

/// Parses a boolean.
pub(super) fn flag(name: &str, text: &str) -> Result<bool, ConfigError> {
    match text {
        "true" | "1" | "yes" => Ok(true),
        "false" | "0" | "no" => Ok(false),
        _ => Err(ConfigError::wrong(name, text, "true or false")),
    }
}

/// `SINCE_DELTA`
pub(super) fn since_delta(text: &str) -> Result<i32, ConfigError> {
    let allowed = "0 (today) or less: -1 goes back to yesterday, and so on, down to -36500";
    let days = text.parse().ok().filter(|days| (-36_500..=0).contains(days));
    days.ok_or_else(|| ConfigError::wrong("SINCE_DELTA", text, allowed))
}

/// Parses a comma list of servers and removes the spaces around its commas.
pub(super) fn servers(name: &str, text: &str) -> Result<String, ConfigError> {
    let servers: Vec<&str> = text.split(',').map(str::trim).collect();
    if !servers.iter().all(|server| is_server(server)) {
        return Err(ConfigError::wrong(name, text, "a comma list of host:port"));
    }
    Ok(servers.join(","))
}

/// librdkafka takes `[protocol://]host[:port]`, with IPv6 addresses in brackets.
fn is_server(text: &str) -> bool {
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (rest, None),
    };
    let host_fits = !host.is_empty()
        && host.chars().all(|c| !c.is_whitespace() && !c.is_control() && c != '/')
        && (!host.contains(':') || (host.starts_with('[') && host.ends_with(']')));
    host_fits && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port != 0))
}

/// `GROUP_ID`
pub(super) fn group(name: &str, text: &str) -> Result<String, ConfigError> {
    let fits = !text.is_empty() && text.chars().count() <= GROUP_CHARS_MAX && !text.chars().any(char::is_control);
    if !fits {
        let allowed = format!("1 to {GROUP_CHARS_MAX} characters, none of them a control character");
        return Err(ConfigError::wrong(name, text, &allowed));
    }
    Ok(text.to_owned())
}

/// Checks a topic's name.
pub(super) fn topic(name: &str, text: &str) -> Result<String, ConfigError> {
    if !is_topic(text) {
        return Err(ConfigError::wrong(name, text, TOPIC_ALLOWED));
    }
    Ok(text.to_owned())
}

/// Returns whether Kafka allows this name for a topic.
pub(crate) fn is_topic(text: &str) -> bool {
    crate::core::schedule::is_topic(text.as_bytes())
}

/// Parses a comma list of topics.
pub(super) fn topics(name: &'static str, text: &str) -> Result<Vec<String>, ConfigError> {
    let topics: Vec<&str> = text.split(',').map(str::trim).collect();
    if let Some(bad) = topics.iter().find(|topic| !is_topic(topic)) {
        let allowed = format!("a comma list of topic names; {bad:?} is not one: {TOPIC_ALLOWED}");
        return Err(ConfigError::wrong(name, text, &allowed));
    }
    let mut seen = BTreeSet::new();
    if let Some(repeated) = topics.iter().find(|topic| !seen.insert(**topic)) {
        return Err(ConfigError::wrong(name, text, &format!("a list without repeats, and {repeated:?} occurs twice")));
    }
    if topics.len() > TOPICS_MAX {
        let message = format!("{name} names {} topics, but must name at most {TOPICS_MAX}", topics.len());
        return Err(ConfigError::new(name, message));
    }
    Ok(topics.into_iter().map(str::to_owned).collect())
}

/// Parses an address to listen on. Without a host, it is every address of this machine.
pub(super) fn address(name: &str, text: &str) -> Result<SocketAddr, ConfigError> {
    let wrong = || ConfigError::wrong(name, text, "host:port, or :port for every address of this machine");
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let port: u16 = port.parse().map_err(|_| wrong())?;
    if host.is_empty() {
        return Ok((Ipv6Addr::UNSPECIFIED, port).into());
    }
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if host.contains([':', '[', ']', '/']) || host.contains(char::is_whitespace) {
        return Err(wrong());
    }
    let resolved = (host, port).to_socket_addrs().ok().and_then(|mut addresses| addresses.next());
    resolved.ok_or_else(|| ConfigError::wrong(name, text, "host:port with a host that this machine can resolve"))
}

/// Parses seconds or an ISO 8601 duration. Years and months have no fixed length and are rejected.
pub(super) fn horizon(name: &str, text: &str) -> Result<u64, ConfigError> {
    let seconds = text.parse().ok().or_else(|| iso_seconds(text));
    seconds.filter(|seconds| HORIZON_S.contains(seconds)).ok_or_else(|| {
        let allowed = format!(
            "1 to {CENTURY_S} seconds, or an ISO 8601 duration of weeks, days, hours, minutes and seconds, such as P400D"
        );
        ConfigError::wrong(name, text, &allowed)
    })
}

fn iso_seconds(text: &str) -> Option<u64> {
    let span: Span = text.starts_with(['P', 'p']).then(|| text.parse().ok())??;
    let fixed = span.get_years() == 0 && span.get_months() == 0;
    let whole = span.get_milliseconds() == 0 && span.get_microseconds() == 0 && span.get_nanoseconds() == 0;
    if !fixed || !whole {
        return None;
    }
    let seconds = span.total((Unit::Second, SpanRelativeTo::days_are_24_hours())).ok()?;
    // A century of seconds has far fewer digits than an f64 holds.
    (seconds >= 1.0 && seconds <= CENTURY_S as f64).then_some(seconds as u64)
}
