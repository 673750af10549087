//! Random rules, against walks through time in small steps.

use jiff::civil::{DateTime, date};
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{Timestamp, ToSpan};
use kafka_scheduler::calendar::{UTC, ZoneCalendar, dates};
use kafka_scheduler::core::calendar::{Calendar as _, Day};
use kafka_scheduler::core::types::Millis;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::{FOREVER, all, local, naive, zone};

const DAY_MS: i64 = 86_400_000;
const MINUTE_MS: i64 = 60_000;

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// Generates fields of numbers: stars, steps, ranges and lists.
fn field(min: u8, max: u8) -> impl Strategy<Value = String> {
    let item = prop_oneof![
        4 => (min..=max).prop_map(|n| n.to_string()),
        2 => (min..=max, min..=max).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
        1 => (min..=max, min..=max, 1..=9u8).prop_map(|(a, b, step)| format!("{}-{}/{step}", a.min(b), a.max(b))),
        1 => (1..=30u8).prop_map(|step| format!("*/{step}")),
    ];
    prop_oneof![1 => Just("*".to_owned()), 2 => vec(item, 1..=3).prop_map(|items| items.join(","))]
}

fn hours() -> impl Strategy<Value = String> {
    let near_midnight_and_changes = vec(0..=4u8, 1..=3).prop_map(|hours| {
        let hours: Vec<String> = hours.iter().map(u8::to_string).collect();
        hours.join(",")
    });
    prop_oneof![1 => field(0, 23), 1 => Just("*".to_owned()), 2 => near_midnight_and_changes]
}

fn days_of_month() -> impl Strategy<Value = String> {
    let special = prop_oneof![
        Just("L".to_owned()),
        Just("LW".to_owned()),
        (1..=31u8).prop_map(|day| format!("{day}W")),
        (1..=31u8, 1..=31u8).prop_map(|(day, other)| format!("{day}W,{other}")),
        Just("?".to_owned()),
    ];
    prop_oneof![2 => Just("*".to_owned()), 2 => field(1, 31), 1 => special]
}

fn days_of_week() -> impl Strategy<Value = String> {
    let special = prop_oneof![
        (0..=7u8).prop_map(|day| format!("{day}L")),
        (0..=7u8).prop_map(|day| format!("{day}#L")),
        (0..=7u8, 1..=5u8).prop_map(|(day, nth)| format!("{day}#{nth}")),
        (0..=7u8, 1..=5u8, 0..=6u8).prop_map(|(day, nth, other)| format!("{day}#{nth},{other}")),
        Just("MON-FRI".to_owned()),
        Just("SAT,SUN".to_owned()),
    ];
    let plain = prop_oneof![3 => Just("*".to_owned()), 2 => field(0, 7), 1 => special];
    (plain, prop::bool::weighted(0.3)).prop_map(|(field, both)| if both { format!("+{field}") } else { field })
}

/// Generates expressions that fire on any day.
fn times() -> impl Strategy<Value = String> {
    (field(0, 59), hours()).prop_map(|(minute, hour)| format!("{minute} {hour} * * *"))
}

fn expressions() -> impl Strategy<Value = String> {
    let parts = (field(0, 59), hours(), days_of_month(), field(1, 12), days_of_week());
    parts.prop_map(|(minute, hour, day, month, weekday)| format!("{minute} {hour} {day} {month} {weekday}"))
}

/// Generates a zone, and a change of its offset since 1975, if it has any.
fn changes() -> impl Strategy<Value = (String, Timestamp)> {
    let names: Vec<String> = TimeZoneDatabase::bundled().available().map(|name| name.to_string()).collect();
    let unusual = ["Australia/Lord_Howe", "Pacific/Apia", "Africa/Casablanca", "Europe/Paris", "America/New_York"];
    let unusual: Vec<String> = unusual.map(str::to_owned).into();
    let names = prop_oneof![2 => select(names), 1 => select(unusual)];
    (names, any::<Index>()).prop_map(|(name, index)| {
        let zone = zone(&name);
        let from: Timestamp = "1975-01-01T00:00:00Z".parse().expect("a timestamp");
        let to: Timestamp = "2045-01-01T00:00:00Z".parse().expect("a timestamp");
        let changes: Vec<Timestamp> =
            zone.following(from).map(|change| change.timestamp()).take_while(|at| *at < to).collect();
        let at = if changes.is_empty() { from } else { *index.get(&changes) };
        (name, at)
    })
}

