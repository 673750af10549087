//! Floods of invalid records, and of overdue schedules.

use crate::kit::case::TIMEOUT;
use crate::kit::client;
use crate::kit::wait::{eventually, now_s};
use crate::kit::{Case, Scheduled};

const MB: u64 = 1 << 20;
const LINES_MAX: usize = 100;

/// Returns the time of a log line, in microseconds since 1970.
fn written_us(line: &str) -> Option<i64> {
    line.split_whitespace().next()?.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_microsecond)
}

/// Returns the number of lines that the log reports as suppressed.
fn suppressed(output: &str) -> u64 {
    let counts = output.lines().filter_map(|line| line.split_once("suppressed=")?.1.split_whitespace().next());
    counts.map(|count| count.parse::<u64>().expect("a number")).sum()
}

#[test]
fn a_hundred_thousand_bad_records_delay_no_good_ones() {
    const BAD: usize = 100_000;
    const GOOD: usize = 1_000;
    let Some(case) = Case::new("flood", 2) else { return };
    let mut engine = case.engine();
    case.settled();
    let before = engine.peak_memory();
    for n in 0..BAD {
        case.queue(&Scheduled::new(format!("bad-{n}"), "v", 0, &case.target).header("scheduler-epoch", "again"));
    }
    let due = now_s() + 8;
    for n in 0..GOOD {
        let key = format!("good-{n}");
        case.queue(&Scheduled::new(&key, "v", due, &case.target).target_key(&key));
    }
    case.flush();
    assert!(now_s() < due, "the machine is too slow for this test");
    let mut reader = case.target_reader();
    let good = |r: &&crate::kit::Record| r.key_text().starts_with("good-");
    reader.wait("the good ones fire", TIMEOUT, |r| r.iter().filter(good).count() >= GOOD);
    let late_ms = reader.records.iter().filter(good).map(|r| r.timestamp - due * 1_000).max();
    assert!(late_ms.is_some_and(|late| late <= 1_000), "a schedule fired {late_ms:?} ms late");
    eventually("all bad ones are counted", TIMEOUT, || {
        (engine.refused("duplicate-header")? == BAD as u64).then_some(())
    });
    let grown = engine.peak_memory().saturating_sub(before);
    assert!(grown <= 64 * MB, "{grown} bytes more");
    eventually("what was left out is said, all of it", TIMEOUT, || {
        let output = engine.output();
        let written = output.lines().filter(|line| line.contains("a record cannot fire")).count() as u64;
        (written + suppressed(&output) == BAD as u64).then_some(())
    });
    // The limit applies to lines of all kinds together, from the first one on.
    let output = engine.output();
    let lines = output.lines().skip_while(|line| !line.contains("a record cannot fire"));
    let mut times: Vec<i64> = lines.filter_map(written_us).collect();
    times.sort_unstable();
    assert!(times.len() > LINES_MAX, "the log has too few lines to judge");
    let crowded = times.windows(LINES_MAX + 1).find(|lines| lines[LINES_MAX] - lines[0] < 1_000_000);
    assert_eq!(crowded, None, "more than {LINES_MAX} lines in a second");
    engine.stop();
}

#[test]
fn grace_is_measured_from_arrival_also_after_a_restart() {
    let Some(case) = Case::new("grace", 1) else { return };
    let now_ms = now_s() * 1_000;
    let arrived = |key: &str, overdue_s: i64| {
        let schedule = case.due_in(key, "v", -100).target_key(key);
        schedule.timestamp(now_ms - 100_000 + overdue_s * 1_000)
    };
    // Due 100 s ago, and produced then or later. A grace of 0 accepts only the one that was produced in time.
    case.produce(&[arrived("in-time", 0), arrived("in-grace", 50), arrived("late", 90)]);
    let mut engine = case.engine_with(&[("SCHEDULE_GRACE_INTERVAL", "0")]);
    case.fired(1);
    eventually("two are over grace", TIMEOUT, || (engine.refused("over-grace")? == 2).then_some(()));
    engine.stop();
    let mut engine = case.engine_with(&[("SCHEDULE_GRACE_INTERVAL", "60")]);
    case.fired(2);
    eventually("one is over grace", TIMEOUT, || (engine.refused("over-grace")? == 1).then_some(()));
    engine.stop();
    let mut engine = case.engine();
    let fired = case.fired(3);
    let keys: Vec<_> = fired.iter().map(client::Record::key_text).collect();
    assert_eq!(keys, ["in-time", "in-grace", "late"], "without a limit all three are owed");
    assert_eq!(case.settled().len(), 3, "each schedule fires once");
    engine.stop();
}
