//! A clock that steps, shown to the real binary.

use std::time::Duration;

use crate::kit::clock::SteppedClock;
use crate::kit::wait::{eventually, now_s};
use crate::kit::{Case, Record};
use crate::ledger::{Ledger, alone, patient};

const PATIENCE: Duration = Duration::from_secs(60);
const HOUR_S: i64 = 3_600;

#[test]
fn a_clock_step_of_an_hour_fires_nothing_early_or_twice() {
    let _alone = alone();
    let Some(case) = Case::new("clock", 1) else { return };
    let clock = SteppedClock::new();
    let [preload, file] = clock.environment();
    let mut engine =
        case.engine_with(&[(preload.0, &preload.1), (file.0, &file.1), ("CONFIGURATION_FILE", &patient())]);
    case.settled();
    // An hour forward: by the engine's clock the first is due now, and later ones are not.
    let mut ledger = Ledger::new(&case);
    let now = now_s();
    ledger.queue("in-half-an-hour".to_owned(), now + HOUR_S / 2, None);
    case.produce(&[case.due_in("in-two-hours", "v", 2 * HOUR_S)]);
    clock.set(HOUR_S);
    let mut reader = case.target_reader();
    let fired = |records: &[Record]| records.iter().filter(|r| !r.key_text().starts_with("probe-")).count();
    reader.wait("what is due by the new clock fires", PATIENCE, |r| fired(r) == 1);
    // Back by an hour: nothing fires again, nothing early, and what is due by this clock still fires.
    clock.set(0);
    let due = now_s() + 2;
    ledger.queue("soon".to_owned(), due, None);
    case.produce(&[case.due_in("in-ten-minutes", "v", 600)]);
    reader.wait("what is due by the old clock fires", PATIENCE, |r| fired(r) == 2);
    let last = reader.records.last().expect("a record");
    assert_eq!((last.key_text(), last.timestamp >= due * 1_000), ("soon".to_owned(), true), "not early");
    case.settled();
    ledger.agree();
    eventually("the others are pending", PATIENCE, || {
        let listed = engine.get("/schedules")?;
        (listed.contains("in-two-hours") && listed.contains("in-ten-minutes")).then_some(())
    });
    engine.stop();
}
