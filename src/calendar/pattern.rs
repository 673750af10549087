//! Cron expressions in civil time, without zones.

use std::fmt;

use croner::Weekday;
use croner::parser::{CronParser, Seconds, Year};

use super::civil::{DAY_S, Month, weekday};
use super::dates::{contains, within};
use crate::core::calendar::Day;

/// Longer expressions are refused unread. One that lists every value of every field has some 540 bytes.
const TEXT_BYTES_MAX: usize = 1_000;

/// Names of the fields, and what they take.
const FIELDS: [(&str, &str); 6] = [
    ("second", "0-59"),
    ("minute", "0-59"),
    ("hour", "0-23"),
    ("day of month", "1-31, L, LW and 15W"),
    ("month", "1-12 and JAN-DEC"),
    ("day of week", "0-7, SUN-SAT, 5L, 5#L and 1#2"),
];

/// Why a text is not a cron expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CronError {
    /// It has neither five nor six fields, and is no nickname such as `@daily`.
    Fields,
    /// A field is wrong: its place among six fields, from 0 for seconds.
    Field(usize),
    /// The day of month and the day of week together fit no day of any month.
    NoDay,
    /// It is far longer than any expression needs to be.
    TooLong,
}

impl fmt::Display for CronError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fields => f.write_str(
                "not a cron expression: write five fields (minute, hour, day of month, month, day of week), or six \
                 with seconds first, or @hourly, @daily, @weekly, @monthly or @yearly",
            ),
            Self::Field(at) => {
                let (name, values) = FIELDS.get(*at).copied().unwrap_or(("?", "?"));
                write!(f, "the field {name} is wrong: it takes *, {values}, lists (1,2), ranges (1-5) and steps (*/2)")
            }
            Self::NoDay => f.write_str(
                "no day of any month fits both the day of month and the day of week: without + before the day of \
                 week, one of them is enough",
            ),
            Self::TooLong => write!(f, "longer than {TEXT_BYTES_MAX} bytes: write ranges or steps in place of lists"),
        }
    }
}

impl std::error::Error for CronError {}

/// A cron expression, as sets of bits. Values of bit n are in the set if the bit is 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    seconds: u64,
    minutes: u64,
    hours: u64,
    months: u16,
    /// Days of a month, from bit 1 on. They depend on its length (28 to 31) and on the weekday of its first day only.
    days: [[u32; 7]; 4],
}

impl Pattern {
    /// Parses an expression of five or six fields, or a nickname.
    pub(super) fn parse(text: &str) -> Result<Self, CronError> {
        let text = text.trim();
        if text.len() > TEXT_BYTES_MAX {
            return Err(CronError::TooLong);
        }
        // croner does not know this one.
        let text = if text.eq_ignore_ascii_case("@midnight") { "@daily" } else { text };
        let cron = match parser().parse(text) {
            Ok(cron) => cron.pattern,
            Err(_) => return Err(find_error(text)),
        };
        check_lists(text)?;
        let bits = |values: Vec<u16>| values.into_iter().fold(0u64, |bits, value| bits | 1 << value);
        let pattern = Self {
            seconds: bits(cron.seconds.values()),
            minutes: bits(cron.minutes.values()),
            hours: bits(cron.hours.values()),
            // 12 is the largest.
            months: bits(cron.months.values()) as u16,
            days: days(&cron),
        };
        let empty = [pattern.seconds, pattern.minutes, pattern.hours, 1, pattern.months.into(), 1];
        match empty.iter().position(|bits| *bits == 0) {
            Some(field) => Err(CronError::Field(field)),
            None if pattern.days.as_flattened().iter().all(|days| *days == 0) => Err(CronError::NoDay),
            None => Ok(pattern),
        }
    }

    /// Returns whether its hour field covers all hours.
    pub(super) const fn is_hourly(&self) -> bool {
        self.hours == (1 << 24) - 1
    }

    /// Returns the first civil second in `from..to` that it matches, on no date of `except`.
    pub(super) fn first(&self, from: i64, to: i64, except: &[Day]) -> Option<i64> {
        let (day, time) = (from.div_euclid(DAY_S), from.rem_euclid(DAY_S));
        let last_day = (to - 1).div_euclid(DAY_S);
        let mut found = self.first_day(day, last_day, except)?;
        let mut from_time = if found == day { time } else { 0 };
        if self.time_from(from_time).is_none() {
            found = self.first_day(day + 1, last_day, except)?;
            from_time = 0;
        }
        let at = found * DAY_S + self.time_from(from_time)?;
        (at < to).then_some(at)
    }

