//! Killed again and again.

use std::time::Duration;

use crate::kit::Case;
use crate::kit::client::Reader;
use crate::kit::wait::{eventually, now_s};
use crate::ledger::{Ledger, alone, patient};

#[test]
fn killed_ten_times_during_a_burst_of_50000_each_fires_once() {
    const COUNT: usize = 50_000;
    const KILLS: usize = 10;
    let Some(case) = Case::new("burst", 4) else { return };
    let _alone = alone();
    let patient = patient();
    let mut ledger = Ledger::new(&case);
    let due = now_s() + 1;
    ledger.schedule(0..COUNT, |_| due);
    let mut in_flight = 0;
    for kill in 1..=KILLS {
        // Mostly at the first sight of a record that is not committed yet, when a transaction is open; now and then
        // after a commit, so that it goes forward.
        let open = kill % 5 != 0;
        let isolated = if open { Reader::uncommitted } else { Reader::new };
        let mut reader = isolated(case.bootstrap(), &case.target);
        reader.read_to_end();
        let (seen, committed) = (reader.records.len(), case.read_target().len());
        let mut engine = case.engine_with(&[("CONFIGURATION_FILE", &patient)]);
        reader.wait("it fires", Duration::from_secs(60), |r| r.len() > seen);
        engine.kill();
        let fired = case.read_target().len();
        in_flight += usize::from(open && fired == committed);
        eprintln!("kill {kill}: {fired} fired");
        assert!(fired < COUNT, "kill {kill} came after the burst");
    }
    assert!(in_flight >= KILLS / 2, "{in_flight} kills hit an open transaction");
    let mut engine = case.engine_with(&[("CONFIGURATION_FILE", &patient)]);
    ledger.settle();
    engine.stop();
}

#[test]
fn a_killed_owners_hanging_transaction_is_ended_by_its_successor_at_once() {
    let Some(case) = Case::new("hanging", 1) else { return };
    let _alone = alone();
    let patient = patient();
    let mut ledger = Ledger::new(&case);
    let mut engine = case.engine_with(&[("CONFIGURATION_FILE", &patient)]);
    case.settled();
    let mut reader = Reader::uncommitted(case.bootstrap(), &case.target);
    reader.read_to_end();
    let seen = reader.records.len();
    let due = now_s() + 5;
    ledger.schedule(0..20_000, |_| due);
    reader.wait("records of an open transaction", Duration::from_secs(60), |r| r.len() > seen);
    engine.kill();
    let killed = std::time::Instant::now();
    assert!(case.read_target().len() < 20_000, "it was killed in the middle");
    // The kill freezes what read_committed consumers see until somebody ends the transaction.
    let mut engine = case.engine_with(&[("CONFIGURATION_FILE", &patient)]);
    ledger.settle();
    let took = killed.elapsed();
    // The session of the dead one, a takeover, and the rest of the firing: far less than the transaction's minute.
    assert!(took < Duration::from_secs(40), "readers waited {took:?}");
    eventually("it lives", Duration::from_secs(5), || engine.get("/liveness"));
    engine.stop();
}
