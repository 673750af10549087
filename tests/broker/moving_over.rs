//! The engine takes over topics and group of another scheduler, with the records that it and its clients have left
//! there over the years. See docs/moving-over.md.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};

use crate::first_start::noon_zone;
use crate::kit::case::TIMEOUT;
use crate::kit::client::{self, Producer, Record};
use crate::kit::engine::Engine;
use crate::kit::wait::{eventually, now_s};
use crate::kit::{Case, Scheduled};

const DAY_S: i64 = 86_400;

// 10,000 schedules in total.
const FIRED_EARLIER: usize = 3_000;
const FIRED_SINCE_MIDNIGHT: usize = 500;
const CANCELLED: usize = 300;
const LEFTOVERS: usize = 200;
const INVALID: usize = 100;
const OVERDUE: usize = 400;
const SOON: usize = 1_500;
const LATER: usize = 4_000;

/// The state of the topics before.
struct Past {
    case: Case,
    producer: Producer,
    midnight: i64,
}

impl Past {
    /// Returns an old schedule of a client.
    fn schedule(&self, key: &str, epoch: i64, at: i64) -> Scheduled {
        Scheduled::new(key, format!("value of {key}"), epoch, &self.case.target)
            .target_key(format!("target {key}"))
            .header("customer", "kept")
            .timestamp(at * 1_000)
    }

    fn schedule_now(&self, key: &str, epoch: i64, at: i64) {
        self.producer.send(&self.case.schedules[0], &self.schedule(key, epoch, at));
    }

    /// Produces a schedule and the records that the other scheduler wrote when it fired: the record with all its
    /// headers to target and history, and a tombstone with the same headers.
    fn fired(&self, key: &str, epoch: i64) {
        let asked = self.schedule(key, epoch, epoch - 3_600);
        self.producer.send(&self.case.schedules[0], &asked);
        let told = asked
            .clone()
            .header("scheduler-timestamp", (epoch - 3_600).to_string())
            .header("scheduler-key", key)
            .header("scheduler-topic", &self.case.schedules[0])
            .timestamp(epoch * 1_000);
        let triggered = Scheduled { key: Some(format!("target {key}").into_bytes()), ..told.clone() };
        for topic in [&self.case.target, &self.case.history] {
            self.producer.send(topic, &triggered);
        }
        self.producer.send(&self.case.schedules[0], &Scheduled { value: None, ..told });
    }

    /// Produces records that are not valid schedules, and must stay.
    fn invalid(&self, key: &str, number: usize) {
        let bare = Scheduled { headers: Vec::new(), ..Scheduled::new(key, "v", 0, "-") };
        let target = |record: Scheduled| record.header("scheduler-target-topic", &self.case.target);
        let record = match number % 4 {
            0 => bare,
            1 => target(bare).header("scheduler-epoch", "tomorrow"),
            2 => target(bare).header("scheduler-epoch", "-1"),
            _ => bare.header("scheduler-epoch", (now_s() + 3_600).to_string()),
        };
        self.producer.send(&self.case.schedules[0], &record.timestamp((self.midnight - DAY_S) * 1_000));
    }
}

fn keys(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix}-{n}")).collect()
}

/// Fills the topics. Some keys are used repeatedly, like those of real clients.
fn fill(past: &Past) {
    let ago = |days: i64| past.midnight - days * DAY_S + 3_600;
    for (n, key) in keys("earlier", FIRED_EARLIER).iter().enumerate() {
        past.fired(key, ago(1 + (n % 20) as i64));
    }
    keys("today", FIRED_SINCE_MIDNIGHT).iter().for_each(|key| past.fired(key, past.midnight + 60));
    for key in keys("cancelled", CANCELLED) {
        past.schedule_now(&key, now_s() + 3_600, ago(2));
        past.producer.send(&past.case.schedules[0], &Scheduled::cancel(&key).timestamp(ago(1) * 1_000));
    }
    keys("leftover", LEFTOVERS).iter().for_each(|key| past.schedule_now(key, ago(3), ago(4)));
    keys("invalid", INVALID).iter().enumerate().for_each(|(n, key)| past.invalid(key, n));
    keys("overdue", OVERDUE).iter().for_each(|key| past.schedule_now(key, past.midnight + 3_600, ago(1)));
    for (n, key) in keys("later", LATER).iter().enumerate() {
        // The same key has fired before.
        if n % 10 == 0 {
            past.fired(key, ago(5));
        }
        past.schedule_now(key, now_s() + 7 * DAY_S, ago(1));
    }
}

/// Joins the group as the other scheduler does: with its assignor, and with offsets without metadata.
pub fn member(case: &Case, assignor: &str) -> BaseConsumer {
    let consumer: BaseConsumer = client::config(case.bootstrap())
        .set("group.id", &case.group)
        .set("partition.assignment.strategy", assignor)
        .set("session.timeout.ms", "6000")
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .create()
        .expect("a consumer");
    consumer.subscribe(&[&case.schedules[0]]).expect("a subscription");
    eventually("the other scheduler has read its topic", TIMEOUT, || {
        while let Some(Ok(_)) = consumer.poll(Duration::from_millis(100)) {}
        consumer.commit_consumer_state(CommitMode::Sync).ok()
    });
    consumer
}