    /// Returns the last civil second in `from..to` that it matches, on no date of `except`.
    pub(super) fn last(&self, from: i64, to: i64, except: &[Day]) -> Option<i64> {
        let (day, time) = ((to - 1).div_euclid(DAY_S), (to - 1).rem_euclid(DAY_S));
        let first_day = from.div_euclid(DAY_S);
        let mut found = self.last_day(first_day, day, except)?;
        let mut to_time = if found == day { time } else { DAY_S - 1 };
        if self.time_to(to_time).is_none() {
            found = self.last_day(first_day, day - 1, except)?;
            to_time = DAY_S - 1;
        }
        let at = found * DAY_S + self.time_to(to_time)?;
        (at >= from).then_some(at)
    }

    /// Returns the number of civil seconds in `from..to` that it matches, on no date of `except`.
    pub(super) fn count(&self, from: i64, to: i64, except: &[Day]) -> u64 {
        if from >= to {
            return 0;
        }
        let (first, last) = (from.div_euclid(DAY_S), to.div_euclid(DAY_S));
        let part = |day, time| if self.matches_day(day, except) { self.times_before(time) } else { 0 };
        let whole = self.count_days(first, last, except) * self.times_before(DAY_S);
        whole + part(last, to.rem_euclid(DAY_S)) - part(first, from.rem_euclid(DAY_S))
    }

    fn days_of(&self, month: Month) -> u32 {
        if self.months & 1 << month.number() == 0 {
            return 0;
        }
        self.days[usize::from(month.length() - 28)][usize::from(weekday(month.first_day()))]
    }

    fn matches_day(&self, day: i64, except: &[Day]) -> bool {
        let month = Month::of(day);
        self.days_of(month) & 1 << (day - month.first_day() + 1) != 0 && !contains(except, day)
    }

    fn first_day(&self, from: i64, last: i64, except: &[Day]) -> Option<i64> {
        let mut month = Month::of(from);
        let mut days = self.days_of(month) & (u32::MAX << (from - month.first_day() + 1));
        while month.first_day() <= last {
            while days != 0 {
                let day = month.first_day() + i64::from(days.trailing_zeros()) - 1;
                if !contains(except, day) {
                    return (day <= last).then_some(day);
                }
                days &= days - 1;
            }
            month = month.next();
            days = self.days_of(month);
        }
        None
    }

    fn last_day(&self, first: i64, to: i64, except: &[Day]) -> Option<i64> {
        let mut month = Month::of(to);
        let mut days = self.days_of(month) & below(to - month.first_day() + 2) as u32;
        loop {
            while days != 0 {
                let number = days.ilog2();
                let day = month.first_day() + i64::from(number) - 1;
                if !contains(except, day) {
                    return (day >= first).then_some(day);
                }
                days &= !(1 << number);
            }
            if month.first_day() <= first {
                return None;
            }
            month = month.previous();
            days = self.days_of(month);
        }
    }

    /// Returns the number of days in `from..to` that it matches.
    fn count_days(&self, from: i64, to: i64, except: &[Day]) -> u64 {
        let mut month = Month::of(from);
        let mut count = 0;
        while month.first_day() < to {
            let mut days = self.days_of(month);
            if from > month.first_day() {
                days &= u32::MAX << (from - month.first_day() + 1);
            }
            days &= below((to - month.first_day() + 1).min(32)) as u32;
            count += u64::from(days.count_ones());
            month = month.next();
        }
        let excepted = within(except, from, to).iter().filter(|date| self.matches_day(date.number(), &[]));
        count - excepted.count() as u64
    }

    /// Returns the first time of a day at or after a time, in seconds since midnight.
    fn time_from(&self, time: i64) -> Option<i64> {
        let (hour, minute, second) = clock(time);
        let same_hour = self.hours & 1 << hour != 0;
        if same_hour
            && self.minutes & 1 << minute != 0
            && let Some(second) = bit_from(self.seconds, second)
        {
            return Some(of_clock(hour, minute, second));
        }
        if same_hour && let Some(minute) = bit_from(self.minutes, minute + 1) {
            return Some(of_clock(hour, minute, bit_from(self.seconds, 0)?));
        }
        let hour = bit_from(self.hours, hour + 1)?;
        Some(of_clock(hour, bit_from(self.minutes, 0)?, bit_from(self.seconds, 0)?))
    }

