//! Users write to the topics all the time: no command may wait for an end that keeps moving.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};

use crate::cli::{Ran, on, on_with};
use crate::kit::case::TIMEOUT;
use crate::kit::client::{self, Producer, create_topic, read_all};
use crate::kit::engine::Engine;
use crate::kit::wait::now_s;
use crate::kit::{Case, Scheduled};

/// Records per second in each partition.
const RATE: u64 = 300;
/// The number of keys that the writers use.
const KEYS: usize = 50;
/// The number of transactional producers; each transaction takes a while.
const PRODUCERS: usize = 6;
/// The time limit of a command.
const LIMIT: Duration = Duration::from_secs(20);

/// Writes until it goes out of scope.
struct Writing {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Writing {
    /// Calls `write` with increasing numbers, at `RATE`.
    fn new(write: impl Fn(u64) + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            for n in 0.. {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                write(n);
                thread::sleep(Duration::from_micros(1_000_000 / RATE));
            }
        });
        Self { stop, thread: Some(thread) }
    }

    /// Produces one record to each partition, as returned by `record` for the number and the partition.
    fn to(case: &Case, topic: &str, record: impl Fn(u64, i32) -> Scheduled + Send + 'static) -> Self {
        let (producer, topic, partitions) = (Producer::new(case.bootstrap(), &[]), topic.to_owned(), case.partitions);
        let write = move |n| (0..partitions).for_each(|p| producer.send(&topic, &record(n, p).partition(p)));
        // Each key must exist before a command runs.
        (0..KEYS as u64).for_each(&write);
        Self::new(write)
    }

    /// Produces schedules that are due much later.
    fn schedules(case: &Case) -> Self {
        let (due, target) = (now_s() + 3_600, case.target.clone());
        Self::to(case, &case.schedules[0], move |n, p| {
            Scheduled::new(format!("noise-{p}-{}", n % KEYS as u64), "v", due, &target)
        })
    }

    fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the writer does not panic");
        }
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Returns the output of a command that must exit while topics are written to. If it hangs, it ends with the writers.
fn within(what: &str, writers: &mut [Writing], run: impl FnOnce() -> Ran + Send) -> Ran {
    thread::scope(|scope| {
        let (ended, end) = mpsc::channel();
        scope.spawn(move || ended.send(run()));
        end.recv_timeout(LIMIT).unwrap_or_else(|_| {
            writers.iter_mut().for_each(Writing::stop);
            panic!("{what} does not end within {LIMIT:?}");
        })
    })
}

#[test]
fn commands_end_although_the_topics_are_written_to() {
    let Some(case) = Case::new("written-commands", 2) else { return };
    let dead = format!("{}-dead", case.group);
    create_topic(case.bootstrap(), &dead, 2, &[]);
    let dead_letter = case.due_in("dead-letter", "v", 3_600).header("scheduler-error", "unknown-target");
    let dead_letter = dead_letter.header("scheduler-topic", &case.schedules[0]).header("scheduler-partition", "0");
    case.produce_elsewhere(&dead, &[dead_letter.header("scheduler-offset", "0").partition(0)]);
    let fired = Scheduled { value: Some("the message".into()), ..Scheduled::default() };
    case.produce_elsewhere(&case.history, &[fired.clone().header("scheduler-key", "fired").partition(1)]);
    let mut writers = vec![
        Writing::schedules(&case),
        Writing::to(&case, &case.history, move |_, _| fired.clone().header("scheduler-key", "noise")),
        Writing::to(&case, &dead, |_, _| Scheduled::new("noise", "v", 0, "no dead letter")),
    ];
    let mut said = |args: &[&str]| within(args[0], &mut writers, || on(&case, args));
    let target = case.target.clone();
    let schedule = |value| ["schedule", "--in", "1h", "--key", "mine", "--target-topic", &target, "--value", value];
    assert!(said(&schedule("1")).ok().starts_with("scheduled mine"));
    assert!(said(&schedule("2")).ok().starts_with("rescheduled mine"));
    assert!(said(&["show", "mine"]).ok().contains("2 (1 bytes)"));
    assert_eq!(said(&["list", "--json"]).ok().lines().count(), 2 * KEYS + 1, "each key once");
    let exported = said(&["export"]).ok();
    assert_eq!(exported.lines().count(), 2 * KEYS + 1, "both passes of the export cover the same records: {exported}");
    assert!(said(&["cancel", "mine"]).ok().starts_with("cancelled mine"));
    said(&["show", "mine"]).failed(3, &["nothing is pending"]);
    assert!(said(&["history", "fired"]).ok().contains("the message"));
    let back = said(&["redrive", "--from", &dead]).ok();
    assert!(back.contains("redriven dead-letter") && back.contains("1 dead letters redriven, 0 skipped"), "{back}");
    let mine: String =
        exported.lines().filter(|line| line.contains("\"mine\"")).map(|line| format!("{line}\n")).collect();
    let imported = within("import", &mut writers, || on_with(&case, &["import", "-"], mine.as_bytes()));
    assert!(imported.err.contains("1 schedules imported"), "{}{}", imported.out, imported.err);
    imported.ok();
    drop(writers);
    let keys: BTreeSet<String> = read_all(case.bootstrap(), &case.schedules[0]).iter().map(|r| r.key_text()).collect();
    assert!(keys.contains("dead-letter") && keys.len() == 2 * KEYS + 2, "{keys:?}");
}

