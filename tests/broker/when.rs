//! When schedules fire: milliseconds, delays, dates, recurrence, and what becomes of missed occurrences.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use kafka_scheduler::core::io::{Header, Millis};
use kafka_scheduler::core::origin::{self, Origin};

use crate::kit::case::TIMEOUT;
use crate::kit::client::{self, HeaderPair};
use crate::kit::clock::SteppedClock;
use crate::kit::engine::Engine;
use crate::kit::wait::{eventually, now_ms};
use crate::kit::{Case, Record, Scheduled};

const YEAR_S: i64 = 365 * 86_400;

/// A firing, by the headers of its record.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fired {
    id: String,
    due_ms: i64,
    occurrence: Option<u64>,
    missed: u64,
    at_ms: i64,
}

/// Returns a schedule that says when in `when`, and has its key as its target key.
fn schedule(case: &Case, key: &str, when: &[(&str, &str)]) -> Scheduled {
    let record = Scheduled { key: Some(key.into()), value: Some(b"v".to_vec()), ..Scheduled::default() }
        .header("scheduler-target-topic", &case.target)
        .target_key(key);
    when.iter().fold(record, |record, (name, value)| record.header(&format!("scheduler-{name}"), value))
}

fn number(record: &Record, name: &str) -> Option<i64> {
    std::str::from_utf8(record.header(name)?).ok()?.parse().ok()
}

fn fired(records: &[Record], key: &str) -> Vec<Fired> {
    let of_key = records.iter().filter(|record| record.key_text() == key);
    let all = of_key.map(|record| Fired {
        id: String::from_utf8_lossy(record.header("scheduler-id").unwrap_or_default()).into_owned(),
        due_ms: number(record, "scheduler-due").unwrap_or(-1),
        occurrence: number(record, "scheduler-occurrence").map(i64::unsigned_abs),
        missed: number(record, "scheduler-missed").unwrap_or(0).unsigned_abs(),
        at_ms: record.timestamp,
    });
    all.collect()
}

fn date(ms: i64) -> String {
    Timestamp::from_millisecond(ms).expect("a date").to_string()
}

#[test]
fn each_form_fires_at_its_millisecond() {
    let Some(case) = Case::new("forms", 2) else { return };
    let mut engine = case.engine();
    case.settled();
    let at_ms = now_ms() + 3_000;
    let (epoch_ms, at, zoned) = (at_ms.to_string(), date(at_ms), {
        let zone = jiff::tz::TimeZone::get("Asia/Kolkata").expect("a zone");
        Timestamp::from_millisecond(at_ms).expect("a date").to_zoned(zone).to_string()
    });
    let sent_ms = now_ms();
    case.produce(&[
        schedule(&case, "epoch-ms", &[("epoch-ms", &epoch_ms)]),
        schedule(&case, "at", &[("at", &at)]),
        schedule(&case, "zoned", &[("at", &zoned)]),
        schedule(&case, "delay", &[("delay", "2500ms")]).timestamp(sent_ms),
        schedule(&case, "jitter", &[("epoch-ms", &epoch_ms), ("jitter", "1s")]),
        schedule(&case, "every", &[("every", "1s"), ("count", "2")]).timestamp(sent_ms),
        schedule(&case, "cron", &[("cron", "* * * * * *"), ("timezone", "Europe/Paris"), ("count", "2")]),
        // Its last occurrence is the only one.
        schedule(&case, "start", &[("every", "1h"), ("start", &at), ("until", &at)]),
    ]);
    let mut reader = case.target_reader();
    let mine = |records: &[Record]| records.iter().filter(|record| record.header("scheduler-id").is_some()).count();
    let records = reader.wait("all have fired", TIMEOUT, |records| mine(records) >= 10).to_vec();
    for (key, due_ms) in [("epoch-ms", at_ms), ("at", at_ms), ("zoned", at_ms), ("delay", sent_ms + 2_500)] {
        let [one] = &fired(&records, key)[..] else { panic!("{key} fires once: {records:?}") };
        assert_eq!((one.due_ms, one.occurrence), (due_ms, None), "{key}");
        assert!((due_ms..due_ms + 2_000).contains(&one.at_ms), "{key} fired {} ms late", one.at_ms - due_ms);
    }
    let [jittered] = &fired(&records, "jitter")[..] else { panic!("it fires once") };
    assert!(jittered.due_ms == at_ms && jittered.at_ms >= at_ms, "{jittered:?}");
    let numbers = |key: &str| -> Vec<_> { fired(&records, key).iter().map(|one| one.occurrence).collect() };
    assert_eq!(numbers("every"), [Some(1), Some(2)]);
    assert_eq!(numbers("cron"), [Some(1), Some(2)]);
    assert_eq!(numbers("start"), [Some(1)]);
    let every = fired(&records, "every");
    assert_eq!([every[0].due_ms, every[1].due_ms], [sent_ms + 1_000, sent_ms + 2_000]);
    assert!(fired(&records, "cron").iter().all(|one| one.due_ms % 1_000 == 0 && one.at_ms >= one.due_ms));
    for record in records.iter().filter(|record| record.header("scheduler-id").is_some()) {
        let kept = |(name, _): &&(String, _)| name.starts_with("scheduler-");
        let names: Vec<&str> = record.headers.iter().filter(kept).map(|(name, _)| name.as_str()).collect();
        assert!(!names.contains(&"scheduler-cron") && !names.contains(&"scheduler-epoch-ms"), "{names:?}");
    }
    // Each ends with a tombstone, and no progress is left.
    let pending = || engine.get("/schedules").map(|list| list.trim().to_owned());
    eventually("nothing is pending", TIMEOUT, || (pending()? == "[]").then_some(()));
    let left = last_of_each_key(&client::read_all(case.bootstrap(), &case.schedules[0]));
    let alive: Vec<&String> =
        left.iter().filter(|(key, value)| value.is_some() && !is_marker(key)).map(|l| l.0).collect();
    assert!(alive.is_empty(), "{alive:?} are left in the log");
    engine.stop();
}

