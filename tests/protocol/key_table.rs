//! The latest record for a key.

use kafka_scheduler::core::batch::Kind;
use kafka_scheduler::core::due::Due;
use kafka_scheduler::core::io::{Millis, Output, Report};
use kafka_scheduler::core::origin::{ORIGIN_HEADER, Origin};
use kafka_scheduler::core::{Config, headers};

use crate::rig::*;

#[test]
fn an_overtaken_schedule_is_rewritten_with_its_origin() {
    let mut rig = Rig::live();
    rig.schedule(P, "k", NOW + 1);
    rig.read(P);
    rig.at(NOW + 1);
    let batch = rig.batch();
    let second = rig.schedule(P, "k", NOW + 50);
    rig.commit(&batch);
    rig.read(P);
    let copy = rig.batch();
    assert!(matches!(copy.items[0].kind, Kind::RewriteSchedule { .. }), "{copy:?}");
    let records = sent(&copy, rig.now);
    assert_eq!(records.len(), 1);
    let original = rig.kept(P, second);
    assert_eq!((records[0].1, &records[0].2.key, &records[0].2.value), (Some(P), &original.key, &original.value));
    assert_eq!(records[0].2.origin(), Some(second));
    rig.commit(&copy);
    rig.compact(P, second);
    rig.read(P);
    rig.no_batch("nothing more is owed now");
    rig.successor("cd");
    rig.bring_up(&[P]);
    rig.at(NOW + 50);
    let batch = rig.batch();
    assert_eq!(fired(&batch), [second], "the copy keeps the original's offset");
    let stamp = sent(&batch, rig.now)[0].2.headers.iter().find(|(n, _)| n == headers::TIMESTAMP).unwrap().1.clone();
    assert_eq!(text(stamp.as_ref()), (NOW + 1).to_string(), "the copy keeps the original's timestamp");
}

#[test]
fn a_cancel_overtaken_by_a_copy_is_rewritten() {
    let mut rig = Rig::live();
    rig.schedule(P, "k", NOW + 1);
    rig.read(P);
    rig.at(NOW + 1);
    let batch = rig.batch();
    rig.schedule(P, "k", NOW + 50);
    rig.commit(&batch);
    rig.read(P);
    let copy = rig.batch();
    let cancel = rig.cancel(P, "k");
    rig.commit(&copy);
    rig.read(P);
    let again = rig.batch();
    assert!(matches!(again.items[0].kind, Kind::RewriteCancel { .. }), "{again:?}");
    let records = sent(&again, rig.now);
    assert_eq!((records[0].2.origin(), &records[0].2.value), (Some(cancel), &None));
    rig.commit(&again);
    rig.compact(P, cancel);
    rig.read(P);
    rig.at(NOW + 60);
    assert!(rig.try_batch().is_none_or(|b| b.items.is_empty()), "the schedule is cancelled");
    rig.successor("cd");
    rig.bring_up(&[P]);
    rig.at(NOW + 70);
    assert!(rig.try_batch().is_none_or(|b| b.items.is_empty()), "the successor finds the schedule cancelled");
}

#[test]
fn a_cancel_overtaken_by_a_tombstone_is_rewritten() {
    let mut rig = Rig::live();
    rig.schedule(P, "k", NOW + 1);
    rig.read(P);
    rig.at(NOW + 1);
    let batch = rig.batch();
    let cancel = rig.cancel(P, "k");
    rig.read(P);
    rig.commit(&batch);
    rig.read(P);
    let again = rig.batch();
    assert_eq!((again.items[0].origin_offset, again.items.len()), (cancel, 1));
    assert!(matches!(again.items[0].kind, Kind::RewriteCancel { .. }));
}

#[test]
fn a_tombstone_ends_records_up_to_its_origin_offset() {
    let mut rig = Rig::live();
    let old = rig.schedule(P, "k", NOW + 10);
    let new = rig.schedule(P, "k", NOW + 20);
    rig.engine(P, "k", old, None);
    rig.read(P);
    rig.at(NOW + 10);
    let copy = rig.batch();
    assert!(matches!(copy.items[0].kind, Kind::RewriteSchedule { .. }));
    rig.commit(&copy);
    rig.read(P);
    rig.engine(P, "k", new, None);
    rig.read(P);
    rig.at(NOW + 20);
    rig.no_batch("ended");
}

#[test]
fn a_copy_of_an_older_record_does_not_revive_it() {
    let mut rig = Rig::live();
    let old = rig.schedule(P, "k", NOW + 10);
    let original = rig.kept(P, old);
    rig.cancel(P, "k");
    rig.engine(P, "k", old, Some(&original));
    rig.successor("cd");
    rig.assign(&[P]);
    rig.tell_committed(&[P]);
    rig.run_until_quiet(&[P]);
    rig.at(NOW + 10);
    let again = rig.batch();
    assert!(again.items.iter().all(|i| matches!(i.kind, Kind::RewriteCancel { .. })), "{again:?}");
}

#[test]
fn a_copy_is_the_latest_record_if_nothing_newer_is_known() {
    let mut rig = Rig::live();
    let old = rig.schedule(P, "k", NOW + 10);
    let original = rig.kept(P, old);
    rig.engine(P, "k", old, Some(&original));
    rig.compact(P, old);
    rig.successor("cd");
    rig.bring_up(&[P]);
    rig.at(NOW + 10);
    assert_eq!(fired(&rig.batch()), [old]);
}

