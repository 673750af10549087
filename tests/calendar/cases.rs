//! Single cases, with their dates.

use kafka_scheduler::calendar::{
    CronError, HORIZON_MS, INTERVAL_MS_MIN, RuleError, SPAN_MS_MAX, UTC, ZoneCalendar, dates,
};
use kafka_scheduler::core::calendar::Calendar as _;
use kafka_scheduler::core::types::Millis;

use super::{FOREVER, all, at, local, zone};

/// Returns the first occurrences after a moment, in local time.
fn first(count: usize, expression: &str, in_zone: &str, after: &str) -> Vec<String> {
    let calendar = ZoneCalendar::default();
    let rule = calendar.cron(expression, in_zone).unwrap_or_else(|e| panic!("{expression}: {e}"));
    let zone = zone(in_zone);
    let mut after = at(after);
    let mut found = Vec::new();
    while found.len() < count
        && let Some(next) = calendar.next(&rule, &[], after, FOREVER)
    {
        assert_eq!(calendar.previous(&rule, &[], after, next), Some(next), "{expression}");
        assert_eq!(calendar.count(&rule, &[], after, next), 1, "{expression}");
        found.push(local(next, &zone));
        after = next;
    }
    found
}

#[test]
fn a_time_in_a_gap_fires_once_at_its_end() {
    for (expression, in_zone, after, expected) in [
        (
            "30 2 * * *",
            "Europe/Paris",
            "2027-03-27T12:00:00Z",
            ["2027-03-28T03:00:00+02:00", "2027-03-29T02:30:00+02:00"],
        ),
        // Six times are in the gap, and the seventh is its end.
        (
            "*/10 2-3 * * *",
            "Europe/Paris",
            "2027-03-27T12:00:00Z",
            ["2027-03-28T03:00:00+02:00", "2027-03-28T03:10:00+02:00"],
        ),
        (
            "0 2 * * *",
            "America/New_York",
            "2027-03-13T12:00:00Z",
            ["2027-03-14T03:00:00-04:00", "2027-03-15T02:00:00-04:00"],
        ),
        (
            "15 2 * * *",
            "Australia/Lord_Howe",
            "2027-10-02T12:00:00Z",
            ["2027-10-03T02:30:00+11:00", "2027-10-04T02:15:00+11:00"],
        ),
        // The zone skipped 30 December.
        (
            "0 9 30 12 *",
            "Pacific/Apia",
            "2011-12-01T00:00:00Z",
            ["2011-12-31T00:00:00+14:00", "2012-12-30T09:00:00+14:00"],
        ),
        // The end of Ramadan.
        (
            "30 2 * * *",
            "Africa/Casablanca",
            "2026-03-21T12:00:00Z",
            ["2026-03-22T03:00:00+01:00", "2026-03-23T02:30:00+01:00"],
        ),
    ] {
        assert_eq!(first(2, expression, in_zone, after), expected, "{expression} {in_zone}");
    }
}

#[test]
fn a_time_that_occurs_twice_fires_at_the_first() {
    for (expression, in_zone, after, expected) in [
        (
            "30 2 * * *",
            "Europe/Paris",
            "2027-10-30T12:00:00Z",
            ["2027-10-31T02:30:00+02:00", "2027-11-01T02:30:00+01:00"],
        ),
        // From within the second hour, too.
        (
            "30,45 2 * * *",
            "Europe/Paris",
            "2027-10-31T01:10:00Z",
            ["2027-11-01T02:30:00+01:00", "2027-11-01T02:45:00+01:00"],
        ),
        (
            "30 1 * * *",
            "America/New_York",
            "2027-11-06T12:00:00Z",
            ["2027-11-07T01:30:00-04:00", "2027-11-08T01:30:00-05:00"],
        ),
        (
            "45 1 * * *",
            "Australia/Lord_Howe",
            "2027-04-03T12:00:00Z",
            ["2027-04-04T01:45:00+11:00", "2027-04-05T01:45:00+10:30"],
        ),
        // The beginning of Ramadan.
        (
            "30 2 * * *",
            "Africa/Casablanca",
            "2026-02-14T12:00:00Z",
            ["2026-02-15T02:30:00+01:00", "2026-02-16T02:30:00+00:00"],
        ),
    ] {
        assert_eq!(first(2, expression, in_zone, after), expected, "{expression} {in_zone}");
    }
}