/// Returns the value of the latest record of each key.
fn last_of_each_key(records: &[Record]) -> BTreeMap<String, Option<Vec<u8>>> {
    records.iter().map(|record| (record.key_text(), record.value.clone())).collect()
}

fn is_marker(key: &str) -> bool {
    key.starts_with("__scheduler.") && !key.starts_with("__scheduler.progress.")
}

#[test]
fn a_record_that_says_two_times_or_none_is_invalid() {
    let Some(case) = Case::new("bad-forms", 1) else { return };
    let mut engine = case.engine();
    case.settled();
    let bad: [(&str, &[(&str, &str)]); 8] = [
        ("conflicting-time", &[("epoch", "1"), ("delay", "1s")]),
        ("bad-cron", &[("cron", "every day")]),
        ("bad-timezone", &[("cron", "@daily"), ("timezone", "Mars/Base")]),
        ("bad-every", &[("every", "10ms")]),
        ("bad-delay", &[("delay", "one hour")]),
        ("bad-at", &[("at", "2027-03-28T09:00:00")]),
        ("bad-misfire", &[("every", "1s"), ("misfire", "never")]),
        ("never-due", &[("cron", "0 0 30 2 *")]),
    ];
    for (reason, when) in bad {
        case.produce(&[schedule(&case, reason, when)]);
    }
    for (reason, _) in bad {
        eventually(reason, TIMEOUT, || (engine.refused(reason) == Some(1)).then_some(()));
    }
    engine.stop();
}

