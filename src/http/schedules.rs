//! `/schedules`: pending schedules as JSON. The whole list is written while the client reads it.

use std::borrow::Cow;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use hyper::body::{Body, Frame};
use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};
use tokio::sync::OwnedSemaphorePermit;

use super::ask::{self, CHUNK_MAX};
use super::connection::Connection;
use super::query::{PageQuery, show_cursor};
use crate::core::due::Due;
use crate::core::headers;
use crate::core::io::{Cursor, Header};
use crate::core::listing::{Filter, Listed, Page, ParkedFor};
use crate::core::schedule::far_ahead;
use crate::core::when::is_when;
use crate::handle::{Handle, QueryError};

/// Pause before each chunk but the first, so a list gives way to firing on a machine with few cores.
const CHUNK_INTERVAL: Duration = Duration::from_millis(1);
/// A page ends after so many bytes of JSON, whatever its limit.
const PAGE_BYTES_MAX: usize = 1 << 20;

type NextChunk = Pin<Box<dyn Future<Output = Result<Page, QueryError>> + Send>>;

/// All pending schedules, as one JSON list. The next chunk is requested once the client has read the last one, so a
/// slow reader costs no memory.
pub(super) struct Listing {
    handle: Handle,
    topics: Arc<[String]>,
    connection: Arc<Connection>,
    next: Option<NextChunk>,
    begun: bool,
    any: bool,
    /// The next chunk is about as long as the longest so far.
    longest_bytes: usize,
    _permit: OwnedSemaphorePermit,
}

impl Listing {
    /// Requests the first chunk, so the response is an error if the engine is busy.
    pub(super) async fn start(
        handle: Handle,
        topics: Arc<[String]>,
        connection: Arc<Connection>,
        permit: OwnedSemaphorePermit,
    ) -> Result<Self, QueryError> {
        let first = ask::page(&handle, Cursor::default(), CHUNK_MAX, Filter::default()).await?;
        Ok(Self {
            handle,
            topics,
            connection,
            next: Some(Box::pin(std::future::ready(Ok(first)))),
            begun: false,
            any: false,
            longest_bytes: 0,
            _permit: permit,
        })
    }

    fn write(&mut self, page: Page) -> Vec<u8> {
        let mut text = Vec::with_capacity(self.longest_bytes);
        if !std::mem::replace(&mut self.begun, true) {
            text.push(b'[');
        }
        for entry in &page.entries {
            if std::mem::replace(&mut self.any, true) {
                text.extend_from_slice(b",\n");
            }
            write(&mut text, entry, &self.topics);
        }
        match page.next {
            Some(next) => {
                let handle = self.handle.clone();
                self.next = Some(Box::pin(async move {
                    tokio::time::sleep(CHUNK_INTERVAL).await;
                    ask::page(&handle, next, CHUNK_MAX, Filter::default()).await
                }));
            }
            None => text.extend_from_slice(b"]\n"),
        }
        self.longest_bytes = self.longest_bytes.max(text.len());
        text
    }
}

impl Body for Listing {
    type Data = Bytes;
    type Error = QueryError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, QueryError>>> {
        while let Some(next) = &mut self.next {
            let page = ready!(next.as_mut().poll(cx));
            self.next = None;
            match page {
                Ok(page) => {
                    let text = self.write(page);
                    if !text.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(text.into()))));
                    }
                }
                Err(error) => {
                    self.connection.reset_on_close();
                    tracing::warn!(reason = %error, "a list was aborted");
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
        Poll::Ready(None)
    }
}

/// Returns a page as JSON: an object with `schedules`, and with `next` if more may follow.
pub(super) async fn page(handle: &Handle, topics: &[String], query: PageQuery) -> Result<Vec<u8>, QueryError> {
    let PageQuery { mut cursor, limit, filter } = query;
    let mut text = br#"{"schedules":["#.to_vec();
    let mut entries = 0;
    let next = loop {
        let page = ask::page(handle, cursor, limit - entries, filter.clone()).await?;
        for entry in &page.entries {
            if entries > 0 {
                text.push(b',');
            }
            entries += 1;
            write(&mut text, entry, topics);
        }
        match page.next {
            Some(next) if entries < limit && text.len() < PAGE_BYTES_MAX => cursor = next,
            next => break next,
        }
    };
    let next = next.map_or("null".to_owned(), |next| format!("\"{}\"", show_cursor(next)));
    text.extend_from_slice(format!("],\"next\":{next}}}\n").as_bytes());
    Ok(text)
}

