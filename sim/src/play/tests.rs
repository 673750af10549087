//! What happens if replicas lag as far as the docs exclude, and that seeds do not have it.

use super::*;
use crate::scenario::{Act, Op, RecordKind, Setup, Target};

const ALL: u8 = 0;
const SECOND: u8 = 2;

fn op(at_ms: u32, act: Act) -> Op {
    Op { at_ms, act }
}

fn schedule(at_ms: u32, key: u8, in_s: i16) -> Op {
    let (kind, target) = (RecordKind::Schedule, Target::Open);
    op(at_ms, Act::Produce { key, kind, target, in_s, twice: false, late_ms: 0, large: false })
}

fn compact(at_ms: u32, replica: u8, tombstones: bool) -> Op {
    op(at_ms, Act::Compact { partition: 0, replica, tombstones })
}

/// Crashes the instance, which then loads the partition.
fn crash(at_ms: u32) -> Op {
    op(at_ms, Act::Crash { instance: 0, point: Point::Now, down_ms: 10 })
}

/// Plays operations on one instance and one partition with two replicas.
fn play_on_two(stale_replicas: bool, ops: &[Op]) -> Result<Summary, Failure> {
    let setup = Setup { keys: 4, replicas: 2, stale_replicas, ..Scenario::from_bytes(&[]).setup };
    play(&Scenario { setup, ops: ops.to_vec() }, false)
}

fn fires_again(played: Result<Summary, Failure>) -> bool {
    matches!(played, Err(Failure::Safety(what)) if what.contains("fired twice"))
}

#[test]
fn a_replica_that_was_away_for_long_must_lose_its_log() {
    let ops = [
        schedule(1_000, 0, 10),
        op(8_000, Act::ReplicaAway { partition: 0, replica: 1, for_ms: 65_000 }),
        // It fires meanwhile, and another record comes after its tombstone.
        schedule(20_000, 1, 1),
        compact(45_000, ALL, false),
        compact(72_000, ALL, true),
        op(74_000, Act::ChangeLeader { partition: 0 }),
        crash(75_000),
    ];
    assert_eq!(play_on_two(false, &ops).map(|summary| summary.coverage.total()), Ok(6));
    assert!(fires_again(play_on_two(true, &ops)));
}

#[test]
fn cleaners_of_replicas_must_keep_pace() {
    // The first replica leads, and its cleaner does nothing.
    let many = (0..60).map(|n| schedule(1_100 + 100 * n, 1, 3_000));
    let ops = [
        schedule(1_000, 0, 7),
        schedule(20_000, 2, 1),
        compact(45_000, SECOND, false),
        compact(72_000, SECOND, true),
        op(72_500, Act::SlowConsumer { instance: 0, for_ms: 16_000, gap_ms: 2_000 }),
        crash(73_000),
    ];
    let ops: Vec<Op> = ops.into_iter().chain(many).collect();
    let changes_at = |stale, at_ms| {
        let change = op(at_ms, Act::ChangeLeader { partition: 0 });
        fires_again(play_on_two(stale, &[ops.clone(), vec![change]].concat()))
    };
    let while_it_loads = || (78_000..88_000).step_by(250);
    assert!(while_it_loads().any(|at_ms| changes_at(true, at_ms)), "it loads from one replica and then the other");
    assert!(!while_it_loads().any(|at_ms| changes_at(false, at_ms)));
}
