//! Warm takeovers: a partition goes on from a snapshot, unless its fold may lack a tombstone or the log is another one.

use kafka_scheduler::core::batch::{Batch, Kind};
use kafka_scheduler::core::canary::Canary;
use kafka_scheduler::core::headers;
use kafka_scheduler::core::io::{Input, Millis, Output};
use kafka_scheduler::core::origin::{BARRIER_KEY, partition_hash};
use kafka_scheduler::core::payload::Packed;
use kafka_scheduler::core::snapshot::{Fold, RestoreError, Restorer, SnapshotCursor};
use kafka_scheduler::core::{Config, PartitionState};

use crate::rig::{Kept, NOW, P, Rig, calendar, config, fired, run_id};

const NOW_MS: i64 = NOW * 1_000;
const LIMIT_MS: i64 = 100_000;

fn limit(rig: &mut Rig) {
    rig.input(Input::CanaryLimit { topic: 0, limit_ms: LIMIT_MS });
}

fn canary_of(batch: &Batch) -> Option<Canary> {
    let Kind::Canary { value, .. } = &batch.items.first()?.kind else { return None };
    Canary::decode(value.as_bytes(), partition_hash("c", "schedules", P.number))
}

/// Returns a scheduler that is live on `P`, and has read its own first canary.
fn live() -> Rig {
    let mut rig = Rig::new(config());
    limit(&mut rig);
    rig.assign(&[P]);
    rig.tell_committed(&[P]);
    rig.run_until_quiet(&[P]);
    let canary = rig.batch();
    assert!(canary_of(&canary).is_some(), "{canary:?}");
    rig.commit(&canary);
    rig.read(P);
    rig
}

/// Takes a whole snapshot, one entry a step.
fn snapshot(rig: &Rig) -> Vec<u8> {
    let (mut cursor, mut bytes) = (SnapshotCursor::default(), Vec::new());
    for _ in 0..1_000 {
        if rig.core.snapshot(P, &mut cursor, 1, &mut bytes).expect("a snapshot") {
            return bytes;
        }
    }
    panic!("a snapshot has an end");
}

fn decode(bytes: &[u8]) -> Result<Fold<Packed>, RestoreError> {
    let calendar = calendar();
    let restorer =
        Restorer { hash_seed: config().hash_seed, has_dead_letter_topic: false, calendar: calendar.as_ref() };
    Fold::decode(bytes, &restorer, &mut ())
}

/// Starts another process that goes on from the snapshot, up to its barrier. Returns whether it takes the fold.
fn restart(rig: &mut Rig, bytes: &[u8]) -> bool {
    rig.successor("cd");
    limit(rig);
    rig.assign(&[P]);
    let fold = decode(bytes).expect("a fold");
    let position = fold.position();
    if let Err(error) = rig.core.restore(P, fold) {
        assert_eq!(error, RestoreError::TooOld);
        return false;
    }
    rig.reads.insert(P, usize::try_from(position).expect("an offset"));
    rig.tell_committed(&[P]);
    rig.run_until_quiet(&[P]);
    true
}

fn asked_for_canary(rig: &mut Rig) -> Option<i64> {
    rig.outs.iter().find_map(|out| match out {
        Output::CheckCanary { partition, offset, .. } if *partition == P => Some(*offset),
        _ => None,
    })
}

#[test]
fn a_snapshot_and_the_records_after_it_are_the_whole_log() {
    let mut rig = live();
    rig.schedule(P, "before", NOW + 10);
    rig.schedule(P, "cancelled", NOW + 10);
    rig.read(P);
    let bytes = snapshot(&rig);
    rig.cancel(P, "cancelled");
    rig.schedule(P, "after", NOW + 10);
    assert!(restart(&mut rig, &bytes));
    let offset = asked_for_canary(&mut rig).expect("a second reader looks for the canary");
    assert!(rig.kept(P, offset).headers.iter().any(|(name, _)| name == headers::CANARY));
    assert_eq!(rig.state(P), Some(PartitionState::Loading), "nothing fires before the answer");
    rig.input(Input::CanaryChecked { partition: P, found: true });
    assert_eq!(rig.state(P), Some(PartitionState::Live));
    let listed: Vec<_> = rig.core.list(Default::default(), 10).0;
    let mut keys: Vec<_> = listed.iter().map(|entry| String::from_utf8_lossy(entry.parts().key).into_owned()).collect();
    keys.sort();
    assert_eq!(keys, ["after", "before"]);
    let canary = rig.batch();
    rig.commit(&canary);
    rig.read(P);
    rig.at(NOW + 10);
    assert_eq!(fired(&rig.work()).len(), 2);
}

