//! Cron expressions in zones: their occurrences are in order, forward, backward and counted.

use kafka_scheduler::calendar::{UTC, ZoneCalendar, dates};
use kafka_scheduler::core::calendar::Calendar as _;
use kafka_scheduler::core::types::Millis;

use super::bytes::Bytes;

const ZONES: &[&str] = &[
    UTC,
    "Europe/Paris",
    "America/New_York",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Africa/Casablanca",
    "America/St_Johns",
    "",
];

/// Occurrences that are asked for, one after the other.
const NEXT_MAX: u64 = 8;

/// A zone, a moment, dates that are excepted, and an expression; an empty zone is the expression's first line.
pub fn run(data: &[u8]) {
    let mut bytes = Bytes(data);
    let zone = bytes.pick(ZONES);
    let start = Millis(bytes.long());
    let except = dates(&String::from_utf8_lossy(bytes.slice())).unwrap_or_default();
    let text = String::from_utf8_lossy(bytes.0);
    let (zone, expression) =
        if zone.is_empty() { text.split_once('\n').unwrap_or((UTC, &text)) } else { (zone, &*text) };
    let calendar = ZoneCalendar::default();
    let rule = match calendar.cron(expression, zone) {
        Ok(rule) => rule,
        Err(error) => return assert!(error.to_string().len() < 250, "it repeats no long text"),
    };
    let mut after = start;
    for count in 1..=NEXT_MAX {
        let Some(next) = calendar.next(&rule, &except, after, Millis(i64::MAX)) else { break };
        assert!(next > after && next.0 % 1_000 == 0);
        assert_eq!(calendar.previous(&rule, &except, after, next), Some(next));
        assert_eq!(calendar.previous(&rule, &except, after, next.plus(-1)), None);
        assert_eq!(calendar.count(&rule, &except, start, next), count);
        after = next;
    }
}