/// The engine's clock steps while it is down, and while it runs. Each policy does what it says, with bounded work.
#[test]
fn missed_occurrences_follow_their_policy_after_30_s_and_a_year() {
    let Some(broker) = crate::kit::broker::broker() else { return };
    let append_time = [("message.timestamp.type", "LogAppendTime"), ("min.compaction.lag.ms", "86400000")];
    let case = Case::configured(broker, "misfire", 1, 1, &append_time);
    let history = format!("{}-appended", case.history);
    client::create_topic(case.bootstrap(), &history, 1, &[("message.timestamp.type", "LogAppendTime")]);
    let clock = SteppedClock::new();
    let [preload, file] = clock.environment();
    let start = || case.engine_with(&[(preload.0, &preload.1), (file.0, &file.1), ("HISTORY_TOPIC", &history)]);
    let mut engine = start();
    case.settled();
    let policies = ["once", "skip", "all"];
    for policy in policies {
        let (every, cron) = (format!("every-{policy}"), format!("cron-{policy}"));
        case.produce(&[
            schedule(&case, &every, &[("every", "1s"), ("misfire", policy)]),
            schedule(&case, &cron, &[("cron", "* * * * * *"), ("timezone", "Europe/Paris"), ("misfire", policy)]),
        ]);
    }
    let keys: Vec<String> = policies.iter().flat_map(|p| [format!("every-{p}"), format!("cron-{p}")]).collect();
    let mut reader = case.target_reader();
    reader.wait("all recur", TIMEOUT, |records| keys.iter().all(|key| fired(records, key).len() >= 2));
    assert!(engine.terminate().success());
    let records = case.read_target();
    let before: BTreeMap<&String, usize> = keys.iter().map(|key| (key, fired(&records, key).len())).collect();
    clock.set(30);
    engine = start();
    reader.wait("they go on", TIMEOUT, |records| keys.iter().all(|key| fired(records, key).len() > before[key] + 2));
    for key in &keys {
        let all = fired(&reader.records, key);
        let after = &all[before[key]..];
        match key.split_once('-').expect("a policy").1 {
            "once" => {
                assert!(after[0].missed >= 25 && after[1].missed <= 2, "{key}: {after:?}");
                assert_contiguous(key, &all);
            }
            "skip" => {
                let gap = after[0].occurrence.unwrap_or(0) - all[before[key] - 1].occurrence.unwrap_or(0);
                assert!(gap >= 25 && after.iter().all(|one| one.missed == 0), "{key}: {after:?}");
            }
            _ => {
                reader.wait("each fires", TIMEOUT, |records| fired(records, key).len() > before[key] + 30);
                let all = fired(&reader.records, key);
                assert!(all.iter().all(|one| one.missed == 0), "{key}: {all:?}");
                assert_contiguous(key, &all);
            }
        }
    }
    // A year, while the engine runs.
    clock.set(30 + YEAR_S);
    let year = YEAR_S.unsigned_abs();
    let has_passed = |records: &[Record], key: &str| {
        fired(records, key).last().is_some_and(|one| one.due_ms > now_ms() + (YEAR_S - 60) * 1_000)
    };
    reader.wait("all have passed the year", Duration::from_secs(120), |r| keys.iter().all(|key| has_passed(r, key)));
    for key in &keys {
        let all = fired(&reader.records, key);
        let most = all.iter().map(|one| one.missed).max().unwrap_or(0);
        match key.split_once('-').expect("a policy").1 {
            "once" => assert!((year - 60..year + 60).contains(&most), "{key}: {most} became one"),
            "skip" => assert_eq!(most, 0, "{key}"),
            _ => assert!((year - 2_000..year).contains(&most), "{key}: 1,000 fire one by one, {most} became one"),
        }
        if !key.ends_with("skip") {
            assert_contiguous(key, &all);
        }
    }
    engine.stop();
}

/// Each occurrence is over once, in order.
fn assert_contiguous(key: &str, all: &[Fired]) {
    let mut done = 0;
    for one in all {
        let number = one.occurrence.expect("a number");
        assert_eq!(number - one.missed, done + 1, "{key}: {one:?}");
        done = number;
    }
}

#[test]
fn an_expired_schedule_does_not_fire() {
    for with_topic in [true, false] {
        let Some(case) = Case::new("expiry", 1) else { return };
        let dead = format!("{}-dead", case.history);
        client::create_topic(case.bootstrap(), &dead, 1, &[]);
        let settings: &[(&str, &str)] = if with_topic { &[("DEAD_LETTER_TOPIC", &dead)] } else { &[] };
        // It is due before an engine runs, and expires meanwhile.
        case.produce(&[schedule(&case, "late", &[("delay", "1s"), ("expires", "100ms")]).timestamp(now_ms() - 5_000)]);
        let mut engine = case.engine_with(settings);
        case.produce(&[schedule(&case, "in-time", &[("delay", "1s"), ("expires", "1h")])]);
        let mut reader = case.target_reader();
        reader.wait("the other fires", TIMEOUT, |records| fired(records, "in-time").len() == 1);
        eventually("it has expired", TIMEOUT, || (engine.refused("expired") == Some(1)).then_some(()));
        if with_topic {
            let dead_letters = eventually("its dead letter", TIMEOUT, || {
                let dead_letters = client::read_all(case.bootstrap(), &dead);
                (!dead_letters.is_empty()).then_some(dead_letters)
            });
            assert_eq!((dead_letters.len(), dead_letters[0].key_text()), (1, "late".to_owned()));
        } else {
            eventually("it is in the history", TIMEOUT, || {
                case.read_history().iter().any(|r| r.header("scheduler-key") == Some(b"late")).then_some(())
            });
        }
        assert!(fired(&case.read_target(), "late").is_empty(), "what has expired does not fire");
        engine.stop();
    }
}

