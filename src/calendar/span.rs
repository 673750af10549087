//! Spans of time with a fixed length.

use std::fmt;

use jiff::Span;

/// The longest span, 100 years of 365.25 days, in milliseconds.
pub const SPAN_MS_MAX: i64 = 36_525 * 86_400_000;

/// Longer texts are refused unread.
const TEXT_BYTES_MAX: usize = 200;

/// Why a text is not a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpanError {
    /// The text is not a duration.
    Malformed,
    /// It counts months or years.
    Calendar,
    /// It is less than nothing.
    Negative,
    /// It is longer than [`SPAN_MS_MAX`].
    TooLong,
}

impl fmt::Display for SpanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "not a duration: write one such as 250ms, 90s, 10m, 1h30m, 2d, 2w or PT10M",
            Self::Calendar => {
                "months and years have no fixed length: write days or weeks, or use scheduler-cron for dates"
            }
            Self::Negative => "negative: write a duration that is 0 or more",
            Self::TooLong => "longer than 100 years: write a shorter duration",
        })
    }
}

impl std::error::Error for SpanError {}

/// Parses a span such as `250ms`, `90s`, `1h30m`, `1 day`, `2w` or `PT10M`, and returns its length in milliseconds,
/// fractions rounded up. A day is 24 hours and a week 7 days, in every zone.
///
/// # Errors
/// If the text is not a span, is negative, counts months or years, or is longer than [`SPAN_MS_MAX`].
pub fn span(text: &str) -> Result<i64, SpanError> {
    let text = text.trim();
    if text.len() > TEXT_BYTES_MAX {
        return Err(SpanError::Malformed);
    }
    let span: Span = text.parse().map_err(|_| SpanError::Malformed)?;
    if span.get_years() != 0 || span.get_months() != 0 {
        return Err(SpanError::Calendar);
    }
    // jiff bounds each unit to some 20,000 years, so the nanoseconds of all fit into 128 bits.
    let parts: [(i64, i128); 8] = [
        (span.get_weeks().into(), 7 * 86_400_000_000_000),
        (span.get_days().into(), 86_400_000_000_000),
        (span.get_hours().into(), 3_600_000_000_000),
        (span.get_minutes(), 60_000_000_000),
        (span.get_seconds(), 1_000_000_000),
        (span.get_milliseconds(), 1_000_000),
        (span.get_microseconds(), 1_000),
        (span.get_nanoseconds(), 1),
    ];
    let ns: i128 = parts.iter().map(|(count, unit_ns)| i128::from(*count) * unit_ns).sum();
    if ns < 0 {
        return Err(SpanError::Negative);
    }
    let ms = ns / 1_000_000 + i128::from(ns % 1_000_000 > 0);
    i64::try_from(ms).ok().filter(|ms| *ms <= SPAN_MS_MAX).ok_or(SpanError::TooLong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_a_fixed_length() {
        for (text, ms) in [
            ("90s", 90_000),
            ("1h30m", 5_400_000),
            ("1h 30m", 5_400_000),
            ("PT10M", 600_000),
            ("pt0.25s", 250),
            ("P1DT2H", 26 * 3_600_000),
            ("P2W", 14 * 86_400_000),
            ("250ms", 250),
            (" 1 day ", 86_400_000),
            ("2w", 14 * 86_400_000),
            ("0s", 0),
            ("1ns", 1),
            ("1ms 1us", 2),
            ("36525d", SPAN_MS_MAX),
        ] {
            assert_eq!(span(text), Ok(ms), "{text}");
        }
    }

    #[test]
    fn other_texts_are_errors() {
        let long = format!("{}s", "0".repeat(TEXT_BYTES_MAX));
        for text in ["", "10", "soon", "10m;", "s", "1h30", "٣s", long.as_str()] {
            assert_eq!(span(text), Err(SpanError::Malformed), "{text}");
        }
        for text in ["1mo", "1y", "P1M", "1 year 2 days"] {
            assert_eq!(span(text), Err(SpanError::Calendar), "{text}");
        }
        for text in ["-1s", "1s ago", "-PT1H"] {
            assert_eq!(span(text), Err(SpanError::Negative), "{text}");
        }
        for text in ["36525d 1ns", "5218w"] {
            assert_eq!(span(text), Err(SpanError::TooLong), "{text}");
        }
    }
}
