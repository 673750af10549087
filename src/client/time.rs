//! Converts dates and delays of several libraries.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A moment in milliseconds since 1970, which may be negative.
///
/// Fractions of a millisecond are rounded up, so nothing fires early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    ms: i64,
}

impl Moment {
    /// Converts seconds since 1970; saturates at the range of 64-bit milliseconds.
    #[must_use]
    pub const fn from_epoch_s(seconds: i64) -> Self {
        Self { ms: seconds.saturating_mul(1000) }
    }

    /// Converts milliseconds since 1970, such as a Kafka timestamp.
    #[must_use]
    pub const fn from_epoch_ms(ms: i64) -> Self {
        Self { ms }
    }

    /// Returns milliseconds since 1970; before it, they are negative.
    #[must_use]
    pub const fn epoch_ms(self) -> i64 {
        self.ms
    }

    /// Returns whole seconds since 1970, rounded up.
    #[must_use]
    pub const fn epoch_s(self) -> i64 {
        self.ms.div_euclid(1000) + (self.ms.rem_euclid(1000) > 0) as i64
    }

    /// Reads this machine's clock. The engine fires by the clock of its own machine.
    #[must_use]
    pub fn now() -> Self {
        SystemTime::now().into()
    }

    /// Adds a delay. A sum out of range is the first or last moment of the range.
    #[must_use]
    pub const fn plus(self, delay: Delay) -> Self {
        Self { ms: self.ms.saturating_add(delay.ms) }
    }
}

impl From<SystemTime> for Moment {
    fn from(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(since) => Self { ms: Delay::from(since).ms },
            Err(before) => Self { ms: -i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX) },
        }
    }
}

/// A delay or interval of a schedule in milliseconds. Fractions are rounded up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Delay {
    ms: i64,
}

impl Delay {
    pub(super) const fn ms(self) -> i64 {
        self.ms
    }
}

impl From<Duration> for Delay {
    fn from(delay: Duration) -> Self {
        Self { ms: i64::try_from(delay.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX) }
    }
}

#[cfg(feature = "jiff")]
mod with_jiff {
    use jiff::{SignedDuration, Timestamp, Zoned};

    use super::{Delay, Moment};

    impl From<Timestamp> for Moment {
        fn from(at: Timestamp) -> Self {
            let below = at.as_nanosecond().rem_euclid(1_000_000) > 0;
            // jiff ends with the year 9999, far from the end of the range.
            let ms = at.as_nanosecond().div_euclid(1_000_000) + i128::from(below);
            Self::from_epoch_ms(i64::try_from(ms).unwrap_or(i64::MAX))
        }
    }

    impl From<&Zoned> for Moment {
        fn from(at: &Zoned) -> Self {
            at.timestamp().into()
        }
    }

    impl From<Zoned> for Moment {
        fn from(at: Zoned) -> Self {
            at.timestamp().into()
        }
    }

    impl From<SignedDuration> for Delay {
        fn from(delay: SignedDuration) -> Self {
            let below = delay.as_nanos().rem_euclid(1_000_000) > 0;
            let ms = delay.as_nanos().div_euclid(1_000_000) + i128::from(below);
            Self { ms: i64::try_from(ms).unwrap_or(if ms < 0 { i64::MIN } else { i64::MAX }) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_rounded_up_to_seconds() {
        for (ms, seconds) in [(0, 0), (1, 1), (999, 1), (1000, 1), (1001, 2), (-1, 0), (-1000, -1), (-1001, -1)] {
            assert_eq!(Moment::from_epoch_ms(ms).epoch_s(), seconds, "{ms} ms");
        }
        assert_eq!(Moment::from_epoch_ms(i64::MAX).epoch_s(), i64::MAX / 1000 + 1);
        assert_eq!(Moment::from(UNIX_EPOCH - Duration::from_secs(2)).epoch_ms(), -2_000);
    }

    #[test]
    fn delays_stop_at_the_end_of_the_range() {
        assert_eq!(Delay::from(Duration::MAX).ms, i64::MAX);
        assert_eq!(Delay::from(Duration::from_nanos(1)).ms, 1);
        assert_eq!(Moment::from_epoch_ms(5).plus(Duration::MAX.into()).epoch_ms(), i64::MAX);
    }

    #[cfg(feature = "jiff")]
    #[test]
    fn jiff_types_convert_the_same_way() {
        let at: jiff::Timestamp = "2030-01-01T00:00:00.0000001Z".parse().expect("a timestamp");
        assert_eq!(Moment::from(at).epoch_s(), 1_893_456_001);
        let zoned: jiff::Zoned = "2030-01-01T00:00:00[Etc/GMT-1]".parse().expect("a zoned date");
        assert_eq!(Moment::from(&zoned).epoch_s(), 1_893_456_000 - 3_600);
        assert_eq!(Delay::from(jiff::SignedDuration::from_secs(-2)).ms, -2_000);
    }
}
