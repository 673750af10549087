//! The engine runs with a wall clock that steps.

use std::time::Duration;

use crate::kit::clock::SteppedClock;
use crate::kit::wait::{eventually, now_s};
use crate::kit::{Case, Record};
use crate::ledger::{Ledger, alone, long_transaction_timeout};

const TIMEOUT: Duration = Duration::from_secs(60);
const HOUR_S: i64 = 3_600;

#[test]
fn a_clock_step_of_an_hour_fires_nothing_early_or_twice() {
    let _alone = alone();
    let Some(case) = Case::new("clock", 1) else { return };
    let clock = SteppedClock::new();
    let [preload, file] = clock.environment();
    let mut engine = case.engine_with(&[
        (preload.0, &preload.1),
        (file.0, &file.1),
        ("CONFIGURATION_FILE", &long_transaction_timeout()),
    ]);
    case.settled();
    // Step forward by an hour: by the engine's clock, the first schedule is due, and the later ones are not.
    let mut ledger = Ledger::new(&case);
    let now = now_s();
    ledger.queue("in-half-an-hour".to_owned(), now + HOUR_S / 2, None);
    case.produce(&[case.due_in("in-two-hours", "v", 2 * HOUR_S)]);
    clock.set(HOUR_S);
    let mut reader = case.target_reader();
    let fired = |records: &[Record]| records.iter().filter(|r| !r.key_text().starts_with("probe-")).count();
    reader.wait("what is due by the new clock fires", TIMEOUT, |r| fired(r) == 1);
    // Step back by an hour: nothing fires twice or early, and schedules that become due by this clock still fire.
    clock.set(0);
    let due = now_s() + 2;
    ledger.queue("soon".to_owned(), due, None);
    case.produce(&[case.due_in("in-ten-minutes", "v", 600)]);
    reader.wait("what is due by the old clock fires", TIMEOUT, |r| fired(r) == 2);
    let last = reader.records.last().expect("a record");
    assert_eq!((last.key_text(), last.timestamp >= due * 1_000), ("soon".to_owned(), true), "the schedule fired early");
    case.settled();
    ledger.agree();
    eventually("the others are pending", TIMEOUT, || {
        let listed = engine.get("/schedules")?;
        (listed.contains("in-two-hours") && listed.contains("in-ten-minutes")).then_some(())
    });
    engine.stop();
}