fn scheduled_keys(records: &[Record]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for record in records {
        let key = String::from_utf8_lossy(record.header("scheduler-key").expect("scheduler-key")).into_owned();
        *counts.entry(key).or_default() += 1;
    }
    counts
}

#[test]
fn ten_thousand_schedules_of_another_scheduler_are_taken_over() {
    let Some(case) = Case::new("moving-over", 4) else { return };
    let (zone, midnight) = noon_zone();
    let producer = Producer::new(case.bootstrap(), &[]);
    let past = Past { case, producer, midnight };
    fill(&past);
    past.producer.flush();
    let case = &past.case;
    let other = member(case, "range");
    let mut engine = case.engine_with(&[("SINCE_DELTA", "0"), ("TZ", &zone)]);
    eventually("the log reports a foreign member of the group", TIMEOUT, || {
        // Like a running member.
        while let Some(Ok(_)) = other.poll(Duration::from_millis(10)) {}
        engine.output().contains("the group has members that are not kafka-scheduler").then_some(())
    });
    for key in keys("soon", SOON) {
        past.schedule_now(&key, now_s() + 5, now_s());
    }
    past.producer.flush();
    let before = case.read_target().len();
    drop(other);
    engine.ready();
    let fired = before + OVERDUE + SOON;
    let mut reader = case.target_reader();
    reader.wait("what is owed has fired", TIMEOUT * 2, |records| records.len() >= fired);

    let owed: BTreeSet<String> = keys("overdue", OVERDUE).into_iter().chain(keys("soon", SOON)).collect();
    let counts = scheduled_keys(&case.settled());
    assert_eq!(
        counts.values().sum::<usize>(),
        fired,
        "only the other scheduler's firings and owed schedules are in the target"
    );
    assert!(counts.values().all(|count| *count == 1), "no schedule fires twice: {counts:?}");
    assert!(owed.iter().all(|key| counts.contains_key(key)), "every owed schedule fires");

    assert_eq!(engine.metric("kafka_scheduler_leftover_schedules_total"), Some(LEFTOVERS as u64));
    let lines: Vec<String> =
        engine.output().lines().filter(|l| l.contains("partition live")).map(str::to_owned).collect();
    let leftovers = lines.iter().filter_map(|line| line.rsplit_once("leftovers=")?.1.trim().parse::<usize>().ok());
    assert_eq!(leftovers.sum::<usize>(), LEFTOVERS, "{lines:?}");
    assert_eq!(engine.counter("invalid_schedule"), Some(INVALID as u64));
    assert_eq!(engine.counter("missed_schedule").map(|missed| missed >= OVERDUE as u64), Some(true));
    // The status is a snapshot, up to half a second old.
    eventually("what is due later is held, and nothing else", TIMEOUT, || {
        let held = |(name, held): (String, f64)| name.contains("_pending_schedules{").then_some(held);
        (engine.metrics().into_iter().filter_map(held).sum::<f64>() == LATER as f64).then_some(())
    });
    engine.stop();

    // Records that the engine must not delete are still there.
    let ended: BTreeSet<String> = case.tombstones().iter().map(Record::key_text).collect();
    assert!(keys("leftover", LEFTOVERS).iter().chain(&keys("invalid", INVALID)).all(|key| !ended.contains(key)));
    // A second start finds nothing to fire.
    let mut engine = case.engine_with(&[("SINCE_DELTA", "0"), ("TZ", &zone)]);
    assert_eq!(case.settled().len(), fired, "after a restart");
    engine.stop();
}

#[test]
fn a_foreign_member_that_shares_the_partitions_is_named() {
    let Some(case) = Case::new("stranger", 2) else { return };
    case.produce(&[case.due_in("later", "v", 3_600)]);
    // The other scheduler's version v0.0.7 or later.
    let other = member(&case, "cooperative-sticky");
    let mut first = case.engine();
    let mut second = case.engine();
    let told = |engine: &Engine| engine.output().lines().filter(|l| l.contains("do not call themselves")).count();
    eventually("both say who else is in their group", TIMEOUT, || {
        while let Some(Ok(_)) = other.poll(Duration::from_millis(10)) {}
        (told(&first) > 0 && told(&second) > 0).then_some(())
    });
    let line = first.output().lines().find(|l| l.contains("do not call themselves")).map(str::to_owned);
    let line = line.expect("the log has the line");
    assert!(
        line.contains("rdkafka/") && !line.contains("kafka-scheduler/"),
        "the line names only the other program: {line}"
    );
    assert_eq!((told(&first), told(&second)), (1, 1), "once");
    drop(other);
    first.stop();
    second.stop();
}
