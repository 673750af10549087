//! Which schedules of the time before the first start are owed, and which are leftovers.

use crate::kit::client::delete_group;
use crate::kit::wait::now_s;
use crate::kit::{Case, Scheduled};

const DAY: i64 = 86_400;

/// Returns a time zone in which it is about noon, so midnight does not interfere, and the beginning of the day there.
pub fn noon_zone() -> (String, i64) {
    let now = now_s();
    let offset_hours = 12 - (now % DAY) / 3_600;
    let local = now + offset_hours * 3_600;
    // A POSIX time zone counts hours west of Greenwich.
    (format!("TST{}", -offset_hours), now - local % DAY)
}

fn keys(case: &Case) -> Vec<String> {
    let mut keys: Vec<String> = case.settled().iter().map(crate::kit::Record::key_text).collect();
    keys.sort_unstable();
    keys
}

fn at(case: &Case, key: &str, epoch: i64) -> Scheduled {
    Scheduled::new(key, "v", epoch, &case.target).target_key(key)
}

#[test]
fn a_first_start_skips_leftovers_until_its_days_are_lowered() {
    let Some(case) = Case::new("since", 2) else { return };
    let (zone, midnight) = noon_zone();
    case.produce(&[
        at(&case, "today", midnight),
        at(&case, "yesterday", midnight - 1),
        at(&case, "day-before", midnight - DAY - 1),
    ]);
    for (since, expected) in [
        ("0", &["today"][..]),
        ("-1", &["today", "yesterday"]),
        ("0", &["today", "yesterday"]),
        ("-3", &["day-before", "today", "yesterday"]),
    ] {
        let mut engine = case.engine_with(&[("SINCE_DELTA", since), ("TZ", &zone)]);
        assert_eq!(keys(&case), expected, "with SINCE_DELTA={since}");
        engine.stop();
    }
}

#[test]
fn a_first_start_a_day_back_fires_what_was_due_yesterday() {
    let Some(case) = Case::new("since-1", 2) else { return };
    let (zone, midnight) = noon_zone();
    case.produce(&[
        at(&case, "today", midnight),
        at(&case, "yesterday", midnight - DAY),
        at(&case, "day-before", midnight - DAY - 1),
    ]);
    let _engine = case.engine_with(&[("SINCE_DELTA", "-1"), ("TZ", &zone)]);
    assert_eq!(keys(&case), ["today", "yesterday"]);
}

#[test]
fn after_a_first_start_changes_of_the_group_skip_nothing() {
    let Some(case) = Case::new("owed", 2) else { return };
    let start = |group: &str| case.engine_with(&[("SINCE_DELTA", "0"), ("GROUP_ID", group)]);
    let mut engine = start(&case.group);
    case.settled();
    // These schedules are below all later barriers, and pending when the engine stops.
    case.produce(&[at(&case, "pending", now_s() + 5)]);
    engine.stop();
    case.produce(&[at(&case, "while-down", now_s() - 10 * DAY)]);
    delete_group(case.bootstrap(), &case.group);
    crate::kit::wait::until_ms((now_s() + 6) * 1000);
    let mut engine = start(&case.group);
    assert_eq!(keys(&case), ["pending", "while-down"], "with the group's offsets deleted");
    engine.stop();
    case.produce(&[at(&case, "while-down-again", now_s() - 10 * DAY)]);
    let _engine = start(&format!("{}-other", case.group));
    assert_eq!(keys(&case), ["pending", "while-down", "while-down-again"], "with another group");
}

/// Returns a time zone in which a day begins at this second.
fn zone_with_midnight(at: i64) -> String {
    // POSIX counts the seconds by which a zone's clocks are slow. They must be within half a day of Greenwich.
    let west = (at % DAY + DAY / 2) % DAY - DAY / 2;
    let (sign, west) = if west < 0 { ("-", -west) } else { ("", west) };
    format!("TST{sign}{}:{:02}:{:02}", west / 3_600, west / 60 % 60, west % 60)
}

#[test]
fn after_a_first_start_another_time_zone_skips_nothing() {
    let Some(case) = Case::new("zones", 2) else { return };
    let (zone, midnight) = noon_zone();
    let due = now_s() + 20;
    case.produce(&[at(&case, "owed", due), at(&case, "leftover", midnight - 1)]);
    let start = |zone: &str| case.engine_with(&[("SINCE_DELTA", "0"), ("TZ", zone)]);
    let mut engine = start(&zone);
    assert_eq!(keys(&case), [""; 0]);
    engine.stop();
    assert!(now_s() < due, "the machine is too slow for this test");
    // In a zone where the day begins just after its due time, the schedule was due yesterday.
    let later = due + 2;
    crate::kit::wait::until_ms((later + 1) * 1_000);
    let mut engine = start(&zone_with_midnight(later));
    assert_eq!(keys(&case), ["owed"]);
    engine.stop();
    // In a zone where the day began long before, the other schedule was due today as well.
    let _engine = start(&zone_with_midnight(midnight - 3_600));
    assert_eq!(keys(&case), ["leftover", "owed"]);
}
