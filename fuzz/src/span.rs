//! Spans, and rules that recur after each.

use kafka_scheduler::calendar::{SPAN_MS_MAX, UTC, ZoneCalendar, span};
use kafka_scheduler::core::calendar::Calendar as _;
use kafka_scheduler::core::types::Millis;

use super::bytes::Bytes;

/// Two moments, and the text of a span.
pub fn run(data: &[u8]) {
    let mut bytes = Bytes(data);
    let (first, after) = (Millis(bytes.long()), Millis(bytes.long()));
    let Ok(ms) = span(&String::from_utf8_lossy(bytes.0)) else { return };
    assert!((0..=SPAN_MS_MAX).contains(&ms));
    let calendar = ZoneCalendar::default();
    let Ok(rule) = calendar.every(ms, first, UTC) else { return assert!(ms < 1_000) };
    let forever = Millis(i64::MAX);
    let Some(next) = calendar.next(&rule, &[], after, forever) else { return };
    assert!(next > after && next >= first);
    assert_eq!((i128::from(next.0) - i128::from(first.0)) % i128::from(ms), 0);
    assert_eq!(calendar.previous(&rule, &[], after, next), Some(next));
    assert_eq!(calendar.count(&rule, &[], after, next), 1);
}
