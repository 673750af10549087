//! Builds schedules.

use std::fmt;

use super::{Delay, HEADER_PREFIX, Header, Moment, Record, name};
use crate::core::due::EPOCH_S_MAX;
use crate::core::headers;
use crate::core::origin::RESERVED_PREFIX;
use crate::core::schedule::is_topic;

/// A builder of schedules.
///
/// ```
/// use kafka_scheduler::client::{Moment, Schedule, ScheduleError};
///
/// let record = Schedule::new("k").to("t").value("v").at(Moment::from_epoch_s(4_102_444_800)).build()?;
/// assert_eq!(record.header("scheduler-epoch"), Some(&b"4102444800"[..]));
///
/// // Each mistake has an error of its own.
/// let begun = || Schedule::new("k").to("t").value("v");
/// assert_eq!(Schedule::new("").to("t").value("v").build(), Err(ScheduleError::NoKey));
/// assert_eq!(Schedule::new("k").value("v").build(), Err(ScheduleError::NoTarget));
/// assert!(matches!(begun().at(Moment::from_epoch_s(0)).build(), Err(ScheduleError::Past { due_s: 0, .. })));
/// # Ok::<(), ScheduleError>(())
/// ```
///
/// Dates may be [`std::time::SystemTime`] or, with the feature `jiff`, `jiff::Timestamp` and `jiff::Zoned`; delays
/// [`std::time::Duration`] or `jiff::SignedDuration`:
///
/// ```
/// # #[cfg(feature = "jiff")] {
/// use jiff::{SignedDuration, Timestamp};
/// use kafka_scheduler::client::Schedule;
///
/// let at: Timestamp = "2100-01-01T00:00:00Z".parse()?;
/// let by_date = Schedule::new("k").to("t").value("v").at(at).build()?;
/// assert_eq!(by_date.header("scheduler-epoch"), Some(&b"4102444800"[..]));
/// Schedule::new("k").to("t").value("v").after(SignedDuration::from_mins(10)).build()?;
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "only `build` returns a record"]
pub struct Schedule {
    key: Vec<u8>,
    target: Option<String>,
    target_key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<Header>,
    due: Option<Due>,
}

#[derive(Clone, Copy, Debug)]
enum Due {
    At(Moment),
    After(Delay),
}

/// Why a schedule cannot be built.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ScheduleError {
    /// The key is empty. It names the schedule, so it can be replaced or cancelled.
    NoKey,
    /// The key begins with the prefix that is reserved for the engine.
    ReservedKey,
    /// There is no target topic, or its name is empty.
    NoTarget,
    /// The target is not a valid topic name.
    BadTarget(String),
    /// There is no value, and null would cancel the key. An empty value is allowed.
    NoValue,
    /// There is neither a date nor a delay.
    NoDate,
    /// The date has passed. Use a delay of 0 to fire at once.
    Past {
        /// The date, in seconds since 1970.
        due_s: i64,
        /// The clock, in milliseconds since 1970.
        now_ms: i64,
    },
    /// The date is too late for the engine: its milliseconds must fit into 63 bits.
    TooFar,
    /// A header's name is reserved for the scheduler.
    ReservedHeader(String),
}

impl fmt::Display for ScheduleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoKey => f.write_str("the schedule has no key: set one that names it"),
            Self::ReservedKey => f.write_str("the key begins with \"__scheduler.\", which is reserved for the engine"),
            Self::NoTarget => {
                f.write_str("the schedule has no target topic: set the topic that the message is sent to")
            }
            Self::BadTarget(topic) => write!(
                f,
                "the target topic {topic:?} is invalid: it must be 1 to 249 of the characters a-z A-Z 0-9 . _ - \
                 (and not . or .. alone)"
            ),
            Self::NoValue => {
                f.write_str("the schedule has no value, and null would cancel the key: an empty value is allowed")
            }
            Self::NoDate => f.write_str("the schedule has no date: set a date or a delay"),
            Self::Past { due_s, now_ms } => write!(
                f,
                "the date has passed: it is {due_s}, and now it is {}.{:03} (seconds since 1970)",
                now_ms.div_euclid(1000),
                now_ms.rem_euclid(1000)
            ),
            Self::TooFar => write!(f, "the date is too late: the last one is {EPOCH_S_MAX} seconds after 1970"),
            Self::ReservedHeader(name) => {
                write!(
                    f,
                    "the header {name:?} is reserved for the scheduler: choose a name without the prefix \
                     {HEADER_PREFIX:?}"
                )
            }
        }
    }
}

impl std::error::Error for ScheduleError {}

impl Schedule {
    /// Begins a schedule with this key. A later one with the same key replaces it.
    pub fn new(key: impl Into<Vec<u8>>) -> Self {
        Self { key: key.into(), target: None, target_key: None, value: None, headers: Vec::new(), due: None }
    }

