//! Scheduling, rescheduling, cancelling, listing and showing.

use serde_json::Value;

use super::{on, on_env, on_with};
use crate::kit::case::TIMEOUT;
use crate::kit::client::{Producer, Record};
use crate::kit::wait::{eventually, now_s};
use crate::kit::{Case, Scheduled};

/// The partitioners of the two kinds of producers.
const HASHES: [&str; 2] = ["murmur2_random", "consistent_random"];

fn of_key<'a>(records: &'a [Record], key: &str) -> Vec<&'a Record> {
    records.iter().filter(|record| record.key_text() == key).collect()
}

#[test]
fn a_schedule_fires_and_is_in_the_history() {
    let Some(case) = Case::new("cli-schedule", 3) else { return };
    let _engine = case.engine();
    let at = format!("@{}", now_s() + 3_600);
    assert!(on(&case, &["schedule", "--at", &at]).err.contains("2030-01-01T00:00:00Z"), "an example of a date");
    let target = case.target.as_str();
    let said = on(
        &case,
        &[
            "schedule",
            "--in",
            "2s",
            "--key",
            "k",
            "--target-topic",
            target,
            "--target-key",
            "tk",
            "--header",
            "a=1",
            "--header",
            "a=b=c",
            "--value",
            "hello",
        ],
    )
    .ok();
    assert!(said.starts_with("scheduled k to 20") && said.contains(&case.schedules[0]), "{said}");
    on_with(&case, &["schedule", "--in", "0s", "--key", "in", "--target-topic", target, "-"], &[0xff, 0]).ok();
    let fired = case.fired(2);
    let hello = of_key(&fired, "tk")[0];
    assert_eq!(hello.value_text(), "hello");
    let custom: Vec<_> = hello.headers.iter().filter(|(name, _)| name == "a").map(|(_, v)| v.clone()).collect();
    assert_eq!(custom, [Some(b"1".to_vec()), Some(b"b=c".to_vec())]);
    assert_eq!(fired.iter().find(|r| r.key.is_none()).expect("no key").value, Some(vec![0xff, 0]));
    let history = on(&case, &["history", "k"]).ok();
    assert!(history.starts_with("FIRED") && history.contains("hello") && history.contains(target), "{history}");
    let json: Value = serde_json::from_str(&on(&case, &["history", "in", "--json"]).ok()).expect("a line of JSON");
    assert_eq!(json["value"]["base64"], "/wA=");
    on(&case, &["history", "never"]).failed(3, &["never", &case.history]);
}

#[test]
fn keys_of_either_hash_keep_their_partition() {
    const KEYS: usize = 3;
    let Some(case) = Case::new("cli-hashes", 5) else { return };
    let engine = case.engine();
    let due = now_s() + 3_600;
    for hash in HASHES {
        let producer = Producer::new(case.bootstrap(), &[("partitioner", hash)]);
        for n in 0..KEYS {
            for what in ["cancelled", "moved"] {
                producer
                    .send(&case.schedules[0], &Scheduled::new(format!("{hash}-{what}-{n}"), "v", due, &case.target));
            }
        }
        producer.flush();
    }
    eventually("all are pending", TIMEOUT, || (engine.counter("planned_schedule")? == 4 * KEYS as u64).then_some(()));
    for hash in HASHES {
        for n in 0..KEYS {
            on(&case, &["cancel", &format!("{hash}-cancelled-{n}")]).ok();
            let key = format!("{hash}-moved-{n}");
            let said = on(
                &case,
                &[
                    "schedule",
                    "--in",
                    "1s",
                    "--key",
                    &key,
                    "--target-topic",
                    &case.target,
                    "--target-key",
                    &key,
                    "--value",
                    "2",
                ],
            );
            assert!(said.ok().starts_with(&format!("rescheduled {key} to ")));
        }
    }
    let fired = case.fired(2 * KEYS);
    assert!(fired.iter().all(|record| record.value_text() == "2" && record.key_text().contains("moved")), "{fired:?}");
    eventually("nothing is pending", TIMEOUT, || (on(&case, &["list", "--json"]).ok().is_empty()).then_some(()));
    assert_eq!(engine.counter("deleted_schedule"), Some(2 * KEYS as u64), "each cancel found its schedule");
    // A second cancel finds no schedule.
    on(&case, &["cancel", "murmur2_random-cancelled-0"])
        .failed(3, &["nothing is pending", "murmur2_random-cancelled-0"]);
}

