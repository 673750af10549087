//! The engine is killed repeatedly.

use std::time::{Duration, Instant};

use crate::kit::client::{Producer, Reader};
use crate::kit::wait::{eventually, now_s};
use crate::kit::{Case, Record, Scheduled};
use crate::ledger::{Ledger, alone, long_transaction_timeout};

#[test]
fn killed_ten_times_during_a_burst_of_50000_each_fires_once() {
    const COUNT: usize = 50_000;
    const KILLS: usize = 10;
    let _alone = alone();
    let Some(case) = Case::new("burst", 4) else { return };
    let long_transaction_timeout = long_transaction_timeout();
    let mut ledger = Ledger::new(&case);
    let due = now_s() + 1;
    ledger.schedule(0..COUNT, |_| due);
    let mut in_flight = 0;
    for kill in 1..=KILLS {
        // Most kills happen when a record appears that is not committed, so while a transaction is open. Some happen
        // after a commit, so the engine makes progress.
        let open = kill % 5 != 0;
        let isolated = if open { Reader::uncommitted } else { Reader::new };
        let mut reader = isolated(case.bootstrap(), &case.target);
        reader.read_to_end();
        let (seen, committed) = (reader.records.len(), case.read_target().len());
        let mut engine = case.engine_with(&[("CONFIGURATION_FILE", &long_transaction_timeout)]);
        reader.wait("it fires", Duration::from_secs(60), |r| r.len() > seen);
        engine.kill();
        let fired = case.read_target().len();
        in_flight += usize::from(open && fired == committed);
        eprintln!("kill {kill}: {fired} fired");
        assert!(fired < COUNT, "kill {kill} came after the burst");
    }
    assert!(in_flight >= KILLS / 2, "{in_flight} kills hit an open transaction");
    let mut engine = case.engine_with(&[("CONFIGURATION_FILE", &long_transaction_timeout)]);
    ledger.settle();
    engine.stop();
}

#[test]
fn a_successor_aborts_a_killed_owners_open_transaction() {
    const COUNT: usize = 20_000;
    const BYSTANDER: &str = "probe-bystander";
    let _alone = alone();
    let Some(case) = Case::new("hanging", 1) else { return };
    let long_transaction_timeout = long_transaction_timeout();
    let mut ledger = Ledger::new(&case);
    let mut engine = case.engine_with(&[("CONFIGURATION_FILE", &long_transaction_timeout)]);
    case.settled();
    let mut all = Reader::uncommitted(case.bootstrap(), &case.target);
    all.read_to_end();
    let seen = all.records.len();
    let due = now_s() + 5;
    ledger.schedule(0..COUNT, |_| due);
    all.wait("records of an open transaction", Duration::from_secs(60), |r| r.len() > seen);
    engine.kill();
    // No process ends the transaction, so read_committed consumers of the target stop before it. They do not even get
    // later records of other producers.
    let producer = Producer::new(case.bootstrap(), &[]);
    producer.send(&case.target, &Scheduled { key: Some(BYSTANDER.into()), ..Scheduled::default() });
    producer.flush();
    let seen = |records: &[Record]| records.iter().any(|r| r.key_text() == BYSTANDER);
    all.wait("the bystander is written", Duration::from_secs(60), seen);
    let mut committed = case.target_reader();
    committed.read_to_end();
    assert!(!seen(&committed.records), "the open transaction does not block the consumer");
    let mut engine = case.engine_with(&[("CONFIGURATION_FILE", &long_transaction_timeout)]);
    eventually("the takeover", Duration::from_secs(60), || engine.output().contains("partition live").then_some(()));
    let loaded = Instant::now();
    committed.wait("readers go on", Duration::from_secs(60), seen);
    let waited = loaded.elapsed();
    eprintln!("consumers continued {waited:?} after the takeover");
    assert!(waited <= Duration::from_secs(1), "consumers continued only {waited:?} after the takeover");
    ledger.settle();
    engine.stop();
}
