//! `/schedules`: all pending schedules as one JSON list, written while it is read.

use std::io::{self, Read};
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value};

use crate::core::Listed;
use crate::core::io::Cursor;
use crate::core::payload::Parts;
use crate::handle::{Handle, Page, Unanswered};

/// Entries a page: it is all of the list that is held at once.
const PAGE: usize = 100;

/// Reads as the JSON list, page by page.
pub struct Listing {
    handle: Handle,
    topics: Arc<[String]>,
    text: Vec<u8>,
    read: usize,
    next: Option<Cursor>,
    any: bool,
}

impl Listing {
    /// Takes the first page, so that a busy engine can still be answered with an error.
    pub fn start(handle: Handle, topics: Arc<[String]>) -> Result<Self, Unanswered> {
        let page = handle.page(Cursor::default(), PAGE)?;
        let mut listing = Self { handle, topics, text: vec![b'['], read: 0, next: None, any: false };
        listing.write(page);
        Ok(listing)
    }

    fn write(&mut self, page: Page) {
        for entry in &page.entries {
            if std::mem::replace(&mut self.any, true) {
                self.text.extend_from_slice(b",\n");
            }
            self.text.extend_from_slice(schedule(entry, &self.topics).to_string().as_bytes());
        }
        self.next = page.next;
        if self.next.is_none() {
            self.text.extend_from_slice(b"]\n");
        }
    }
}

impl Read for Listing {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.read == self.text.len()
            && let Some(cursor) = self.next
        {
            self.text.clear();
            self.read = 0;
            // The list then ends without its bracket, which no reader takes for the whole.
            let page = self.handle.page(cursor, PAGE).map_err(io::Error::other)?;
            self.write(page);
        }
        let left = &self.text[self.read..];
        let count = left.len().min(into.len());
        into[..count].copy_from_slice(&left[..count]);
        self.read += count;
        Ok(count)
    }
}

fn schedule(entry: &Listed, topics: &[String]) -> Value {
    let parts = Parts::unpack(&entry.packed);
    let mut map = Map::new();
    text(&mut map, "id", parts.key);
    map.insert("epoch".into(), entry.due.into());
    map.insert("timestamp".into(), entry.timestamp.0.div_euclid(1000).into());
    map.insert("topic".into(), topics.get(usize::from(entry.partition.topic)).cloned().into());
    map.insert("target-topic".into(), entry.target.as_ref().into());
    match parts.target_key {
        Some(key) => text(&mut map, "target-key", key),
        None => drop(map.insert("target-key".into(), Value::Null)),
    }
    map.insert("value".into(), BASE64_STANDARD.encode(parts.value).into());
    Value::Object(map)
}

/// Bytes as text and, where that loses something, in base64 as well.
fn text(map: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    map.insert(name.into(), String::from_utf8_lossy(bytes).into());
    if std::str::from_utf8(bytes).is_err() {
        map.insert(format!("{name}-base64"), BASE64_STANDARD.encode(bytes).into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::io::{Millis, Partition};

    fn listed(key: &[u8], target_key: Option<&[u8]>) -> Listed {
        let mut packed = Vec::new();
        Parts { key, target_key, headers: Vec::new(), value: b"video 1" }.write(&mut packed);
        let partition = Partition { topic: 0, number: 2 };
        let timestamp = Millis(1_607_918_336_999);
        Listed { partition, offset: 7, due: 1_607_918_400, timestamp, target: "videos".into(), packed }
    }

    #[test]
    fn a_schedule_in_json() {
        let json = schedule(&listed(b"vid1-online", Some(b"vid1")), &["schedules".into()]);
        assert_eq!(
            json,
            serde_json::json!({
                "id": "vid1-online", "epoch": 1_607_918_400, "timestamp": 1_607_918_336, "topic": "schedules",
                "target-topic": "videos", "target-key": "vid1", "value": "dmlkZW8gMQ==",
            })
        );
    }

    #[test]
    fn what_is_not_text_comes_in_base64_as_well() {
        let json = schedule(&listed(b"\xff", None), &["schedules".into()]);
        assert_eq!(json["id"], "\u{fffd}");
        assert_eq!(json["id-base64"], "/w==");
        assert_eq!(json["target-key"], Value::Null);
    }
}