#[test]
fn expressions_of_all_hours_go_by_elapsed_time() {
    for (in_zone, from) in [
        ("Europe/Paris", "2027-03-27T12:00:00Z"),
        ("Europe/Paris", "2027-10-30T12:00:00Z"),
        ("America/New_York", "2027-03-13T12:00:00Z"),
        ("America/New_York", "2027-11-06T12:00:00Z"),
        ("Australia/Lord_Howe", "2027-04-03T02:00:00Z"),
        ("Pacific/Apia", "2011-12-29T12:00:00Z"),
    ] {
        for expression in ["*/5 * * * *", "*/5 */1 * * *", "*/5 0-23 * * *", "*/5 0-11,12,13-23 * * *"] {
            let calendar = ZoneCalendar::default();
            let rule = calendar.cron(expression, in_zone).expect("a rule");
            let found = all(&calendar, &rule, &[], at(from), at(from).plus(48 * 3_600_000));
            let expected: Vec<Millis> = (1..=576).map(|n| at(from).plus(n * 300_000)).collect();
            assert_eq!(found, expected, "{expression} {in_zone}");
        }
    }
    let expected = ["2027-03-28T01:59:00+01:00", "2027-03-28T03:00:00+02:00", "2027-03-28T03:01:00+02:00"];
    assert_eq!(first(3, "* * * * *", "Europe/Paris", "2027-03-28T00:58:00Z"), expected);
    let expected = ["2027-10-31T02:30:00+02:00", "2027-10-31T02:30:00+01:00", "2027-10-31T03:30:00+01:00"];
    assert_eq!(first(3, "30 * * * *", "Europe/Paris", "2027-10-31T00:00:00Z"), expected);
}

#[test]
fn local_time_stays_after_the_last_change_that_is_known() {
    // Since tzdata 2026f, Morocco changes its clocks no more.
    let expected = ["2040-01-01T02:30:00+00:00", "2041-01-01T02:30:00+00:00"];
    assert_eq!(first(2, "30 2 1 1 *", "Africa/Casablanca", "2039-06-01T00:00:00Z"), expected);
    // Rules without an end go on.
    let expected = ["9997-07-01T02:30:00+02:00", "9998-07-01T02:30:00+02:00", "9999-07-01T02:30:00+02:00"];
    assert_eq!(first(4, "30 2 1 7 *", "Europe/Paris", "9996-12-01T00:00:00Z"), expected);
}

#[test]
fn dates_far_apart_are_found() {
    for (expression, after, expected) in [
        ("0 0 29 2 *", "2026-01-01T00:00:00Z", ["2028-02-29T00:00:00+00:00", "2032-02-29T00:00:00+00:00"]),
        // 2100 is no leap year.
        ("0 0 29 2 *", "2096-02-29T00:00:00Z", ["2104-02-29T00:00:00+00:00", "2108-02-29T00:00:00+00:00"]),
        ("0 0 29 2 +MON", "2024-02-29T00:00:00Z", ["2044-02-29T00:00:00+00:00", "2072-02-29T00:00:00+00:00"]),
        ("0 0 29 2 +SUN", "2088-02-29T00:00:00Z", ["2128-02-29T00:00:00+00:00", "2156-02-29T00:00:00+00:00"]),
        ("59 59 23 31 12 ?", "2026-01-01T00:00:00Z", ["2026-12-31T23:59:59+00:00", "2027-12-31T23:59:59+00:00"]),
    ] {
        assert_eq!(first(2, expression, UTC, after), expected, "{expression}");
    }
}

