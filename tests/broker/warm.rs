//! Takeovers that go on from the snapshots of `STATE_DIR`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kafka_scheduler::core::origin::CANARY_PREFIX;

use crate::kit::case::TIMEOUT;
use crate::kit::client;
use crate::kit::engine::Engine;
use crate::kit::process::target_dir;
use crate::kit::wait::{eventually, now_ms};
use crate::kit::{Case, Scheduled};

const GOES_ON: &str = "the partition goes on from its snapshot";
const WRITTEN: &str = "last snapshot written";

/// A directory for snapshots, which is removed at the end.
struct StateDir(PathBuf);

impl StateDir {
    fn new(case: &Case) -> Self {
        let path = target_dir().join("tmp").join(format!("state-{}", case.group));
        Self(path)
    }

    fn text(&self) -> &str {
        self.0.to_str().expect("UTF-8")
    }

    /// Returns the paths of all snapshots.
    fn snapshots(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.0).into_iter().flatten().flatten().map(|entry| entry.path());
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "snapshot")).collect()
    }
}

impl Drop for StateDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn engine(case: &Case, dir: &StateDir) -> Engine {
    case.engine_with(&[("STATE_DIR", dir.text())])
}

fn times(engine: &Engine, line: &str) -> usize {
    engine.output().matches(line).count()
}

/// Waits until the owner has written a canary to each partition: it can have a snapshot then.
fn await_canaries(case: &Case, each: usize) {
    eventually("canaries are written", TIMEOUT, || {
        let canaries = client::read_all(case.bootstrap(), &case.schedules[0]);
        let is_canary = |key: &[u8]| key.starts_with(CANARY_PREFIX);
        let of = |partition| {
            let of_partition = canaries.iter().filter(|record| record.partition == partition);
            of_partition.filter(|record| record.key.as_deref().is_some_and(is_canary)).count()
        };
        (0..case.partitions).all(|partition| of(partition) >= each).then_some(())
    });
}

/// Runs an engine that reads one pending schedule, and stops with its last snapshots.
fn leave_snapshot(case: &Case, dir: &StateDir, key: &str) {
    let mut first = engine(case, dir);
    case.settled();
    case.produce(&[case.due_in(key, "v", 3_600)]);
    await_canaries(case, 1);
    assert!(first.terminate().success());
}

fn keys_pending(engine: &Engine) -> usize {
    engine
        .get("/schedules")
        .map_or(0, |list| serde_json::from_str::<Vec<serde_json::Value>>(&list).map_or(0, |l| l.len()))
}

#[test]
fn a_restart_goes_on_from_its_snapshots_and_what_came_since() {
    let Some(case) = Case::new("warm", 2) else { return };
    let dir = StateDir::new(&case);
    let mut first = engine(&case, &dir);
    case.settled();
    let key = |n: i32| format!("k{n}");
    case.produce(&(0..100).map(|n| case.due_in(key(n), "v1", 3_600)).collect::<Vec<_>>());
    eventually("they are pending", TIMEOUT, || (keys_pending(&first) == 100).then_some(()));
    await_canaries(&case, 1);
    assert!(first.terminate().success());
    assert_eq!(times(&first, WRITTEN), 2, "{}", first.output());
    // While no engine runs: cancels, updates, new ones, and one that is due by the restart.
    case.produce(&(0..10).map(|n| Scheduled::cancel(key(n))).collect::<Vec<_>>());
    case.produce(&(10..20).map(|n| case.due_in(key(n), "v2", 0).target_key(key(n))).collect::<Vec<_>>());
    case.produce(&[case.due_in("new", "v1", 3_600)]);
    let mut second = engine(&case, &dir);
    let fired = case.settled();
    assert_eq!(times(&second, GOES_ON), 2, "{}", second.output());
    let mut updated: Vec<_> = fired.iter().map(|record| (record.key_text(), record.value_text())).collect();
    updated.sort();
    assert_eq!(updated, (10..20).map(|n| (key(n), "v2".to_owned())).collect::<Vec<_>>());
    eventually("the others are pending", TIMEOUT, || (keys_pending(&second) == 81).then_some(()));
    // What is pending is the same as what the whole log says.
    assert!(second.terminate().success());
    let cold = case.engine();
    case.settled();
    eventually("a cold engine holds the same", TIMEOUT, || (keys_pending(&cold) == 81).then_some(()));
}

#[test]
fn after_a_kill_the_last_periodic_snapshot_counts() {
    let Some(case) = Case::new("warm-kill", 1) else { return };
    let dir = StateDir::new(&case);
    let mut first = engine(&case, &dir);
    case.settled();
    case.produce(&[case.due_in("pending", "v", 3_600), case.due_in("soon", "v", 15).target_key("soon")]);
    await_canaries(&case, 1);
    eventually("a snapshot is written while it runs", TIMEOUT, || (!dir.snapshots().is_empty()).then_some(()));
    case.produce(&[case.due_in("after", "v", 3_600)]);
    first.kill();
    let second = engine(&case, &dir);
    case.settled();
    assert_eq!(times(&second, GOES_ON), 1, "{}", second.output());
    eventually("all are pending or have fired", TIMEOUT, || {
        let soon = case.read_target().iter().filter(|record| record.key_text() == "soon").count();
        (keys_pending(&second) == 2 && soon == 1).then_some(())
    });
}

