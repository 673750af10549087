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
    let at = batch.items.iter().position(|i| i.origin_offset == poison).unwrap() as u32;
    rig.abort(&batch, Abort::Rejected(vec![(at, Reason::TooLarge)]));
    let next = rig.batch();
    assert_eq!(fired(&next), [healthy]);
    rig.commit(&next);
    assert!(rig.saw(|o| matches!(o, Output::Report(Report::Parked { offset, .. }) if *offset == poison)));
    rig.at(NOW + 60);
    assert_eq!(fired(&rig.batch()), [poison], "the rejected record is retried later");
}

#[test]
fn an_unattributed_rejection_is_bisected_to_its_record() {
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
                rig.abort(&batch, Abort::RejectedUnnamed);
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
fn a_missing_target_delays_only_its_own_schedules() {
    let mut rig = Rig::live();
    let waits = rig.schedule_to(P, "a", NOW + 1, "missing");
    let fires = rig.schedule(P, "b", NOW + 1);
    rig.read(P);
    let target = take!(rig, Output::CheckTarget { target, .. } => target);
    let target = target.expect("the target is looked up before it is used");
    rig.input(Input::Target { target, state: TargetState::Missing });
    rig.at(NOW + 1);
    let batch = rig.batch();
    assert_eq!(fired(&batch), [fires]);
    rig.commit(&batch);
    rig.read(P);
    rig.at(NOW + 10);
    assert!(rig.saw(|o| matches!(o, Output::CheckTarget { .. })), "the target is looked up again");
    rig.input(Input::Target { target, state: TargetState::Exists });
    assert_eq!(fired(&rig.batch()), [waits]);
}

/// Found by the simulator: a rejected schedule was lost to compaction.
#[test]
fn a_rejected_schedule_is_rewritten_if_overtaken() {
    let mut rig = Rig::live();
    rig.schedule(P, "k", NOW + 1);
    rig.read(P);
    rig.at(NOW + 1);
    let first = rig.batch();
    let poison = rig.schedule(P, "k", NOW + 1);
    rig.commit(&first);
    rig.read(P);
    let firing = rig.batch();
    assert_eq!(fired(&firing), [poison], "the retry's tombstone would end the schedule");
    rig.abort(&firing, Abort::Rejected(vec![(0, Reason::TooLarge)]));
    let again = rig.batch();
    assert!(matches!(again.items[0].kind, Kind::RewriteSchedule { .. }), "{again:?}");
    assert_eq!(again.items[0].origin_offset, poison);
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
                rig.abort(&batch, Abort::Retry);
                if !batch.items.is_empty() {
                    assert_eq!(fired(&batch), [offset], "after {aborts} aborts");
                    aborts += 1;
                }
            }
        }
        assert!((100..250).contains(&aborts), "{aborts} retries in ten minutes");
        assert_eq!(rig.core.status()[0].parked, 0);
        assert!(rig.core.counters().by_reason.iter().all(|(_, count)| count == 0));
        rig.at(NOW + 700);
        let batch = rig.work();
        assert_eq!(fired(&batch), [offset], "the schedule fires as soon as the outage is over");
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
        let batch = rig.work();
        assert_eq!(batch.items.len(), 10);
        rig.abort(&batch, Abort::Retry);
    }
}

#[test]
fn a_rejected_record_is_isolated_at_once_at_any_position() {
    const COUNT: usize = 9;
    for named in [true, false] {
        for place in 0..COUNT {
            let mut rig = Rig::live();
            for n in 0..COUNT {
                rig.schedule(P, &format!("k{n}"), NOW + 1);
            }
            rig.read(P);
            rig.at(NOW + 1);
            let poison = format!("k{place}");
            let mut done = run(&mut rig, |key| key == poison, named);
            done.sort();
            let others: Vec<String> = (0..COUNT).filter(|n| *n != place).map(|n| format!("k{n}")).collect();
            assert_eq!(done, others, "place {place}, named {named}: the others fire without a delay");
            assert_eq!(rig.core.status()[0].parked, 1);
            assert_eq!(rig.core.counters().by_reason[Reason::Rejected], 1);
        }
    }
}