fn is_hourly(expression: &str) -> bool {
    (0..24).all(|hour| {
        let field = expression.split_whitespace().nth(1).expect("five fields");
        naive::matches(&format!("* {field} * * *"), date(2027, 1, 1).at(hour, 0, 0, 0))
    })
}

fn local_at(at: Millis, zone: &TimeZone) -> DateTime {
    zone.to_datetime(Timestamp::from_millisecond(at.0).expect("a moment"))
}

fn is_excepted(except: &[Day], local: DateTime) -> bool {
    let day = local.date().duration_since(date(1970, 1, 1)).as_hours() / 24;
    except.iter().any(|date| date.number() == day)
}

/// Returns the occurrences in whole minutes, by asking of each minute whether it is one.
fn walk(expression: &str, zone: &TimeZone, except: &[Day], after: Millis, until: Millis) -> Vec<Millis> {
    let hourly = is_hourly(expression);
    let fits = |local| naive::matches(expression, local) && !is_excepted(except, local);
    let occurs = |at: Millis| {
        let now = local_at(at, zone);
        let mut skipped = local_at(at.plus(-MINUTE_MS), zone) + 1.minute();
        let mut after_gap = false;
        while skipped < now {
            after_gap |= fits(skipped);
            skipped += 1.minute();
        }
        let is_first = zone.to_ambiguous_timestamp(now).earlier().is_ok_and(|first| first.as_millisecond() == at.0);
        if hourly { fits(now) } else { (fits(now) && is_first) || (after_gap && !is_excepted(except, now)) }
    };
    let minutes = after.0.div_euclid(MINUTE_MS) + 1..=until.0.div_euclid(MINUTE_MS);
    minutes.map(|minute| Millis(minute * MINUTE_MS)).filter(|at| occurs(*at)).collect()
}

