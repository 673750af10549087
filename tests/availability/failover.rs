//! Two instances, one of which dies, leaves, sleeps or comes.

use std::time::{Duration, Instant};

use crate::kit::process::signal;
use crate::kit::wait::{eventually, now_s, until_ms};
use crate::kit::{Case, engine::Engine};
use crate::ledger::{Ledger, alone, patient};

const PATIENCE: Duration = Duration::from_secs(40);

fn live(engine: &Engine) -> usize {
    engine.output().matches("the partition is loaded and fires").count()
}

/// Two engines that have shared the partitions between them.
fn two(case: &Case, patient: &str) -> (Engine, Engine) {
    let env = [("CONFIGURATION_FILE", patient)];
    let first = case.engine_with(&env);
    eventually("the first has all", PATIENCE, || (live(&first) >= case.partitions as usize).then_some(()));
    let second = case.engine_with(&env);
    eventually("the second has some", PATIENCE, || (live(&second) >= 1).then_some(()));
    case.settled();
    (first, second)
}

#[test]
fn when_one_of_two_is_killed_the_other_takes_over_within_the_session_timeout_and_2_s() {
    let Some(case) = Case::new("failover", 6) else { return };
    let _alone = alone();
    let (mut first, mut second) = two(&case, &patient());
    let mut ledger = Ledger::new(&case);
    ledger.spread(100, 3..33);
    until_ms((now_s() + 8) * 1_000);
    first.kill();
    let late_ms = ledger.settle();
    let allowed_ms = i64::from(case.broker.session_timeout_ms) + 2_000;
    eprintln!("killed: worst lateness {late_ms} ms, allowed {allowed_ms}");
    assert!(late_ms <= allowed_ms, "{late_ms} ms late");
    second.stop();
}

#[test]
fn when_one_of_two_is_told_to_end_it_hands_over_at_once() {
    let Some(case) = Case::new("handover", 6) else { return };
    let _alone = alone();
    let (mut first, mut second) = two(&case, &patient());
    let mut ledger = Ledger::new(&case);
    ledger.spread(100, 3..18);
    until_ms((now_s() + 6) * 1_000);
    let asked = Instant::now();
    first.stop();
    let took = asked.elapsed();
    let late_ms = ledger.settle();
    eprintln!("told to end: gone after {took:?}, worst lateness {late_ms} ms");
    assert!(took <= Duration::from_secs(2), "its end took {took:?}");
    assert!(late_ms <= 2_000, "{late_ms} ms late");
    second.stop();
}

#[test]
fn under_a_storm_of_comings_and_goings_nothing_is_later_than_10_s() {
    let Some(case) = Case::new("storm", 6) else { return };
    let _alone = alone();
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
fn an_instance_that_slept_through_its_session_is_fenced_says_so_and_works_again() {
    let Some(case) = Case::new("zombie", 4) else { return };
    let _alone = alone();
    let (mut first, mut second) = two(&case, &patient());
    let mut ledger = Ledger::new(&case);
    let due = now_s() + 6;
    ledger.schedule(0..30_000, |n| due + (n % 30) as i64);
    let mut reader = case.target_reader();
    reader.wait("the burst has begun", PATIENCE, |r| r.len() > 2_000);
    signal(first.pid(), "STOP");
    let stopped = now_s();
    reader.wait("the other has taken over", PATIENCE, |r| r.last().is_some_and(|r| r.timestamp / 1_000 > stopped + 4));
    until_ms((stopped + 20) * 1_000);
    signal(first.pid(), "CONT");
    ledger.settle();
    let said = |engine: &Engine| {
        let output = engine.output();
        output.contains("partitions lost") || output.contains("starting anew")
    };
    eventually("the zombie says that it was thrown out", PATIENCE, || said(&first).then_some(()));
    // It works again when the other one has gone.
    second.stop();
    assert_eq!(case.settled().len(), 30_000, "nothing has fired again");
    first.stop();
}

#[test]
fn it_ends_within_2_s_also_when_no_broker_answers() {
    let Some(cluster) = crate::kit::cluster::Cluster::start() else { return };
    let mut cluster = cluster;
    let _alone = alone();
    let case = Case::on(cluster.broker, "no-broker", 2, 1);
    let mut engine = case.engine();
    case.settled();
    cluster.all().for_each(|node| cluster.kill(node));
    eventually("the brokers are missed", PATIENCE, || engine.output().contains("no broker answers").then_some(()));
    let asked = Instant::now();
    engine.terminate();
    assert!(asked.elapsed() <= Duration::from_secs(2), "its end took {:?}", asked.elapsed());
}
