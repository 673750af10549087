//! The wall clock.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::{ToSpan, Zoned};

use crate::core::io::Millis;

/// Now. A clock before 1970 counts as 1970.
pub fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Local midnight (zone from `TZ`, else the system's) plus a number of days, which is 0 or less.
pub fn today(delta_days: i32) -> Millis {
    let midnight = Zoned::now()
        .start_of_day()
        .and_then(|midnight| midnight.checked_add(delta_days.days()))
        .map(|day| day.timestamp().as_millisecond());
    // Further back than the calendar goes: everything is owed.
    Millis(midnight.unwrap_or(i64::MIN / 2))
}
