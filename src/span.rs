//! Parses durations such as `1h30m`.

use std::fmt;
use std::time::Duration;

use jiff::{Span, Zoned};

/// Why a text is not a duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadSpan;

impl fmt::Display for BadSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("must be a duration such as 90s, 10m, 1h30m, 2d, 1mo, 1y or PT10M, not negative")
    }
}

impl std::error::Error for BadSpan {}

/// Returns the length of a duration that begins at `from`, which counts because days, months and years follow the
/// calendar.
///
/// # Errors
/// If the text is not a duration, or it is negative or ends after the year 9999.
pub(crate) fn parse(text: &str, from: &Zoned) -> Result<Duration, BadSpan> {
    let span: Span = text.trim().parse().map_err(|_| BadSpan)?;
    let end = from.checked_add(span).map_err(|_| BadSpan)?;
    Duration::try_from(from.duration_until(&end)).map_err(|_| BadSpan)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_follow_the_calendar() {
        let from: Zoned = "2027-10-31T00:00:00[Europe/Berlin]".parse().expect("a date");
        for (text, seconds) in [
            ("90s", 90),
            ("10m", 600),
            ("1h30m", 5_400),
            ("1h 30m", 5_400),
            ("PT10M", 600),
            (" 2 days ", 49 * 3_600),
            ("1y", 366 * 86_400 + 3_600),
            ("0s", 0),
        ] {
            assert_eq!(parse(text, &from), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for bad in ["", "10", "soon", "-1s", "1s ago", "99999y", "10m;"] {
            assert_eq!(parse(bad, &from), Err(BadSpan), "{bad}");
        }
    }
}
