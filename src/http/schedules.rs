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
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;

use super::ask::{self, CHUNK_MAX};
use super::connection::Connection;
use super::query::{PageQuery, show_cursor};
use crate::core::io::Cursor;
use crate::core::listing::{Filter, Listed, Page, ParkedFor};
use crate::core::schedule::far_ahead;
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
    epoch: u64,
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
}

fn write(text: &mut Vec<u8>, listed: &Listed, topics: &[String]) {
    let parts = listed.parts();
    let schedule = Schedule {
        id: String::from_utf8_lossy(parts.key),
        id_base64: base64_unless_text(parts.key),
        epoch: listed.due.epoch_s(),
        timestamp: listed.timestamp.0.div_euclid(1000),
        topic: topics.get(usize::from(listed.partition.topic)).map_or("", String::as_str),
        partition: listed.partition.number,
        offset: listed.offset,
        target_topic: &listed.target,
        target_key: parts.target_key.map(String::from_utf8_lossy),
        target_key_base64: parts.target_key.and_then(base64_unless_text),
        value: BASE64_STANDARD.encode(parts.value),
        parked: listed.parked.map(ParkedFor::code),
        warning: far_ahead(listed.due.epoch_s(), listed.timestamp),
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
    use crate::core::due::Due;
    use crate::core::io::{Millis, TopicPartition};
    use crate::core::payload::Parts;
    use crate::core::reason::Reason;

    fn json(key: &[u8], target_key: Option<&[u8]>, parked: Option<ParkedFor>) -> serde_json::Value {
        let parts = Parts { key, target_key, headers: Vec::new(), value: b"video 1" };
        let partition = TopicPartition { topic: 0, number: 2 };
        let timestamp = Millis(1_607_918_336_999);
        let listed = Listed::new(
            partition,
            7,
            Due::from_epoch_s(1_607_918_400).expect("a second"),
            timestamp,
            "videos".into(),
            &parts,
            parked,
        );
        let all: serde_json::Value = serde_json::from_slice(&list(&[listed], &["schedules".into()])).expect("JSON");
        all[0].clone()
    }

    #[test]
    fn a_schedule_in_json() {
        assert_eq!(
            json(b"vid1-online", Some(b"vid1"), None),
            serde_json::json!({
                "id": "vid1-online", "epoch": 1_607_918_400, "timestamp": 1_607_918_336, "topic": "schedules",
                "partition": 2, "offset": 7, "target-topic": "videos", "target-key": "vid1", "value": "dmlkZW8gMQ==",
            })
        );
    }

    #[test]
    fn bytes_that_are_not_text_come_in_base64_too() {
        let json = json(b"\xff", None, Some(ParkedFor::Reason(Reason::UnknownTarget)));
        assert_eq!(json["id"], "\u{fffd}");
        assert_eq!(json["id-base64"], "/w==");
        assert_eq!(json["target-key"], serde_json::Value::Null);
        assert_eq!(json["parked"], "unknown-target");
    }
}
