//! Converts records to and from rdkafka's types.

use rdkafka::message::{BorrowedMessage, Message, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{BaseRecord, FutureRecord};

use super::{Header, Record, RecordPosition};
use crate::kafka::ffi;

impl Record {
    /// Returns the headers as the engine's own producers take them.
    #[cfg(feature = "cli")]
    pub(crate) fn raw_headers(&self) -> Vec<crate::core::io::Header<'_>> {
        self.headers
            .iter()
            .map(|header| crate::core::io::Header { name: header.name.as_bytes(), value: header.value.as_deref() })
            .collect()
    }

    /// Returns the headers as rdkafka's type.
    ///
    /// ```
    /// use kafka_scheduler::client::Record;
    /// use rdkafka::message::Headers;
    ///
    /// let headers = Record::new("k", "v").with_header("trace", "5f2a").to_owned_headers();
    /// assert_eq!(headers.get(0).value, Some(&b"5f2a"[..]));
    /// ```
    #[must_use]
    pub fn to_owned_headers(&self) -> OwnedHeaders {
        self.headers.iter().fold(OwnedHeaders::new_with_capacity(self.headers.len()), |all, header| {
            all.insert(rdkafka::message::Header { key: &header.name, value: header.value.as_deref() })
        })
    }

    /// Returns the record for a `BaseProducer` or `ThreadedProducer`.
    ///
    /// ```
    /// use kafka_scheduler::client::cancel;
    ///
    /// let record = cancel("reminder-17");
    /// let out = record.to_base_record("schedules").partition(2);
    /// assert_eq!((out.topic, out.key, out.payload), ("schedules", Some(&b"reminder-17"[..]), None));
    /// ```
    #[must_use]
    pub fn to_base_record<'a>(&'a self, topic: &'a str) -> BaseRecord<'a, [u8], [u8]> {
        let mut record = BaseRecord::to(topic);
        record.key = self.key.as_deref();
        record.payload = self.value.as_deref();
        record.timestamp = self.timestamp_ms;
        record.headers = (!self.headers.is_empty()).then(|| self.to_owned_headers());
        record
    }

    /// Returns the record for a `FutureProducer`.
    ///
    /// ```
    /// use std::time::Duration;
    /// use kafka_scheduler::client::Schedule;
    /// use rdkafka::message::Headers;
    ///
    /// let record = Schedule::new("k").to("t").value("v").after(Duration::from_secs(60)).build()?;
    /// let out = record.to_future_record("schedules");
    /// assert_eq!(out.headers.expect("a schedule has headers").get(1).key, "scheduler-target-topic");
    /// # Ok::<(), kafka_scheduler::client::ScheduleError>(())
    /// ```
    #[must_use]
    pub fn to_future_record<'a>(&'a self, topic: &'a str) -> FutureRecord<'a, [u8], [u8]> {
        let base = self.to_base_record(topic);
        let mut record = FutureRecord::to(topic);
        record.key = base.key;
        record.payload = base.payload;
        record.timestamp = base.timestamp;
        record.headers = base.headers;
        record
    }
}

/// Copies a message. Header names that are not UTF-8, at which rdkafka's own accessors panic, get replacement
/// characters.
///
/// ```
/// use kafka_scheduler::client::Record;
/// use rdkafka::Timestamp;
/// use rdkafka::message::OwnedMessage;
///
/// let headers = Record::default().with_header("trace", "5f2a").to_owned_headers();
/// let (key, value) = (b"k".to_vec(), b"v".to_vec());
/// let message =
///     OwnedMessage::new(Some(value), Some(key), "t".into(), Timestamp::CreateTime(7), 0, 41, Some(headers));
/// let record = Record::from(&message);
/// assert_eq!(record, Record { timestamp_ms: Some(7), ..Record::new("k", "v").with_header("trace", "5f2a") });
/// ```
impl From<&OwnedMessage> for Record {
    fn from(message: &OwnedMessage) -> Self {
        record(message, message.headers().map(|headers| headers.as_borrowed()))
    }
}

/// Copies a message. Header names that are not UTF-8, at which rdkafka's own accessors panic, get replacement
/// characters.
impl From<&BorrowedMessage<'_>> for Record {
    fn from(message: &BorrowedMessage<'_>) -> Self {
        record(message, message.headers())
    }
}

impl<'a> RecordPosition<'a> {
    /// Returns the position of a message.
    pub fn from_message(message: &'a impl Message) -> Self {
        Self { topic: message.topic(), partition: message.partition(), offset: message.offset() }
    }
}

fn record(message: &impl Message, headers: Option<&rdkafka::message::BorrowedHeaders>) -> Record {
    let mut raw = Vec::new();
    if let Some(headers) = headers {
        ffi::headers(headers, &mut raw);
    }
    let header = |header: &crate::core::io::Header<'_>| Header {
        name: String::from_utf8_lossy(header.name).into_owned(),
        value: header.value.map(<[u8]>::to_vec),
    };
    Record {
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers: raw.iter().map(header).collect(),
        timestamp_ms: message.timestamp().to_millis(),
    }
}
