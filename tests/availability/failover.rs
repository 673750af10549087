//! Two instances, of which one is killed, stops, is paused or joins.

use std::time::{Duration, Instant};

use crate::kit::client::{Reader, Record};
use crate::kit::process::signal;
use crate::kit::wait::{eventually, now_s, until_ms};
use crate::kit::{Case, Scheduled, engine::Engine};
use crate::ledger::{Ledger, alone, long_transaction_timeout};

const TIMEOUT: Duration = Duration::from_secs(40);
/// The time limit for a million schedules.
const LOADING: Duration = Duration::from_secs(180);

fn live(engine: &Engine) -> usize {
    engine.output().matches("partition live").count()
}

/// Starts two engines, and waits until they share the partitions.
fn two(case: &Case, long_transaction_timeout: &str) -> (Engine, Engine) {
    let env = [("CONFIGURATION_FILE", long_transaction_timeout)];
    let first = case.engine_with(&env);
    eventually("the first has all", LOADING, || (live(&first) >= case.partitions as usize).then_some(()));
    let second = case.engine_with(&env);
    eventually("the second has some", LOADING, || (live(&second) >= 1).then_some(()));
    case.settled();
    (first, second)
}

/// Runs 3,000 schedules over 30 s beside `pending` later ones, and lets one of two instances leave in the middle.
/// Returns how long its end took, and the worst lateness in milliseconds.
fn one_of_two_goes(name: &str, pending: usize, go: impl FnOnce(&mut Engine)) -> Option<(Duration, i64, Case)> {
    let case = Case::new(name, 6)?;
    let far = now_s() + 86_400;
    for n in 0..pending {
        case.queue(&Scheduled::new(format!("pending-{n}"), "v", far + n as i64 % 3_600, &case.target));
    }
    case.flush();
    let (mut first, mut second) = two(&case, &long_transaction_timeout());
    let held = [&first, &second].map(|engine| engine.counter("planned_schedule").unwrap_or_default());
    assert!(held.iter().all(|held| *held >= pending as u64 / 3), "both instances hold a share of {pending}: {held:?}");
    let mut ledger = Ledger::new(&case);
    ledger.spread(100, 3..33);
    until_ms((now_s() + 8) * 1_000);
    let asked = Instant::now();
    go(&mut first);
    let took = asked.elapsed();
    let late_ms = ledger.settle();
    eprintln!("{name}: the end took {took:?}, worst lateness {late_ms} ms");
    second.stop();
    Some((took, late_ms, case))
}

#[test]
fn takeover_after_a_kill_is_within_session_timeout_and_2_s() {
    let _alone = alone();
    let Some((_, late_ms, case)) = one_of_two_goes("killed", 0, Engine::kill) else { return };
    let allowed_ms = i64::from(case.broker.session_timeout_ms) + 2_000;
    assert!(late_ms <= allowed_ms, "{late_ms} ms late, allowed {allowed_ms}");
}

#[test]
fn takeover_of_a_million_is_within_session_timeout_and_8_s() {
    let _alone = alone();
    let Some((_, late_ms, case)) = one_of_two_goes("killed-with-a-million", 1_000_000, Engine::kill) else { return };
    let allowed_ms = i64::from(case.broker.session_timeout_ms) + 8_000;
    assert!(late_ms <= allowed_ms, "{late_ms} ms late, allowed {allowed_ms}");
}

#[test]
fn an_instance_that_stops_hands_over_at_once() {
    let _alone = alone();
    let Some((took, late_ms, _)) = one_of_two_goes("told-to-end", 0, Engine::stop) else { return };
    assert!(took <= Duration::from_secs(2), "stopping took {took:?}");
    assert!(late_ms <= 2_000, "{late_ms} ms late");
}

#[test]
fn frequent_rebalances_delay_nothing_by_more_than_10_s() {
    let _alone = alone();
    let Some(case) = Case::new("storm", 6) else { return };
    let long_transaction_timeout = long_transaction_timeout();
    let env = [("CONFIGURATION_FILE", long_transaction_timeout.as_str())];
    let (first, second) = two(&case, &long_transaction_timeout);
    let mut engines = std::collections::VecDeque::from([first, second]);
    let mut ledger = Ledger::new(&case);
    ledger.spread(300, 3..63);
    let begun = now_s();
    for turn in 1..=12 {
        until_ms((begun + turn * 5) * 1_000);
        match turn % 3 {
            0 => engines.push_back(case.engine_with(&env)),
            1 => engines.pop_front().expect("an engine").kill(),
            _ => {
                engines.push_back(case.engine_with(&env));
                engines.pop_front().expect("an engine").stop();
            }
        }
        if engines.is_empty() {
            engines.push_back(case.engine_with(&env));
        }
    }
    let late_ms = ledger.settle();
    eprintln!("frequent rebalances: worst lateness {late_ms} ms");
    assert!(late_ms <= 10_000, "{late_ms} ms late");
}

#[test]
fn an_instance_paused_beyond_its_session_is_fenced_and_rejoins() {
    const COUNT: usize = 30_000;
    let _alone = alone();
    let Some(case) = Case::new("zombie", 4) else { return };
    let (mut first, mut second) = two(&case, &long_transaction_timeout());
    let mut ledger = Ledger::new(&case);
    let due = now_s() + 6;
    ledger.schedule(0..COUNT, |n| due + (n % 10) as i64);
    // Pause it when many uncommitted records have appeared, so while transactions are open.
    let mut all = Reader::uncommitted(case.bootstrap(), &case.target);
    let mut committed = case.target_reader();
    let began = Instant::now();
    while all.records.len() <= COUNT / 10 || all.records.len() <= committed.records.len() + COUNT / 60 {
        all.poll(Duration::from_millis(1));
        committed.poll(Duration::ZERO);
        assert!(began.elapsed() < TIMEOUT, "no transaction is seen open");
    }
    let before = first.output().len();
    signal(first.pid(), "STOP");
    let stopped = now_s();
    let mut reader = case.target_reader();
    reader.wait("the other has taken over", TIMEOUT, |r| r.last().is_some_and(|r| r.timestamp / 1_000 > stopped + 4));
    until_ms((stopped + 20) * 1_000);
    let said = |engine: &Engine, line: &str| engine.output()[before..].contains(line);
    signal(first.pid(), "CONT");
    eventually("the zombie says that it was thrown out", TIMEOUT, || {
        (said(&first, "partitions lost") || said(&first, "rejoining and reloading from the log")).then_some(())
    });
    ledger.settle();
    // These are not all of them if it reads less than the whole log.
    let beyond = |r: &[Record]| r.iter().filter(|r| !r.key_text().starts_with("probe-")).count().saturating_sub(COUNT);
    all.wait("all is read", TIMEOUT, |r| beyond(r) > 0);
    eprintln!("at least {} records of its open transaction were rejected", beyond(&all.records));
    eventually("the zombie has partitions again", TIMEOUT, || said(&first, "partition live").then_some(()));
    // The paused instance works again: after the other one stopped, it fires everything.
    second.stop();
    assert_eq!(case.settled().len(), COUNT, "a schedule fired twice");
    first.stop();
}