proptest! {
    #![proptest_config(config(600))]

    #[test]
    fn changes_of_the_clocks_agree_with_a_walk(
        expression in prop_oneof![2 => times(), 1 => expressions()],
        (name, change) in changes(),
        (before, length) in (0..3 * DAY_MS, 1..4 * DAY_MS),
        excepted in prop::option::weighted(0.3, -3..=3i64),
    ) {
        let calendar = ZoneCalendar::default();
        let Ok(rule) = calendar.cron(&expression, &name) else { return Ok(()) };
        let zone = zone(&name);
        let except = excepted.map_or(Vec::new(), |days| {
            let day = zone.to_datetime(change).date() + days.days();
            dates(&day.to_string()).expect("a date")
        });
        let after = Millis(change.as_millisecond() - before);
        let until = after.plus(length);
        let expected = walk(&expression, &zone, &except, after, until);
        let found = all(&calendar, &rule, &except, after, until);
        let text = |all: &[Millis]| all.iter().map(|at| local(*at, &zone)).collect::<Vec<_>>();
        prop_assert_eq!(text(&found), text(&expected), "{} {}", expression, name);
        prop_assert_eq!(calendar.count(&rule, &except, after, until), expected.len() as u64);
        let mut backward = Vec::new();
        let mut last = until;
        while let Some(previous) = calendar.previous(&rule, &except, after, last) {
            backward.push(previous);
            last = previous.plus(-1);
        }
        backward.reverse();
        prop_assert_eq!(text(&backward), text(&expected));
    }

    #[test]
    fn days_agree_with_a_walk_through_eight_years(
        (day, month, weekday) in (days_of_month(), field(1, 12), days_of_week()),
        year in 1900..2200i16,
    ) {
        let expression = format!("0 0 {day} {month} {weekday}");
        let calendar = ZoneCalendar::default();
        let Ok(rule) = calendar.cron(&expression, UTC) else { return Ok(()) };
        let first = date(year, 1, 1);
        let mut expected = Vec::new();
        let mut at = first;
        while at < date(year + 8, 1, 1) {
            if naive::matches(&expression, at.at(0, 0, 0, 0)) {
                expected.push(at.to_string());
            }
            at = at.tomorrow().expect("a day");
        }
        let ms = |at: jiff::civil::Date| Millis(at.duration_since(date(1970, 1, 1)).as_millis() as i64);
        let (after, until) = (ms(first).plus(-1), ms(at).plus(-1));
        let found = all(&calendar, &rule, &[], after, until);
        let found: Vec<String> = found.iter().map(|at| local(*at, &TimeZone::UTC)[..10].to_owned()).collect();
        prop_assert_eq!(&found, &expected, "{}", expression);
        prop_assert_eq!(calendar.count(&rule, &[], after, until), expected.len() as u64);
    }

    #[test]
    fn next_previous_and_count_agree(
        expression in prop_oneof![
            1 => expressions(),
            1 => (field(0, 59), expressions()).prop_map(|(second, rest)| format!("{second} {rest}")),
        ],
        (name, change) in changes(),
        after in prop_oneof![-DAY_MS..DAY_MS, -4_000 * DAY_MS..4_000 * DAY_MS],
    ) {
        let calendar = ZoneCalendar::default();
        let Ok(rule) = calendar.cron(&expression, &name) else { return Ok(()) };
        let zone = zone(&name);
        let start = Millis(change.as_millisecond() + after);
        let mut after = start;
        for count in 1..=20 {
            let Some(next) = calendar.next(&rule, &[], after, FOREVER) else { break };
            prop_assert!(next > after);
            let now = local_at(next, &zone);
            let before = local_at(next.plus(-1), &zone);
            let at_gap_end = now.duration_since(before).as_secs() > 1;
            prop_assert!(at_gap_end || naive::matches(&expression, now), "{} {} {}", expression, name, now);
            prop_assert_eq!(calendar.previous(&rule, &[], Millis(i64::MIN), next), Some(next));
            prop_assert_eq!(calendar.previous(&rule, &[], after, next.plus(-1)), None);
            prop_assert_eq!(calendar.next(&rule, &[], next.plus(-1), FOREVER), Some(next));
            prop_assert_eq!(calendar.count(&rule, &[], start, next), count);
            prop_assert_eq!(calendar.count(&rule, &[], start, next.plus(-1)), count - 1);
            after = next;
        }
    }

    #[test]
    fn intervals_agree_with_a_walk(
        (name, change) in changes(),
        (first, interval_ms) in (-3 * DAY_MS..3 * DAY_MS, prop_oneof![600_000..DAY_MS, DAY_MS..=DAY_MS]),
        (before, length) in (0..4 * DAY_MS, 1..6 * DAY_MS),
        excepted in vec(-3..=3i64, 0..3),
    ) {
        let calendar = ZoneCalendar::default();
        let zone = zone(&name);
        let days = excepted.iter().map(|days| (zone.to_datetime(change).date() + days.days()).to_string());
        let days: Vec<String> = days.collect();
        let except = if days.is_empty() { Vec::new() } else { dates(&days.join(",")).expect("dates") };
        let first = Millis(change.as_millisecond() + first);
        let rule = calendar.every(interval_ms, first, &name).expect("a rule");
        let after = Millis(change.as_millisecond() - before);
        let until = after.plus(length);
        let expected: Vec<Millis> = (0..)
            .map(|n| first.plus(n * interval_ms))
            .take_while(|at| *at <= until)
            .filter(|at| *at > after && !is_excepted(&except, local_at(*at, &zone)))
            .collect();
        prop_assert_eq!(&all(&calendar, &rule, &except, after, until), &expected);
        prop_assert_eq!(calendar.count(&rule, &except, after, until), expected.len() as u64);
        prop_assert_eq!(calendar.previous(&rule, &except, after, until), expected.last().copied());
    }
}
