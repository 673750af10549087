//! When a schedule fires: parses the request headers that say so.

use super::calendar::{Calendar, Day, Rule, RuleError};
use super::due::Due;
use super::headers;
use super::reason::Reason;
use super::types::{Header, Millis};

/// The shortest interval of a schedule that recurs.
const INTERVAL_MS_MIN: i64 = 1_000;

/// An occurrence that fires later than this has been missed, unless its schedule says otherwise.
const TOLERANCE_MS: i64 = 60_000;

/// A rule without an occurrence for this long after its start has none.
const NEVER_MS: i64 = 100 * 366 * 86_400_000;

/// The form in which a schedule says when it fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `scheduler-epoch` without options. It fires with the headers of its user and those that it always had.
    Epoch,
    /// Another form that fires once. Fired records also have `scheduler-due` and `scheduler-id`.
    Once,
    /// It recurs. Fired records also have the number of their occurrence.
    Recurring,
}

/// When a schedule fires.
#[derive(Debug, PartialEq, Eq)]
pub enum When {
    /// Once, at this time.
    Once {
        /// The time without jitter.
        due: Due,
        /// The form; not [`Form::Recurring`].
        form: Form,
        /// Options, if it has any.
        options: Option<Box<Spec>>,
    },
    /// At each occurrence of a rule.
    Recurring(Box<Spec>),
}

/// What happens to occurrences that were missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misfire {
    /// All of them become one firing.
    Once,
    /// They do not fire.
    Skip,
    /// Each fires, up to a bound.
    All,
}

/// When a schedule is too late to fire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// Never.
    Never,
    /// This many milliseconds after it is due.
    After(i64),
    /// At this moment.
    At(Millis),
}

/// A rule and the options of a schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The rule of a schedule that recurs.
    pub rule: Option<Rule>,
    /// The first occurrence is after this moment.
    pub after: Millis,
    /// The last occurrence is at or before this moment.
    pub until: Millis,
    /// The number of occurrences.
    pub count: u64,
    /// Local dates without an occurrence, in order.
    pub except: Box<[Day]>,
    /// What happens to missed occurrences.
    pub misfire: Misfire,
    /// An occurrence that fires later than this has been missed.
    pub tolerance_ms: i64,
    /// The largest random delay.
    pub jitter_ms: i64,
    /// When an occurrence is too late to fire.
    pub expiry: Expiry,
    /// Progress that came with the record.
    pub moved: Option<Moved>,
}

/// Progress of a schedule that was moved: exported and imported, or rescheduled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Occurrences that are over.
    pub done: u64,
    /// When the next one is due, without jitter.
    pub next: Due,
}

impl Spec {
    /// Returns the latest moment at which the first occurrence may be.
    #[must_use]
    pub fn first_until(&self) -> Millis {
        self.until.min(self.after.plus(NEVER_MS))
    }
}

/// Returns whether a header says when a schedule fires, or is an option.
#[must_use]
pub fn is_when(name: &[u8]) -> bool {
    // Most headers are ruled out by these two: each record has some, and loading reads millions of records.
    name.starts_with(headers::PREFIX) && name.len() <= headers::WHEN_BYTES_MAX && headers::WHEN.contains(&name)
}

/// Returns whether the engine replaces a header of triggered records of the new forms.
#[must_use]
pub fn is_fired(name: &[u8]) -> bool {
    name.starts_with(headers::PREFIX) && headers::FIRED.contains(&name)
}

