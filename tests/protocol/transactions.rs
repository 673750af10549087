//! The transaction of a firing.

use kafka_scheduler::core::batch::Batch;
use kafka_scheduler::core::io::{Abort, Input, Millis, Outcome};
use kafka_scheduler::core::{Config, headers};

use crate::rig::*;

#[test]
fn a_firing_writes_target_history_and_tombstone_records() {
    let mut rig = Rig::live();
    let mut kept = {
        let offset = rig.schedule(P, "k", NOW + 5);
        let kept = rig.kept(P, offset);
        rig.compact(P, offset);
        kept
    };
    kept.headers.push((b"customer".to_vec(), Some(b"1".to_vec())));
    kept.headers.push((headers::KEY.to_vec(), Some(b"forged".to_vec())));
    kept.headers.push((b"customer".to_vec(), None));
    let offset = rig.append(P, kept);
    rig.read(P);
    rig.at(NOW + 5);
    let batch = rig.batch();
    let records = sent(&batch, rig.now);
    assert_eq!(records.len(), 3);
    let bytes = |s: &str| s.as_bytes().to_vec();
    let triggered = vec![
        (bytes("customer"), Some(bytes("1"))),
        (bytes("customer"), None),
        (bytes("scheduler-timestamp"), Some(bytes(&NOW.to_string()))),
        (bytes("scheduler-key"), Some(bytes("k"))),
        (bytes("scheduler-topic"), Some(bytes("schedules"))),
    ];
    let (topic, partition, target) = &records[0];
    assert_eq!((topic.as_str(), *partition), ("target", None));
    assert_eq!((text(target.key.as_ref()), &target.headers), ("to-k".into(), &triggered));
    assert_eq!(text(target.value.as_ref()), format!("k@{}", NOW + 5));
    let (topic, partition, history) = &records[1];
    assert_eq!((topic.as_str(), *partition), ("history", None));
    assert_eq!(history.headers[..triggered.len()], triggered);
    assert_eq!(
        history.headers[triggered.len()..],
        [
            (bytes("scheduler-epoch"), Some(bytes(&(NOW + 5).to_string()))),
            (bytes("scheduler-target-topic"), Some(bytes("target"))),
            (bytes("scheduler-target-key"), Some(bytes("to-k"))),
        ]
    );
    let (topic, partition, tombstone) = &records[2];
    assert_eq!((topic.as_str(), *partition), ("schedules", Some(P)));
    assert_eq!((text(tombstone.key.as_ref()), &tombstone.value), ("k".into(), &None));
    assert_eq!(tombstone.origin(), Some(offset), "the tombstone's origin is the schedule");
}

#[test]
fn triggered_records_precede_history_records_and_tombstones() {
    let mut rig = Rig::live();
    rig.schedule(P, "later", NOW + 5);
    rig.schedule(P, "sooner", NOW + 4);
    rig.read(P);
    rig.at(NOW + 5);
    let batch = rig.batch();
    let records = sent(&batch, rig.now);
    let order: Vec<(&str, String)> =
        records.iter().map(|(topic, _, kept)| (topic.as_str(), text(kept.key.as_ref()))).collect();
    let both = |topic, sooner: &str, later: &str| [(topic, sooner.to_owned()), (topic, later.to_owned())];
    let (target, history) = (both("target", "to-sooner", "to-later"), both("history", "to-sooner", "to-later"));
    assert_eq!(order, [target, history, both("schedules", "sooner", "later")].concat());
}

#[test]
fn every_batch_commits_one_valid_offset_for_each_partition() {
    let mut rig = Rig::new(config());
    rig.assign(&[P, Q]);
    rig.tell_committed(&[P, Q]);
    let check = |batch: &Batch| {
        let mut named: Vec<_> = batch.offsets.iter().map(|o| o.partition).collect();
        let mut touched: Vec<_> = batch.items.iter().map(|i| i.partition).collect();
        touched.sort();
        touched.dedup();
        named.sort();
        assert!(!named.is_empty() && touched.iter().all(|p| named.contains(p)), "{batch:?}");
        let before = named.len();
        named.dedup();
        assert_eq!(named.len(), before);
        assert!(batch.offsets.iter().all(|o| o.offset >= 0 && !o.metadata.is_empty()), "{batch:?}");
    };
    let barrier = rig.batch();
    check(&barrier);
    rig.commit(&barrier);
    rig.run_until_quiet(&[P, Q]);
    rig.schedule(P, "a", NOW + 1);
    rig.schedule(Q, "b", NOW + 1);
    rig.read(P);
    rig.read(Q);
    rig.at(NOW + 1);
    let batch = rig.batch();
    check(&batch);
    assert_eq!(batch.offsets.len(), 2);
    rig.commit(&batch);
    rig.read(P);
    rig.read(Q);
    rig.input(Input::Revoked { partitions: &[P, Q] });
    let clean = rig.batch();
    check(&clean);
    assert!(clean.items.is_empty());
}

