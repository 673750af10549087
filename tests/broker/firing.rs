//! The records of a firing, and its time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::kit::case::TIMEOUT;
use crate::kit::client::{self, HeaderPair, Producer};
use crate::kit::wait::{now_ms, now_s};
use crate::kit::{Case, Scheduled};

#[test]
fn two_schedules_topics_fire_each_under_its_own_name() {
    let Some(case) = Case::with_topics("two-topics", 2, 2) else { return };
    let _engine = case.engine();
    for topic in 0..2 {
        // Two schedules have the same key, one in each topic.
        case.produce_to(topic, &[case.due_in("same", format!("{topic}"), 2).target_key("k")]);
    }
    let fired: BTreeSet<(String, String)> = case
        .fired(2)
        .iter()
        .map(|r| {
            (r.value_text(), String::from_utf8_lossy(r.header("scheduler-topic").expect("scheduler-topic")).into())
        })
        .collect();
    let expected = (0..2).map(|i| (i.to_string(), case.schedules[i].clone())).collect();
    assert_eq!(fired, expected);
    for topic in 0..2 {
        let ended = case.read_schedules(topic).iter().filter(|r| r.value.is_none()).count();
        assert_eq!(ended, 1, "tombstones in {}", case.schedules[topic]);
    }
}

#[test]
fn any_bytes_pass_through() {
    let Some(case) = Case::new("bytes", 2) else { return };
    let _engine = case.engine();
    let (key, target_key) = ([0xff, 0xfe, 0, b'k'], [0xc3, 0x28, 0]);
    let customer: Vec<HeaderPair> = vec![
        ("b".into(), Some(b"1".to_vec())),
        ("a".into(), None),
        ("b".into(), Some(vec![0xff, 0])),
        ("b".into(), Some(Vec::new())),
        ("A".into(), Some(b"upper".to_vec())),
    ];
    let mut schedule = case.due_in(key, "", 0).target_key(target_key);
    schedule.headers.splice(1..1, customer[..3].to_vec());
    schedule.headers.extend(customer[3..].to_vec());
    let schedule = schedule
        .header("scheduler-timestamp", "forged")
        .header("scheduler-key", "forged")
        .header("scheduler-key", "forged again")
        .header("scheduler-topic", "forged")
        .timestamp(5_999);
    case.produce(&[schedule]);
    let fired = case.fired(1);
    assert_eq!(fired[0].key.as_deref(), Some(&target_key[..]));
    assert_eq!(fired[0].value.as_deref(), Some(&b""[..]), "an empty value stays empty and does not become null");
    let (own, others): (Vec<HeaderPair>, Vec<HeaderPair>) =
        fired[0].headers.iter().cloned().partition(|(name, _)| name.starts_with("scheduler-"));
    assert_eq!(others, customer);
    let own: BTreeMap<_, _> = own.into_iter().collect();
    let expected: BTreeMap<String, Option<Vec<u8>>> = [
        ("scheduler-key".to_owned(), Some(key.to_vec())),
        ("scheduler-timestamp".to_owned(), Some(b"5".to_vec())),
        ("scheduler-topic".to_owned(), Some(case.schedules[0].clone().into_bytes())),
    ]
    .into();
    assert_eq!(own, expected);
    assert_eq!(fired[0].headers.len(), customer.len() + 3, "the scheduler's headers are replaced, not repeated");
    assert_eq!(case.tombstones()[0].key.as_deref(), Some(&key[..]));
}

#[test]
fn without_a_target_key_it_fires_with_a_null_key() {
    let Some(case) = Case::new("no-key", 2) else { return };
    let _engine = case.engine();
    case.produce(&[case.due_in("k", "v", 0)]);
    let fired = case.fired(1);
    assert_eq!((fired[0].key.as_ref(), fired[0].value_text()), (None, "v".to_owned()));
}

#[test]
fn every_codec_is_read() {
    const CODECS: [&str; 4] = ["gzip", "snappy", "lz4", "zstd"];
    let Some(case) = Case::new("codecs", 2) else { return };
    let _engine = case.engine();
    // The value must compress well: librdkafka sends it uncompressed otherwise.
    let value = "v".repeat(10_000);
    for codec in CODECS {
        let producer = Producer::new(case.bootstrap(), &[("compression.type", codec)]);
        producer.send(&case.schedules[0], &case.due_in(codec, &value, 0).target_key(codec));
        producer.flush();
    }
    let fired = case.fired(CODECS.len());
    let keys: BTreeSet<String> = fired.iter().map(crate::kit::Record::key_text).collect();
    assert_eq!(keys, CODECS.map(str::to_owned).into());
    assert!(fired.iter().all(|r| r.value_text() == value));
}

#[test]
fn triggered_records_are_appended_before_history_records() {
    let Some(case) = Case::new("due-first", 4) else { return };
    let history = format!("{}-appended", case.history);
    client::create_topic(case.bootstrap(), &history, 4, &[("message.timestamp.type", "LogAppendTime")]);
    let _engine = case.engine_with(&[("HISTORY_TOPIC", &history)]);
    case.settled();
    let due = now_s() + 5;
    let schedules: Vec<Scheduled> = (0..400)
        .map(|n| Scheduled::new(format!("k{n}"), "v".repeat(200), due, &case.target).target_key(format!("t{n}")))
        .collect();
    case.produce(&schedules);
    let mut reader = case.target_reader();
    let of_schedules = |records: &[crate::kit::Record]| -> Vec<i64> {
        records.iter().filter(|r| r.key_text().starts_with('t')).map(|r| r.timestamp).collect()
    };
    reader.wait("all have fired", TIMEOUT, |records| of_schedules(records).len() == schedules.len());
    let fired_ms = of_schedules(&reader.records);
    let noted_ms = of_schedules(&client::read_all(case.bootstrap(), &history));
    assert_eq!(noted_ms.len(), schedules.len());
    let (last_fired, first_noted) = (fired_ms.iter().max(), noted_ms.iter().min());
    assert!(last_fired <= first_noted, "the last fired at {last_fired:?}, the first in the history is {first_noted:?}");
}

