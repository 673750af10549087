//! Dates with times, and lists of dates.

use kafka_scheduler::calendar::{DATES_MAX, dates, moment};

/// First and last millisecond of the years 0000 to 9999, with an offset of a day at either end.
const YEARS_MS: std::ops::RangeInclusive<i64> = -62_167_219_200_000 - 86_400_000..=253_402_300_799_999 + 86_400_000;

/// The text of a moment, or of a list of dates.
pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match moment(&text) {
        Ok(at) => {
            assert!(YEARS_MS.contains(&at.0), "{text}");
            assert!(text.contains(['Z', 'z', '+', '-', '[']), "{text} has neither an offset nor a zone");
        }
        Err(error) => assert!(error.to_string().len() < 250, "it repeats no long text"),
    }
    if let Ok(dates) = dates(&text) {
        assert!(!dates.is_empty() && dates.len() <= DATES_MAX && dates.is_sorted());
    }
}