#[test]
fn offsets_committed_for_a_partition_never_go_backwards() {
    let mut rig = Rig::live();
    rig.schedule(P, "a", NOW + 1);
    rig.schedule(P, "b", NOW + 2);
    rig.read(P);
    let mut last = rig.metadata[&P].0;
    for second in 1..3 {
        rig.at(NOW + second);
        let batch = rig.batch();
        assert!(batch.offsets[0].offset >= last, "{batch:?}");
        last = batch.offsets[0].offset;
        rig.commit(&batch);
        rig.read(P);
    }
    let committed = rig.metadata[&P].0;
    let barrier = rig.successors_barrier("cd");
    assert_eq!(barrier.offsets[0].offset, committed, "a takeover commits the offset as it was read");
}

#[test]
fn a_stale_generation_stops_batches_until_the_next_one() {
    let mut rig = Rig::live();
    rig.input(Input::Generation(4));
    rig.schedule(P, "a", NOW + 1);
    rig.read(P);
    rig.at(NOW + 1);
    let batch = rig.batch();
    rig.abort(&batch, Abort::StaleGeneration { generation: Some(4) });
    rig.at(NOW + 30);
    rig.no_batch("the generation is the stale one");
    rig.input(Input::Generation(5));
    rig.at(NOW + 31);
    assert_eq!(fired(&rig.batch()).len(), 1);
}

#[test]
fn one_engine_record_per_key_is_outstanding_until_read_past() {
    let mut rig = Rig::live_with(Config { transactors: 2, ..config() });
    let first = rig.schedule(P, "k", NOW + 1);
    rig.read(P);
    rig.at(NOW + 1);
    let batch = rig.batch();
    assert_eq!(fired(&batch), [first]);
    let second = rig.schedule(P, "k", NOW + 2);
    rig.read(P);
    rig.at(NOW + 2);
    rig.no_batch("an engine record for the key is in flight");
    rig.commit(&batch);
    rig.no_batch("settled is not enough: the tombstone has not been read");
    rig.at(NOW + 3);
    rig.no_batch("settled is not enough: the tombstone has not been read");
    rig.read(P);
    assert_eq!(fired(&rig.batch()), [second]);
}

#[test]
fn the_tombstone_may_be_read_before_the_commit_is_answered() {
    let mut rig = Rig::live_with(Config { transactors: 2, ..config() });
    rig.schedule(P, "k", NOW + 1);
    rig.read(P);
    rig.at(NOW + 1);
    let batch = rig.batch();
    let second = rig.schedule(P, "k", NOW + 2);
    let written = rig.land(&batch);
    rig.now = Millis((NOW + 2) * 1000);
    rig.read(P);
    let next = rig.batch();
    assert_eq!(fired(&next), [second]);
    rig.input(Input::BatchEnded { batch: batch.id, outcome: Outcome::Committed { last_offsets: written } });
    rig.at(NOW + 3);
    rig.no_batch("the second firing is in flight still");
    rig.commit(&next);
    rig.read(P);
    rig.at(NOW + 4);
    rig.no_batch("both have fired");
}

#[test]
fn an_aborted_batch_frees_its_keys() {
    let mut rig = Rig::live();
    let offset = rig.schedule(P, "k", NOW + 1);
    rig.read(P);
    rig.at(NOW + 1);
    let batch = rig.batch();
    rig.abort(&batch, Abort::Retry);
    rig.no_batch("it is tried again after a moment, not at once");
    let (at, _) = rig.core.poll_timeout().expect("a retry has a deadline");
    rig.now = at;
    rig.input(Input::Tick);
    assert_eq!(fired(&rig.batch()), [offset]);
}

#[test]
fn two_batches_may_be_in_flight_but_no_third() {
    let mut rig = Rig::live_with(Config { transactors: 2, batch_items_max: 1, ..config() });
    for key in ["a", "b", "c"] {
        rig.schedule(P, key, NOW + 1);
    }
    rig.read(P);
    rig.at(NOW + 1);
    let (one, two) = (rig.batch(), rig.batch());
    assert_eq!(two.id, one.id + 1, "numbered without gaps: the order in which they commit");
    rig.no_batch("two transactors, two batches");
    rig.commit(&one);
    rig.batch();
}

#[test]
fn progress_is_committed_by_itself_at_most_every_30_s() {
    let mut rig = Rig::live();
    rig.schedule(P, "later", NOW + 100_000);
    rig.read(P);
    let (at, _) = rig.core.poll_timeout().expect("progress waits to be committed");
    assert!(at.0 > NOW * 1000 && at.0 <= (NOW + 31) * 1000, "{at:?}");
    rig.now = at;
    rig.input(Input::Tick);
    let progress = rig.batch();
    assert!(progress.items.is_empty());
    assert_eq!(progress.offsets[0].offset, rig.logs[&P].len() as i64);
    rig.commit(&progress);
    let second = at.0 / 1000;
    rig.schedule(P, "later still", NOW + 100_000);
    rig.read(P);
    rig.at(second + 10);
    rig.no_batch("the last one is 10 s old");
    rig.at(second + 31);
    assert!(rig.batch().items.is_empty());
}
