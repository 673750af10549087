//! Dates on which a rule does not fire.

use std::fmt;

use super::civil::Month;
use crate::core::calendar::Day;

/// Maximum number of dates in `scheduler-except`.
pub const DATES_MAX: usize = 366;

fn parse(text: &str) -> Option<Day> {
    let bytes = text.as_bytes();
    let digits = |from: usize, to: usize| -> Option<i64> {
        let digits = bytes.get(from..to)?;
        let number = |n: i64, digit: &u8| n * 10 + i64::from(digit - b'0');
        digits.iter().all(u8::is_ascii_digit).then(|| digits.iter().fold(0, number))
    };
    if bytes.len() != 10 || bytes[4] != b'-' || bytes[7] != b'-' {
        return None;
    }
    let month = Month::from_number(digits(0, 4)?, digits(5, 7)?)?;
    let day = digits(8, 10)?;
    let fits = (1..=i64::from(month.length())).contains(&day);
    fits.then(|| i32::try_from(month.first_day() + day - 1).ok().map(Day)).flatten()
}

/// Why a text is not a list of dates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DatesError {
    /// An item, counted from 1, is not a date.
    NotADate(usize),
    /// More than [`DATES_MAX`] items.
    TooMany,
}

impl fmt::Display for DatesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotADate(number) => write!(
                f,
                "date {number} is not a date of the calendar: write dates as 2027-12-25, with commas between them"
            ),
            Self::TooMany => write!(f, "more than {DATES_MAX} dates: split the schedule, or end it earlier"),
        }
    }
}

impl std::error::Error for DatesError {}

/// Parses `scheduler-except`: up to [`DATES_MAX`] dates such as `2027-12-25`, with commas between them and any spaces
/// around them. Returns them sorted and without repeats.
///
/// # Errors
/// If an item is not a date, which includes an empty text, or if there are too many.
pub fn dates(text: &str) -> Result<Vec<Day>, DatesError> {
    let mut dates = Vec::new();
    for (at, item) in text.split(',').enumerate() {
        if at == DATES_MAX {
            return Err(DatesError::TooMany);
        }
        dates.push(parse(item.trim()).ok_or(DatesError::NotADate(at + 1))?);
    }
    dates.sort_unstable();
    dates.dedup();
    Ok(dates)
}

/// Returns whether a day, counted from 1970-01-01, is one of these dates, which are sorted.
pub(super) fn contains(dates: &[Day], day: i64) -> bool {
    !dates.is_empty() && dates.binary_search_by(|date| date.number().cmp(&day)).is_ok()
}

/// Returns those of the dates, which are sorted, that are in a range of days.
pub(super) fn within(dates: &[Day], from: i64, to: i64) -> &[Day] {
    let start = dates.partition_point(|date| date.number() < from);
    let end = dates.partition_point(|date| date.number() < to);
    &dates[start..end.max(start)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn days(text: &str) -> Result<Vec<i64>, DatesError> {
        dates(text).map(|dates| dates.into_iter().map(Day::number).collect())
    }

    #[test]
    fn dates_are_sorted_and_unique() {
        assert_eq!(days("1970-01-03, 1970-01-01 ,1970-01-03"), Ok(vec![0, 2]));
        assert_eq!(days("2028-02-29"), Ok(vec![21_243]));
        assert_eq!(days("0000-01-01,9999-12-31"), Ok(vec![-719_528, 2_932_896]));
    }

    #[test]
    fn other_texts_are_errors_that_name_the_item() {
        for (text, number) in [
            ("", 1),
            ("2027-12-25,", 2),
            ("2027-02-29", 1),
            ("2027-12-25;2027-12-26", 1),
            ("2027-12-25,27-12-26", 2),
            ("2027-13-01", 1),
            ("2027-00-01", 1),
            ("2027-01-00", 1),
            ("2027-01-+1", 1),
            ("20270101", 1),
            ("२०२७", 1),
        ] {
            assert_eq!(days(text), Err(DatesError::NotADate(number)), "{text}");
        }
        let all = vec!["2027-12-25"; DATES_MAX];
        assert_eq!(days(&all.join(",")), Ok(vec![21_177]));
        assert_eq!(days(&(all.join(",") + ",2027-12-25")), Err(DatesError::TooMany));
    }

    #[test]
    fn ranges_of_days_end_before_their_end() {
        let dates = dates("1970-01-01,1970-01-03,1970-01-05").expect("dates");
        let days = |from, to| within(&dates, from, to).iter().map(|date| date.number()).collect::<Vec<_>>();
        assert_eq!((days(0, 4), days(1, 2), days(4, 0)), (vec![0, 2], vec![], vec![]));
        assert_eq!([0, 1, 2].map(|day| contains(&dates, day)), [true, false, true]);
    }
}