#[test]
fn triggered_headers_adds_the_due_time_to_the_old_form() {
    let Some(case) = Case::new("due-header", 1) else { return };
    let mut engine = case.engine_with(&[("TRIGGERED_HEADERS", "due")]);
    case.settled();
    case.produce(&[case.due_in("old", "v", 1).target_key("old")]);
    let records = case.fired(1);
    let due_ms = number(&records[0], "scheduler-due").expect("scheduler-due");
    assert!(due_ms % 1_000 == 0 && records[0].header("scheduler-id").is_none(), "{:?}", records[0]);
    engine.stop();
}

#[test]
fn records_of_later_versions_are_left_alone() {
    let Some(case) = Case::new("later-version", 1) else { return };
    let mut engine = case.engine();
    case.settled();
    let later = Scheduled { key: Some(b"__scheduler.later.k".to_vec()), ..Scheduled::default() };
    case.produce(&[Scheduled { value: Some(b"v9 x=1".to_vec()), ..later }, case.due_in("k", "v", 1)]);
    case.fired(1);
    assert!(engine.terminate().success());
    // A restart reads it again, and leaves it again.
    let mut engine = case.engine();
    case.settled();
    let kept = last_of_each_key(&client::read_all(case.bootstrap(), &case.schedules[0]));
    assert_eq!(kept["__scheduler.later.k"].as_deref(), Some(&b"v9 x=1"[..]));
    assert_eq!(engine.refused("reserved-key"), Some(1));
    engine.stop();
}

#[test]
fn fields_of_later_versions_are_kept_or_ignored() {
    let Some(case) = Case::new("later-fields", 1) else { return };
    let mut engine = case.engine();
    case.settled();
    case.produce(&[case.due_in("k", "v", 3_600)]);
    let pending = |engine: &Engine| engine.get("/schedules").filter(|list| list.trim() != "[]").map(|_| ());
    eventually("the schedule is pending", TIMEOUT, || pending(&engine));
    assert!(engine.terminate().success());
    client::extend_metadata(case.bootstrap(), &case.group, &case.schedules[0], 0, " colour=blue,green shape");
    // A copy as a later version could have written it, and then a tombstone for an older record, which overtakes it.
    let log = case.read_schedules(0);
    let original = log.iter().find(|record| record.key_text() == "k").expect("the schedule").clone();
    let mut headers = original.headers.clone();
    headers.push(("scheduler-colour".to_owned(), Some(b"blue".to_vec())));
    case.produce(&[
        written_by_engine(&case, &original, original.offset, original.value.clone(), headers),
        written_by_engine(&case, &original, original.offset - 1, None, Vec::new()),
    ]);
    let mut engine = case.engine();
    case.settled();
    let copy = eventually("the copy is rewritten", TIMEOUT, || {
        let last = case.read_schedules(0).into_iter().rev().find(|record| record.key_text() == "k")?;
        last.value.is_some().then_some(last)
    });
    assert_eq!(copy.header("scheduler-colour"), Some(&b"blue"[..]), "{copy:?}");
    eventually("it is still pending", TIMEOUT, || pending(&engine));
    engine.stop();
}

/// Returns a record under the key of `original`, marked as the engine's, for the user's record at `offset`.
fn written_by_engine(
    case: &Case,
    original: &Record,
    offset: i64,
    value: Option<Vec<u8>>,
    headers: Vec<HeaderPair>,
) -> Scheduled {
    let key = original.key.clone().expect("a key");
    let hashed: Vec<_> =
        headers.iter().map(|(name, value)| Header { name: name.as_bytes(), value: value.as_deref() }).collect();
    let origin = Origin {
        partition_hash: origin::partition_hash(&client::cluster_id(case.bootstrap()), &case.schedules[0], 0),
        offset,
        timestamp: Millis(original.timestamp),
        content_hash: origin::content_hash(&key, value.as_deref(), &hashed),
    };
    Scheduled { key: Some(key), value, headers, ..Scheduled::default() }.header("scheduler-engine", origin.encode())
}