#[test]
fn days_of_month_and_of_week_combine() {
    for (expression, expected) in [
        // Either, as in Vixie cron.
        ("0 9 13 * FRI", ["2027-08-06", "2027-08-13", "2027-08-20", "2027-08-27"]),
        // Both.
        ("0 9 13 * +FRI", ["2027-08-13", "2028-10-13", "2029-04-13", "2029-07-13"]),
        ("0 9 * * FRI", ["2027-08-06", "2027-08-13", "2027-08-20", "2027-08-27"]),
        ("0 9 ? * FRI", ["2027-08-06", "2027-08-13", "2027-08-20", "2027-08-27"]),
        // A step is not a star.
        ("0 9 */20 * MON", ["2027-08-01", "2027-08-02", "2027-08-09", "2027-08-16"]),
        ("0 9 L * *", ["2027-08-31", "2027-09-30", "2027-10-31", "2027-11-30"]),
        ("0 9 LW * *", ["2027-08-31", "2027-09-30", "2027-10-29", "2027-11-30"]),
        ("0 9 * * 5#L", ["2027-08-27", "2027-09-24", "2027-10-29", "2027-11-26"]),
        ("0 9 * * 5L", ["2027-08-27", "2027-09-24", "2027-10-29", "2027-11-26"]),
        ("0 9 * * 1#2", ["2027-08-09", "2027-09-13", "2027-10-11", "2027-11-08"]),
        // 15 August 2027 is a Sunday, 15 January 2028 a Saturday.
        ("0 9 15W 1,8 *", ["2027-08-16", "2028-01-14", "2028-08-15", "2029-01-15"]),
        // It stays within the month.
        ("0 9 1W * *", ["2027-08-02", "2027-09-01", "2027-10-01", "2027-11-01"]),
        ("0 9 31W 10,12 *", ["2027-10-29", "2027-12-31", "2028-10-31", "2028-12-29"]),
        ("0 9 * * 7", ["2027-08-01", "2027-08-08", "2027-08-15", "2027-08-22"]),
        ("0 9 * * sat-sun", ["2027-08-01", "2027-08-07", "2027-08-08", "2027-08-14"]),
        ("0 9 1 jan,JUL *", ["2028-01-01", "2028-07-01", "2029-01-01", "2029-07-01"]),
    ] {
        let found = first(4, expression, UTC, "2027-08-01T00:00:00Z");
        assert_eq!(found, expected.map(|date| format!("{date}T09:00:00+00:00")), "{expression}");
    }
}

#[test]
fn nicknames_are_expressions() {
    for (nickname, expected) in [
        ("@hourly", "2027-08-02T13:00:00+00:00"),
        ("@daily", "2027-08-03T00:00:00+00:00"),
        ("@midnight", "2027-08-03T00:00:00+00:00"),
        ("@Weekly", "2027-08-08T00:00:00+00:00"),
        (" @monthly ", "2027-09-01T00:00:00+00:00"),
        ("@yearly", "2028-01-01T00:00:00+00:00"),
        ("@annually", "2028-01-01T00:00:00+00:00"),
    ] {
        assert_eq!(first(1, nickname, UTC, "2027-08-02T12:34:56Z"), [expected], "{nickname}");
    }
}

#[test]
fn what_never_comes_is_none() {
    let calendar = ZoneCalendar::default();
    for expression in ["0 0 30 2 *", "0 0 31 4,6,9,11 *", "0 0 L 2 +MON#1"] {
        let rule = calendar.cron(expression, "Europe/Paris");
        let Ok(rule) = rule else { continue };
        let now = at("2027-08-01T00:00:00Z");
        assert_eq!(calendar.next(&rule, &[], now, FOREVER), None, "{expression}");
        assert_eq!(calendar.previous(&rule, &[], Millis(i64::MIN), now), None, "{expression}");
        assert_eq!(calendar.count(&rule, &[], Millis(i64::MIN), FOREVER), 0, "{expression}");
    }
    let rule = calendar.cron("0 0 1 1 *", UTC).expect("a rule");
    let except: Vec<String> = (2028..=2128).map(|year| format!("{year}-01-01")).collect();
    let except = dates(&except.join(",")).expect("dates");
    let now = at("2027-08-01T00:00:00Z");
    assert_eq!(calendar.next(&rule, &except, now, FOREVER), None);
    assert_eq!(calendar.next(&rule, &except[..99], now, FOREVER), Some(at("2127-01-01T00:00:00Z")));
    assert!(now.plus(HORIZON_MS) < at("2128-01-01T00:00:00Z"));
}

