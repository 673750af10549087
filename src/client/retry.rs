//! Retries a record that a consumer could not process, with growing delays, until the strategy gives it up.
//!
//! A consumer that fails to process a record produces the schedule that [`Retry::after_failure`] builds to a schedules
//! topic, and continues with the next record. After the delay the engine produces the record to its topic again, with
//! its key, value and headers, and two headers that count:
//!
//! | header | meaning |
//! |---|---|
//! | `retry-attempt` | the number of this retry, from 1 |
//! | `retry-original-timestamp` | the timestamp of the original record, in milliseconds since 1970 |
//!
//! ```
//! use kafka_scheduler::client::{Moment, Record, RecordPosition};
//! use kafka_scheduler::client::retry::{Next, Retry};
//!
//! let retry = Retry::default();
//! // A record that a consumer has failed to process, and its position.
//! let failed = Record { timestamp_ms: Some(1_607_918_336_000), ..Record::new("customer-3", "pay") };
//! let position = RecordPosition { topic: "payments", partition: 0, offset: 41 };
//! match retry.after_failure(&failed, position)? {
//!     Next::Again { record, attempt, delay } => {
//!         assert_eq!((attempt, delay.as_secs()), (1, 5));
//!         assert_eq!(record.header("retry-attempt"), Some(&b"1"[..]));
//!         assert_eq!(record.header("retry-original-timestamp"), Some(&b"1607918336000"[..]));
//!         // Produce it to the schedules topic.
//!     }
//!     Next::Exhausted { attempts, .. } => println!("given up after {attempts} attempts"),
//!     _ => unreachable!("this version has no other"),
//! }
//! # Ok::<(), kafka_scheduler::client::retry::RetryError>(())
//! ```
//!
//! The schedule's key is the position of the failed record: `retry.payments.0.41`. A consumer that crashes after it has
//! produced the schedule and before it has committed its offset produces the same schedule again, which replaces the
//! first one unless that has fired.
//!
//! The key does not contain the consumer group, and every group that reads the topic receives the retry: groups that
//! fail on the same record share one retry, at the time of the group that failed last.
//!
//! A [`Strategy`] chooses the delays.

mod strategy;

use std::fmt;
use std::time::Duration;

use super::{Delay, Header, Moment, Record, RecordPosition, Schedule, ScheduleError};
pub use strategy::{Capped, Constant, Exponential, Jittered, Limited, Strategy};

/// The header that counts the retries of a record, in decimal.
pub const ATTEMPT_HEADER: &str = "retry-attempt";

/// The header with the timestamp of the record that failed first, in decimal milliseconds since 1970.
pub const ORIGINAL_TIMESTAMP_HEADER: &str = "retry-original-timestamp";

/// The next step for a record that could not be processed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Next {
    /// Produce this to a schedules topic.
    Again {
        /// The schedule: it produces the failed record to its topic again, when it is due.
        record: Record,
        /// The number of this retry, from 1.
        attempt: u32,
        /// The delay.
        delay: Duration,
    },
    /// The strategy gives the record up.
    Exhausted {
        /// Number of retries that have been made; 0 if the strategy allows none.
        attempts: u32,
        /// The timestamp of the original record, if it is known.
        since: Option<Moment>,
    },
}

/// Why a failed record cannot be scheduled again.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RetryError {
    /// `retry-attempt` is not a number. Counting from 1 again could retry for ever.
    BadAttempt(Vec<u8>),
    /// The schedule would be invalid, for example because the record has no value.
    Schedule(ScheduleError),
}

impl fmt::Display for RetryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadAttempt(value) => {
                write!(f, "the header {ATTEMPT_HEADER} is \"{}\", but must be a decimal number", value.escape_ascii())
            }
            Self::Schedule(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for RetryError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            // Its message is this error's own.
            Self::Schedule(error) => error.source(),
            Self::BadAttempt(_) => None,
        }
    }
}

impl From<ScheduleError> for RetryError {
    fn from(error: ScheduleError) -> Self {
        Self::Schedule(error)
    }
}

/// Builds the schedules that bring failed records back, with the delays of a [`Strategy`].
#[derive(Debug)]
pub struct Retry {
    strategy: Box<dyn Strategy + Send + Sync>,
}

/// 50 retries. The first delay is 5 s, and each is twice the one before, up to 1 h.
impl Default for Retry {
    fn default() -> Self {
        Self::new(Exponential::default().capped(Duration::from_secs(3_600)).limited(50))
    }
}

impl Retry {
    /// Uses a strategy of your own.
    pub fn new(strategy: impl Strategy + Send + Sync + 'static) -> Self {
        Self { strategy: Box::new(strategy) }
    }

    /// Returns the next step for a record that has just failed.
    ///
    /// # Errors
    /// If the record cannot be scheduled.
    pub fn after_failure(&self, failed: &Record, position: RecordPosition<'_>) -> Result<Next, RetryError> {
        self.after_failure_at(failed, position, Moment::now())
    }

    /// Returns the next step by a clock of your own.
    ///
    /// # Errors
    /// If the record cannot be scheduled.
    pub fn after_failure_at(
        &self,
        failed: &Record,
        position: RecordPosition<'_>,
        now: Moment,
    ) -> Result<Next, RetryError> {
        let attempts = attempts(failed)?;
        let original_ms = original_timestamp_ms(failed);
        let exhausted = Next::Exhausted { attempts, since: original_ms.map(Moment::from_epoch_ms) };
        let Some(attempt) = attempts.checked_add(1) else { return Ok(exhausted) };
        let Some(delay) = self.strategy.delay(attempt) else { return Ok(exhausted) };
        let mut message = failed.clone();
        message.headers.retain(|header| header.name != ATTEMPT_HEADER && header.name != ORIGINAL_TIMESTAMP_HEADER);
        message.headers.push(Header::new(ATTEMPT_HEADER, attempt.to_string()));
        let original_ms = original_ms.unwrap_or(now.epoch_ms());
        message.headers.push(Header::new(ORIGINAL_TIMESTAMP_HEADER, original_ms.to_string()));
        let key = format!("retry.{}.{}.{}", position.topic, position.partition, position.offset);
        let record = Schedule::wrap(key, message).to(position.topic).after(Delay::from(delay)).build_at(now)?;
        Ok(Next::Again { record, attempt, delay })
    }
}

/// Returns how often a record has been retried: 0 if it has no `retry-attempt`.
///
/// # Errors
/// If the header is not a number.
pub fn attempts(record: &Record) -> Result<u32, RetryError> {
    let Some(value) = record.header(ATTEMPT_HEADER) else { return Ok(0) };
    let number = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
    number.ok_or_else(|| RetryError::BadAttempt(value.to_vec()))
}

/// Returns the header's value, or else the record's own timestamp.
fn original_timestamp_ms(record: &Record) -> Option<i64> {
    let header =
        record.header(ORIGINAL_TIMESTAMP_HEADER).and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
    header.or(record.timestamp_ms)
}
