//! Bringing back a message that could not be processed, later and later, until it is given up.
//!
//! A consumer that fails on a record produces what [`Retry::after_failure`] makes of it to a schedules topic, and goes
//! on with the next record. When the delay is over, the record comes back to the topic it was read from with its key,
//! value and headers, and two headers that count:
//!
//! | header | meaning |
//! |---|---|
//! | `retry-attempt` | which retry this is: 1 when the record comes back for the first time |
//! | `retry-original-timestamp` | when the record was produced first, in milliseconds since 1970 |
//!
//! ```
//! use kafka_scheduler::client::{Moment, Record};
//! use kafka_scheduler::client::retry::{Next, Place, Retry};
//!
//! let retry = Retry::default();
//! // What a consumer has failed on, and where it lay.
//! let failed = Record { timestamp_ms: Some(1_607_918_336_000), ..Record::new("customer-3", "pay") };
//! let place = Place { topic: "payments", partition: 0, offset: 41 };
//! match retry.after_failure(&failed, place)? {
//!     Next::Again { record, attempt, delay } => {
//!         assert_eq!((attempt, delay.as_secs()), (1, 5));
//!         assert_eq!(record.header("retry-attempt"), Some(&b"1"[..]));
//!         assert_eq!(record.header("retry-original-timestamp"), Some(&b"1607918336000"[..]));
//!         // Produce it to the schedules topic.
//!     }
//!     Next::Exhausted { attempts, .. } => println!("given up after {attempts} attempts"),
//! }
//! # Ok::<(), kafka_scheduler::client::retry::RetryError>(())
//! ```
//!
//! The schedule's key is made of the place where the failed record lay: `retry.payments.0.41`. A consumer that crashes
//! after it has produced the schedule and before it has committed its offset makes the same schedule again, which
//! replaces the first one as long as that has not fired.
//!
//! The key does not name the consumer group, and the record comes back for every group that reads its topic: groups that
//! fail on the same record share one retry, at the time of the one that failed last.
//!
//! How long to wait is up to a [`Strategy`].

mod strategy;

use std::fmt;
use std::time::Duration;

use super::{Delay, Header, Moment, Record, Schedule, ScheduleError};
pub use strategy::{Capped, Constant, Exponential, Jittered, Limited, Strategy};

/// The header that counts the retries of a record, in decimal.
pub const ATTEMPT: &str = "retry-attempt";

/// The header with the timestamp of the record that failed first, in decimal milliseconds since 1970.
pub const ORIGINAL_TIMESTAMP: &str = "retry-original-timestamp";

/// Where a record lay that could not be processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// The topic, to which the record comes back.
    pub topic: &'a str,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

/// What becomes of a record that could not be processed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Produce this to a schedules topic.
    Again {
        /// The schedule.
        record: Record,
        /// Which retry this is, from 1 on.
        attempt: u32,
        /// How long until the record comes back, before that is rounded up to a whole second.
        delay: Duration,
    },
    /// The strategy gives the record up.
    Exhausted {
        /// Retries that have been made.
        attempts: u32,
        /// When the record was produced first, where that is known.
        since: Option<Moment>,
    },
}

/// Why no schedule can be made of a failed record.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RetryError {
    /// `retry-attempt` is not a number. Starting again from 1 could go on for ever.
    BadAttempt(Vec<u8>),
    /// The schedule would not be legal; a record without a value cannot be scheduled, for example.
    Schedule(ScheduleError),
}

impl fmt::Display for RetryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadAttempt(value) => {
                write!(f, "the header {ATTEMPT} is \"{}\", but must be a decimal number", value.escape_ascii())
            }
            Self::Schedule(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for RetryError {}

impl From<ScheduleError> for RetryError {
    fn from(error: ScheduleError) -> Self {
        Self::Schedule(error)
    }
}

/// Makes schedules of failed records.
#[derive(Debug)]
pub struct Retry {
    strategy: Box<dyn Strategy + Send + Sync>,
}

/// 50 retries, after 5 s and then twice as long each time, at most 1 h.
impl Default for Retry {
    fn default() -> Self {
        Self::new(Exponential::default().capped(Duration::from_secs(3_600)).limited(50))
    }
}

impl Retry {
    /// With a strategy of your own.
    pub fn new(strategy: impl Strategy + Send + Sync + 'static) -> Self {
        Self { strategy: Box::new(strategy) }
    }

    /// What to do with a record that has just failed.
    ///
    /// # Errors
    /// When no schedule can be made of the record.
    pub fn after_failure(&self, failed: &Record, place: Place<'_>) -> Result<Next, RetryError> {
        self.after_failure_at(failed, place, Moment::now())
    }

    /// The same by a clock of your own.
    ///
    /// # Errors
    /// When no schedule can be made of the record.
    pub fn after_failure_at(&self, failed: &Record, place: Place<'_>, now: Moment) -> Result<Next, RetryError> {
        let attempts = attempts(failed)?;
        let original_ms = original_timestamp_ms(failed);
        let exhausted = Next::Exhausted { attempts, since: original_ms.map(Moment::from_epoch_ms) };
        let Some(attempt) = attempts.checked_add(1) else { return Ok(exhausted) };
        let Some(delay) = self.strategy.delay(attempt) else { return Ok(exhausted) };
        let mut message = failed.clone();
        message.headers.retain(|header| header.name != ATTEMPT && header.name != ORIGINAL_TIMESTAMP);
        message.headers.push(Header::new(ATTEMPT, attempt.to_string()));
        let original_ms = original_ms.unwrap_or(now.epoch_ms());
        message.headers.push(Header::new(ORIGINAL_TIMESTAMP, original_ms.to_string()));
        let key = format!("retry.{}.{}.{}", place.topic, place.partition, place.offset);
        let record = Schedule::wrap(key, message).to(place.topic).after(Delay::from(delay)).build_at(now)?;
        Ok(Next::Again { record, attempt, delay })
    }
}

/// Retries that a record has behind it: 0 if it carries no count.
///
/// # Errors
/// When the header is not a number.
pub fn attempts(record: &Record) -> Result<u32, RetryError> {
    let Some(value) = record.header(ATTEMPT) else { return Ok(0) };
    let number = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
    number.ok_or_else(|| RetryError::BadAttempt(value.to_vec()))
}

/// When the record was produced first: what its header says or, where it has none, its own timestamp.
fn original_timestamp_ms(record: &Record) -> Option<i64> {
    let header = record.header(ORIGINAL_TIMESTAMP).and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
    header.or(record.timestamp_ms)
}