#[test]
fn new_keys_go_where_their_partitioner_says() {
    let Some(case) = Case::new("cli-partitioner", 7) else { return };
    for (n, hash) in HASHES.into_iter().enumerate() {
        let key = format!("key-{hash}");
        let producer = Producer::new(case.bootstrap(), &[("partitioner", hash)]);
        producer.send(&case.target, &Scheduled::new(&key, "v", 0, "-"));
        producer.flush();
        let common = ["schedule", "--in", "1h", "--key", &key, "--target-topic", &case.target, "--value", "v"];
        on(&case, &[&common[..], &["--partitioner", hash]].concat()).ok();
        let (scheduled, expected) = (case.read_schedules(0), case.fired(n + 1));
        let place = |records: &[Record]| of_key(records, &key)[0].partition;
        assert_eq!(place(&scheduled), place(&expected), "{hash}");
    }
    // By default, the partitioner is that of Java's producers; enough keys differ from librdkafka's default
    // partitioner.
    let keys: Vec<String> = (0..5).map(|n| format!("plain-{n}")).collect();
    for (topic, hash) in [(&case.target, HASHES[0]), (&case.history, HASHES[1])] {
        let producer = Producer::new(case.bootstrap(), &[("partitioner", hash)]);
        keys.iter().for_each(|key| producer.send(topic, &Scheduled::new(key, "v", 0, "-")));
        producer.flush();
    }
    for key in &keys {
        on(&case, &["schedule", "--in", "1h", "--key", key, "--target-topic", &case.target, "--value", "v"]).ok();
    }
    let places = |records: &[Record]| keys.iter().map(|key| of_key(records, key)[0].partition).collect::<Vec<_>>();
    let lie = places(&case.read_schedules(0));
    assert_eq!(lie, places(&case.read_target()));
    assert_ne!(lie, places(&case.read_history()));
    let here = ["schedule", "--in", "1h", "--key", "here", "--target-topic", &case.target, "--value", "v"];
    on(&case, &[&here[..], &["--partition", "6"]].concat()).ok();
    assert_eq!(of_key(&case.read_schedules(0), "here")[0].partition, 6);
    on(&case, &[&here[..], &["--partition", "7"]].concat()).failed(2, &["--partition is 7", "0 to 6"]);
    // The same key in another partition is another schedule, so the command needs the partition.
    on(&case, &[&here[..], &["--partition", "5"]].concat()).ok();
    on(&case, &here).failed(1, &["[5, 6]", "--partition"]);
    assert_eq!(on(&case, &["cancel", "here"]).ok().lines().count(), 2);
}