/// Returns schedules as a JSON list.
pub(super) fn list(entries: &[Listed], topics: &[String]) -> Vec<u8> {
    let mut text = vec![b'['];
    for (number, entry) in entries.iter().enumerate() {
        if number > 0 {
            text.push(b',');
        }
        write(&mut text, entry, topics);
    }
    text.extend_from_slice(b"]\n");
    text
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Schedule<'a> {
    id: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id_base64: Option<String>,
    /// `None` until the calendar has computed when it is due.
    epoch: Option<u64>,
    /// The same in milliseconds.
    next: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    occurrence: Option<u64>,
    timestamp: i64,
    topic: &'a str,
    partition: i32,
    offset: i64,
    target_topic: &'a str,
    target_key: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_key_base64: Option<String>,
    value: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parked: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<&'static str>,
    #[serde(flatten)]
    written: Written<'a>,
}

/// The headers that say when, as the user wrote them: a field for each, without `scheduler-`.
struct Written<'a>(&'a [Header<'a>]);

impl Serialize for Written<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (number, header) in self.0.iter().enumerate() {
            // Fields of the schedule itself have these two names.
            let is_field = header.name == headers::EPOCH || header.name == headers::NEXT;
            // An empty header counts as missing. A repeated one has the same value.
            let is_first = !self.0[..number].iter().any(|earlier| earlier.name == header.name);
            let Some(value) = header.value.filter(|value| !value.is_empty()) else { continue };
            if let Some(name) = field(header.name)
                && is_first
                && !is_field
            {
                map.serialize_entry(name, &String::from_utf8_lossy(value))?;
            }
        }
        map.end()
    }
}

/// Returns the field of a header that says when.
fn field(name: &[u8]) -> Option<&str> {
    if is_when(name) { std::str::from_utf8(name).ok()?.strip_prefix("scheduler-") } else { None }
}

