//! The time at which a schedule is due.

use super::types::Millis;

/// Last second since 1970 whose milliseconds fit into 63 bits.
pub const EPOCH_S_MAX: u64 = i64::MAX as u64 / 1000;

/// A due time: a schedule is due from the beginning of this second on, by the wall clock of the engine's machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Due {
    epoch_s: u64,
}

impl Due {
    /// Returns the due time that many seconds after 1970-01-01T00:00:00Z, if it is at most [`EPOCH_S_MAX`].
    #[must_use]
    pub const fn from_epoch_s(epoch_s: u64) -> Option<Self> {
        if epoch_s <= EPOCH_S_MAX { Some(Self { epoch_s }) } else { None }
    }

    /// Reads decimal digits, leading zeros included. `Ok(None)` means that the number is too large. No digits
    /// are 0.
    ///
    /// # Errors
    /// If a byte is not a digit.
    pub fn parse(text: &[u8]) -> Result<Option<Self>, NotDigits> {
        if !text.iter().all(u8::is_ascii_digit) {
            return Err(NotDigits);
        }
        let number = text.iter().try_fold(0u64, |n, digit| n.checked_mul(10)?.checked_add(u64::from(digit - b'0')));
        Ok(number.and_then(Self::from_epoch_s))
    }

    /// Returns whole seconds since 1970, the unit of the header `scheduler-epoch`.
    #[must_use]
    pub const fn epoch_s(self) -> u64 {
        self.epoch_s
    }

    /// Returns the first millisecond at which it may fire.
    #[must_use]
    pub const fn at(self) -> Millis {
        // At most EPOCH_S_MAX, so it fits.
        Millis(self.epoch_s as i64 * 1000)
    }

    /// Returns whether it may fire at `now`.
    #[must_use]
    pub fn is_due(self, now: Millis) -> bool {
        self.at() <= now
    }

    /// Returns the second of its queue: schedules that are due in the same second share one.
    pub(super) const fn second(self) -> u64 {
        self.epoch_s
    }
}

/// The text of a due time contains a byte that is not a digit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotDigits;

/// Returns the second since 1970 that contains `now`; `None` before 1970, when no schedule is due.
pub(super) fn second_of(now: Millis) -> Option<u64> {
    u64::try_from(now.0.div_euclid(1000)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_is_due_from_its_first_millisecond_on() {
        let due = Due::parse(b"0000000007").expect("digits").expect("it fits");
        assert_eq!((due.epoch_s(), due.at(), due.second()), (7, Millis(7_000), 7));
        assert_eq!([6_999, 7_000, 7_001].map(|now| due.is_due(Millis(now))), [false, true, true]);
        assert_eq!([-1, 0, 6_999, 7_000].map(|now| second_of(Millis(now))), [None, Some(0), Some(6), Some(7)]);
    }

    #[test]
    fn the_last_second_is_the_last_whose_milliseconds_fit() {
        let last = EPOCH_S_MAX.to_string();
        assert_eq!(Due::parse(last.as_bytes()), Ok(Due::from_epoch_s(EPOCH_S_MAX)));
        assert_eq!(Due::parse((EPOCH_S_MAX + 1).to_string().as_bytes()), Ok(None));
        assert_eq!(Due::parse(b"99999999999999999999999999"), Ok(None));
        assert_eq!(Due::parse(b"+7"), Err(NotDigits));
    }
}
