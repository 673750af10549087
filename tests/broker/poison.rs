//! Records that cannot be delivered affect only themselves.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant};

use crate::kit::case::TIMEOUT;
use crate::kit::client::{self, Reader};
use crate::kit::engine::Engine;
use crate::kit::wait::{eventually, now_s};
use crate::kit::{Case, Record, Scheduled};

const GOOD: usize = 40;
const DAY_S: i64 = 86_400;

/// The longest interval at which a missing target is looked up again, by docs/unfired.md.
const LOOK_MAX: Duration = Duration::from_secs(30);
/// The time for a lookup and a firing.
const LOOK_MARGIN: Duration = Duration::from_secs(2);

/// Topics that accept no records, and one that accepts only small records.
struct Traps {
    small: String,
    missing: String,
    /// A compacted topic, which accepts no record without a key.
    compacted: String,
    /// A topic without write permission; `None` if the broker has no authorizer.
    forbidden: Option<String>,
}

impl Traps {
    fn new(case: &Case) -> Self {
        let topic = |what: &str| format!("{}-{what}", case.target);
        let (small, forbidden, compacted) = (topic("small"), topic("forbidden"), topic("compacted"));
        let appended = ("message.timestamp.type", "LogAppendTime");
        client::create_topic(case.bootstrap(), &small, 1, &[appended, ("max.message.bytes", "1000")]);
        client::create_topic(case.bootstrap(), &forbidden, 1, &[]);
        client::create_topic(case.bootstrap(), &compacted, 1, &[("cleanup.policy", "compact")]);
        let deny = ["--add", "--deny-principal", "User:ANONYMOUS", "--operation", "Write", "--topic", &forbidden];
        let denied = case.broker.tool("org.apache.kafka.tools.AclCommand", &deny);
        let allow = ["--add", "--allow-principal", "User:*", "--operation", "All", "--topic", &forbidden];
        case.broker.tool("org.apache.kafka.tools.AclCommand", &allow);
        if denied.is_none() {
            // The test runner hides the output of eprintln! when a test passes.
            let _ = writeln!(std::io::stderr(), "\n*** SKIPPED: nothing can be forbidden on this broker ***\n");
        }
        Self { small, missing: topic("missing"), compacted, forbidden: denied.map(|_| forbidden) }
    }

    /// Returns one record for each reason, with that reason.
    fn records(&self, case: &Case, due: i64) -> BTreeMap<&'static str, Scheduled> {
        let schedule =
            |reason: &str, epoch: i64, target: &str| Scheduled::new(format!("bad-{reason}"), "v", epoch, target);
        let good = |reason: &str| schedule(reason, due, &case.target);
        let bare = |reason: &str| Scheduled { headers: Vec::new(), ..good(reason) };
        let mut bad = BTreeMap::from([
            ("no-epoch", bare("no-epoch").header("customer", "c")),
            ("bad-epoch", bare("bad-epoch").header("scheduler-epoch", "+1").header("scheduler-target-topic", "t")),
            (
                "epoch-overflow",
                bare("epoch-overflow").header("scheduler-epoch", "9".repeat(30)).header("scheduler-target-topic", "t"),
            ),
            ("no-target", bare("no-target").header("scheduler-epoch", due.to_string())),
            ("bad-target", schedule("bad-target", due, "no such/topic!")),
            ("target-is-schedules", schedule("target-is-schedules", due, &case.schedules[0])),
            ("duplicate-header", good("duplicate-header").header("scheduler-target-topic", &self.missing)),
            ("beyond-horizon", schedule("beyond-horizon", due + 10 * DAY_S, &case.target)),
            ("over-grace", schedule("over-grace", due - 1_000, &case.target)),
            ("unknown-target", schedule("unknown-target", due, &self.missing)),
            ("rejected", schedule("refused", due, &self.compacted)),
            ("too-large", Scheduled { value: Some(vec![7; 50_000]), ..schedule("too-large", due, &self.small) }),
        ]);
        let mut reserved = good("reserved-key");
        reserved.key = Some(b"__scheduler.mine".to_vec());
        bad.insert("reserved-key", reserved);
        if let Some(forbidden) = &self.forbidden {
            bad.insert("forbidden", schedule("forbidden", due, forbidden));
        }
        bad
    }
}