/// Starts one of several producers whose transactions write to both partitions of a topic, one after the other.
fn transactions(case: &Case, number: usize, topic: &str, commit: bool) -> Writing {
    let producer: ThreadedProducer<DefaultProducerContext> = client::config(case.bootstrap())
        .set("transactional.id", format!("{}-{number}", case.group))
        .create()
        .expect("a transactional producer");
    producer.init_transactions(TIMEOUT).expect("init");
    let (topic, due, target) = (topic.to_owned(), now_s() + 3_600, case.target.clone());
    let write = move |n: u64| {
        producer.begin_transaction().expect("begin");
        for partition in 0..2 {
            let key = format!("noise-{partition}-{}", n % KEYS as u64);
            let headers = OwnedHeaders::new()
                .insert(Header { key: "scheduler-epoch", value: Some(&due.to_string()) })
                .insert(Header { key: "scheduler-target-topic", value: Some(&target) });
            let record = BaseRecord::to(&topic).key(&key).payload("v").partition(partition).headers(headers);
            producer.send(record).map_err(|(e, _)| e).expect("sent");
        }
        producer.flush(TIMEOUT).expect("written");
        let ended = if commit { producer.commit_transaction(TIMEOUT) } else { producer.abort_transaction(TIMEOUT) };
        ended.expect("the transaction ends");
    };
    write(0);
    Writing::new(write)
}

#[test]
fn commands_end_although_transactions_are_written() {
    for commit in [true, false] {
        let Some(case) = Case::new("written-transactions", 2) else { return };
        case.produce(&[case.due_in("mine", "v", 3_600).partition(0)]);
        let mut writers: Vec<Writing> =
            (0..PRODUCERS).map(|number| transactions(&case, number, &case.schedules[0], commit)).collect();
        let listed = within("list", &mut writers, || on(&case, &["list", "--json"])).ok();
        assert_eq!(listed.lines().count() > 1, commit, "aborted records are not listed: {listed}");
        assert!(listed.contains("\"mine\""), "{listed}");
        let shown = within("show", &mut writers, || on(&case, &["show", "mine"])).ok();
        assert!(shown.contains("mine"), "{shown}");
    }
}

#[test]
fn a_new_group_starts_while_users_write_to_every_partition() {
    let Some(case) = Case::with_defaults("written-start", 4) else { return };
    let writers = Writing::schedules(&case);
    let engines = [case.engine(), case.engine()];
    engines.iter().for_each(Engine::ready);
    let live = |engine: &Engine| engine.output().lines().filter(|line| line.contains("partition live")).count();
    assert!(engines.iter().all(|engine| live(engine) > 0), "each has partitions of its own");
    case.produce(&[case.due_in("mine", "v", 1)]);
    case.fired(1);
    drop(writers);
    assert_eq!(case.settled().len(), 1);
}