/// Parses the headers of a user's record with this timestamp.
///
/// # Errors
/// Returns the reason why it cannot fire.
pub fn parse(headers: &[Header<'_>], timestamp: Millis, calendar: &dyn Calendar) -> Result<When, Reason> {
    // An empty header counts as missing.
    let has_value = |header: &Header<'_>| header.value.is_some_and(|value| !value.is_empty());
    let is_new = |header: &Header<'_>| is_when(header.name) && header.name != headers::EPOCH && has_value(header);
    let epoch = single(headers, headers::EPOCH)?;
    if !headers.iter().any(is_new) {
        let due = epoch_s(epoch.flatten().ok_or(Reason::NoEpoch)?)?;
        return Ok(When::Once { due, form: Form::Epoch, options: None });
    }
    let fields = Fields { headers, timestamp, calendar };
    let forms = [headers::EPOCH, headers::EPOCH_MS, headers::DELAY, headers::AT, headers::EVERY, headers::CRON];
    let mut found = None;
    for name in forms {
        if fields.bytes(name)?.is_some() && found.replace(name).is_some() {
            return Err(Reason::ConflictingTime);
        }
    }
    let form = found.ok_or(Reason::NoEpoch)?;
    if form == headers::EVERY || form == headers::CRON { fields.recurring(form) } else { fields.once(form) }
}

struct Fields<'a> {
    headers: &'a [Header<'a>],
    timestamp: Millis,
    calendar: &'a dyn Calendar,
}

