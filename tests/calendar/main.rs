//! The calendar, against the zone database as jiff reads it and against plain walks through time.
#![cfg(feature = "calendar")]

mod cases;
mod naive;
mod walks;

use jiff::Timestamp;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use kafka_scheduler::calendar::{ZoneCalendar, moment};
use kafka_scheduler::core::calendar::{Calendar as _, Day, Rule};
use kafka_scheduler::core::types::Millis;

const FOREVER: Millis = Millis(i64::MAX);

/// Returns the zone of the data that is compiled in.
fn zone(name: &str) -> TimeZone {
    TimeZoneDatabase::bundled().get(name).unwrap_or_else(|e| panic!("{e}"))
}

fn at(text: &str) -> Millis {
    moment(text).unwrap_or_else(|e| panic!("{text}: {e}"))
}

/// Returns local time with its offset, as `2027-03-28T09:00:00+02:00`.
fn local(at: Millis, zone: &TimeZone) -> String {
    let at = Timestamp::from_millisecond(at.0).expect("a moment that jiff knows").to_zoned(zone.clone());
    at.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
}

/// Returns all occurrences in a range without its start, found one after the other.
fn all(calendar: &ZoneCalendar, rule: &Rule, except: &[Day], after: Millis, until: Millis) -> Vec<Millis> {
    let mut found = Vec::new();
    let mut after = after;
    while let Some(next) = calendar.next(rule, except, after, until) {
        assert!(next > after && next <= until, "{next:?} after {after:?} until {until:?}");
        found.push(next);
        after = next;
    }
    found
}
