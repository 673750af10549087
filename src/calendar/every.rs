//! Fixed intervals. All moments are milliseconds since 1970.

use super::civil::DAY_S;
use super::dates::contains;
use super::zone::{FIRST_S, LAST_S, OFFSET_S_MAX, Zone};
use crate::core::calendar::Day;

/// Occurrences at `first`, and then again after each interval, on no local date of `except`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Every<'a> {
    /// More than 0.
    pub(super) interval: i64,
    pub(super) first: i64,
    pub(super) zone: &'a Zone,
    pub(super) except: &'a [Day],
}

impl Every<'_> {
    /// Returns the first occurrence in a range, which includes both ends.
    pub(super) fn first(self, from: i64, to: i64) -> Option<i64> {
        let mut from = from;
        loop {
            let steps = (i128::from(from) - i128::from(self.first) + i128::from(self.interval) - 1)
                .div_euclid(self.interval.into());
            let at = self.occurrence(steps.max(0)).filter(|at| *at <= to)?;
            let Some((_, end)) = self.excepted(at) else { return Some(at) };
            from = end;
        }
    }

    /// Returns the last occurrence in a range, which includes both ends.
    pub(super) fn last(self, from: i64, to: i64) -> Option<i64> {
        let mut to = to;
        loop {
            let steps = (i128::from(to) - i128::from(self.first)).div_euclid(self.interval.into());
            let at = self.occurrence(steps).filter(|at| steps >= 0 && *at >= from)?;
            let Some((start, _)) = self.excepted(at) else { return Some(at) };
            to = start.checked_sub(1)?;
        }
    }

    /// Returns the number of occurrences in a range, which includes both ends.
    pub(super) fn count(self, from: i64, to: i64) -> u64 {
        let all = self.count_all(from, to);
        let excepted: u64 = self.except.iter().map(|date| self.count_on(date.number(), from, to)).sum();
        all - excepted
    }

    fn occurrence(self, steps: i128) -> Option<i64> {
        i64::try_from(i128::from(self.first) + steps * i128::from(self.interval)).ok()
    }

    fn count_all(self, from: i64, to: i64) -> u64 {
        let up_to = |to: i128| ((to - i128::from(self.first)).div_euclid(self.interval.into()) + 1).max(0);
        let count = up_to(to.into()) - up_to(i128::from(from) - 1);
        u64::try_from(count).unwrap_or(0)
    }

    fn count_on(self, day: i64, from: i64, to: i64) -> u64 {
        let last = ((day + 1) * DAY_S + OFFSET_S_MAX).min(LAST_S);
        let (mut at, mut count) = ((day * DAY_S - OFFSET_S_MAX).max(FIRST_S), 0);
        // A change of the clocks at midnight may divide a day.
        while at <= last {
            let (start, end, of) = self.stretch(at);
            if of == day {
                count += self.count_all(from.max(start * 1_000), to.min(end * 1_000 - 1));
            }
            at = end;
        }
        count
    }

    /// Returns start and end of the time around a moment that is excepted.
    fn excepted(self, at_ms: i64) -> Option<(i64, i64)> {
        let at = at_ms.div_euclid(1_000);
        if self.except.is_empty() || !(FIRST_S..=LAST_S).contains(&at) {
            return None;
        }
        let (start, end, day) = self.stretch(at);
        contains(self.except, day).then(|| (start * 1_000, end * 1_000))
    }

    /// Returns the first second, the first second after, and the local day of the time around a second in which
    /// neither the local day nor the offset changes.
    fn stretch(self, at: i64) -> (i64, i64, i64) {
        let piece = self.zone.bounded_page(at);
        let day = (at + piece.offset).div_euclid(DAY_S);
        let start = (day * DAY_S - piece.offset).max(piece.start);
        let end = ((day + 1) * DAY_S - piece.offset).min(piece.end);
        (start, end, day)
    }
}
