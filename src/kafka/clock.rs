//! The wall clock, as an engine sees it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

use crate::core::io::Millis;

/// Tells the time to one engine: the system's clock, unless a test has moved it forward. Clones share what it tells.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    ahead_ms: Arc<AtomicI64>,
}

impl Clock {
    /// Now. A system clock before 1970 counts as 1970.
    #[must_use]
    pub fn now(&self) -> Millis {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX)).plus(self.ahead_ms.load(Ordering::Relaxed))
    }

    /// Moves the clock forward, and returns what it shows then. It stops at the end of its range.
    pub fn advance(&self, by: Duration) -> Millis {
        let by_ms = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        // It always stores something.
        let _ = self
            .ahead_ms
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |ahead_ms| Some(ahead_ms.saturating_add(by_ms)));
        self.now()
    }

    /// Local midnight (zone from `TZ`, else the system's) plus a number of days, which is 0 or less.
    pub(super) fn leftover_cutoff(&self, delta_days: i32) -> Millis {
        let midnight = Timestamp::from_millisecond(self.now().0)
            .and_then(|now| now.to_zoned(TimeZone::system()).start_of_day())
            .and_then(|midnight| midnight.checked_add(delta_days.days()))
            .map(|day| day.timestamp().as_millisecond());
        // Beyond the calendar: everything is owed.
        Millis(midnight.unwrap_or(i64::MIN / 2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_move_together_and_others_do_not() {
        let (clock, other) = (Clock::default(), Clock::default());
        let before = clock.now();
        assert!(clock.clone().advance(Duration::from_secs(3_600)) >= before.plus(3_600_000));
        assert!(clock.now() >= before.plus(3_600_000) && other.now() < before.plus(3_600_000));
        assert_eq!(clock.advance(Duration::MAX), Millis(i64::MAX));
    }
}