#[test]
fn overdue_on_arrival_fires_at_once() {
    let Some(case) = Case::new("overdue", 2) else { return };
    let _engine = case.engine();
    case.settled();
    let sent = now_ms();
    // Ten years ago: a live engine fires a new schedule however long it is overdue.
    case.produce(&[case.due_in("k", "v", -10 * 365 * 86_400).target_key("old")]);
    let mut reader = case.target_reader();
    let records = reader.wait("it fires", Duration::from_secs(5), |r| r.iter().any(|r| r.key_text() == "old"));
    let fired = records.iter().find(|r| r.key_text() == "old").expect("the schedule fired");
    eprintln!("fired {} ms after it was sent", fired.timestamp - sent);
}

#[test]
fn murmur2_producers_and_the_engine_agree_on_partitions() {
    const KEYS: usize = 60;
    let Some(case) = Case::new("murmur2", 6) else { return };
    let mut engine = case.engine();
    let reference = format!("{}-reference", case.target);
    client::create_topic(case.bootstrap(), &reference, case.partitions, &[]);
    let like_java = Producer::new(case.bootstrap(), &[("partitioner", "murmur2_random")]);
    let schedules: Vec<Scheduled> =
        (0..KEYS).map(|n| case.due_in(format!("k{n}"), "v", 1).target_key(format!("t{n}"))).collect();
    for (n, schedule) in schedules.iter().enumerate() {
        like_java.send(&reference, &Scheduled::new(format!("t{n}"), "v", 0, "-"));
        like_java.send(&case.schedules[0], schedule);
    }
    like_java.flush();
    let places = |records: &[crate::kit::Record]| -> BTreeMap<Vec<u8>, i32> {
        records.iter().map(|r| (r.key.clone().expect("a key"), r.partition)).collect()
    };
    assert_eq!(places(&case.fired(KEYS)), places(&client::read_all(case.bootstrap(), &reference)));
    let of_schedules: Vec<_> = case.read_schedules(0).into_iter().filter(|r| r.value.is_some()).collect();
    assert_eq!(places(&case.tombstones()), places(&of_schedules));
    engine.stop();
    let _engine = case.engine();
    assert_eq!(case.settled().len(), KEYS, "a schedule fired twice");
}

#[test]
fn overdue_schedules_fire_soon_in_a_busy_topic() {
    const OVERDUE: usize = 100;
    let Some(case) = Case::new("never-quiet", 2) else { return };
    let overdue: Vec<Scheduled> = (0..OVERDUE).map(|n| case.due_in(format!("o{n}"), "v", -5)).collect();
    case.produce(&overdue);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let producer = Producer::new(case.bootstrap(), &[]);
            let mut n = 0_u64;
            while !done.load(Ordering::Relaxed) {
                for _ in 0..20 {
                    n += 1;
                    producer.send(&case.schedules[0], &case.due_in(format!("noise{}", n % 5_000), "v", 86_400));
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            producer.flush();
        });
        let started = now_ms();
        let _engine = case.engine();
        let fired = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| case.fired(OVERDUE)));
        done.store(true, Ordering::Relaxed);
        let fired = fired.expect("all fire");
        let took = fired.iter().map(|r| r.timestamp).max().expect("some fired") - started;
        assert_eq!(fired.len(), OVERDUE);
        assert!(took <= 5_000, "the last overdue schedule fired {took} ms after the start");
    });
}

#[test]
fn nothing_fires_early_and_schedules_years_ahead_are_pending() {
    const SPREAD: i64 = 4;
    let Some(case) = Case::new("not-early", 3) else { return };
    let begin = now_s() + 3;
    let years_ahead = [now_s() + 3 * 365 * 86_400, 32_503_680_000];
    for (n, epoch) in years_ahead.iter().enumerate() {
        case.queue(&Scheduled::new(format!("far{n}"), "far", *epoch, &case.target));
    }
    for n in 0..400 {
        let epoch = begin + n % SPREAD;
        case.queue(&Scheduled::new(format!("k{n}"), epoch.to_string(), epoch, &case.target));
    }
    case.flush();
    let engine = case.engine();
    for record in case.fired(400) {
        let due: i64 = record.value_text().parse().expect("an epoch");
        assert!(record.timestamp >= due * 1000, "due at {due} s, appended at {} ms", record.timestamp);
    }
    assert_eq!(case.settled().len(), 400);
    let listed = engine.get("/schedules").expect("an answer");
    let listed: Vec<serde_json::Value> = serde_json::from_str(&listed).expect("a list");
    let epochs: BTreeSet<i64> = listed.iter().map(|entry| entry["epoch"].as_i64().expect("a number")).collect();
    assert_eq!(epochs, years_ahead.into());
}