/// Returns when it is due. One that recurs is due last of all until the calendar has computed its first date.
fn due(listed: &Listed, headers: &[Header<'_>]) -> Option<Due> {
    let recurs = |header: &Header<'_>| header.name == headers::CRON || header.name == headers::EVERY;
    let is_unknown = listed.due == Due::LAST && headers.iter().any(recurs);
    if is_unknown { None } else { Some(listed.due) }
}

fn write(text: &mut Vec<u8>, listed: &Listed, topics: &[String]) {
    let parts = listed.parts();
    let due = due(listed, &parts.headers);
    let schedule = Schedule {
        id: String::from_utf8_lossy(parts.key),
        id_base64: base64_unless_text(parts.key),
        epoch: due.map(Due::epoch_s),
        next: due.map(Due::epoch_ms),
        occurrence: listed.occurrence,
        timestamp: listed.timestamp.0.div_euclid(1000),
        topic: topics.get(usize::from(listed.partition.topic)).map_or("", String::as_str),
        partition: listed.partition.number,
        offset: listed.offset,
        target_topic: &listed.target,
        target_key: parts.target_key.map(String::from_utf8_lossy),
        target_key_base64: parts.target_key.and_then(base64_unless_text),
        value: BASE64_STANDARD.encode(parts.value),
        parked: listed.parked.map(ParkedFor::code),
        warning: due.and_then(|due| far_ahead(due.epoch_s(), listed.timestamp)),
        written: Written(&parts.headers),
    };
    // Writing to memory fails only for maps whose keys are not text, and there are none.
    let _ = serde_json::to_writer(text, &schedule);
}

/// Returns bytes that are not UTF-8 in base64.
pub(super) fn base64_unless_text(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes).is_err().then(|| BASE64_STANDARD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::io::{Millis, TopicPartition};
    use crate::core::payload::Parts;
    use crate::core::reason::Reason;

    const DUE_MS: u64 = 1_607_918_400_000;

    fn text(parts: &Parts<'_>, due_ms: u64, occurrence: Option<u64>, parked: Option<ParkedFor>) -> String {
        let partition = TopicPartition { topic: 0, number: 2 };
        let timestamp = Millis(1_607_918_336_999);
        let due = Due::from_epoch_ms(due_ms).expect("it fits");
        let listed = Listed::new(partition, 7, due, timestamp, "videos".into(), parts, parked).occurrence(occurrence);
        String::from_utf8(list(&[listed], &["schedules".into()])).expect("UTF-8")
    }

    fn parsed(text: &str) -> serde_json::Value {
        serde_json::from_str::<serde_json::Value>(text).expect("JSON")[0].clone()
    }

    /// Returns the JSON of a schedule with these headers beside one of its user's.
    fn with_headers(headers: &[(&str, &[u8])], due_ms: u64, occurrence: Option<u64>) -> String {
        let mut all = vec![Header { name: b"trace", value: Some(b"7") }];
        all.extend(headers.iter().map(|(name, value)| Header { name: name.as_bytes(), value: Some(*value) }));
        let parts = Parts { key: b"k", headers: all, ..Parts::default() };
        text(&parts, due_ms, occurrence, None)
    }

    #[test]
    fn a_schedule_in_json() {
        let parts = Parts { key: b"vid1-online", target_key: Some(b"vid1"), value: b"video 1", ..Parts::default() };
        assert_eq!(
            parsed(&text(&parts, DUE_MS, None, None)),
            serde_json::json!({
                "id": "vid1-online", "epoch": 1_607_918_400, "next": DUE_MS, "timestamp": 1_607_918_336,
                "topic": "schedules", "partition": 2, "offset": 7, "target-topic": "videos", "target-key": "vid1",
                "value": "dmlkZW8gMQ==",
            })
        );
    }

    #[test]
    fn bytes_that_are_not_text_come_in_base64_too() {
        let parts = Parts { key: b"\xff", ..Parts::default() };
        let json = parsed(&text(&parts, DUE_MS, None, Some(ParkedFor::Reason(Reason::UnknownTarget))));
        assert_eq!(json["id"], "\u{fffd}");
        assert_eq!(json["id-base64"], "/w==");
        assert_eq!(json["target-key"], serde_json::Value::Null);
        assert_eq!(json["parked"], "unknown-target");
    }

    #[test]
    fn headers_that_say_when_are_fields() {
        let headers: [(&str, &[u8]); 6] = [
            ("scheduler-cron", b"0 9 * * 1-5"),
            ("scheduler-timezone", b"Europe/Paris"),
            ("scheduler-jitter", b"\"30s\"\n"),
            ("scheduler-misfire", b""),
            ("scheduler-except", b"\xff"),
            ("scheduler-done", b"3"),
        ];
        let json = parsed(&with_headers(&headers, DUE_MS + 250, Some(4)));
        assert_eq!((&json["epoch"], &json["next"]), (&(DUE_MS / 1000).into(), &(DUE_MS + 250).into()));
        assert_eq!((&json["occurrence"], &json["done"]), (&4.into(), &"3".into()));
        assert_eq!((&json["cron"], &json["timezone"]), (&"0 9 * * 1-5".into(), &"Europe/Paris".into()));
        assert_eq!((&json["jitter"], &json["except"]), (&"\"30s\"\n".into(), &"\u{fffd}".into()));
        let fields = json.as_object().expect("an object");
        assert!(!fields.contains_key("misfire") && !fields.contains_key("trace"), "{json}");
    }

    #[test]
    fn no_field_is_there_twice() {
        let headers: [(&str, &[u8]); 5] = [
            ("scheduler-epoch", b"0001607918400"),
            ("scheduler-next", b"1"),
            ("scheduler-jitter", b"1s"),
            ("scheduler-jitter", b"1s"),
            ("scheduler-expires", b"10m"),
        ];
        let text = with_headers(&headers, DUE_MS + 1, None);
        for field in ["\"epoch\":1607918400,", "\"next\":1607918400001,", "\"jitter\":\"1s\"", "\"expires\":\"10m\""] {
            assert_eq!(text.matches(field).count(), 1, "{field} in {text}");
        }
        for name in ["\"epoch\":", "\"next\":", "\"jitter\":"] {
            assert_eq!(text.matches(name).count(), 1, "{name} in {text}");
        }
    }

    #[test]
    fn a_first_date_that_is_not_known_yet_is_null() {
        let json = parsed(&with_headers(&[("scheduler-every", b"10m")], Due::LAST.epoch_ms(), None));
        assert_eq!((&json["epoch"], &json["next"]), (&serde_json::Value::Null, &serde_json::Value::Null));
        assert_eq!((&json["every"], json.get("warning")), (&"10m".into(), None));
        // One that fires once may really be due then.
        let json = parsed(&with_headers(&[("scheduler-epoch-ms", b"9223372036854775807")], i64::MAX as u64, None));
        assert_eq!(json["next"], i64::MAX);
        assert!(json["warning"].is_string());
    }
}