#[test]
fn what_was_decided_is_not_in_a_snapshot() {
    let mut rig = live();
    let offset = rig.schedule(P, "k", NOW + 1);
    rig.read(P);
    rig.at(NOW + 1);
    let firing = rig.work();
    assert_eq!(fired(&firing), [offset]);
    let bytes = snapshot(&rig);
    // The batch is never committed.
    assert!(restart(&mut rig, &bytes));
    rig.input(Input::CanaryChecked { partition: P, found: true });
    let canary = rig.batch();
    rig.commit(&canary);
    assert_eq!(fired(&rig.work()), [offset], "it is still owed");
}

#[test]
fn progress_that_is_read_again_keeps_its_place() {
    let mut rig = live();
    for key in ["first", "second"] {
        rig.schedule(P, key, NOW + 9_000);
    }
    rig.read(P);
    let (mut cursor, mut bytes) = (SnapshotCursor::default(), Vec::new());
    assert_eq!(rig.core.snapshot(P, &mut cursor, 1, &mut bytes), Ok(false));
    // The record and its progress come after the snapshot's position, and the snapshot has its progress.
    let every = vec![
        (headers::EVERY.to_vec(), Some(b"10s".to_vec())),
        (headers::TARGET_TOPIC.to_vec(), Some(b"target".to_vec())),
    ];
    rig.append(P, Kept { timestamp: rig.now, key: Some(b"k".to_vec()), value: Some(b"v".to_vec()), headers: every });
    rig.read(P);
    for n in 1..=2 {
        rig.at(NOW + n * 10);
        let batch = rig.work();
        rig.commit(&batch);
        rig.read(P);
    }
    while rig.core.snapshot(P, &mut cursor, 1, &mut bytes) == Ok(false) {}
    assert!(restart(&mut rig, &bytes));
    rig.input(Input::CanaryChecked { partition: P, found: true });
    let listed = rig.core.list(Default::default(), 10).0;
    let next = listed.iter().find(|entry| entry.parts().key == b"k").and_then(|entry| entry.occurrence);
    assert_eq!(next, Some(3), "two occurrences are over");
}

#[test]
fn after_a_later_barrier_of_the_group_there_is_no_snapshot() {
    let mut rig = live();
    snapshot(&rig);
    let headers = vec![(headers::GROUP.to_vec(), Some(b"g".to_vec()))];
    rig.append(P, Kept { timestamp: rig.now, key: Some(BARRIER_KEY.to_vec()), value: None, headers });
    rig.read(P);
    let (mut cursor, mut bytes) = (SnapshotCursor::default(), Vec::new());
    assert!(rig.core.snapshot(P, &mut cursor, 1, &mut bytes).is_err(), "another owner decides");
}

#[test]
fn a_snapshot_that_is_too_old_is_not_used() {
    let mut rig = live();
    let bytes = snapshot(&rig);
    rig.now = Millis(NOW_MS + LIMIT_MS);
    assert!(!restart(&mut rig, &bytes));
}

