//! Two instances, one of which dies, leaves, sleeps or comes.

use std::time::{Duration, Instant};

use crate::kit::client::{Reader, Record};
use crate::kit::process::signal;
use crate::kit::wait::{eventually, now_s, until_ms};
use crate::kit::{Case, Scheduled, engine::Engine};
use crate::ledger::{Ledger, alone, patient};

const PATIENCE: Duration = Duration::from_secs(40);
/// For a million schedules.
const LOADING: Duration = Duration::from_secs(180);

fn live(engine: &Engine) -> usize {
    engine.output().matches("partition live").count()
}

/// Two engines that have shared the partitions between them.
fn two(case: &Case, patient: &str) -> (Engine, Engine) {
    let env = [("CONFIGURATION_FILE", patient)];
    let first = case.engine_with(&env);
    eventually("the first has all", LOADING, || (live(&first) >= case.partitions as usize).then_some(()));
    let second = case.engine_with(&env);
    eventually("the second has some", LOADING, || (live(&second) >= 1).then_some(()));
    case.settled();
    (first, second)
}

/// 3,000 schedules over 30 s, and so many more that are pending: what becomes of the lateness when one of two goes away
/// in the middle? Gives how long that one took, and the worst lateness in milliseconds.
fn one_of_two_goes(name: &str, pending: usize, go: impl FnOnce(&mut Engine)) -> Option<(Duration, i64, Case)> {
    let case = Case::new(name, 6)?;
    let far = now_s() + 86_400;
    for n in 0..pending {
        case.queue(&Scheduled::new(format!("pending-{n}"), "v", far + n as i64 % 3_600, &case.target));
    }
    case.flush();
    let (mut first, mut second) = two(&case, &patient());
    let held = [&first, &second].map(|engine| engine.counter("planned_schedule").unwrap_or_default());
    assert!(held.iter().all(|held| *held >= pending as u64 / 3), "both have their share of {pending}: {held:?}");
    let mut ledger = Ledger::new(&case);
    ledger.spread(100, 3..33);
    until_ms((now_s() + 8) * 1_000);
    let asked = Instant::now();
    go(&mut first);
    let took = asked.elapsed();
    let late_ms = ledger.settle();
    eprintln!("{name}: gone after {took:?}, worst lateness {late_ms} ms");
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
fn when_one_of_two_is_told_to_end_it_hands_over_at_once() {
    let _alone = alone();
    let Some((took, late_ms, _)) = one_of_two_goes("told-to-end", 0, Engine::stop) else { return };
    assert!(took <= Duration::from_secs(2), "its end took {took:?}");
    assert!(late_ms <= 2_000, "{late_ms} ms late");
}

#[test]
fn frequent_rebalances_delay_nothing_by_more_than_10_s() {
    let _alone = alone();
    let Some(case) = Case::new("storm", 6) else { return };
    let patient = patient();
    let env = [("CONFIGURATION_FILE", patient.as_str())];
    let (first, second) = two(&case, &patient);
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
    eprintln!("storm: worst lateness {late_ms} ms");
    assert!(late_ms <= 10_000, "{late_ms} ms late");
}

#[test]
fn an_instance_paused_beyond_its_session_is_fenced_and_rejoins() {
    const COUNT: usize = 30_000;
    let _alone = alone();
    let Some(case) = Case::new("zombie", 4) else { return };
    let (mut first, mut second) = two(&case, &patient());
    let mut ledger = Ledger::new(&case);
    let due = now_s() + 6;
    ledger.schedule(0..COUNT, |n| due + (n % 10) as i64);
    // At the first sight of records that are not committed yet, when transactions are open.
    let mut all = Reader::uncommitted(case.bootstrap(), &case.target);
    all.wait("the burst has begun", PATIENCE, |r| r.len() > COUNT / 10);
    let before = first.output().len();
    signal(first.pid(), "STOP");
    let stopped = now_s();
    let mut reader = case.target_reader();
    reader.wait("the other has taken over", PATIENCE, |r| r.last().is_some_and(|r| r.timestamp / 1_000 > stopped + 4));
    until_ms((stopped + 20) * 1_000);
    let said = |engine: &Engine, line: &str| engine.output()[before..].contains(line);
    signal(first.pid(), "CONT");
    eventually("the zombie says that it was thrown out", PATIENCE, || {
        (said(&first, "partitions lost") || said(&first, "rejoining and reloading from the log")).then_some(())
    });
    ledger.settle();
    // Not all of them, where it stops before the end of the log.
    let beyond = |r: &[Record]| r.iter().filter(|r| !r.key_text().starts_with("probe-")).count().saturating_sub(COUNT);
    all.wait("all is read", PATIENCE, |r| beyond(r) > 0);
    eprintln!("at least {} records of its open transaction were refused", beyond(&all.records));
    eventually("the zombie has partitions again", PATIENCE, || said(&first, "partition live").then_some(()));
    // It works: when the other one has gone, all is up to it.
    second.stop();
    assert_eq!(case.settled().len(), COUNT, "nothing has fired again");
    first.stop();
}
