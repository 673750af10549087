//! Three brokers, of which some or all go away.

use std::time::Duration;

use crate::kit::Case;
use crate::kit::cluster::Cluster;
use crate::kit::wait::{eventually, now_s, until_ms};
use crate::ledger::{Ledger, alone, patient};

const PATIENCE: Duration = Duration::from_secs(60);

/// Where a group's or a transactional id's coordinator is: Java's hash of the name, by the topic's four partitions.
fn coordinator_partition(id: &str) -> i32 {
    let hash = id.encode_utf16().fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    (hash & i32::MAX) % 4
}

/// Which node to kill.
type Victim<'a> = &'a dyn Fn(&Cluster, &Case) -> Option<usize>;

#[test]
fn nothing_is_lost_when_the_leader_or_a_coordinator_is_killed_during_a_burst() {
    let Some(mut cluster) = Cluster::start() else { return };
    let _alone = alone();
    let patient = patient();
    let victims: [(&str, Victim<'_>); 3] = [
        ("the schedules partition's leader", &|cluster, case| cluster.leader(&case.schedules[0], 0)),
        ("the group's coordinator", &|cluster, case| {
            cluster.leader("__consumer_offsets", coordinator_partition(&case.group))
        }),
        // Which transactional ids are in use is the engine's own business: with four partitions on three nodes, the
        // leader of each of them is hit once in the course of these rounds.
        ("a transaction coordinator", &|cluster, _| cluster.leader("__transaction_state", 0)),
    ];
    for (name, victim) in victims {
        let case = Case::on(cluster.broker, "broker-killed", 1, 1);
        let mut engine = case.engine_with(&[("CONFIGURATION_FILE", &patient)]);
        case.settled();
        let mut ledger = Ledger::new(&case);
        let due = now_s() + 4;
        ledger.schedule(0..20_000, |n| due + (n % 10) as i64);
        let mut reader = case.target_reader();
        reader.wait("the burst has begun", PATIENCE, |r| r.len() > 1_000);
        let node = eventually("a leader", PATIENCE, || victim(&cluster, &case));
        cluster.kill(node);
        let late_ms = ledger.settle();
        eprintln!("{name} killed: worst lateness {late_ms} ms");
        assert!(engine.running());
        engine.stop();
        cluster.restart(node);
        cluster.wait_for(3);
    }
}

#[test]
fn a_rolling_restart_and_an_outage_of_all_brokers_are_survived() {
    let Some(mut cluster) = Cluster::start() else { return };
    let _alone = alone();
    let case = Case::on(cluster.broker, "rolling", 3, 1);
    let mut engine = case.engine_with(&[("CONFIGURATION_FILE", &patient())]);
    case.settled();
    let mut ledger = Ledger::new(&case);
    ledger.spread(500, 3..43);
    for node in cluster.all() {
        cluster.stop(node);
        cluster.restart(node);
        cluster.wait_for(3);
    }
    let late_ms = ledger.settle();
    eprintln!("rolling restart: worst lateness {late_ms} ms");
    let begin = now_s();
    ledger.spread(500, 3..13);
    cluster.all().for_each(|node| cluster.kill(node));
    until_ms((begin + 30) * 1_000);
    cluster.all().for_each(|node| cluster.restart(node));
    cluster.wait_for(3);
    let late_ms = ledger.settle();
    eprintln!("all brokers away for 30 s: worst lateness {late_ms} ms");
    let said = engine.output();
    assert!(said.contains("no broker answers"), "the outage is said");
    assert!(said.lines().filter(|line| line.contains("no broker answers")).count() <= 3, "and not over and over");
    assert!(engine.running(), "it was not restarted");
    engine.stop();
}