    /// Begins a schedule of an existing message: the triggered record has its key, value and headers, without the
    /// headers that begin with `scheduler-`.
    ///
    /// ```
    /// use std::time::Duration;
    /// use kafka_scheduler::client::{Record, Schedule};
    ///
    /// let message = Record::new("customer-3", "pay")
    ///     .with_header("trace", "5f2a")
    ///     .with_header("scheduler-key", "of an earlier firing");
    /// let record = Schedule::wrap("later-1", message).to("payments").after(Duration::from_secs(60)).build()?;
    /// assert_eq!(record.key.as_deref(), Some(&b"later-1"[..]));
    /// assert_eq!(record.header("scheduler-target-key"), Some(&b"customer-3"[..]));
    /// assert_eq!(record.header("trace"), Some(&b"5f2a"[..]));
    /// assert_eq!(record.header("scheduler-key"), None);
    /// # Ok::<(), kafka_scheduler::client::ScheduleError>(())
    /// ```
    pub fn wrap(key: impl Into<Vec<u8>>, message: Record) -> Self {
        let mut headers = message.headers;
        headers.retain(|header| !header.name.starts_with(HEADER_PREFIX));
        Self { target_key: message.key, value: message.value, headers, ..Self::new(key) }
    }

    /// Sets the target topic. It must exist, and must not be a schedules topic of the same engine.
    pub fn to(mut self, topic: impl Into<String>) -> Self {
        self.target = Some(topic.into());
        self
    }

    /// Sets the triggered record's key, by default null.
    pub fn target_key(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.target_key = Some(key.into());
        self
    }

    /// Adds a header to the triggered record.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push(Header::new(name, value));
        self
    }

    /// Adds a header with a null value.
    pub fn null_header(mut self, name: impl Into<String>) -> Self {
        self.headers.push(Header { name: name.into(), value: None });
        self
    }

    /// Sets the triggered record's value. It may be empty, and there must be one: null would cancel the key.
    pub fn value(mut self, value: impl Into<Vec<u8>>) -> Self {
        self.value = Some(value.into());
        self
    }

    /// Sets the due time. A fraction of a second is rounded up.
    pub fn at(mut self, moment: impl Into<Moment>) -> Self {
        self.due = Some(Due::At(moment.into()));
        self
    }

    /// Sets the delay from the moment at which the record is built. A fraction of a second is rounded up.
    pub fn after(mut self, delay: impl Into<Delay>) -> Self {
        self.due = Some(Due::After(delay.into()));
        self
    }

    /// Builds the record to produce to a schedules topic.
    ///
    /// # Errors
    /// If the schedule is incomplete or invalid.
    pub fn build(self) -> Result<Record, ScheduleError> {
        self.build_at(Moment::now())
    }

    /// Builds the record by a clock of your own.
    ///
    /// # Errors
    /// If the schedule is incomplete or invalid.
    pub fn build_at(self, now: Moment) -> Result<Record, ScheduleError> {
        if self.key.is_empty() {
            return Err(ScheduleError::NoKey);
        }
        if self.key.starts_with(RESERVED_PREFIX) {
            return Err(ScheduleError::ReservedKey);
        }
        let target = self.target.filter(|target| !target.is_empty()).ok_or(ScheduleError::NoTarget)?;
        if !is_topic(target.as_bytes()) {
            return Err(ScheduleError::BadTarget(target));
        }
        let value = self.value.ok_or(ScheduleError::NoValue)?;
        if let Some(header) = self.headers.iter().find(|header| header.name.starts_with(HEADER_PREFIX)) {
            return Err(ScheduleError::ReservedHeader(header.name.clone()));
        }
        let due_s = epoch(self.due.ok_or(ScheduleError::NoDate)?, now)?;
        let mut headers = vec![
            Header::new(name(headers::EPOCH), due_s.to_string()),
            Header::new(name(headers::TARGET_TOPIC), target),
        ];
        headers.extend(self.target_key.map(|key| Header::new(name(headers::TARGET_KEY), key)));
        headers.extend(self.headers);
        Ok(Record { key: Some(self.key), value: Some(value), headers, timestamp_ms: None })
    }
}

fn epoch(due: Due, now: Moment) -> Result<i64, ScheduleError> {
    let due = match due {
        Due::At(moment) => moment,
        Due::After(delay) => now.plus(delay),
    };
    let due_s = due.epoch_s();
    if due_s.saturating_mul(1000) < now.epoch_ms() {
        return Err(ScheduleError::Past { due_s, now_ms: now.epoch_ms() });
    }
    if due_s.unsigned_abs() > EPOCH_S_MAX {
        return Err(ScheduleError::TooFar);
    }
    Ok(due_s)
}