#[test]
fn topics_and_instances_list_the_same_with_filters() {
    let Some(case) = Case::with_topics("cli-list", 2, 2) else { return };
    let engine = case.engine();
    let due = now_s() + 3_600;
    case.produce(&[
        Scheduled::new("a-1", "one", due + 2, &case.target).target_key("x"),
        Scheduled::new("a-2", "two", due + 1, &case.history),
        Scheduled::new("b-1", "\u{1b}[31mred", due, &case.target),
        Scheduled::new([0xff], [0xfe], due + 3, &case.target),
        Scheduled::new("gone", "v", due, &case.target),
        Scheduled::cancel("gone"),
        Scheduled::new("invalid", "v", due, &case.target).header("scheduler-epoch", "x"),
    ]);
    case.produce_to(1, &[Scheduled::new("a-3", "three", due + 4, &case.target)]);
    let ids = |ran: super::Ran| -> Vec<String> {
        let lines = ran.ok();
        let mut ids: Vec<String> = lines
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["id"].as_str().expect("an id").to_owned())
            .collect();
        ids.sort();
        ids
    };
    let server = format!("http://127.0.0.1:{}", engine.port);
    eventually("the instance knows all", TIMEOUT, || {
        (ids(on(&case, &["list", "--json", "--server", &server])).len() == 5).then_some(())
    });
    let (first, second) = (case.schedules[0].as_str(), case.schedules[1].as_str());
    let date = jiff::Timestamp::from_second(due + 2).expect("a date").to_string();
    for source in [&[][..], &["--server", &server]] {
        let list = |args: &[&str]| ids(on(&case, &[&["list", "--json"], args, source].concat()));
        assert_eq!(list(&[]), ["a-1", "a-2", "a-3", "b-1", "\u{fffd}"]);
        assert_eq!(list(&["--topic", second]), ["a-3"]);
        assert_eq!(list(&["--target-topic", &case.history]), ["a-2"]);
        assert_eq!(list(&["--key-prefix", "a-", "--topic", first]), ["a-1", "a-2"]);
        assert_eq!(list(&["--due-before", &date]), ["a-2", "b-1"]);
        assert_eq!(list(&["--due-after", &date]), ["a-1", "a-3", "\u{fffd}"]);
        assert_eq!(list(&["--limit", "1"]), ["b-1"], "the earliest schedule comes first");
        let table = on(&case, &[&["list"], source].concat()).ok();
        let rows: Vec<&str> = table.lines().collect();
        assert!(rows[0].starts_with("DUE") && rows[1].contains("b-1") && rows[5].contains("three"), "{table}");
        assert!(!table.contains('\u{1b}'), "control characters are escaped");
    }
    let all = on(&case, &["list"]);
    assert!(all.err.contains("1 records that cannot fire"), "{}", all.err);
    let shown = on(&case, &["show", "a-1"]).ok();
    for part in [first, "due", &date, &case.target, "x", "one (3 bytes)"] {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }
    assert!(on(&case, &["show", "invalid"]).ok().contains("duplicate-header"));
    assert!(on(&case, &["show", "--base64", "/w==", "--json"]).ok().contains("{\"base64\":\"/g==\"}"));
    on(&case, &["show", "gone"]).failed(3, &["gone", first, second]);
    // With several topics, a command that writes needs the topic.
    on(&case, &["cancel", "a-1"]).failed(2, &["--topic", first, second]);
    on(&case, &["cancel", "a-1", "--topic", first]).ok();
}

#[test]
fn schedules_invalid_by_the_settings_are_not_listed() {
    let Some(case) = Case::new("cli-limits", 1) else { return };
    case.produce(&[
        case.due_in("good", "v", 3_600),
        case.due_in("far", "v", 2 * 86_400),
        case.due_in("late", "v", -100),
        case.due_in("in-grace", "v", -100).timestamp((now_s() - 90) * 1_000),
    ]);
    let limits = [("MAX_HORIZON", "P1D"), ("SCHEDULE_GRACE_INTERVAL", "60")];
    let listed = |ran: super::Ran| -> (Vec<String>, String) {
        let err = ran.err.clone();
        let lines = ran.ok();
        let id = |line: &str| serde_json::from_str::<Value>(line).expect("JSON")["id"].as_str().map(str::to_owned);
        (lines.lines().filter_map(id).collect(), err)
    };
    let (ids, err) = listed(on_env(&case, &limits, &["list", "--json"]));
    assert_eq!(ids, ["good", "in-grace"]);
    assert!(err.contains("2 records that cannot fire"), "{err}");
    assert!(on_env(&case, &limits, &["show", "far"]).ok().contains("beyond-horizon"));
    assert!(on_env(&case, &limits, &["show", "late"]).ok().contains("over-grace"));
    assert_eq!(listed(on(&case, &["list", "--json"])).0.len(), 4, "without these settings all of them fire");
}
