//! Reading records that the scheduler has to do with.

use super::retry::ATTEMPT;
use super::{Record, name};
use crate::core::headers;

/// What a triggered record says of the schedule that it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Triggered<'a> {
    /// The schedule's key.
    pub key: &'a [u8],
    /// The schedules topic.
    pub topic: &'a str,
    /// The schedule record's own timestamp, in seconds since 1970.
    pub timestamp_s: i64,
}

impl<'a> Triggered<'a> {
    /// Reads a record of a target or a history topic. `None` if it did not come from the scheduler: one of
    /// `scheduler-key`, `scheduler-topic` and `scheduler-timestamp` is missing or not what the scheduler writes.
    #[must_use]
    pub fn of(record: &'a Record) -> Option<Self> {
        let text = |bytes| std::str::from_utf8(bytes).ok();
        Some(Self {
            key: record.header(name(headers::KEY))?,
            topic: text(record.header(name(headers::TOPIC))?)?,
            timestamp_s: text(record.header(name(headers::TIMESTAMP))?)?.parse().ok()?,
        })
    }
}

/// Whether the scheduler has produced this record to a target topic or to the history.
///
/// ```
/// use kafka_scheduler::client::{Record, is_triggered};
///
/// assert!(!is_triggered(&Record::new("k", "v")));
/// ```
#[must_use]
pub fn is_triggered(record: &Record) -> bool {
    Triggered::of(record).is_some()
}

/// Whether this record asks for something to be scheduled. A history record does so too: it repeats the request.
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

/// Whether this record comes back because it failed before; see [`retry`](super::retry).
///
/// ```
/// use kafka_scheduler::client::{Record, is_retried};
///
/// assert!(is_retried(&Record::new("k", "v").with("retry-attempt", "1")));
/// ```
#[must_use]
pub fn is_retried(record: &Record) -> bool {
    record.header(ATTEMPT).is_some()
}