#[test]
fn a_snapshot_older_than_the_limit_is_not_used() {
    let Some(broker) = crate::kit::broker::broker() else { return };
    let settings = [("min.compaction.lag.ms", "0"), ("delete.retention.ms", "9000")];
    let case = Case::configured(broker, "warm-old", 1, 1, &settings);
    let dir = StateDir::new(&case);
    leave_snapshot(&case, &dir, "k");
    let (stopped_ms, limit_ms) = (now_ms(), 4_500);
    assert_eq!(dir.snapshots().len(), 1);
    eventually("the snapshot is too old", TIMEOUT, || (now_ms() > stopped_ms + limit_ms).then_some(()));
    let second = engine(&case, &dir);
    case.settled();
    assert_eq!(times(&second, GOES_ON), 0);
    assert_eq!(times(&second, "it is older than the limit"), 1, "{}", second.output());
    eventually("it is pending", TIMEOUT, || (keys_pending(&second) == 1).then_some(()));
}

#[test]
fn a_damaged_or_foreign_snapshot_costs_a_read_and_no_schedule() {
    let Some(case) = Case::new("warm-damaged", 1) else { return };
    let dir = StateDir::new(&case);
    leave_snapshot(&case, &dir, "k");
    let [path] = &dir.snapshots()[..] else { panic!("one snapshot: {:?}", dir.snapshots()) };
    let whole = std::fs::read(path).expect("a snapshot");
    let damage = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    for (bytes, said) in [
        (damage(whole.len() / 2), "cannot be used"),
        (whole[..whole.len() - 1].to_vec(), "cannot be used"),
        (Vec::new(), "cannot be used"),
    ] {
        std::fs::write(path, bytes).expect("a changed snapshot");
        let mut engine = engine(&case, &dir);
        case.settled();
        assert_eq!((times(&engine, GOES_ON), times(&engine, said)), (0, 1), "{}", engine.output());
        eventually("it is pending", TIMEOUT, || (keys_pending(&engine) == 1).then_some(()));
        engine.kill();
    }
    restart_with_other_settings(&case, &dir, path, &whole);
}

/// Settings that judge records have changed since the snapshot.
fn restart_with_other_settings(case: &Case, dir: &StateDir, path: &Path, whole: &[u8]) {
    std::fs::write(path, whole).expect("the snapshot");
    let engine = case.engine_with(&[("STATE_DIR", dir.text()), ("MAX_HORIZON", "100000")]);
    case.settled();
    assert_eq!((times(&engine, GOES_ON), times(&engine, "it was taken with other settings")), (0, 1));
    eventually("it is pending", TIMEOUT, || (keys_pending(&engine) == 1).then_some(()));
}

#[test]
fn a_recreated_topic_is_read_from_its_beginning() {
    let Some(case) = Case::new("warm-recreated", 1) else { return };
    let dir = StateDir::new(&case);
    leave_snapshot(&case, &dir, "old");
    let (bootstrap, topic) = (case.bootstrap(), &case.schedules[0]);
    client::delete_topic(bootstrap, topic);
    let settings =
        [("cleanup.policy", "compact"), ("delete.retention.ms", "86400000"), ("min.compaction.lag.ms", "86400000")];
    eventually("the topic is recreated", TIMEOUT, || (client::partitions(bootstrap, topic) == 0).then_some(()));
    client::create_topic(bootstrap, topic, 1, &settings);
    // The new log is longer than the old one.
    case.produce(&(0..50).map(|n| case.due_in(format!("new{n}"), "v", 3_600)).collect::<Vec<_>>());
    let second = engine(&case, &dir);
    case.settled();
    assert_eq!((times(&second, GOES_ON), times(&second, "the topic was recreated")), (0, 1), "{}", second.output());
    eventually("the new ones are pending", TIMEOUT, || (keys_pending(&second) == 50).then_some(()));
}

#[test]
fn one_directory_belongs_to_one_process() {
    let Some(case) = Case::new("warm-lock", 1) else { return };
    let dir = StateDir::new(&case);
    let first = engine(&case, &dir);
    first.ready();
    let mut second = engine(&case, &dir);
    assert!(!second.wait(Duration::from_secs(20)).success());
    assert!(second.output().contains("is in use by another process"), "{}", second.output());
}

#[test]
fn a_topic_without_its_own_settings_has_no_snapshots() {
    let Some(case) = Case::with_defaults("warm-defaults", 1) else { return };
    let dir = StateDir::new(&case);
    let mut engine = engine(&case, &dir);
    case.settled();
    case.produce(&[case.due_in("k", "v", 3_600)]);
    eventually("it is pending", TIMEOUT, || (keys_pending(&engine) == 1).then_some(()));
    assert!(engine.terminate().success());
    assert_eq!((times(&engine, WRITTEN), dir.snapshots().len()), (0, 0));
    let is_canary = |key: &[u8]| key.starts_with(CANARY_PREFIX);
    let log = case.read_schedules(0);
    assert!(!log.iter().any(|record| record.key.as_deref().is_some_and(is_canary)), "there are no canaries");
}
