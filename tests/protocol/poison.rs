//! Records that cannot be delivered.

use kafka_scheduler::core::Config;
use kafka_scheduler::core::batch::Kind;
use kafka_scheduler::core::io::{Abort, Input, Millis, Output, Report, TargetState};
use kafka_scheduler::core::reason::Reason;

use crate::rig::*;

#[test]
fn a_rejected_record_is_parked_and_its_neighbours_fire() {
    let mut rig = Rig::live();
    let poison = rig.schedule(P, "a", NOW + 1);
    let healthy = rig.schedule(P, "b", NOW + 1);
    rig.read(P);
    rig.at(NOW + 1);
    let batch = rig.batch();
    let at = batch.items.iter().position(|i| i.identity == poison).unwrap() as u32;
    rig.abort(&batch, Abort::Rejected(&[(at, Reason::TooLarge)]));
    let next = rig.batch();
    assert_eq!(fired(&next), [healthy]);
    rig.commit(&next);
    assert!(rig.saw(|o| matches!(o, Output::Report(Report::Parked { offset, .. }) if *offset == poison)));
    rig.at(NOW + 60);
    assert_eq!(fired(&rig.batch()), [poison], "and tried again later");
}

#[test]
fn without_a_guilty_record_batches_are_halved_until_it_stands_alone() {
    let mut rig = Rig::live();
    let keys = ["a", "b", "c", "d", "e", "f", "g", "poison"];
    for key in keys {
        rig.schedule(P, key, NOW + 1);
    }
    rig.read(P);
    rig.at(NOW + 1);
    let mut done = 0;
    for step in 1..200 {
        while let Some(batch) = rig.try_batch() {
            let bad = batch.items.iter().any(|i| batch.parts(i).key == b"poison");
            if bad {
                rig.abort(&batch, Abort::Rejected(&[]));
            } else {
                done += fired(&batch).len();
                rig.commit(&batch);
                rig.read(P);
            }
        }
        rig.now = Millis((NOW + 1) * 1000 + step * 100);
        rig.input(Input::Tick);
    }
    assert_eq!(done, keys.len() - 1);
}

#[test]
fn schedules_for_a_missing_target_wait_and_harm_nobody() {
    let mut rig = Rig::live();
    let waits = rig.schedule_to(P, "a", NOW + 1, "missing");
    let fires = rig.schedule(P, "b", NOW + 1);
    rig.read(P);
    let target = rig.find(
        |o| matches!(o, Output::CheckTarget { .. }),
        |o| match o {
            Output::CheckTarget { target, .. } => target,
            _ => unreachable!(),
        },
    );
    let target = target.expect("the target is looked up before it is used");
    rig.input(Input::Target { target, state: TargetState::Missing });
    rig.at(NOW + 1);
    let batch = rig.batch();
    assert_eq!(fired(&batch), [fires]);
    rig.commit(&batch);
    rig.read(P);
    rig.at(NOW + 10);
    assert!(rig.saw(|o| matches!(o, Output::CheckTarget { .. })), "it is looked for again");
    rig.input(Input::Target { target, state: TargetState::Exists });
    assert_eq!(fired(&rig.batch()), [waits]);
}

/// Found by the simulator: it was lost to compaction.
#[test]
fn a_schedule_that_cannot_be_delivered_is_still_written_again_when_it_was_outrun() {
    let mut rig = Rig::live();
    rig.schedule(P, "k", NOW + 1);
    rig.read(P);
    rig.at(NOW + 1);
    let first = rig.batch();
    let poison = rig.schedule(P, "k", NOW + 1);
    rig.commit(&first);
    rig.read(P);
    let firing = rig.batch();
    assert_eq!(fired(&firing), [poison], "its tombstone would settle the matter");
    rig.abort(&firing, Abort::Rejected(&[(0, Reason::TooLarge)]));
    let again = rig.batch();
    assert!(matches!(again.items[0].kind, Kind::Schedule { .. }), "{again:?}");
    assert_eq!(again.items[0].identity, poison);
}

#[test]
fn an_outage_is_no_schedules_fault() {
    for dead_letter in [None, Some("dead".to_owned())] {
        let mut rig = Rig::live_with(Config { dead_letter, ..config() });
        let offset = rig.schedule(P, "k", NOW + 1);
        rig.read(P);
        let mut aborts = 0;
        for tenths in 0..6_000 {
            rig.now = Millis((NOW + 1) * 1000 + tenths * 100);
            rig.input(Input::Tick);
            while let Some(batch) = rig.try_batch() {
                assert_eq!(fired(&batch), [offset], "after {aborts} aborts");
                rig.abort(&batch, Abort::Retry);
                aborts += 1;
            }
        }
        assert!((100..250).contains(&aborts), "{aborts} tries in ten minutes");
        assert_eq!(rig.core.status()[0].parked, 0);
        assert_eq!(rig.core.counters().refused, [0; Reason::ALL.len()]);
        rig.at(NOW + 700);
        let batch = rig.batch();
        assert_eq!(fired(&batch), [offset], "and at once when the outage is over");
        rig.commit(&batch);
    }
}

#[test]
fn an_outage_does_not_make_batches_smaller() {
    let mut rig = Rig::live();
    for n in 0..10 {
        rig.schedule(P, &format!("k{n}"), NOW + 1);
    }
    rig.read(P);
    rig.at(NOW + 1);
    for second in 0..60 {
        rig.at(NOW + 2 + second * 5);
        let batch = rig.batch();
        assert_eq!(batch.items.len(), 10);
        rig.abort(&batch, Abort::Retry);
    }
}
