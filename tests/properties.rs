//! Checks the promises in scenarios that proptest generates and shrinks.

use std::cell::RefCell;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use sim::faults::Fault;
use sim::scenario::{Act, Away, Op, Point, RecordKind, RequestError, SAFETY_MS, Scenario, Setup, Target, Timestamps};
use sim::{Summary, play};

/// The number of scenarios in a test.
const CASES: u32 = 16;
/// The number of scenarios that are played to shrink a failing one.
const SHRINK_MAX: u32 = 400;

/// Checks that every scenario keeps every promise, and that each of these faults occurs in at least one.
fn hold(faults: &[Fault], scenarios: impl Strategy<Value = Scenario>) {
    let total = RefCell::new(Summary::default());
    let config = Config { cases: CASES, max_shrink_iters: SHRINK_MAX, failure_persistence: None, ..Config::default() };
    let played = TestRunner::new(config).run(&scenarios, |scenario| match play(&scenario, false) {
        Ok(summary) => {
            total.borrow_mut().add(&summary);
            Ok(())
        }
        Err(failure) => {
            let replay = format!("{failure}\n  {} --bytes {}", sim::REPLAY, scenario.to_hex());
            Err(TestCaseError::fail(replay))
        }
    });
    if let Err(broken) = played {
        panic!("{broken}");
    }
    let total = total.into_inner();
    let hit = |fault: &Fault| total.coverage.0.keys().any(|(other, _)| other == fault);
    let missing: Vec<&Fault> = faults.iter().filter(|fault| !hit(fault)).collect();
    assert!(missing.is_empty(), "{missing:?} never hit:\n{}", total.coverage.table());
    assert!(total.fired > u64::from(CASES), "hardly anything fired: {total:?}");
}

fn setup(instances: std::ops::RangeInclusive<u8>, keys: std::ops::RangeInclusive<u8>) -> impl Strategy<Value = Setup> {
    let optional = |all| prop_oneof![4 => Just(None), 1 => all];
    let sizes = (instances, 1..=2u8, 1..=3u8, keys, 1..=2u8, 1..=8u8);
    let rules = (optional((0..20u8).prop_map(Some).boxed()), optional((1..40u8).prop_map(Some).boxed()));
    let timestamps = vec![Timestamps::Any, Timestamps::Bounded, Timestamps::BoundedInTargets];
    let brokers = (prop_oneof![4 => Just(0), 1 => 16..32u8], proptest::sample::select(timestamps), 1..=3u8);
    let all = (sizes, rules, brokers, any::<bool>(), any::<u64>());
    all.prop_map(|(sizes, (grace_s, horizon_hs), (bandwidth_kbps, timestamps, replicas), dead_letters, seed)| Setup {
        instances: sizes.0,
        topics: sizes.1,
        partitions: sizes.2,
        keys: sizes.3,
        transactors: sizes.4,
        items_max: sizes.5,
        grace_s,
        horizon_hs,
        since_days: 0,
        dead_letters,
        midnight_s: 0,
        bandwidth_kbps,
        timestamps,
        replicas,
        stale_replicas: false,
        seed,
    })
}

fn scenario(setup: impl Strategy<Value = Setup>, ops: impl Strategy<Value = Op>) -> impl Strategy<Value = Scenario> {
    (setup, vec(ops, 100..300)).prop_map(|(setup, ops)| Scenario { setup, ops })
}

/// Returns operations before a time.
fn within(end_ms: u32, acts: impl Strategy<Value = Act>) -> impl Strategy<Value = Op> {
    (0..end_ms / 2, acts).prop_map(|(half_ms, act)| Op { at_ms: half_ms * 2, act })
}

fn produce(in_s: std::ops::Range<i16>) -> BoxedStrategy<Act> {
    let invalid = vec![RecordKind::NoEpoch, RecordKind::BadEpoch, RecordKind::ToSchedules, RecordKind::Copied];
    let kind = prop_oneof![
        8 => Just(RecordKind::Schedule),
        2 => Just(RecordKind::Cancel),
        1 => proptest::sample::select(invalid),
    ];
    let target = prop_oneof![8 => Just(Target::Open), 1 => proptest::sample::select(Target::ALL.to_vec())];
    let late_ms = prop_oneof![6 => Just(0), 1 => 1..3_000u16];
    (0..16u8, kind, target, in_s, prop::bool::weighted(0.05), late_ms)
        .prop_map(|(key, kind, target, in_s, twice, late_ms)| Act::Produce {
            key,
            kind,
            target,
            in_s,
            twice,
            late_ms,
            large: late_ms % 7 == 1,
        })
        .boxed()
}

fn point() -> impl Strategy<Value = Point> {
    use Point::{AfterCommit, AfterOffsets, AfterProduce, BeforeSend, Now};
    proptest::sample::select(vec![Now, BeforeSend, AfterProduce, AfterOffsets, AfterCommit])
}

fn crash() -> BoxedStrategy<Act> {
    (0..3u8, point(), 10..8_192u16)
        .prop_map(|(instance, point, down_ms)| Act::Crash { instance, point, down_ms })
        .boxed()
}

fn pause(for_ms: std::ops::Range<u16>) -> BoxedStrategy<Act> {
    (0..3u8, point(), for_ms).prop_map(|(instance, point, for_ms)| Act::Pause { instance, point, for_ms }).boxed()
}

fn compact() -> BoxedStrategy<Act> {
    (0..6u8, 0..=3u8, any::<bool>())
        .prop_map(|(partition, replica, tombstones)| Act::Compact { partition, replica, tombstones })
        .boxed()
}

