//! What the core needs of a calendar: time zones, cron expressions, dates. A shell passes one in, so the core has no
//! zone data of its own.

use std::fmt;

use super::types::Millis;

/// A calendar: pure functions from texts and moments to moments, without a clock. The same arguments always have the
/// same answer, on every machine.
pub trait Calendar: fmt::Debug + Send {
    /// Reads a date with an offset or a zone; `None` if it is not one. Fractions of a millisecond are rounded up.
    fn moment(&self, text: &str) -> Option<Millis>;

    /// Reads a span in milliseconds, 0 or more; `None` if it is not one. Fractions of a millisecond are rounded up.
    fn span_ms(&self, text: &str) -> Option<i64>;

    /// Reads dates, separated by commas; `None` if there is anything else, or more than 366 of them.
    fn days(&self, text: &str) -> Option<Vec<Day>>;

    /// Checks that it knows a rule.
    ///
    /// # Errors
    /// Which part of it is unknown.
    fn check(&self, rule: &Rule) -> Result<(), RuleError>;

    /// Returns the first occurrence of a rule after `after` and at or before `until`, on none of the days `except`,
    /// which are local to the rule's zone and in order.
    fn next(&self, rule: &Rule, except: &[Day], after: Millis, until: Millis) -> Option<Millis>;

    /// Returns the number of occurrences that [`Calendar::next`] would return one after the other. It does not walk
    /// through them: there may be billions.
    fn count(&self, rule: &Rule, except: &[Day], after: Millis, until: Millis) -> u64;
}

/// A calendar without zones and expressions, of which it knows none.
#[derive(Clone, Copy, Debug)]
pub struct NoCalendar;

/// A date of the Gregorian calendar, in days since 1970-01-01.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day(pub i32);

impl Day {
    /// Returns the number of days since 1970-01-01, negative before it.
    #[must_use]
    pub const fn number(self) -> i64 {
        self.0 as i64
    }
}

/// A rule by which a schedule recurs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A fixed interval.
    Every {
        /// The interval, 1,000 ms or more.
        interval_ms: i64,
        /// The first occurrence.
        first: Millis,
        /// The IANA name of the zone whose dates count.
        zone: Box<str>,
    },
    /// A cron expression in a time zone.
    Cron {
        /// Five fields, or six with seconds first, or a name such as `@hourly`.
        expression: Box<str>,
        /// The IANA name of the zone.
        zone: Box<str>,
    },
}

/// Why a calendar does not know a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleError {
    /// The expression is no cron expression, or a later version's.
    Expression,
    /// The zone does not exist, or is newer than this version.
    Zone,
}

impl Calendar for NoCalendar {
    fn moment(&self, _: &str) -> Option<Millis> {
        None
    }

    fn span_ms(&self, _: &str) -> Option<i64> {
        None
    }

    fn days(&self, _: &str) -> Option<Vec<Day>> {
        None
    }

    fn check(&self, rule: &Rule) -> Result<(), RuleError> {
        match rule {
            Rule::Every { .. } => Ok(()),
            Rule::Cron { .. } => Err(RuleError::Expression),
        }
    }

    fn next(&self, _: &Rule, _: &[Day], _: Millis, _: Millis) -> Option<Millis> {
        None
    }

    fn count(&self, _: &Rule, _: &[Day], _: Millis, _: Millis) -> u64 {
        0
    }
}