    /// Returns the last time of a day at or before a time, in seconds since midnight.
    fn time_to(&self, time: i64) -> Option<i64> {
        let (hour, minute, second) = clock(time);
        let same_hour = self.hours & 1 << hour != 0;
        if same_hour
            && self.minutes & 1 << minute != 0
            && let Some(second) = bit_below(self.seconds, second + 1)
        {
            return Some(of_clock(hour, minute, second));
        }
        if same_hour && let Some(minute) = bit_below(self.minutes, minute) {
            return Some(of_clock(hour, minute, bit_below(self.seconds, 60)?));
        }
        let hour = bit_below(self.hours, hour)?;
        Some(of_clock(hour, bit_below(self.minutes, 60)?, bit_below(self.seconds, 60)?))
    }

    /// Returns the number of times of a day before a time, in seconds since midnight.
    fn times_before(&self, time: i64) -> u64 {
        let (hour, minute, second) = clock(time);
        let ones = |bits: u64| u64::from(bits.count_ones());
        let mut count = ones(self.hours & below(hour.into())) * ones(self.minutes) * ones(self.seconds);
        if self.hours & 1 << hour != 0 {
            count += ones(self.minutes & below(minute.into())) * ones(self.seconds);
            if self.minutes & 1 << minute != 0 {
                count += ones(self.seconds & below(second.into()));
            }
        }
        count
    }
}

fn parser() -> CronParser {
    CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build()
}

/// Returns the fields, seconds first, if there are five or six.
fn fields(text: &str) -> Option<Vec<&str>> {
    let mut fields: Vec<&str> = text.split_ascii_whitespace().collect();
    if fields.len() == 5 {
        fields.insert(0, "0");
    }
    (fields.len() == 6).then_some(fields)
}

/// Says what is wrong with an expression that croner refuses. Its own messages repeat bytes of the expression.
fn find_error(text: &str) -> CronError {
    let Some(fields) = fields(text) else { return CronError::Fields };
    let wrong = |at: &usize| {
        let mut alone = ["*"; 6];
        alone[*at] = fields[*at];
        parser().parse(&alone.join(" ")).is_err()
    };
    (0..6).find(wrong).map_or(CronError::Fields, CronError::Field)
}

/// croner leaves out what it does not understand in some lists: empty items, and L as a day of the week. Upper and
/// lower case of other alphabets may become ASCII.
fn check_lists(text: &str) -> Result<(), CronError> {
    if text.starts_with('@') {
        return Ok(());
    }
    for (at, field) in fields(text).ok_or(CronError::Fields)?.iter().enumerate() {
        let ignored =
            |item: &str| item.is_empty() || (at == 5 && item.trim_start_matches('+').eq_ignore_ascii_case("l"));
        if !field.is_ascii() || field.split(',').any(ignored) {
            return Err(CronError::Field(at));
        }
    }
    Ok(())
}

/// Asks croner for the days of each kind of month.
fn days(cron: &croner::CronPattern) -> [[u32; 7]; 4] {
    // Months with 28 to 31 days. croner takes the weekday from the caller.
    const MONTHS: [(i32, u32, u32); 4] = [(2027, 2, 28), (2028, 2, 29), (2027, 4, 30), (2027, 1, 31)];
    MONTHS.map(|(year, month, length)| {
        std::array::from_fn(|first| {
            let matches = |day: &u32| {
                let weekday = Weekday::from_days_from_sunday(first as u32 + day - 1);
                cron.day_match(year, month, *day, weekday).unwrap_or(false)
            };
            (1..=length).filter(matches).fold(0, |days, day| days | 1 << day)
        })
    })
}

/// Returns hour, minute and second of a time in seconds since midnight, up to midnight at the end of the day.
const fn clock(time: i64) -> (u32, u32, u32) {
    ((time / 3_600) as u32, (time / 60 % 60) as u32, (time % 60) as u32)
}

fn of_clock(hour: u32, minute: u32, second: u32) -> i64 {
    i64::from(hour) * 3_600 + i64::from(minute) * 60 + i64::from(second)
}

/// Returns the bits below a number, which is at most 63.
const fn below(number: i64) -> u64 {
    (1 << number) - 1
}

/// Returns the lowest bit at or above a number, which is at most 63.
fn bit_from(bits: u64, number: u32) -> Option<u32> {
    let rest = bits & !below(number.into());
    (rest != 0).then(|| rest.trailing_zeros())
}

/// Returns the highest bit below a number, which is at most 63.
fn bit_below(bits: u64, number: u32) -> Option<u32> {
    let rest = bits & below(number.into());
    (rest != 0).then(|| rest.ilog2())
}