#[test]
fn any_number_is_a_moment() {
    let calendar = ZoneCalendar::default();
    let moments = [i64::MIN, i64::MIN + 1, -1, 0, 1, i64::MAX - 1, i64::MAX];
    for zone in [UTC, "Europe/Paris", "Africa/Casablanca"] {
        let rules = [
            calendar.cron("* * * * * *", zone),
            calendar.cron("0 2 29 2 *", zone),
            calendar.every(INTERVAL_MS_MIN, Millis(i64::MIN), zone),
            calendar.every(SPAN_MS_MAX, Millis(i64::MAX), zone),
            calendar.every(INTERVAL_MS_MIN + 1, Millis(0), zone),
        ];
        let except = dates("1969-12-31,1970-01-01,9999-12-31,0000-01-01").expect("dates");
        for rule in rules.map(|rule| rule.expect("a rule")) {
            for (after, until) in moments.iter().flat_map(|after| moments.map(|until| (Millis(*after), Millis(until))))
            {
                for except in [&[][..], &except] {
                    let next = calendar.next(&rule, except, after, until);
                    assert!(next.is_none_or(|next| after < next && next <= until));
                    let previous = calendar.previous(&rule, except, after, until);
                    assert!(previous.is_none_or(|previous| after < previous && previous <= until));
                    let count = calendar.count(&rule, except, after, until);
                    assert!(count > 0 || next.is_none() && previous.is_none(), "{rule:?} {after:?} {until:?}");
                }
            }
        }
    }
}

#[test]
fn intervals_are_exact_milliseconds() {
    let calendar = ZoneCalendar::default();
    let first = at("2027-03-27T12:00:00.250Z");
    let rule = calendar.every(86_400_000, first, "Europe/Paris").expect("a rule");
    let occurrences = |n: i64| first.plus(n * 86_400_000);
    assert_eq!(calendar.next(&rule, &[], Millis(0), FOREVER), Some(first));
    assert_eq!(calendar.next(&rule, &[], first.plus(-1), FOREVER), Some(first));
    assert_eq!(calendar.next(&rule, &[], first, FOREVER), Some(occurrences(1)));
    assert_eq!(calendar.next(&rule, &[], first, occurrences(1).plus(-1)), None);
    assert_eq!(calendar.next(&rule, &[], first, occurrences(1)), Some(occurrences(1)));
    assert_eq!(calendar.previous(&rule, &[], Millis(0), first), Some(first));
    assert_eq!(calendar.previous(&rule, &[], first, occurrences(9).plus(5)), Some(occurrences(9)));
    assert_eq!(calendar.previous(&rule, &[], occurrences(9), occurrences(9).plus(5)), None);
    assert_eq!(calendar.previous(&rule, &[], Millis(i64::MIN), first.plus(-1)), None);
    assert_eq!(calendar.count(&rule, &[], first.plus(-1), occurrences(9)), 10);
    assert_eq!(calendar.count(&rule, &[], first, occurrences(9)), 9);
    assert_eq!(calendar.count(&rule, &[], Millis(i64::MIN), first.plus(-1)), 0);
}

#[test]
fn excepted_dates_are_local() {
    let calendar = ZoneCalendar::default();
    let except = dates("2027-12-25,2027-12-26").expect("dates");
    let rule = calendar.cron("30 0 * * *", "Europe/Paris").expect("a rule");
    // 23:30 UTC of the day before.
    let (before, after) = (at("2027-12-24T00:30:00[Europe/Paris]"), at("2027-12-27T00:30:00[Europe/Paris]"));
    assert_eq!(calendar.next(&rule, &except, before, FOREVER), Some(after));
    assert_eq!(calendar.previous(&rule, &except, Millis(0), after.plus(-1)), Some(before));
    assert_eq!(calendar.count(&rule, &except, before, after), 1);
    let rule = calendar.every(3_600_000, before, "Europe/Paris").expect("a rule");
    let last = at("2027-12-24T23:30:00[Europe/Paris]");
    assert_eq!(calendar.next(&rule, &except, last, FOREVER), Some(after));
    assert_eq!(calendar.previous(&rule, &except, Millis(0), after.plus(-1)), Some(last));
    assert_eq!(calendar.count(&rule, &except, before, after), 24);
    let rule = calendar.every(3_600_000, before, UTC).expect("a rule");
    let last = at("2027-12-24T23:30:00Z");
    assert_eq!(calendar.next(&rule, &except, last, FOREVER), Some(at("2027-12-27T00:30:00Z")));
}

