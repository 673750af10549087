//! Rejections without a schedule as their cause: a wrong clock, or one of the engine's own topics.

use kafka_scheduler::core::Config;
use kafka_scheduler::core::batch::Kind;
use kafka_scheduler::core::io::{Abort, Input, Millis, Output, Report};
use kafka_scheduler::core::reason::Reason;

use crate::rig::*;

#[test]
fn a_rejection_by_an_own_topic_makes_no_dead_letter() {
    let mut rig = with_dead_letters();
    let keyless = rig.schedule(P, "keyless", NOW + 5);
    let neighbour = rig.schedule(P, "neighbour", NOW + 5);
    rig.read(P);
    rig.at(NOW + 5);
    let batch = rig.batch();
    rig.abort(&batch, Abort::Rejected(vec![(0, Reason::OwnTopic)]));
    let parked = |o: &Output| matches!(o, Output::Report(Report::Parked { reason: Reason::OwnTopic, .. }));
    assert!(rig.saw(parked), "parking is reported once");
    let batch = rig.batch();
    assert_eq!(fired(&batch), [neighbour]);
    rig.commit(&batch);
    rig.read(P);
    for _ in 0..20 {
        let (batch, took_ms) = wait_for(&mut rig, 20).expect("the schedule is retried");
        assert!(took_ms <= 14_200, "the retry came after {took_ms} ms");
        assert_eq!(fired(&batch), [keyless], "the schedule does not become a dead letter: {batch:?}");
        rig.abort(&batch, Abort::Rejected(vec![(0, Reason::OwnTopic)]));
    }
    assert!(!rig.saw(parked), "parking is not reported again");
    let (batch, _) = wait_for(&mut rig, 20).expect("the topic accepts the record now");
    assert_eq!(fired(&batch), [keyless]);
    rig.commit(&batch);
    rig.read(P);
    assert_eq!(rig.core.status()[0].pending, 0);
}

#[test]
fn a_rejected_timestamp_waits_until_the_clock_is_right() {
    const AHEAD_S: i64 = 7_200;
    let mut rig = with_dead_letters();
    let early = rig.schedule(P, "early", NOW + 3_600);
    let elsewhere = rig.schedule_to(P, "elsewhere", NOW + 3_600, "other");
    rig.read(P);
    // The clock is two hours ahead, so both schedules are due.
    rig.at(NOW + AHEAD_S);
    let batch = rig.batch();
    assert_eq!(fired(&batch), [early, elsewhere]);
    rig.abort(&batch, Abort::Rejected(vec![(0, Reason::Timestamp)]));
    let batch = rig.batch();
    assert_eq!(fired(&batch), [elsewhere], "a schedule for another target does not wait");
    rig.commit(&batch);
    rig.read(P);
    for _ in 0..6 {
        let (batch, _) = wait_for(&mut rig, 70).expect("the schedule is retried");
        assert!(
            batch.items.iter().all(|item| matches!(item.kind, Kind::Fire { .. })),
            "a schedule became a dead letter: {batch:?}"
        );
        rig.abort(&batch, Abort::Rejected(vec![(0, Reason::Timestamp)]));
    }
    assert!(wait_for(&mut rig, 30).is_none(), "the retry interval has grown");
    // Now the clock is right.
    rig.at(NOW + 10);
    rig.no_batch("it is not due");
    rig.at(NOW + 3_599);
    rig.no_batch("it is not due");
    rig.at(NOW + 3_600);
    assert_eq!(fired(&rig.batch()), [early], "the schedule fires when it is due");
}

fn with_dead_letters() -> Rig {
    let mut rig = Rig::live_with(Config { dead_letter: Some("dead".into()), ..config() });
    rig.outs.clear();
    rig
}

/// Ticks until a batch fires, at most for this many seconds. Returns the time that it took.
fn wait_for(rig: &mut Rig, seconds: i64) -> Option<(kafka_scheduler::core::batch::Batch, i64)> {
    let begun = rig.now.0;
    while rig.now.0 <= begun + seconds * 1_000 {
        rig.input(Input::Tick);
        while let Some(batch) = rig.try_batch() {
            if !batch.items.is_empty() {
                return Some((batch, rig.now.0 - begun));
            }
            rig.commit(&batch);
        }
        rig.now = Millis(rig.now.0 + 100);
    }
    None
}