#[test]
fn a_record_with_a_foreign_origin_is_a_user_record() {
    let mut rig = Rig::live();
    let old = rig.schedule(P, "k", NOW + 10);
    let mut mirrored = rig.kept(P, old);
    let forged = Origin { partition_hash: 1, offset: 0, timestamp: Millis(0), content_hash: 2 }.encode().to_vec();
    mirrored.headers.push((ORIGIN_HEADER.to_vec(), Some(forged)));
    let offset = rig.append(P, mirrored);
    rig.read(P);
    rig.at(NOW + 10);
    let batch = rig.batch();
    assert_eq!(fired(&batch), [offset]);
    assert!(sent(&batch, rig.now)[0].2.origin().is_none(), "engine headers never reach the target");
}

#[test]
fn a_tombstone_without_an_origin_is_a_cancel() {
    let mut rig = Rig::live();
    rig.schedule(P, "k", NOW + 10);
    rig.cancel(P, "k");
    rig.read(P);
    rig.at(NOW + 10);
    rig.no_batch("cancelled");
    assert_eq!(rig.core.counters().deleted, 1);
}

#[test]
fn an_invalid_record_replaces_older_ones_and_is_rewritten_whole() {
    let mut rig = Rig::live();
    rig.schedule(P, "k", NOW + 1);
    rig.read(P);
    rig.at(NOW + 1);
    let batch = rig.batch();
    let invalid = rig.invalid(P, "k");
    rig.commit(&batch);
    rig.read(P);
    let again = rig.batch();
    assert!(matches!(again.items[0].kind, Kind::RewriteInvalid { .. }), "{again:?}");
    let records = sent(&again, rig.now);
    let original = rig.kept(P, invalid);
    assert_eq!((&records[0].2.value, records[0].2.origin()), (&original.value, Some(invalid)));
    assert_eq!(records[0].2.headers[..2], original.headers);
    rig.commit(&again);
    rig.read(P);
    rig.at(NOW + 100);
    assert!(rig.try_batch().is_none_or(|b| b.items.is_empty()));
    let mut rig = Rig::live();
    rig.schedule(P, "k", NOW + 5);
    rig.invalid(P, "k");
    rig.read(P);
    rig.at(NOW + 5);
    rig.no_batch("it replaced the earlier record");
}

#[test]
fn grace_is_judged_by_the_originals_timestamp() {
    let mut rig = Rig::live_with(Config { grace_s: Some(10), ..config() });
    rig.schedule(P, "late", NOW - 11);
    let fine = rig.schedule(P, "fine", NOW - 10);
    rig.read(P);
    assert_eq!(fired(&rig.batch()), [fine]);
    assert_eq!(rig.core.counters().invalid, 1);
}

#[test]
fn grace_of_a_copy_is_judged_by_the_originals_timestamp() {
    for (due, fires) in [(NOW - 10, true), (NOW - 11, false)] {
        let mut rig = Rig::live_with(Config { grace_s: Some(10), ..config() });
        let original = rig.schedule(P, "k", due);
        let kept = rig.kept(P, original);
        rig.compact(P, original);
        let arrived = rig.now;
        rig.now = Millis((NOW + 3_600) * 1000);
        // The record as the engine writes it: the origin header has the original's timestamp, and the record the
        // current one.
        let copy = rig.engine(P, "k", original, Some(&kept));
        assert!(rig.kept(P, copy).timestamp > arrived);
        rig.core = kafka_scheduler::core::Scheduler::new(
            Config { grace_s: Some(10), run: run_id("cd"), ..config() },
            crate::rig::calendar(),
        );
        rig.outs.clear();
        rig.assign(&[P]);
        rig.tell_committed(&[P]);
        rig.run_until_quiet(&[P]);
        if fires {
            assert_eq!(fired(&rig.work()), [original], "due at {due}");
        } else {
            rig.no_work("beyond its grace");
        }
    }
}

#[test]
fn accepted_and_cancelled_schedules_are_reported_while_live() {
    let mut rig = Rig::new(config());
    rig.schedule(P, "loaded", NOW + 50);
    rig.bring_up(&[P]);
    let accepted = |o: &Output| matches!(o, Output::Report(Report::Accepted { .. }));
    assert!(!rig.saw(accepted), "schedules found while loading are reported as a count");
    let offset = rig.schedule_to(P, "k", NOW + 60, "target");
    rig.read(P);
    let wanted = Report::Accepted {
        partition: P,
        offset,
        due: Due::from_epoch_s(NOW as u64 + 60).unwrap(),
        target: "target".into(),
    };
    assert!(rig.saw(|o| matches!(o, Output::Report(report) if *report == wanted)));
    let offset = rig.cancel(P, "k");
    rig.cancel(P, "unknown");
    rig.read(P);
    let cancelled = rig.outs.iter().filter_map(|o| match o {
        Output::Report(report @ Report::Cancelled { .. }) => Some(report.clone()),
        _ => None,
    });
    assert_eq!(cancelled.collect::<Vec<_>>(), [Report::Cancelled { partition: P, offset }]);
}