#[test]
fn a_time_in_a_gap_is_excepted_by_either_date() {
    let calendar = ZoneCalendar::default();
    // 30 December is left out; its time fires on 31 December.
    let rule = calendar.cron("0 9 30 12 *", "Pacific/Apia").expect("a rule");
    let (from, to) = (at("2011-12-01T00:00:00Z"), at("2012-02-01T00:00:00Z"));
    for (except, expected) in [("2011-12-29", 1), ("2011-12-30", 0), ("2011-12-31", 0), ("2012-01-01", 1)] {
        let except = dates(except).expect("dates");
        assert_eq!(all(&calendar, &rule, &except, from, to).len(), expected);
        assert_eq!(calendar.count(&rule, &except, from, to), expected as u64);
        assert_eq!(calendar.previous(&rule, &except, from, to).is_some(), expected > 0);
    }
}

#[test]
fn errors_name_the_field_and_repeat_nothing() {
    let calendar = ZoneCalendar::default();
    let long = "1,".repeat(600);
    for (expression, error) in [
        ("", CronError::Fields),
        ("* * * *", CronError::Fields),
        ("* * * * * * 2027", CronError::Fields),
        ("@reboot", CronError::Fields),
        ("60 * * * * *", CronError::Field(0)),
        ("60 * * * *", CronError::Field(1)),
        ("s3cret * * * *", CronError::Field(1)),
        ("5/10 * * * *", CronError::Field(1)),
        ("*/0 * * * *", CronError::Field(1)),
        ("1,,2 * * * *", CronError::Field(1)),
        (", * * * *", CronError::Field(1)),
        ("0 24 * * *", CronError::Field(2)),
        ("0 L * * *", CronError::Field(2)),
        ("0 0 0 * *", CronError::Field(3)),
        ("0 0 32 * *", CronError::Field(3)),
        ("0 0 L-3 * *", CronError::Field(3)),
        ("0 0 1#2 * *", CronError::Field(3)),
        ("0 0 * 13 *", CronError::Field(4)),
        ("0 0 * JANUARY *", CronError::Field(4)),
        ("0 0 * * 8", CronError::Field(5)),
        ("0 0 * * L", CronError::Field(5)),
        ("0 0 * * 1,L", CronError::Field(5)),
        ("0 0 * * 1#6", CronError::Field(5)),
        ("0 0 * * ſun", CronError::Field(5)),
        ("0 0 1 * +MON#5", CronError::NoDay),
        (long.as_str(), CronError::TooLong),
    ] {
        assert_eq!(calendar.cron(expression, UTC), Err(RuleError::Cron(error)), "{expression}");
        let text = error.to_string();
        assert!(!text.contains("s3cret") && text.contains(": "), "{text}");
    }
    for zone in ["", "Local", "utc0", "Mars/Olympus", "EST5EDT,M3.2.0,M11.1.0", &"x".repeat(100_000)] {
        assert_eq!(calendar.cron("* * * * *", zone), Err(RuleError::UnknownZone));
        assert_eq!(calendar.every(1_000, Millis(0), zone), Err(RuleError::UnknownZone));
    }
    for (interval_ms, error) in [
        (i64::MIN, RuleError::IntervalTooShort),
        (INTERVAL_MS_MIN - 1, RuleError::IntervalTooShort),
        (SPAN_MS_MAX + 1, RuleError::IntervalTooLong),
    ] {
        assert_eq!(calendar.every(interval_ms, Millis(0), UTC), Err(error));
    }
}

#[test]
fn spaces_around_are_no_part_of_a_rule() {
    let calendar = ZoneCalendar::default();
    let spaces = " ".repeat(100_000);
    let rule = calendar.cron(&format!("{spaces}0 9  * *\tMON{spaces}"), &format!(" {UTC} "));
    assert_eq!(rule, calendar.cron("0 9  * *\tMON", UTC));
    assert!(rule.is_ok());
    assert_eq!(calendar.every(1_000, Millis(0), " Europe/Paris\n"), calendar.every(1_000, Millis(0), "Europe/Paris"));
}

#[test]
fn more_rules_than_are_kept_parsed_stay_right() {
    let calendar = ZoneCalendar::default();
    let rules: Vec<_> = (0..1_200)
        .map(|n| calendar.cron(&format!("{} {} * * *", n % 60, n / 60), "Europe/Paris").expect("a rule"))
        .collect();
    let now = at("2027-08-01T00:00:00[Europe/Paris]");
    for (n, rule) in rules.iter().enumerate() {
        let expected = now.plus(n as i64 * 60_000);
        assert_eq!(calendar.next(rule, &[], now.plus(-1), FOREVER), Some(expected));
    }
}