impl<'a> Fields<'a> {
    /// Returns a header's value. An empty or null one counts as missing.
    fn bytes(&self, name: &[u8]) -> Result<Option<&'a [u8]>, Reason> {
        Ok(single(self.headers, name)?.flatten().filter(|value| !value.is_empty()))
    }

    /// Parses a header's text; returns `bad` if `parse` returns `None`.
    fn parsed<T>(
        &self,
        name: &[u8],
        bad: Reason,
        parse: impl FnOnce(&'a str) -> Option<T>,
    ) -> Result<Option<T>, Reason> {
        let Some(bytes) = self.bytes(name)? else { return Ok(None) };
        std::str::from_utf8(bytes).ok().and_then(parse).ok_or(bad).map(Some)
    }

    fn once(&self, form: &[u8]) -> Result<When, Reason> {
        let text = self.bytes(form)?.unwrap_or_default();
        let due = match form {
            headers::EPOCH => epoch_s(text)?,
            headers::EPOCH_MS => Due::parse_ms(text).ok().flatten().ok_or(Reason::BadEpochMs)?,
            headers::DELAY => {
                let delay_ms = self.parsed(form, Reason::BadDelay, |text| self.calendar.span_ms(text))?.unwrap_or(0);
                let timestamp = self.timestamp()?;
                due_at(timestamp.0.checked_add(delay_ms).map(Millis)).ok_or(Reason::BadDelay)?
            }
            _ => {
                let moment = self.parsed(form, Reason::BadAt, |text| self.calendar.moment(text))?;
                due_at(moment).ok_or(Reason::BadAt)?
            }
        };
        let (jitter_ms, expiry) = (self.jitter_ms()?, self.expiry()?);
        let of_rules = [
            headers::TIMEZONE,
            headers::START,
            headers::UNTIL,
            headers::COUNT,
            headers::EXCEPT,
            headers::MISFIRE,
            headers::DONE,
            headers::NEXT,
        ];
        self.without(&of_rules)?;
        let has_options = jitter_ms > 0 || expiry != Expiry::Never;
        let options = has_options.then(|| Box::new(Spec { jitter_ms, expiry, ..Spec::of(None, due.at()) }));
        Ok(When::Once { due, form: Form::Once, options })
    }

    fn recurring(&self, form: &[u8]) -> Result<When, Reason> {
        let start = self.parsed(headers::START, Reason::BadStart, |text| self.calendar.moment(text))?;
        let (rule, after) = if form == headers::CRON { self.cron(start)? } else { self.every(start)? };
        self.calendar.check(&rule).map_err(|error| match error {
            RuleError::Expression => Reason::BadCron,
            RuleError::Zone => Reason::BadTimezone,
        })?;
        let until = self.parsed(headers::UNTIL, Reason::BadUntil, |text| self.calendar.moment(text))?;
        let until = until.unwrap_or(Millis(i64::MAX));
        let expiry = self.expiry()?;
        let (until, expiry) = match expiry {
            // It ends a schedule that recurs, as `scheduler-until` does.
            Expiry::At(end) => (until.min(end), Expiry::Never),
            _ => (until, expiry),
        };
        let count = self.parsed(headers::COUNT, Reason::BadCount, |text| decimal(text).filter(|count| *count > 0))?;
        let except = self.parsed(headers::EXCEPT, Reason::BadExcept, |text| self.calendar.days(text))?;
        let (misfire, tolerance_ms) = self.misfire()?;
        Ok(When::Recurring(Box::new(Spec {
            until,
            count: count.unwrap_or(u64::MAX),
            except: except.unwrap_or_default().into(),
            misfire,
            tolerance_ms,
            jitter_ms: self.jitter_ms()?,
            expiry,
            moved: self.moved()?,
            ..Spec::of(Some(rule), after)
        })))
    }

    fn cron(&self, start: Option<Millis>) -> Result<(Rule, Millis), Reason> {
        let expression = self.parsed(headers::CRON, Reason::BadCron, Some)?.unwrap_or_default();
        let rule = Rule::Cron { expression: expression.trim().into(), zone: self.zone()? };
        // A record without a timestamp has -1, so a rule without a start begins with 1970.
        let from_start = start.map_or(self.timestamp, |start| start.plus(-1));
        Ok((rule, self.timestamp.max(from_start)))
    }

    fn zone(&self) -> Result<Box<str>, Reason> {
        let zone = self.parsed(headers::TIMEZONE, Reason::BadTimezone, Some)?;
        Ok(zone.map_or("UTC", str::trim).into())
    }

    fn every(&self, start: Option<Millis>) -> Result<(Rule, Millis), Reason> {
        let interval_ms = self.parsed(headers::EVERY, Reason::BadEvery, |text| {
            self.calendar.span_ms(text).filter(|interval_ms| *interval_ms >= INTERVAL_MS_MIN)
        })?;
        let interval_ms = interval_ms.ok_or(Reason::BadEvery)?;
        let first = match start {
            Some(start) => start,
            None => {
                let first_ms = self.timestamp()?.0.checked_add(interval_ms).ok_or(Reason::BadEvery)?;
                Millis(first_ms)
            }
        };
        // Occurrences before the record's own timestamp never existed.
        Ok((Rule::Every { interval_ms, first, zone: self.zone()? }, self.timestamp.plus(-1)))
    }

    fn timestamp(&self) -> Result<Millis, Reason> {
        if self.timestamp.0 < 0 { Err(Reason::NoTimestamp) } else { Ok(self.timestamp) }
    }

    fn jitter_ms(&self) -> Result<i64, Reason> {
        let jitter_ms = self.parsed(headers::JITTER, Reason::BadJitter, |text| self.calendar.span_ms(text))?;
        Ok(jitter_ms.unwrap_or(0))
    }

    fn expiry(&self) -> Result<Expiry, Reason> {
        let expiry = self.parsed(headers::EXPIRES, Reason::BadExpires, |text| {
            let span = self.calendar.span_ms(text).map(Expiry::After);
            span.or_else(|| self.calendar.moment(text).map(Expiry::At))
        })?;
        Ok(expiry.unwrap_or(Expiry::Never))
    }

    fn misfire(&self) -> Result<(Misfire, i64), Reason> {
        let policy = self.parsed(headers::MISFIRE, Reason::BadMisfire, |text| {
            let (policy, tolerance) = match text.split_once(';') {
                Some((policy, tolerance)) => (policy, Some(tolerance.trim())),
                None => (text, None),
            };
            match (policy.trim(), tolerance) {
                ("once", None) => Some((Misfire::Once, TOLERANCE_MS)),
                ("all", None) => Some((Misfire::All, TOLERANCE_MS)),
                ("skip", None) => Some((Misfire::Skip, TOLERANCE_MS)),
                ("skip", Some(tolerance)) => Some((Misfire::Skip, self.calendar.span_ms(tolerance)?)),
                _ => None,
            }
        })?;
        Ok(policy.unwrap_or((Misfire::Once, TOLERANCE_MS)))
    }

    fn moved(&self) -> Result<Option<Moved>, Reason> {
        let done = self.parsed(headers::DONE, Reason::BadDone, decimal)?;
        let next = self.parsed(headers::NEXT, Reason::BadDone, |text| Due::parse_ms(text.as_bytes()).ok().flatten())?;
        match (done, next) {
            (None, None) => Ok(None),
            (Some(done), Some(next)) => Ok(Some(Moved { done, next })),
            _ => Err(Reason::BadDone),
        }
    }

    fn without(&self, names: &[&[u8]]) -> Result<(), Reason> {
        for name in names {
            if self.bytes(name)?.is_some() {
                return Err(Reason::StrayOption);
            }
        }
        Ok(())
    }
}