/// Schedules forty valid records and one invalid record of each kind for the same second, and waits for the valid ones.
fn mixed(case: &Case, traps: &Traps, engine: &mut Engine) -> BTreeMap<&'static str, Scheduled> {
    case.settled();
    let due = now_s() + 4;
    let bad = traps.records(case, due);
    let good = |n: usize| {
        let target = if n.is_multiple_of(2) { &case.target } else { &traps.small };
        Scheduled::new(format!("good-{n}"), vec![b'v'; 100], due, target)
    };
    let mut bad_ones = bad.values();
    for n in 0..GOOD {
        case.queue(&good(n));
        if let Some(bad) = bad_ones.next() {
            case.queue(bad);
        }
    }
    case.flush();
    for topic in [&case.target, &traps.small] {
        let mut reader = Reader::new(case.bootstrap(), topic);
        let is_good = |r: &&Record| r.value.as_deref() == Some(&[b'v'; 100]);
        reader.wait("the good ones fire", TIMEOUT, |r| r.iter().filter(is_good).count() >= GOOD / 2);
        for record in reader.records.iter().filter(is_good) {
            let late_ms = record.timestamp - due * 1_000;
            assert!((0..=1_000).contains(&late_ms), "{} was {late_ms} ms late", record.key_text());
        }
    }
    for reason in bad.keys() {
        eventually(&format!("{reason} is counted"), TIMEOUT, || (engine.refused(reason)? == 1).then_some(()));
    }
    assert!(engine.running());
    assert!(
        !engine.output().contains("rejoining and reloading from the log"),
        "no transaction's outcome was unknown: {}",
        engine.output()
    );
    bad
}

const LIMITS: [(&str, &str); 2] = [("MAX_HORIZON", "P1D"), ("SCHEDULE_GRACE_INTERVAL", "60")];

#[test]
fn good_schedules_fire_on_time_beside_one_of_each_bad_kind() {
    let Some(case) = Case::new("poison", 1) else { return };
    let traps = Traps::new(&case);
    let mut engine = case.engine_with(&LIMITS);
    let bad = mixed(&case, &traps, &mut engine);
    // None of the invalid records is fired, lost or deleted.
    let kept = client::read_all(case.bootstrap(), &case.schedules[0]);
    for (reason, record) in &bad {
        let of_key: Vec<&Record> = kept.iter().filter(|r| r.key == record.key).collect();
        assert_eq!(of_key.len(), 1, "the record with {reason} is unchanged");
        assert_eq!(of_key[0].value, record.value, "{reason}");
    }
    let fired = case.settled();
    assert_eq!(fired.len(), GOOD / 2, "in the target");
    assert_eq!(client::read_all(case.bootstrap(), &traps.small).len(), GOOD / 2, "in the small target");
    assert!(client::read_all(case.bootstrap(), &traps.compacted).is_empty(), "in the compacted target");
    client::create_topic(case.bootstrap(), &traps.missing, 1, &[]);
    let made = Instant::now();
    let mut reader = Reader::new(case.bootstrap(), &traps.missing);
    reader.wait("the schedule has found its target", TIMEOUT, |r| r.len() == 1);
    let took = made.elapsed();
    assert!(took <= LOOK_MAX + LOOK_MARGIN, "firing took {took:?} from the target's creation");
    engine.stop();
}

