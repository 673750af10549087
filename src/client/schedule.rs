//! Builds schedules.

mod error;
mod when;

use super::{Delay, HEADER_PREFIX, Header, Moment, Record, name};
use crate::core::headers;
use crate::core::origin::RESERVED_PREFIX;
use crate::core::schedule::is_topic;

pub use error::ScheduleError;
pub use when::Misfire;
use when::{Expiry, Form, Options};

/// A builder of schedules.
///
/// ```
/// use kafka_scheduler::client::{Moment, Schedule, ScheduleError};
///
/// let record = Schedule::new("k").to("t").value("v").at(Moment::from_epoch_s(4_102_444_800)).build()?;
/// assert_eq!(record.header("scheduler-epoch"), Some(&b"4102444800"[..]));
/// // Milliseconds, and options such as `jitter`, have a header of their own.
/// let record = Schedule::new("k").to("t").value("v").at(Moment::from_epoch_ms(4_102_444_800_250)).build()?;
/// assert_eq!(record.header("scheduler-epoch-ms"), Some(&b"4102444800250"[..]));
///
/// // Each mistake has an error of its own.
/// let begun = || Schedule::new("k").to("t").value("v");
/// assert_eq!(Schedule::new("").to("t").value("v").build(), Err(ScheduleError::NoKey));
/// assert_eq!(Schedule::new("k").value("v").build(), Err(ScheduleError::NoTarget));
/// assert!(matches!(begun().at(Moment::from_epoch_s(0)).build(), Err(ScheduleError::Past { due_ms: 0, .. })));
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
    form: Option<Form>,
    options: Options,
}

impl Schedule {
    /// Begins a schedule with this key. A later one with the same key replaces it.
    pub fn new(key: impl Into<Vec<u8>>) -> Self {
        Self {
            key: key.into(),
            target: None,
            target_key: None,
            value: None,
            headers: Vec::new(),
            form: None,
            options: Options::default(),
        }
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

    /// Fires once, at this moment. A fraction of a millisecond is rounded up.
    ///
    /// A schedule fires in one way: the last of `at`, `after`, `delay`, `at_zoned`, `every` and `cron` counts.
    pub fn at(mut self, moment: impl Into<Moment>) -> Self {
        self.form = Some(Form::At(moment.into()));
        self
    }

    /// Fires once, this long after the moment at which the record is built. A fraction of a millisecond is rounded up.
    pub fn after(mut self, delay: impl Into<Delay>) -> Self {
        self.form = Some(Form::After(delay.into()));
        self
    }

    /// Fires once, this long after the record's own timestamp (`scheduler-delay`): the time at which it is produced or,
    /// in a topic with `message.timestamp.type=LogAppendTime`, at which the broker appends it.
    pub fn delay(mut self, delay: impl Into<Delay>) -> Self {
        self.form = Some(Form::Delay(delay.into()));
        self
    }

    /// Fires once, at this date (`scheduler-at`): `2027-03-28T09:00:00[Europe/Paris]` or `2027-03-28T09:00:00+02:00`.
    /// The engine reads it: a zone's rules are those of the engine's version.
    pub fn at_zoned(mut self, date: impl Into<String>) -> Self {
        self.form = Some(Form::Zoned(date.into()));
        self
    }

    /// Recurs at a fixed interval of 1 s or more (`scheduler-every`), first one interval after the record's own
    /// timestamp, or at [`start`](Self::start).
    ///
    /// ```
    /// use std::time::Duration;
    /// use kafka_scheduler::client::{Misfire, Schedule};
    ///
    /// let every = Schedule::new("heartbeat").to("t").value("v").every(Duration::from_secs(600));
    /// let record = every.count(144).misfire(Misfire::Skip).expires(Duration::from_secs(60)).build()?;
    /// assert_eq!(record.header("scheduler-every"), Some(&b"10m"[..]));
    /// # Ok::<(), kafka_scheduler::client::ScheduleError>(())
    /// ```
    pub fn every(mut self, interval: impl Into<Delay>) -> Self {
        self.form = Some(Form::Every(interval.into()));
        self
    }

    /// Recurs by a cron expression (`scheduler-cron`) in UTC, or in another [`timezone`](Self::timezone).
    ///
    /// ```
    /// use kafka_scheduler::client::Schedule;
    ///
    /// let cron = Schedule::new("report").to("t").value("v").cron("0 9 * * MON-FRI").timezone("Europe/Paris");
    /// let record = cron.until("2030-01-01T00:00:00Z").except("2027-12-24, 2027-12-27").build()?;
    /// assert_eq!(record.header("scheduler-cron"), Some(&b"0 9 * * MON-FRI"[..]));
    /// # Ok::<(), kafka_scheduler::client::ScheduleError>(())
    /// ```
    pub fn cron(mut self, expression: impl Into<String>) -> Self {
        self.form = Some(Form::Cron(expression.into()));
        self
    }

    /// With `cron` and `every`: the IANA name of the zone that the expression and the dates of
    /// [`except`](Self::except) are in, by default UTC.
    pub fn timezone(mut self, zone: impl Into<String>) -> Self {
        self.options.timezone = Some(zone.into());
        self
    }

    /// With `cron` and `every`: the moment of the first occurrence at the earliest, as [`at_zoned`](Self::at_zoned)
    /// takes it.
    pub fn start(mut self, date: impl Into<String>) -> Self {
        self.options.start = Some(date.into());
        self
    }

    /// With `cron` and `every`: the moment of the last occurrence at the latest, as [`at_zoned`](Self::at_zoned) takes
    /// it.
    pub fn until(mut self, date: impl Into<String>) -> Self {
        self.options.until = Some(date.into());
        self
    }

    /// With `cron` and `every`: the number of occurrences.
    pub fn count(mut self, count: u64) -> Self {
        self.options.count = Some(count);
        self
    }

    /// With `cron` and `every`: up to 366 local dates without an occurrence, such as `2027-12-25,2028-01-01`.
    pub fn except(mut self, dates: impl Into<String>) -> Self {
        self.options.except = Some(dates.into());
        self
    }

    /// With `cron` and `every`: what happens to missed occurrences, by default [`Misfire::Once`].
    pub fn misfire(mut self, misfire: Misfire) -> Self {
        self.options.misfire = Some(misfire);
        self
    }

    /// Adds a random delay below this to each firing.
    pub fn jitter(mut self, jitter: impl Into<Delay>) -> Self {
        self.options.jitter = Some(jitter.into());
        self
    }

    /// Lets a firing expire: it does not happen later than this after it is due.
    pub fn expires(mut self, after: impl Into<Delay>) -> Self {
        self.options.expires = Some(Expiry::After(after.into()));
        self
    }

    /// Lets the schedule expire at a moment, which [`at_zoned`](Self::at_zoned) describes.
    pub fn expires_at(mut self, date: impl Into<String>) -> Self {
        self.options.expires = Some(Expiry::At(date.into()));
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
        let (form, options) = when::headers(self.form.ok_or(ScheduleError::NoDate)?, self.options, now)?;
        let mut headers = vec![form, Header::new(name(headers::TARGET_TOPIC), target)];
        headers.extend(self.target_key.map(|key| Header::new(name(headers::TARGET_KEY), key)));
        headers.extend(options);
        headers.extend(self.headers);
        Ok(Record { key: Some(self.key), value: Some(value), headers, timestamp_ms: None })
    }
}