impl Spec {
    fn of(rule: Option<Rule>, after: Millis) -> Self {
        Self {
            rule,
            after,
            until: Millis(i64::MAX),
            count: u64::MAX,
            except: Box::default(),
            misfire: Misfire::Once,
            tolerance_ms: TOLERANCE_MS,
            jitter_ms: 0,
            expiry: Expiry::Never,
            moved: None,
        }
    }
}

fn due_at(moment: Option<Millis>) -> Option<Due> {
    Due::from_epoch_ms(u64::try_from(moment?.0).ok()?)
}

fn decimal(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Returns a request header's value. Equal repetitions are accepted: programs that retry or map headers add them.
pub(super) fn single<'a>(headers: &[Header<'a>], name: &[u8]) -> Result<Option<Option<&'a [u8]>>, Reason> {
    let mut found = headers.iter().filter(|h| h.name == name).map(|h| h.value);
    let first = found.next();
    if found.any(|value| Some(value) != first) { Err(Reason::DuplicateHeader) } else { Ok(first) }
}

/// Reads `scheduler-epoch`. Signs, spaces and fractions are invalid; an empty header counts as missing.
fn epoch_s(text: &[u8]) -> Result<Due, Reason> {
    if text.is_empty() {
        return Err(Reason::NoEpoch);
    }
    Due::parse_s(text).map_err(|_| bad_epoch(text))?.ok_or(Reason::EpochOverflow)
}

/// Classifies an invalid header by its shape, which points the producer's author to the wrong setting or serializer.
fn bad_epoch(bytes: &[u8]) -> Reason {
    let is_text = std::str::from_utf8(bytes)
        .is_ok_and(|text| text.chars().all(|c| !c.is_control() || matches!(c, '\t' | '\r' | '\n')));
    match bytes {
        [b'"', .., b'"'] => Reason::QuotedEpoch,
        _ if !is_text && bytes.len() == size_of::<u64>() => Reason::LongEpoch,
        _ if !is_text => Reason::BinaryEpoch,
        [y, e, a, r, b'-', _, _, b'-', ..] if [y, e, a, r].iter().all(|c| c.is_ascii_digit()) => Reason::DateEpoch,
        _ => Reason::BadEpoch,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_header_that_says_when_is_recognized() {
        assert!(headers::WHEN.iter().all(|name| is_when(name)));
        assert!(headers::FIRED.iter().all(|name| is_fired(name)));
        assert!(!is_when(headers::TARGET_TOPIC) && !is_when(b"customer") && !is_fired(headers::KEY));
    }

    #[test]
    fn the_shape_of_a_bad_epoch_is_told() {
        for (bytes, reason, keys) in [
            (&b"\"1893456000\""[..], Reason::QuotedEpoch, "in JSON quotes"),
            (&1_893_456_000_u64.to_be_bytes(), Reason::LongEpoch, "8 bytes that are not text"),
            (&1_893_456_000_u32.to_be_bytes(), Reason::BinaryEpoch, "bytes that are not text"),
            (b"2030-01-01", Reason::DateEpoch, "looks like a date"),
            (b"2030-01-01T00:00:00Z", Reason::DateEpoch, "looks like a date"),
            (b"1893456000\n", Reason::BadEpoch, "decimal digits"),
            (b"1.893456E9", Reason::BadEpoch, "decimal digits"),
            (b"\"", Reason::BadEpoch, "decimal digits"),
            ("１８９".as_bytes(), Reason::BadEpoch, "decimal digits"),
        ] {
            assert_eq!(epoch_s(bytes), Err(reason), "{bytes:?}");
            assert!(reason.detail().contains(keys) && reason.code() == "bad-epoch", "{}", reason.detail());
        }
    }
}