#[test]
fn unattributed_rejections_delay_no_fresh_schedule() {
    const MANY: usize = 300;
    let mut rig = Rig::live_with(Config { batch_items_max: 100, ..config() });
    for n in 0..MANY {
        rig.schedule(P, &format!("poison{n}"), NOW + 1);
    }
    for second in 1..120 {
        rig.schedule(P, &format!("good{second}"), NOW + second);
    }
    rig.read(P);
    let (mut fired, mut aborts_max) = (0, 0);
    for second in 1..120 {
        rig.at(NOW + second);
        let mut aborts = 0;
        while let Some(batch) = rig.try_batch() {
            let poisoned = batch.items.iter().any(|item| batch.parts(item).key.starts_with(b"poison"));
            if !poisoned {
                let good = batch.items.iter().filter(|item| batch.parts(item).key.starts_with(b"good")).count();
                fired += good;
                if good > 0 && second > 1 {
                    aborts_max = aborts_max.max(aborts);
                }
                rig.commit(&batch);
                rig.read(P);
            } else {
                aborts += 1;
                rig.abort(&batch, Abort::RejectedUnnamed);
            }
        }
    }
    assert_eq!((fired, rig.core.status()[0].parked), (119, MANY));
    assert!(aborts_max <= 1, "a fresh schedule waits for {aborts_max} batches of rejected ones");
}

#[test]
fn a_rejected_rewrite_is_parked_and_retried() {
    for named in [true, false] {
        let mut rig = Rig::live();
        let poison = overtaken(&mut rig, "poison");
        rig.read(P);
        for second in 1..30 {
            rig.schedule(P, &format!("good{second}"), NOW + second);
        }
        rig.read(P);
        let mut tries = 0;
        for second in 0..30 {
            rig.at(NOW + second);
            while let Some(batch) = rig.try_batch() {
                let at = batch.items.iter().position(|item| item.origin_offset == poison);
                let Some(at) = at else {
                    rig.commit(&batch);
                    rig.read(P);
                    continue;
                };
                assert!(matches!(batch.items[at].kind, Kind::RewriteSchedule { .. }));
                tries += 1;
                let rejected = vec![(at as u32, Reason::TooLarge)];
                rig.abort(&batch, if named { Abort::Rejected(rejected) } else { Abort::RejectedUnnamed });
            }
            assert_eq!(rig.core.counters().triggered, second as u64, "named {named}: the other schedules fire on time");
            assert_eq!(rig.core.status()[0].parked, 1);
        }
        assert!((3..12).contains(&tries), "named {named}: {tries} tries");
        let reason = if named { Reason::TooLarge } else { Reason::Rejected };
        assert_eq!(rig.core.counters().by_reason[reason], 1, "the record is counted once");
        rig.at(NOW + 100);
        let again = rig.work();
        assert_eq!(again.items[0].origin_offset, poison, "the copy is retried until it is accepted");
        rig.commit(&again);
        rig.read(P);
        assert_eq!((rig.core.status()[0].parked, rig.core.counters().rewritten), (0, 1));
        rig.at(NOW + 1_000);
        assert_eq!(fired(&rig.work()), [poison]);
    }
}

#[test]
fn an_aborted_firing_holds_up_nothing_else() {
    let mut rig = Rig::live();
    rig.schedule(P, "k", NOW + 1);
    rig.read(P);
    rig.at(NOW + 1);
    for _ in 0..12 {
        let batch = rig.batch();
        rig.abort(&batch, Abort::Retry);
        rig.no_batch("it waits");
        let (at, _) = rig.core.poll_timeout().unwrap();
        rig.now = at.max(rig.now);
        rig.input(Input::Tick);
    }
    let batch = rig.batch();
    rig.abort(&batch, Abort::Retry);
    rig.input(Input::Revoked { partitions: &[P] });
    let clean = rig.batch();
    assert!(clean.items.is_empty(), "the handover does not wait");
    rig.commit(&clean);
    assert!(rig.saw(|o| matches!(o, Output::Release(_))));
}

/// Rejects each batch that contains such a record, and commits the others.
fn run(rig: &mut Rig, is_poison: impl Fn(&str) -> bool, named: bool) -> Vec<String> {
    let mut done = Vec::new();
    while let Some(batch) = rig.try_batch() {
        let keys: Vec<String> =
            batch.items.iter().map(|item| String::from_utf8(batch.parts(item).key.to_vec()).unwrap()).collect();
        let rejected: Vec<(u32, Reason)> =
            (0u32..).zip(&keys).filter(|(_, key)| is_poison(key)).map(|(n, _)| (n, Reason::Rejected)).collect();
        if rejected.is_empty() {
            done.extend(keys);
            rig.commit(&batch);
            rig.read(P);
        } else {
            rig.abort(&batch, if named { Abort::Rejected(rejected) } else { Abort::RejectedUnnamed });
        }
    }
    done
}

/// Returns a schedule that a tombstone has overtaken.
fn overtaken(rig: &mut Rig, key: &str) -> i64 {
    let old = rig.schedule(P, key, NOW + 500);
    let new = rig.schedule(P, key, NOW + 1_000);
    rig.engine(P, key, old, None);
    new
}
