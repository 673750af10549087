//! For programs that schedule: builds schedules, reads triggered records, and retries failed records with back-off.
//!
//! This module needs neither Kafka nor the engine: with `default-features = false` the crate depends on nothing but the
//! standard library (and on `jiff`, with the feature of that name). It builds and reads plain [`Record`]s, for any
//! Kafka client. With the feature `engine` they convert to and from rdkafka's types.
//!
//! # Schedule a message
//!
//! ```
//! use std::time::Duration;
//! use kafka_scheduler::client::Schedule;
//!
//! // The key names the schedule: the same key again replaces it.
//! let record = Schedule::new("reminder-17")
//!     .to("reminders")
//!     .target_key("order-3")
//!     .header("trace", "5f2a")
//!     .value("your cart is waiting")
//!     .after(Duration::from_secs(3_600))
//!     .build()?;
//! // Produce it to the schedules topic.
//! assert_eq!(record.key.as_deref(), Some(&b"reminder-17"[..]));
//! assert_eq!(record.header("scheduler-target-topic"), Some(&b"reminders"[..]));
//! # Ok::<(), kafka_scheduler::client::ScheduleError>(())
//! ```
//!
//! A schedule may also recur: see [`Schedule::cron`] and [`Schedule::every`].
//!
//! [`cancel`] builds the record that cancels it. Both must go to the partition of the schedule; a producer that always
//! hashes keys the same way ensures that.
//!
//! # Read triggered records
//!
//! ```
//! use kafka_scheduler::client::{Record, Triggered};
//!
//! # let record = Record::new("customer-3", "your cart is waiting").with_header("scheduler-key", "reminder-17")
//! #     .with_header("scheduler-topic", "schedules").with_header("scheduler-timestamp", "1607918336");
//! let triggered = Triggered::from_record(&record).expect("it came from the scheduler");
//! assert_eq!(triggered.key, b"reminder-17");
//! assert_eq!(triggered.topic, "schedules");
//! assert_eq!(triggered.timestamp_s, 1_607_918_336);
//! ```
//!
//! # Retry with back-off
//!
//! See [`retry`].

#[cfg(feature = "engine")]
mod adapter;
pub mod retry;
mod schedule;
mod time;
mod triggered;

pub use schedule::{Misfire, Schedule, ScheduleError};
pub use time::{Delay, Moment};
pub use triggered::{Triggered, is_retried, is_schedule, is_triggered};

/// The prefix of the scheduler's headers.
pub const HEADER_PREFIX: &str = "scheduler-";

/// A header as Kafka carries it. Names repeat, and order matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The name. Those of the scheduler begin with [`HEADER_PREFIX`].
    pub name: String,
    /// `None` is Kafka's null, which differs from empty.
    pub value: Option<Vec<u8>>,
}

impl Header {
    /// Builds a header with a value.
    pub fn new(name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        Self { name: name.into(), value: Some(value.into()) }
    }
}

/// A Kafka record without its position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// `None` is Kafka's null. A schedule must have a key.
    pub key: Option<Vec<u8>>,
    /// `None` is Kafka's null: a tombstone.
    pub value: Option<Vec<u8>>,
    /// Headers in the order in which they are produced, or were.
    pub headers: Vec<Header>,
    /// Milliseconds since 1970. `None` for a record to produce, which gets the time at which it is produced.
    pub timestamp_ms: Option<i64>,
}

impl Record {
    /// Builds a record with a key and a value.
    pub fn new(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        Self { key: Some(key.into()), value: Some(value.into()), ..Self::default() }
    }

    /// Adds a header at the end. It replaces none: names may repeat.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push(Header::new(name, value));
        self
    }

    /// Returns the value of the first header of that name; `None` if there is no such header or its value is null.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|header| header.name == name)?.value.as_deref()
    }
}

/// The position of a record: [`retry`] names the schedule of a failed record after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordPosition<'a> {
    /// The topic that holds the record.
    pub topic: &'a str,
    /// The partition of `topic`, from 0.
    pub partition: i32,
    /// The offset in the partition, from 0.
    pub offset: i64,
}

/// Builds the record that cancels the schedule of this key. Produce it to the partition of the schedule.
///
/// ```
/// let record = kafka_scheduler::client::cancel("reminder-17");
/// assert_eq!((record.key.as_deref(), record.value), (Some(&b"reminder-17"[..]), None));
/// ```
pub fn cancel(key: impl Into<Vec<u8>>) -> Record {
    Record { key: Some(key.into()), ..Record::default() }
}

/// Returns a header's name as text.
const fn name(bytes: &'static [u8]) -> &'static str {
    match std::str::from_utf8(bytes) {
        Ok(name) => name,
        Err(_) => panic!("the names of our headers are ASCII"),
    }
}
