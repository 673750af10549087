//! Schedules that recur, while engines are killed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::kit::client;
use crate::kit::wait::{eventually, now_ms};
use crate::kit::{Case, Record, Scheduled};
use crate::ledger::{alone, long_transaction_timeout};

const TIMEOUT: Duration = Duration::from_secs(180);
const KEYS: usize = 1_000;
/// Occurrences of each schedule, one a second.
const COUNT: u64 = 40;
const KILLS: usize = 10;
const PARTITIONS: usize = 4;

/// What is known of a schedule by its triggered records.
#[derive(Debug, Default)]
struct Occurred {
    numbers: Vec<u64>,
    early: usize,
}

fn number(record: &Record, name: &str) -> Option<u64> {
    std::str::from_utf8(record.header(name)?).ok()?.parse().ok()
}

fn recurring(case: &Case, key: &str) -> Scheduled {
    Scheduled { key: Some(key.into()), value: Some(b"v".to_vec()), ..Scheduled::default() }
        .header("scheduler-target-topic", &case.target)
        .header("scheduler-every", "1s")
        .header("scheduler-count", COUNT.to_string())
        .header("scheduler-misfire", "all")
        .target_key(key)
}

/// Returns what has occurred, by `scheduler-key` and `scheduler-id`.
fn occurred(records: &[Record]) -> BTreeMap<(String, String), Occurred> {
    let text = |record: &Record, name: &str| record.header(name).map(|id| String::from_utf8_lossy(id).into_owned());
    let mut all: BTreeMap<(String, String), Occurred> = BTreeMap::new();
    for record in records {
        let Some(id) = text(record, "scheduler-id") else { continue };
        let occurred = all.entry((record.key_text(), id)).or_default();
        occurred.numbers.push(number(record, "scheduler-occurrence").expect("a number"));
        let due_ms = number(record, "scheduler-due").expect("a due time");
        occurred.early += usize::from(record.timestamp < due_ms as i64);
    }
    all
}

#[test]
fn recurring_schedules_survive_ten_kills_once_each() {
    let _alone = alone();
    let Some(case) = Case::new("recurring", PARTITIONS as i32) else { return };
    let settings = long_transaction_timeout();
    let start = || case.engine_with(&[("CONFIGURATION_FILE", &settings)]);
    let mut engines = [start(), start()];
    case.settled();
    let keys: Vec<String> = (0..KEYS).map(|n| format!("k{n}")).collect();
    case.produce(&keys.iter().map(|key| recurring(&case, key)).collect::<Vec<_>>());
    let mut reader = case.target_reader();
    let mut cancelled = BTreeSet::new();
    let mut updated = 0;
    for kill in 0..KILLS {
        let seen = reader.records.len();
        // A kill as records of occurrences arrive is one in the moment of occurrences.
        reader.wait("occurrences fire", TIMEOUT, |records| records.len() > seen + 300);
        engines[kill % 2].kill();
        // Updates and cancels, while no engine or the other one fires.
        let update = |n: usize| recurring(&case, &keys[(kill * 20 + n) % KEYS]);
        case.produce(&(0..10).map(update).collect::<Vec<_>>());
        updated += 10;
        let gone: Vec<&String> = (0..5).map(|n| &keys[KEYS - 1 - (kill * 5 + n)]).collect();
        case.produce(&gone.iter().map(Scheduled::cancel).collect::<Vec<_>>());
        cancelled.extend(gone.into_iter().cloned());
        engines[kill % 2] = start();
        engines[kill % 2].ready();
    }
    let begun_ms = now_ms();
    eventually("nothing is pending", TIMEOUT, || {
        let all = [engines[0].metrics(), engines[1].metrics()];
        let sum = |wanted: &dyn Fn(&str) -> bool| -> f64 {
            all.iter().flatten().filter(|(name, _)| wanted(name)).map(|(_, value)| value).sum()
        };
        let live = sum(&|name| name.starts_with("kafka_scheduler_partition_state") && name.contains("\"live\""));
        let pending = sum(&|name| name.starts_with("kafka_scheduler_pending_schedules"));
        (live as usize == PARTITIONS && pending == 0.0).then_some(())
    });
    let records = case.read_target();
    let all = occurred(&records);
    eprintln!(
        "{} firings of {} schedules, {updated} updated, {} cancelled, {} kills; ended {} ms after the last kill",
        records.len(),
        all.len(),
        cancelled.len(),
        KILLS,
        now_ms() - begun_ms
    );
    let mut last: BTreeMap<&String, (&String, u64)> = BTreeMap::new();
    for ((key, id), occurred) in &all {
        let expected: Vec<u64> = (1..=occurred.numbers.len() as u64).collect();
        assert_eq!(occurred.numbers, expected, "{key} {id}: each occurrence once, in order, and none is missing");
        assert_eq!(occurred.early, 0, "{key} {id} fired early");
        last.entry(key)
            .and_modify(|most| most.1 = most.1.max(expected.len() as u64))
            .or_insert((id, expected.len() as u64));
    }
    for key in keys.iter().filter(|key| !cancelled.contains(*key)) {
        assert_eq!(last[key].1, COUNT, "{key} came to its end");
    }
    let mut left: BTreeMap<String, Option<Vec<u8>>> = BTreeMap::new();
    for record in client::read_all(case.bootstrap(), &case.schedules[0]) {
        left.insert(record.key_text(), record.value);
    }
    let ours = |key: &str| key.starts_with('k') || key.starts_with("__scheduler.progress.");
    let alive: Vec<&String> = left.iter().filter(|(key, value)| ours(key) && value.is_some()).map(|l| l.0).collect();
    assert!(alive.is_empty(), "without a tombstone: {alive:?}");
    engines.iter_mut().for_each(|engine| engine.stop());
}
