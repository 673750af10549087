//! Targets that accept no records.

use kafka_scheduler::core::Config;
use kafka_scheduler::core::io::{Abort, Input, Millis, Output, Report, TargetState};
use kafka_scheduler::core::reason::Reason;

use crate::rig::*;

/// A target whose lookups only the tests answer.
const SILENT: &str = "missing-leader";

#[test]
fn a_target_without_a_leader_is_quarantined() {
    let (mut rig, poison, good) = leaderless(Config { dead_letter: Some("dead".into()), ..config() });
    let batch = rig.batch();
    assert_eq!(fired(&batch), [good], "the other schedule does not wait");
    rig.commit(&batch);
    let told = |o: &Output| matches!(o, Output::Report(Report::TargetChanged { state: TargetState::Leaderless, .. }));
    assert!(rig.saw(told));
    rig.read(P);
    let another = rig.schedule_to(P, "c", NOW + 2, SILENT);
    rig.read(P);
    for second in 2..200 {
        rig.at(NOW + second);
        look(&mut rig, TargetState::Leaderless);
        while let Some(batch) = rig.try_batch() {
            assert!(
                batch.items.is_empty(),
                "nothing is produced to the target, and there is no dead letter: {batch:?}"
            );
            rig.commit(&batch);
        }
    }
    assert!(!rig.saw(told), "once");
    assert_eq!(rig.core.counters().by_reason[Reason::NoLeader], 2);
    for second in 200..240 {
        rig.at(NOW + second);
        if look(&mut rig, TargetState::Exists) {
            break;
        }
    }
    let batch = rig.work();
    assert_eq!(fired(&batch), [poison, another]);
}

#[test]
fn a_quarantined_target_is_retried_with_backoff() {
    let (mut rig, poison, good) = leaderless(config());
    let batch = rig.batch();
    assert_eq!(fired(&batch), [good]);
    rig.commit(&batch);
    rig.read(P);
    let mut tries = Vec::new();
    for tenths in 0..6_000 {
        rig.now = Millis((NOW + 1) * 1000 + tenths * 100);
        rig.input(Input::Tick);
        look(&mut rig, TargetState::Exists);
        while let Some(batch) = rig.try_batch() {
            if batch.items.is_empty() {
                rig.commit(&batch);
                continue;
            }
            assert_eq!(fired(&batch), [poison]);
            tries.push(tenths / 10);
            rig.abort(&batch, Abort::Rejected(vec![(0, Reason::NoLeader)]));
        }
    }
    assert!((8..16).contains(&tries.len()), "{tries:?}");
    let waits: Vec<i64> = tries.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(waits[0] <= 5 && *waits.last().unwrap() >= 60, "{waits:?}");
}

#[test]
fn a_quarantined_target_that_was_deleted_is_found_missing() {
    let (mut rig, ..) = leaderless(Config { dead_letter: Some("dead".into()), ..config() });
    let batch = rig.batch();
    rig.commit(&batch);
    rig.read(P);
    let given_up = (2..60).find(|second| {
        rig.at(NOW + second);
        look(&mut rig, TargetState::Missing);
        rig.saw(|o| matches!(o, Output::Report(Report::ToDeadLetter { reason: Reason::UnknownTarget, .. })))
    });
    assert!(given_up.is_some());
}

fn look(rig: &mut Rig, state: TargetState) -> bool {
    let Some(target) = take!(rig, Output::CheckTarget { target, .. } => target) else { return false };
    rig.input(Input::Target { target, state });
    true
}

/// Aborts a batch because the partition of one of its targets has no leader.
fn leaderless(config: Config) -> (Rig, i64, i64) {
    let mut rig = Rig::live_with(config);
    let poison = rig.schedule_to(P, "a", NOW + 1, SILENT);
    let good = rig.schedule(P, "b", NOW + 1);
    rig.read(P);
    assert!(look(&mut rig, TargetState::Exists));
    rig.at(NOW + 1);
    let batch = rig.batch();
    assert_eq!(fired(&batch), [poison, good]);
    rig.abort(&batch, Abort::Rejected(vec![(0, Reason::NoLeader)]));
    (rig, poison, good)
}

#[test]
fn lookups_without_an_answer_make_no_dead_letter() {
    let mut rig = Rig::live_with(Config { dead_letter: Some("dead".into()), ..config() });
    rig.schedule_to(P, "k", NOW + 1, SILENT);
    rig.read(P);
    let answers = [TargetState::NoAnswer, TargetState::NoAnswer, TargetState::Missing];
    let mut second = 1;
    for answer in answers {
        while !look(&mut rig, answer) {
            second += 1;
            rig.at(NOW + second);
        }
    }
    let is_dead = |o: &Output| matches!(o, Output::Report(Report::ToDeadLetter { .. }));
    assert!(!rig.saw(is_dead), "one lookup is not enough for a dead letter");
    for _ in 0..2 {
        while !look(&mut rig, TargetState::Missing) {
            second += 1;
            rig.at(NOW + second);
        }
    }
    assert!(rig.saw(is_dead), "three lookups are enough");
}