#[test]
fn a_fold_that_grew_too_old_while_it_was_read_is_read_again() {
    let mut rig = live();
    let bytes = snapshot(&rig);
    rig.successor("cd");
    limit(&mut rig);
    rig.now = Millis(NOW_MS + LIMIT_MS - 1);
    rig.assign(&[P]);
    let fold = decode(&bytes).expect("a fold");
    rig.reads.insert(P, usize::try_from(fold.position()).expect("an offset"));
    assert_eq!(rig.core.restore(P, fold), Ok(()));
    rig.now = Millis(NOW_MS + LIMIT_MS);
    rig.tell_committed(&[P]);
    rig.run_until_quiet(&[P]);
    assert!(rig.saw(|out| matches!(out, Output::Seek(partition) if *partition == P)));
}

#[test]
fn a_fold_whose_canary_is_gone_is_read_again() {
    let mut rig = live();
    let bytes = snapshot(&rig);
    assert!(restart(&mut rig, &bytes));
    rig.input(Input::CanaryChecked { partition: P, found: false });
    assert!(rig.saw(|out| matches!(out, Output::Seek(partition) if *partition == P)));
}

#[test]
fn settings_and_partitions_must_be_the_same() {
    let rig = live();
    let bytes = snapshot(&rig);
    let restore = |grace_s, bytes: &[u8]| {
        let mut other = Rig::new(Config { grace_s, run: run_id("ef"), ..config() });
        limit(&mut other);
        other.assign(&[P]);
        let fold = decode(bytes).expect("a fold");
        other.core.restore(P, fold)
    };
    assert_eq!(restore(Some(1), &bytes), Err(RestoreError::OtherSettings));
    let mut foreign = bytes.clone();
    foreign[0] ^= 1;
    assert_eq!(restore(None, &foreign), Err(RestoreError::OtherPartition));
    assert_eq!(restore(None, &bytes), Ok(()));
}

#[test]
fn bytes_of_any_kind_are_read_without_a_panic() {
    let mut rig = live();
    for key in ["a", "b"] {
        rig.schedule(P, key, NOW + 10);
    }
    rig.invalid(P, "c");
    rig.read(P);
    let bytes = snapshot(&rig);
    for length in 0..bytes.len() {
        assert!(decode(&bytes[..length]).is_err(), "{length} bytes");
    }
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << bit;
            drop(decode(&changed));
        }
    }
    assert!(decode(&[&bytes[..], b"x"].concat()).is_err());
}

#[test]
fn canaries_come_at_a_takeover_and_each_quarter_of_the_limit() {
    let mut rig = live();
    rig.now = Millis(NOW_MS + LIMIT_MS / 4 - 1);
    rig.input(Input::Tick);
    rig.no_batch("the next one is not due");
    rig.now = Millis(NOW_MS + LIMIT_MS / 4);
    rig.input(Input::Tick);
    let batch = rig.batch();
    let canary = canary_of(&batch).expect("a canary");
    assert_eq!(canary.at, rig.now);
    // It was aborted, so it comes again.
    rig.abort(&batch, kafka_scheduler::core::io::Abort::Retry);
    rig.now = Millis(rig.now.0 + 1_000);
    rig.input(Input::Tick);
    let again = canary_of(&rig.batch()).expect("a canary");
    assert_eq!(again.at, rig.now);
}

#[test]
fn without_a_limit_there_are_no_canaries_and_no_snapshots() {
    let rig = Rig::live();
    assert!(!rig.outs.iter().any(|out| matches!(out, Output::Transact(_))));
    let (mut cursor, mut bytes) = (SnapshotCursor::default(), Vec::new());
    assert!(rig.core.snapshot(P, &mut cursor, 1, &mut bytes).is_err());
}

#[test]
fn a_record_under_a_canary_key_that_is_none_changes_nothing() {
    let mut rig = live();
    let before = snapshot(&rig);
    for value in [None, Some(b"v".to_vec())] {
        let headers = vec![(headers::CANARY.to_vec(), Some(b"v1 partition=0 time=9 read=9".to_vec()))];
        let key = b"__scheduler.canary.x".to_vec();
        rig.append(P, Kept { timestamp: rig.now, key: Some(key), value, headers });
    }
    rig.read(P);
    assert!(snapshot(&rig).len() <= before.len() + 1, "only the position differs");
}
