//! Three brokers, of which some or all fail.

use std::thread;
use std::time::{Duration, Instant};

use crate::kit::cluster::Cluster;
use crate::kit::engine::Engine;
use crate::kit::wait::{eventually, now_ms, now_s, until_ms};
use crate::kit::{Case, Record};
use crate::ledger::{Ledger, alone, cluster, long_transaction_timeout};

const TIMEOUT: Duration = Duration::from_secs(60);

/// Selects the node to kill.
type Victim<'a> = &'a dyn Fn(&Cluster, &Case) -> Option<usize>;

fn count(engine: &Engine, line: &str) -> usize {
    engine.output().lines().filter(|l| l.contains(line)).count()
}

#[test]
fn killing_the_leader_or_a_coordinator_loses_nothing() {
    let alone = alone();
    let Some(mut cluster) = cluster(&alone) else { return };
    let long_transaction_timeout = long_transaction_timeout();
    let victims: [(&str, Victim<'_>); 3] = [
        ("the schedules partition's leader", &|cluster, case| cluster.leader(&case.schedules[0], 0)),
        ("the group's coordinator", &|cluster, case| cluster.group_coordinator(&case.group)),
        ("the coordinator of the owner's transactions", &|cluster, case| {
            cluster.transaction_coordinator(&case.group, &case.schedules[0], 0)
        }),
    ];
    for (name, victim) in victims {
        cluster.restore();
        let case = Case::on(cluster.broker, "broker-killed", 1, 1);
        let mut engine = case.engine_with(&[("CONFIGURATION_FILE", &long_transaction_timeout)]);
        case.settled();
        let mut ledger = Ledger::new(&case);
        let due = now_s() + 4;
        ledger.schedule(0..20_000, |n| due + (n % 10) as i64);
        let node = eventually("a leader", TIMEOUT, || victim(&cluster, &case));
        let mut reader = case.target_reader();
        reader.wait("the burst has begun", TIMEOUT, |r| r.len() > 1_000);
        cluster.kill(node);
        let killed_ms = now_ms();
        let late_ms = ledger.settle();
        eprintln!("{name} killed: worst lateness {late_ms} ms");
        let after = case.read_target().iter().filter(|r| r.timestamp > killed_ms).count();
        assert!(after > 1_000, "only {after} fired after the kill: it came too late in the burst");
        assert!(engine.running(), "the engine exited");
        engine.stop();
    }
    cluster.restore();
}

#[test]
fn a_rolling_restart_under_load_is_survived() {
    let alone = alone();
    let Some(mut cluster) = cluster(&alone) else { return };
    let case = Case::on(cluster.broker, "rolling", 3, 1);
    let mut engine = case.engine_with(&[("CONFIGURATION_FILE", &long_transaction_timeout())]);
    case.settled();
    let mut ledger = Ledger::new(&case);
    ledger.spread(500, 3..5);
    let mut away = Vec::new();
    let nodes: &mut Cluster = &mut cluster;
    thread::scope(|scope| {
        let rolling = scope.spawn(|| {
            for node in nodes.all() {
                let from = now_ms();
                nodes.stop(node);
                nodes.restart(node);
                nodes.wait_for_replicas();
                away.push(from..now_ms());
            }
        });
        // Schedule 500 more per second until all three brokers are back.
        while !rolling.is_finished() {
            let second = now_s();
            ledger.spread(500, 4..5);
            until_ms((second + 1) * 1_000);
        }
    });
    let late_ms = ledger.settle();
    eprintln!("rolling restart with {} schedules: worst lateness {late_ms} ms", ledger.len());
    let fired = case.read_target();
    for away in away {
        let due_ms = |r: &Record| r.value_text().parse::<i64>().map_or(0, |due| due * 1_000);
        let meanwhile = fired.iter().filter(|r| away.contains(&due_ms(r))).count();
        assert!(meanwhile > 500, "only {meanwhile} fired while brokers were restarted");
    }
    assert!(engine.running(), "the engine exited");
    engine.stop();
}

#[test]
fn an_outage_of_all_brokers_for_30_s_shows_at_readiness() {
    let alone = alone();
    let Some(mut cluster) = cluster(&alone) else { return };
    let case = Case::on(cluster.broker, "outage", 3, 1);
    let mut engine = case.engine_with(&[("CONFIGURATION_FILE", &long_transaction_timeout())]);
    case.settled();
    engine.ready();
    let mut ledger = Ledger::new(&case);
    let begin = now_s();
    ledger.spread(500, 3..13);
    cluster.all().for_each(|node| cluster.kill(node));
    // A second engine starts while no broker runs.
    let mut early = case.engine_with(&[("CONFIGURATION_FILE", &long_transaction_timeout())]);
    for engine in [&engine, &early] {
        eventually("readiness fails with a reason", TIMEOUT, || {
            let answer = engine.probe("/readiness")?;
            (answer.status == 503 && answer.text().contains("no broker")).then_some(())
        });
        assert!(engine.get("/liveness").is_some(), "liveness does not depend on brokers");
    }
    until_ms((begin + 30) * 1_000);
    cluster.restore();
    let late_ms = ledger.settle();
    eprintln!("all brokers away for 30 s: worst lateness {late_ms} ms");
    for engine in [&mut engine, &mut early] {
        engine.ready();
        assert!(engine.running(), "the engine exited");
        for line in ["no broker answers", "the brokers answer"] {
            assert_eq!(count(engine, line), 1, "each state change is logged once: {line}");
        }
        assert!(count(engine, "no broker of BOOTSTRAP_SERVERS answers") <= 1, "the outage is logged once");
    }
    engine.stop();
    early.stop();
}

#[test]
fn the_engine_stops_within_2_s_after_all_brokers_failed() {
    let alone = alone();
    let Some(mut cluster) = cluster(&alone) else { return };
    let case = Case::on(cluster.broker, "no-broker", 2, 1);
    let mut engine = case.engine_with(&[("CONFIGURATION_FILE", &long_transaction_timeout())]);
    case.settled();
    let mut ledger = Ledger::new(&case);
    let due = now_s() + 4;
    ledger.schedule(0..30_000, |n| due + (n % 30) as i64);
    let mut reader = case.target_reader();
    reader.wait("the burst has begun", TIMEOUT, |r| r.len() > 1_000);
    cluster.all().for_each(|node| cluster.kill(node));
    eventually("the brokers are missed", TIMEOUT, || (count(&engine, "no broker answers") > 0).then_some(()));
    let asked = Instant::now();
    let status = engine.terminate();
    let took = asked.elapsed();
    eprintln!("stopping without brokers took {took:?}");
    assert!(took <= Duration::from_secs(2), "stopping took {took:?}");
    assert_eq!(status.code(), Some(0), "SIGTERM leads to exit code 0");
    // Schedules that were pending at the end fire once the brokers and another engine run.
    cluster.restore();
    let mut engine = case.engine_with(&[("CONFIGURATION_FILE", &long_transaction_timeout())]);
    ledger.settle();
    engine.stop();
}