#[test]
fn with_a_dead_letter_topic_each_bad_record_arrives_there_once() {
    let Some(case) = Case::new("dead-letters", 1) else { return };
    let traps = Traps::new(&case);
    let dead = format!("{}-dead", case.target);
    client::create_topic(case.bootstrap(), &dead, 1, &[]);
    let env = [LIMITS[0], LIMITS[1], ("DEAD_LETTER_TOPIC", &dead)];
    let mut engine = case.engine_with(&env);
    let mut bad = mixed(&case, &traps, &mut engine);
    // A record under a reserved key may be a later version's, so it is left alone.
    let reserved = bad.remove("reserved-key").expect("one under a reserved key");
    let mut reader = Reader::new(case.bootstrap(), &dead);
    reader.wait("all bad ones are dead letters", TIMEOUT, |r| r.len() >= bad.len());
    engine.stop();
    let mut engine = case.engine_with(&env);
    case.settled();
    engine.stop();
    let dead_letters = client::read_all(case.bootstrap(), &dead);
    assert_eq!(dead_letters.len(), bad.len(), "each dead letter is written once, also after a restart");
    let mut tombstones = client::read_all(case.bootstrap(), &case.schedules[0]);
    let kept: Vec<_> = tombstones.iter().filter(|r| r.key == reserved.key).map(|r| r.value.clone()).collect();
    assert_eq!(kept, [reserved.value], "the record under a reserved key stays as it is");
    tombstones.retain(|r| r.value.is_none());
    for (reason, record) in &bad {
        let found = dead_letters.iter().find(|r| r.key == record.key);
        let dead_letter = found.unwrap_or_else(|| panic!("no dead letter for {reason}"));
        assert_eq!(dead_letter.value, record.value, "{reason}");
        assert_eq!(dead_letter.header("scheduler-error"), Some(reason.as_bytes()));
        assert!(dead_letter.header("scheduler-error-detail").is_some_and(|detail| !detail.is_empty()));
        assert_eq!(dead_letter.header("scheduler-topic"), Some(case.schedules[0].as_bytes()));
        assert_eq!(dead_letter.header("scheduler-partition"), Some(&b"0"[..]));
        for (name, value) in &record.headers {
            assert!(dead_letter.headers.contains(&(name.clone(), value.clone())), "{reason}: header {name}");
        }
        let ended = tombstones.iter().filter(|r| r.key == record.key).count();
        assert_eq!(ended, 1, "{reason}: a dead letter has one tombstone");
    }
}

#[test]
fn a_record_without_a_key_is_counted_and_left_where_it_is() {
    let Some(case) = Case::new("no-key", 1) else { return };
    // A compacted topic accepts no record without a key.
    let (schedules, dead) = (format!("{}-keyless", case.group), format!("{}-dead", case.group));
    client::create_topic(case.bootstrap(), &schedules, 1, &[("cleanup.policy", "delete")]);
    client::create_topic(case.bootstrap(), &dead, 1, &[]);
    let env = [("SCHEDULES_TOPICS", schedules.as_str()), ("DEAD_LETTER_TOPIC", &dead)];
    let producer = client::Producer::new(case.bootstrap(), &[]);
    for start in 1..=2 {
        let mut engine = case.engine_with(&env);
        if start == 1 {
            producer.send(&schedules, &Scheduled { key: None, ..case.due_in("", "keyless", 1) });
        }
        producer.send(&schedules, &case.due_in(format!("good-{start}"), "good", 1));
        producer.flush();
        let fired = case.fired(start);
        assert!(fired.iter().all(|record| record.value_text() == "good"), "{fired:?}");
        eventually("the record is counted", TIMEOUT, || (engine.refused("no-key")? == 1).then_some(()));
        engine.stop();
    }
    assert!(
        client::read_all(case.bootstrap(), &dead).is_empty(),
        "a record without a key cannot be deleted, so it does not become a dead letter"
    );
    let kept = client::read_all(case.bootstrap(), &schedules);
    assert_eq!(kept.iter().filter(|record| record.key.is_none()).count(), 1, "the record is unchanged");
}

#[test]
fn a_rejected_batch_is_parked_and_a_later_schedule_fires() {
    let Some(case) = Case::new("all-poison", 2) else { return };
    let traps = Traps::new(&case);
    let mut engine = case.engine();
    case.settled();
    let due = now_s() + 2;
    for n in 0..20 {
        let value = vec![7; 5_000];
        case.queue(&Scheduled::new(format!("bad-{n}"), value, due, &traps.small));
    }
    case.flush();
    eventually("all are counted", TIMEOUT, || (engine.refused("too-large")? == 20).then_some(()));
    assert!(case.settled().is_empty());
    assert!(client::read_all(case.bootstrap(), &traps.small).is_empty());
    assert!(engine.running());
    engine.stop();
}
