//! Reads records that the scheduler has produced.

use super::retry::ATTEMPT_HEADER;
use super::{Record, name};
use crate::core::headers;

/// A schedule has one of these.
const FORMS: [&[u8]; 6] =
    [headers::EPOCH, headers::EPOCH_MS, headers::DELAY, headers::AT, headers::EVERY, headers::CRON];

/// The schedule of a triggered record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Triggered<'a> {
    /// The key that named the schedule, from `scheduler-key`.
    pub key: &'a [u8],
    /// The topic that the schedule was in, from `scheduler-topic`.
    pub topic: &'a str,
    /// The schedule record's own timestamp, in seconds since 1970.
    pub timestamp_s: i64,
    due_ms: Option<i64>,
    id: Option<&'a str>,
    occurrence: Option<u64>,
    missed: u64,
}

impl<'a> Triggered<'a> {
    /// Reads a record of a target or history topic. Returns `None` if the scheduler did not produce it:
    /// `scheduler-key`, `scheduler-topic` or `scheduler-timestamp` is missing or malformed.
    #[must_use]
    pub fn from_record(record: &'a Record) -> Option<Self> {
        let text = |bytes| std::str::from_utf8(bytes).ok();
        let optional = |header| record.header(name(header)).and_then(text);
        Some(Self {
            key: record.header(name(headers::KEY))?,
            topic: text(record.header(name(headers::TOPIC))?)?,
            timestamp_s: text(record.header(name(headers::TIMESTAMP))?)?.parse().ok()?,
            due_ms: optional(headers::DUE).and_then(|ms| ms.parse().ok()),
            id: optional(headers::ID),
            occurrence: optional(headers::OCCURRENCE).and_then(|number| number.parse().ok()),
            missed: optional(headers::MISSED).and_then(|number| number.parse().ok()).unwrap_or(0),
        })
    }

    /// Returns when it was due, without jitter, in milliseconds since 1970. `None` if the schedule had whole seconds
    /// (`scheduler-epoch`) and no options.
    #[must_use]
    pub const fn due_ms(&self) -> Option<i64> {
        self.due_ms
    }

    /// Returns the partition and the offset of the schedule's record, as `partition-offset`. It is the same for all
    /// occurrences. `None` as for [`due_ms`](Self::due_ms).
    #[must_use]
    pub const fn id(&self) -> Option<&'a str> {
        self.id
    }

    /// Returns the number of the occurrence, from 1. `None` if the schedule fires once.
    #[must_use]
    pub const fn occurrence(&self) -> Option<u64> {
        self.occurrence
    }

    /// Returns how many missed occurrences are part of this one.
    #[must_use]
    pub const fn missed(&self) -> u64 {
        self.missed
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
        && FORMS.iter().any(|form| record.header(name(form)).is_some())
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
