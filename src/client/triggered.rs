//! Reads records that the scheduler has produced.

use super::retry::ATTEMPT_HEADER;
use super::{Record, name};
use crate::core::headers;

/// The schedule of a triggered record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Triggered<'a> {
    /// The key that named the schedule, from `scheduler-key`.
    pub key: &'a [u8],
    /// The topic that the schedule was in, from `scheduler-topic`.
    pub topic: &'a str,
    /// The schedule record's own timestamp, in seconds since 1970.
    pub timestamp_s: i64,
}

impl<'a> Triggered<'a> {
    /// Reads a record of a target or history topic. Returns `None` if the scheduler did not produce it:
    /// `scheduler-key`, `scheduler-topic` or `scheduler-timestamp` is missing or malformed.
    #[must_use]
    pub fn from_record(record: &'a Record) -> Option<Self> {
        let text = |bytes| std::str::from_utf8(bytes).ok();
        Some(Self {
            key: record.header(name(headers::KEY))?,
            topic: text(record.header(name(headers::TOPIC))?)?,
            timestamp_s: text(record.header(name(headers::TIMESTAMP))?)?.parse().ok()?,
        })
    }
}

/// Returns whether the scheduler has produced this record to a target topic or the history.
///
/// ```
/// use kafka_scheduler::client::{Record, is_triggered};
///
/// assert!(!is_triggered(&Record::new("k", "v")));
/// ```
#[must_use]
pub fn is_triggered(record: &Record) -> bool {
    Triggered::from_record(record).is_some()
}

/// Returns whether this record is a schedule. A history record is one too, because it repeats the request headers.
///
/// ```
/// use std::time::Duration;
/// use kafka_scheduler::client::{Record, Schedule, is_schedule};
///
/// assert!(is_schedule(&Schedule::new("k").to("t").value("v").after(Duration::ZERO).build()?));
/// assert!(!is_schedule(&Record::new("k", "v")));
/// # Ok::<(), kafka_scheduler::client::ScheduleError>(())
/// ```
#[must_use]
pub fn is_schedule(record: &Record) -> bool {
    record.value.is_some()
        && record.header(name(headers::EPOCH)).is_some()
        && record.header(name(headers::TARGET_TOPIC)).is_some()
}

/// Returns whether this record is a retry of one that failed before; see [`retry`](super::retry).
///
/// ```
/// use kafka_scheduler::client::{Record, is_retried};
///
/// assert!(is_retried(&Record::new("k", "v").with_header("retry-attempt", "1")));
/// ```
#[must_use]
pub fn is_retried(record: &Record) -> bool {
    record.header(ATTEMPT_HEADER).is_some()
}