fn replicas() -> BoxedStrategy<Act> {
    prop_oneof![
        compact(),
        (0..6u8).prop_map(|partition| Act::ChangeLeader { partition }),
        (0..6u8, 0..3u8, 500..30_000u16).prop_map(|(partition, replica, for_ms)| Act::ReplicaAway {
            partition,
            replica,
            for_ms
        }),
        (500..16_384u16, 20_000..24_096u16)
            .prop_map(|(for_ms, retention_ms)| Act::LowerRetention { for_ms, retention_ms }),
    ]
    .boxed()
}

fn skew() -> BoxedStrategy<Act> {
    (0..3u8, -5_000..5_000i16, any::<bool>()).prop_map(|(instance, by, days)| Act::Skew { instance, by, days }).boxed()
}

fn slow_group() -> BoxedStrategy<Act> {
    prop_oneof![
        (500..8_192u16).prop_map(|for_ms| Act::SlowRebalance { for_ms }),
        (500..12_000u16).prop_map(|for_ms| Act::FencesFail { for_ms }),
        (500..12_000u16, 50..2_000u16).prop_map(|(for_ms, up_to_ms)| Act::SlowMarkers { for_ms, up_to_ms }),
    ]
    .boxed()
}

/// The faults that the other functions leave out.
fn more() -> BoxedStrategy<Act> {
    use RequestError::{Abortable, Fatal, Late, ReplyLost, RequestLost, Retriable};
    let errors = proptest::sample::select(vec![Retriable, Abortable, Fatal, RequestLost, ReplyLost, Late]);
    let aways = proptest::sample::select(vec![Away::Missing, Away::Forbidden, Away::Silent, Away::Leaderless]);
    let slow = (0..3u8, 500..12_000u16, 50..2_000u16);
    prop_oneof![
        (0..3u8, errors, point()).prop_map(|(instance, error, point)| Act::Error { instance, error, point }),
        (aways, 500..12_000u16).prop_map(|(away, for_ms)| Act::TargetAway { away, for_ms }),
        slow.clone().prop_map(|(instance, for_ms, gap_ms)| Act::SlowConsumer { instance, for_ms, gap_ms }),
        slow.prop_map(|(instance, for_ms, up_to_ms)| Act::SlowNetwork { instance, for_ms, up_to_ms }),
        (0..16u8, 1..=3u8, any::<bool>(), 1..6_000u16, -1..10i16)
            .prop_map(|(key, count, commit, for_ms, in_s)| Act::Transaction { key, count, commit, for_ms, in_s }),
        (0..3u8, 10..8_192u16).prop_map(|(instance, down_ms)| Act::Stop { instance, down_ms }),
        (0..3u8).prop_map(|instance| Act::Unreadable { instance }),
        (0..3u8, point(), 500..14_000u16).prop_map(|(instance, point, for_ms)| Act::Stall { instance, point, for_ms }),
        (0..3u8).prop_map(|instance| Act::Rewind { instance }),
        (0..2u8).prop_map(|topic| Act::Grow { topic }),
    ]
    .boxed()
}

#[test]
fn instances_fail_over_without_loss_and_without_firing_twice() {
    let acts = prop_oneof![30 => produce(-2..15), 1 => crash(), 1 => pause(6_000..14_000), 1 => slow_group()];
    hold(&[Fault::Crash, Fault::Zombie, Fault::SlowMarkers], scenario(setup(2..=3, 1..=16), within(SAFETY_MS, acts)));
}

#[test]
fn missed_schedules_fire_once_an_instance_is_back() {
    let outage = (1_000..16_384u16, any::<bool>()).prop_map(|(down_ms, expire)| Act::Outage { down_ms, expire });
    let acts = prop_oneof![40 => produce(-20..30), 1 => outage];
    hold(&[Fault::Outage, Fault::Expiry], scenario(setup(1..=2, 4..=16), within(SAFETY_MS, acts)));
}

#[test]
fn no_update_and_no_cancel_is_lost_in_a_race() {
    let races = within(30_000, produce(-1..2));
    let acts = prop_oneof![6 => replicas(), 1 => pause(100..6_000), 1 => slow_group(), 1 => crash()];
    let ops = prop_oneof![12 => races, 1 => within(SAFETY_MS, acts)];
    hold(&[Fault::Compaction, Fault::LeaderChange], scenario(setup(1..=2, 1..=2), ops));
}

#[test]
fn a_first_start_with_wrong_clocks_forgets_no_owed_schedule() {
    let setup = (setup(1..=3, 4..=16), -100..100i8, 0..=2u8).prop_map(|(setup, midnight_s, since_days)| Setup {
        midnight_s,
        since_days,
        ..setup
    });
    let before = within(2_000, produce(-300..60));
    let grow = (0..2u8).prop_map(|topic| Act::Grow { topic });
    let acts = prop_oneof![10 => produce(-60..20), 1 => skew(), 1 => grow, 1 => crash()];
    hold(&[Fault::Skew, Fault::Growth], scenario(setup, prop_oneof![1 => before, 4 => within(SAFETY_MS, acts)]));
}

/// Each run ends with a check that the running engines have the state that a fresh engine reads from the compacted log.
#[test]
fn a_running_core_and_one_that_rereads_the_log_agree() {
    let faults =
        prop_oneof![crash(), pause(100..14_000), replicas(), skew(), slow_group(), more(), more(), more(), more()];
    let acts = prop_oneof![8 => produce(-5..40), 1 => faults];
    hold(
        &[Fault::UserTransaction, Fault::Stop, Fault::Rewind],
        scenario(setup(1..=3, 1..=16), within(SAFETY_MS, acts)),
    );
}
