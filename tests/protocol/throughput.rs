//! Batches while throughput is the limit.

use kafka_scheduler::core::Config;
use kafka_scheduler::core::batch::Batch;
use kafka_scheduler::core::headers;
use kafka_scheduler::core::io::{Abort, BatchTimeout, Input, Millis};

use crate::rig::*;

const LARGE_BYTES: usize = 4_000;

#[test]
fn batches_that_time_out_are_retried_smaller_in_due_order() {
    let (mut rig, offsets) = with_large(100);
    let first = next(&mut rig);
    assert_eq!(first.items.len(), 100);
    time_out(&mut rig, &first, 0.4);
    let mut all = Vec::new();
    let second = next(&mut rig);
    assert!(
        (15..=25).contains(&second.items.len()),
        "the next batch has {} items, not half of those that were acknowledged",
        second.items.len()
    );
    all.extend(fired(&second));
    rig.commit(&second);
    rig.read(P);
    while all.len() < 100 {
        let batch = next(&mut rig);
        all.extend(fired(&batch));
        // Each batch takes more than two seconds, so batches must not grow.
        rig.now = Millis(rig.now.0 + 2_500);
        assert!(batch.items.len() <= 2 * second.items.len(), "{}", batch.items.len());
        rig.commit(&batch);
        rig.read(P);
    }
    assert_eq!(all, offsets);
}

#[test]
fn small_schedules_do_not_wait_for_slow_large_ones() {
    let (mut rig, _) = with_large(100);
    let first = next(&mut rig);
    time_out(&mut rig, &first, 0.1);
    // Due after all large schedules.
    let small = rig.schedule(P, "small", NOW + 6);
    rig.read(P);
    rig.at(NOW + 6);
    let batches = [next(&mut rig)];
    let mut seen: Vec<Vec<i64>> = batches.iter().map(fired).collect();
    rig.commit(&batches[0]);
    rig.read(P);
    let other = next(&mut rig);
    seen.push(fired(&other));
    assert!(seen.iter().any(|batch| *batch == [small]), "the two sizes take turns: {seen:?}");
}

#[test]
fn after_a_time_out_nothing_fires_until_later_batches_settle() {
    let mut rig = Rig::live_with(Config { transactors: 2, batch_items_max: 2, ..config() });
    let offsets: Vec<i64> = (0..6).map(|n| rig.schedule(P, &format!("k{n}"), NOW + 5 + n / 2)).collect();
    rig.read(P);
    rig.at(NOW + 7);
    let (first, second) = (rig.batch(), rig.batch());
    rig.abort(&first, Abort::TimedOut(BatchTimeout::Stalled));
    for tenths in 0..50 {
        rig.now = Millis((NOW + 7) * 1000 + tenths * 100);
        rig.input(Input::Tick);
        rig.no_work("what is due after the second batch could commit before what that holds");
    }
    // The shell settles this batch before the core may retry the first one.
    rig.abort(&second, Abort::Retry);
    let mut all = Vec::new();
    while all.len() < offsets.len() {
        let batch = next(&mut rig);
        all.extend(fired(&batch));
        rig.commit(&batch);
        rig.read(P);
    }
    assert_eq!(all, offsets);
}

#[test]
fn batches_of_a_lane_do_not_overlap_if_throughput_is_the_limit() {
    let mut rig = Rig::live_with(Config { transactors: 2, batch_items_max: 2, ..config() });
    let offsets: Vec<i64> = (0..6).map(|n| rig.schedule(P, &format!("k{n}"), NOW + 5 + n / 2)).collect();
    rig.read(P);
    rig.at(NOW + 7);
    let (first, second) = (rig.batch(), rig.batch());
    time_out(&mut rig, &first, 0.9);
    rig.abort(&second, Abort::Retry);
    let mut all = Vec::new();
    while all.len() < offsets.len() {
        let batch = next(&mut rig);
        rig.no_work("its records could be written among those of the batch in flight");
        all.extend(fired(&batch));
        rig.commit(&batch);
        rig.read(P);
    }
    assert_eq!(all, offsets);
    // No schedule was left over, so two batches may be in flight again.
    for n in 0..4 {
        rig.schedule(P, &format!("later{n}"), NOW + 20);
    }
    rig.read(P);
    rig.at(NOW + 20);
    let _both = (rig.work(), rig.work());
}

#[test]
fn sizes_share_batches_again_once_the_large_ones_fired() {
    let (mut rig, _) = with_large(3);
    let first = next(&mut rig);
    time_out(&mut rig, &first, 0.9);
    for _ in 0..3 {
        if rig.core.status()[0].pending == 0 {
            break;
        }
        let batch = next(&mut rig);
        rig.commit(&batch);
        rig.read(P);
    }
    let large = schedule_of(&mut rig, "later", NOW + 20, LARGE_BYTES);
    let small = rig.schedule(P, "small", NOW + 21);
    rig.read(P);
    rig.at(NOW + 21);
    assert_eq!(fired(&next(&mut rig)), [large, small]);
}

#[test]
fn an_outage_leaves_no_small_batches_behind() {
    let mut rig = Rig::live_with(Config { batch_items_max: 10_000, batch_bytes_max: 1 << 24, ..config() });
    for n in 0..2_000 {
        rig.schedule(P, &format!("k{n}"), NOW + 5);
    }
    rig.read(P);
    rig.at(NOW + 5);
    for _ in 0..30 {
        let batch = next(&mut rig);
        rig.abort(&batch, Abort::TimedOut(BatchTimeout::Silent));
    }
    let mut batches = 0;
    let mut left = 2_000;
    while left > 0 {
        let batch = next(&mut rig);
        left -= fired(&batch).len();
        batches += 1;
        rig.commit(&batch);
        rig.read(P);
    }
    assert!(batches <= 20, "batches grow again: {batches}");
}

/// A schedule with a value of this size.
fn schedule_of(rig: &mut Rig, key: &str, due: i64, bytes: usize) -> i64 {
    let headers = vec![
        (headers::EPOCH.to_vec(), Some(due.to_string().into_bytes())),
        (headers::TARGET_TOPIC.to_vec(), Some(b"target".to_vec())),
    ];
    let timestamp = rig.now;
    rig.append(P, Kept { timestamp, key: Some(key.into()), value: Some(vec![b'v'; bytes]), headers })
}

/// A live partition with large schedules, all due at `NOW + 5`. Returns their offsets.
fn with_large(count: usize) -> (Rig, Vec<i64>) {
    let mut rig = Rig::live_with(Config { batch_items_max: 10_000, batch_bytes_max: 1 << 24, ..config() });
    let offsets = (0..count).map(|n| schedule_of(&mut rig, &format!("large-{n}"), NOW + 5, LARGE_BYTES)).collect();
    rig.read(P);
    rig.at(NOW + 5);
    (rig, offsets)
}

/// Aborts a batch that timed out after this share of it was acknowledged.
fn time_out(rig: &mut Rig, batch: &Batch, share: f64) {
    let sent = 1_000_000;
    let delivered = (sent as f64 * share) as u64;
    rig.abort(batch, Abort::TimedOut(BatchTimeout::Taking { delivered, sent }));
}

/// Advances the clock until the next batch fires.
#[track_caller]
fn next(rig: &mut Rig) -> Batch {
    for _ in 0..100 {
        if let Some(batch) = rig.try_batch() {
            if !batch.items.is_empty() {
                return batch;
            }
            rig.commit(&batch);
        }
        rig.now = Millis(rig.now.0 + 100);
        rig.input(Input::Tick);
    }
    panic!("no batch fires: {:?}", rig.core.status());
}
