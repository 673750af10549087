//! Schedules that are moved, cancelled and scheduled again.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::kit::wait::{now_ms, now_s, until_ms};
use crate::kit::{Case, Record, Scheduled};

#[test]
fn the_latest_record_for_a_key_fires() {
    let Some(case) = Case::new("changes", 2) else { return };
    let _engine = case.engine();
    case.settled();
    let due = now_s() + 4;
    let at = |key: &str, value: &str, epoch: i64| Scheduled::new(key, value, epoch, &case.target).target_key(key);
    case.produce(&[
        at("later", "first", due),
        at("earlier", "first", due + 3_600),
        at("cancelled", "first", due),
        at("set-again", "first", due),
    ]);
    case.produce(&[
        at("later", "second", due + 2),
        at("earlier", "second", due),
        Scheduled::cancel("cancelled"),
        Scheduled::cancel("set-again"),
        at("set-again", "second", due + 1),
    ]);
    until_ms((due + 2) * 1000);
    let fired: BTreeMap<String, (String, i64)> =
        case.settled().iter().map(|r| (r.key_text(), (r.value_text(), r.timestamp))).collect();
    let keys: Vec<&str> = fired.keys().map(String::as_str).collect();
    // A probe fires after all schedules that were due before it, but "later" is due in the same second as the probe.
    assert!(keys.iter().all(|key| ["earlier", "later", "set-again"].contains(key)), "{keys:?}");
    let fired = {
        let mut all = case.fired(5 + 2);
        all.retain(|r| !r.key_text().starts_with("probe-"));
        all
    };
    assert_eq!(fired.len(), 3, "{fired:?}");
    for (key, epoch) in [("later", due + 2), ("earlier", due), ("set-again", due + 1)] {
        let record = fired.iter().find(|r| r.key_text() == key).unwrap_or_else(|| panic!("{key} did not fire"));
        assert_eq!(record.value_text(), "second", "{key}");
        assert!(record.timestamp >= epoch * 1000, "{key} fired early");
    }
}

/// Checks that each key fired once, with its second due time, after a first one that may have fired too.
fn assert_once(records: &[Record], count: usize) {
    let mut seen: BTreeMap<(String, String), usize> = BTreeMap::new();
    for record in records {
        *seen.entry((record.value_text(), record.key_text())).or_default() += 1;
    }
    let twice: Vec<_> = seen.iter().filter(|(_, n)| **n > 1).take(5).collect();
    assert!(twice.is_empty(), "these keys fired twice: {twice:?}");
    let second = seen.keys().filter(|(value, _)| value == "second").count();
    assert_eq!(second, count, "the number of keys that fired at their second due time");
}

#[test]
fn rescheduled_around_its_due_time_the_second_date_fires_once() {
    const KEYS: usize = 3_000;
    let Some(case) = Case::new("race", 4) else { return };
    let mut engine = case.engine();
    let (first, second) = (now_s() + 5, now_s() + 14);
    let at = |n: usize, value: &str, epoch: i64| {
        let key = format!("k{n}");
        Scheduled::new(&key, value, epoch, &case.target).target_key(&key)
    };
    for n in 0..KEYS {
        case.queue(&at(n, "first", first + i64::try_from(n % 3).expect("small")));
    }
    case.flush();
    // Each key is moved between 300 ms before and 300 ms after its first due time, in no particular order.
    let mut moves: Vec<(i64, usize)> = (0..KEYS)
        .map(|n| {
            let jitter = i64::try_from(n.wrapping_mul(7_919) % 600).expect("small") - 300;
            ((first + i64::try_from(n % 3).expect("small")) * 1000 + jitter, n)
        })
        .collect();
    moves.sort_unstable();
    for (moment, n) in moves {
        until_ms(moment);
        case.queue(&at(n, "second", second));
    }
    case.flush();
    assert!(now_ms() < second * 1000, "the machine is too slow for this test");
    engine.kill();
    let mut engine = case.engine();
    let mut reader = case.target_reader();
    reader.wait("all second dates have fired", Duration::from_secs(60), |records| {
        records.iter().filter(|r| r.value.as_deref() == Some(b"second")).count() >= KEYS
    });
    engine.stop();
    let _engine = case.engine();
    let fired = case.settled();
    assert_once(&fired, KEYS);
    let firsts = fired.iter().filter(|r| r.value_text() == "first").count();
    eprintln!("{firsts} keys fired before they were moved");
    assert!(0 < firsts && firsts < KEYS, "{firsts} of {KEYS} fired before they were moved: there was no race");
}
