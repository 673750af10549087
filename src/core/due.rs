//! The time at which a schedule is due.

use super::types::Millis;

/// Last second since 1970 whose milliseconds fit into 63 bits.
pub const EPOCH_S_MAX: u64 = i64::MAX as u64 / 1000;

/// A due time: a schedule is due from the beginning of this millisecond on, by the wall clock of the engine's machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Due {
    /// At most `i64::MAX`.
    epoch_ms: u64,
}

impl Due {
    /// The last due time.
    pub const LAST: Self = Self { epoch_ms: i64::MAX as u64 };

    /// Returns the due time that many seconds after 1970-01-01T00:00:00Z, if it is at most [`EPOCH_S_MAX`].
    #[must_use]
    pub const fn from_epoch_s(epoch_s: u64) -> Option<Self> {
        if epoch_s <= EPOCH_S_MAX { Some(Self { epoch_ms: epoch_s * 1000 }) } else { None }
    }

    /// Returns the due time that many milliseconds after 1970-01-01T00:00:00Z, if it fits into 63 bits.
    #[must_use]
    pub const fn from_epoch_ms(epoch_ms: u64) -> Option<Self> {
        if epoch_ms <= i64::MAX as u64 { Some(Self { epoch_ms }) } else { None }
    }

    /// Reads decimal digits as seconds, leading zeros included. `Ok(None)` means that the number is too large. No
    /// digits are 0.
    ///
    /// # Errors
    /// If a byte is not a digit.
    pub fn parse_s(text: &[u8]) -> Result<Option<Self>, NotDigits> {
        Ok(decimal(text)?.and_then(Self::from_epoch_s))
    }

    /// Reads decimal digits as milliseconds, as [`Due::parse_s`] reads seconds.
    ///
    /// # Errors
    /// If a byte is not a digit.
    pub fn parse_ms(text: &[u8]) -> Result<Option<Self>, NotDigits> {
        Ok(decimal(text)?.and_then(Self::from_epoch_ms))
    }

    /// Returns whole seconds since 1970, the unit of the header `scheduler-epoch`, rounded down.
    #[must_use]
    pub const fn epoch_s(self) -> u64 {
        self.epoch_ms / 1000
    }

    /// Returns milliseconds since 1970, the unit of the header `scheduler-epoch-ms`.
    #[must_use]
    pub const fn epoch_ms(self) -> u64 {
        self.epoch_ms
    }

    /// Returns whether its milliseconds are those of a second's beginning.
    #[must_use]
    pub const fn is_whole_second(self) -> bool {
        self.epoch_ms.is_multiple_of(1000)
    }

    /// Returns the first millisecond at which it may fire.
    #[must_use]
    pub const fn at(self) -> Millis {
        // At most i64::MAX, so it fits.
        Millis(self.epoch_ms as i64)
    }

    /// Returns whether it may fire at `now`.
    #[must_use]
    pub fn is_due(self, now: Millis) -> bool {
        self.at() <= now
    }
}

/// Returns the number in decimal digits; `None` if it is too large.
fn decimal(text: &[u8]) -> Result<Option<u64>, NotDigits> {
    if !text.iter().all(u8::is_ascii_digit) {
        return Err(NotDigits);
    }
    Ok(text.iter().try_fold(0u64, |n, digit| n.checked_mul(10)?.checked_add(u64::from(digit - b'0'))))
}

/// The text of a due time contains a byte that is not a digit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotDigits;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_is_due_from_its_first_millisecond_on() {
        let due = Due::parse_s(b"0000000007").expect("digits").expect("it fits");
        assert_eq!((due.epoch_s(), due.at(), due.is_whole_second()), (7, Millis(7_000), true));
        assert_eq!([6_999, 7_000, 7_001].map(|now| due.is_due(Millis(now))), [false, true, true]);
    }

    #[test]
    fn milliseconds_are_due_in_the_middle_of_a_second() {
        let due = Due::parse_ms(b"7001").expect("digits").expect("it fits");
        assert_eq!((due.epoch_s(), due.epoch_ms(), due.is_whole_second()), (7, 7_001, false));
        assert_eq!([7_000, 7_001].map(|now| due.is_due(Millis(now))), [false, true]);
        assert_eq!(Due::parse_ms(b"9223372036854775808"), Ok(None));
        assert_eq!(Due::parse_ms(b"9223372036854775807").map(|due| due.map(Due::at)), Ok(Some(Millis(i64::MAX))));
    }

    #[test]
    fn the_last_second_is_the_last_whose_milliseconds_fit() {
        let last = EPOCH_S_MAX.to_string();
        assert_eq!(Due::parse_s(last.as_bytes()), Ok(Due::from_epoch_s(EPOCH_S_MAX)));
        assert_eq!(Due::parse_s((EPOCH_S_MAX + 1).to_string().as_bytes()), Ok(None));
        assert_eq!(Due::parse_s(b"99999999999999999999999999"), Ok(None));
        assert_eq!(Due::parse_s(b"+7"), Err(NotDigits));
    }
}
