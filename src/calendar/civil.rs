//! Arithmetic with dates of the Gregorian calendar. A *civil second* is a local time as if it were UTC: seconds since
//! 1970-01-01 00:00 by the clock on the wall.

/// Seconds of a day; leap seconds do not count.
pub(super) const DAY_S: i64 = 86_400;

/// A month of a year.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Month {
    year: i64,
    /// 1 to 12.
    number: u8,
}

impl Month {
    /// Returns the month that a day, counted from 1970-01-01, is in.
    pub(super) const fn of(day: i64) -> Self {
        // Eras of 400 years, which begin in March: a leap day ends a year.
        let from_era = day + 719_468;
        let of_era = from_era.rem_euclid(146_097);
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * of_year + 2) / 153;
        let number = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        let year = from_era.div_euclid(146_097) * 400 + year_of_era + (number <= 2) as i64;
        Self { year, number: number as u8 }
    }

    /// Returns the month with this number, if it is 1 to 12.
    pub(super) fn from_number(year: i64, number: i64) -> Option<Self> {
        let number = u8::try_from(number).ok().filter(|number| (1..=12).contains(number))?;
        Some(Self { year, number })
    }

    /// Returns the following month.
    pub(super) const fn next(self) -> Self {
        if self.number == 12 {
            Self { year: self.year + 1, number: 1 }
        } else {
            Self { year: self.year, number: self.number + 1 }
        }
    }

    /// Returns the month before.
    pub(super) const fn previous(self) -> Self {
        if self.number == 1 {
            Self { year: self.year - 1, number: 12 }
        } else {
            Self { year: self.year, number: self.number - 1 }
        }
    }

    /// Returns 1 for January to 12 for December.
    pub(super) const fn number(self) -> u8 {
        self.number
    }

    /// Returns its first day, counted from 1970-01-01.
    pub(super) const fn first_day(self) -> i64 {
        let year = if self.number <= 2 { self.year - 1 } else { self.year };
        let from_march = (self.number as i64 + 9) % 12;
        let of_era = year.rem_euclid(400);
        let day_of_era = 365 * of_era + of_era / 4 - of_era / 100 + (153 * from_march + 2) / 5;
        year.div_euclid(400) * 146_097 + day_of_era - 719_468
    }

    /// Returns its number of days.
    pub(super) const fn length(self) -> u8 {
        match self.number {
            2 if self.year % 4 == 0 && (self.year % 100 != 0 || self.year % 400 == 0) => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        }
    }
}

/// Returns a day's weekday, 0 for Sunday.
pub(super) const fn weekday(day: i64) -> u8 {
    (day + 4).rem_euclid(7) as u8
}

#[cfg(test)]
mod tests {
    use jiff::civil::{Date, date};

    use super::*;

    fn check(at: Date) {
        let since = at.duration_since(date(1970, 1, 1)).as_secs() / DAY_S;
        let month = Month::of(since);
        assert_eq!((month.year, month.number), (i64::from(at.year()), at.month() as u8), "{at}");
        assert_eq!(month.first_day() + i64::from(at.day()) - 1, since, "{at}");
        assert_eq!(month.length(), at.days_in_month() as u8, "{at}");
        assert_eq!(weekday(since), at.weekday().to_sunday_zero_offset() as u8, "{at}");
        assert_eq!((Month::of(month.first_day() - 1), month.previous().next()), (month.previous(), month), "{at}");
        assert_eq!(Month::of(month.first_day() + i64::from(month.length())), month.next(), "{at}");
    }

    #[test]
    fn dates_agree_with_jiff() {
        let mut at = date(1890, 1, 1);
        while at < date(2410, 1, 1) {
            check(at);
            at = at.tomorrow().expect("a day");
        }
        for far in [date(-9999, 1, 1), date(-4, 2, 29), date(0, 2, 29), date(0, 3, 1), date(9999, 12, 31)] {
            check(far);
        }
    }
}
