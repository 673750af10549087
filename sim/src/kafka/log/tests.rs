//! What was measured on Apache Kafka: when each replica removes a tombstone, and what a reader then finds.

use super::*;
use crate::rng::Rng;

const RETENTION_MS: i64 = 100;

/// Passes with this retention, which remove old tombstones too.
const fn passes(retention_ms: i64) -> Compaction {
    Compaction { before_ms: i64::MAX, retention_ms, tombstones: true }
}

const PASSES: Compaction = passes(RETENTION_MS);

fn record(at_ms: i64, key: &str, value: Option<&str>) -> Stored {
    let value = value.map(|value| value.as_bytes().to_vec());
    Stored { at_ms, key: Some(key.as_bytes().to_vec()), value, headers: Headers::new(), transaction: None }
}

/// Creates a log with a schedule and a tombstone for each key, and one more record: the last is never removed.
fn ended(replicas: usize, keys: &[&str]) -> Log {
    let mut log = Log::new(replicas);
    for key in keys {
        log.append(record(0, key, Some("schedule")));
        log.append(record(0, key, None));
    }
    log.append(record(0, "last", Some("")));
    log
}

/// Returns the keys of the records that a reader gets, with a minus for a tombstone. The last record is left out.
fn found(log: &Log) -> Vec<String> {
    let name = |stored: &Stored| {
        let key = String::from_utf8_lossy(stored.key.as_deref().unwrap_or_default()).into_owned();
        if stored.value.is_none() { format!("-{key}") } else { key }
    };
    log.read(0, usize::MAX).0.into_iter().map(|(_, stored)| name(stored)).filter(|key| key != "last").collect()
}

#[test]
fn on_one_replica_tombstones_go_in_the_order_of_offsets() {
    let mut rng = Rng::new(1);
    let mut removed = 0;
    for _ in 0..200 {
        let mut log = Log::new(1);
        for now_ms in (0..1_000).step_by(10) {
            let key = format!("k{}", rng.index(20));
            log.append(record(now_ms, &key, if rng.chance(50) { None } else { Some("schedule") }));
            if !rng.chance(20) {
                continue;
            }
            let before: Vec<i64> = tombstones(&log);
            let gone = log.clean(0, now_ms, Compaction { before_ms: now_ms - 50, ..PASSES });
            let after = tombstones(&log);
            let last = |offset: &i64| {
                let key = |at: i64| log.entries.get(at as usize).and_then(data).and_then(|stored| stored.key.clone());
                !(offset + 1..log.end()).any(|at| key(at) == key(*offset))
            };
            // Those that were their key's last record can only have expired.
            let expired = before.iter().filter(|offset| !after.contains(offset)).filter(|offset| last(offset)).max();
            assert!(expired.is_none_or(|expired| !after.iter().any(|kept| kept < expired)), "{before:?} {after:?}");
            removed += gone.tombstones;
        }
    }
    assert!(removed > 1_000, "{removed}");
}

fn data(entry: &Entry) -> Option<&Stored> {
    match entry {
        Entry::Data(stored) => Some(stored),
        Entry::Marker => None,
    }
}

/// Returns the offsets of the tombstones that a reader finds and no pass of the cleaner will replace.
fn tombstones(log: &Log) -> Vec<i64> {
    let (found, _) = log.read(0, usize::MAX);
    found.into_iter().filter(|(_, stored)| stored.value.is_none()).map(|(offset, _)| offset).collect()
}

#[test]
fn a_reader_misses_a_tombstone_and_then_finds_an_older_one() {
    let mut log = ended(2, &["a", "b"]);
    log.clean(0, 0, PASSES);
    log.clean(0, RETENTION_MS + 1, PASSES);
    log.clean(1, 50, PASSES);
    let (read, next) = log.read(0, usize::MAX);
    assert_eq!((read.len(), next), (1, log.end()), "the leader has removed both");
    assert!(log.change_leader());
    assert_eq!(found(&log), ["-a", "-b"], "the new leader's cleaner came later");
}

#[test]
fn a_follower_that_was_away_stamps_its_older_tombstone_later() {
    let mut log = ended(2, &["a"]);
    assert!(log.go_away(1));
    log.append(record(0, "b", None));
    log.append(record(0, "last", Some("")));
    log.clean(0, 0, PASSES);
    log.come_back(1, false);
    // The follower stamps its own, older tombstone now. The newer one has the leader's stamp.
    log.clean(1, 60, PASSES);
    for replica in [0, 1] {
        log.clean(replica, RETENTION_MS + 1, PASSES);
    }
    assert_eq!(found(&log), [""; 0]);
    assert!(log.change_leader());
    assert_eq!(found(&log), ["-a"], "b is gone, and the older a is not");
    log.clean(1, 60 + RETENTION_MS + 1, PASSES);
    assert_eq!(found(&log), [""; 0]);
}

#[test]
fn a_lower_retention_removes_newer_tombstones_first() {
    let mut log = ended(1, &["a"]);
    log.clean(0, 0, PASSES);
    log.append(record(1, "b", None));
    log.append(record(1, "last", Some("")));
    assert_eq!(log.clean(0, 10, passes(20)).stamped, 1, "only the newer one: the other has its stamp");
    log.clean(0, 31, PASSES);
    assert_eq!(found(&log), ["-a"]);
    log.clean(0, RETENTION_MS + 1, PASSES);
    assert_eq!(found(&log), [""; 0]);
}

#[test]
fn a_reader_that_changes_leaders_can_get_a_deleted_record() {
    // The leader's cleaner has stopped, and the other replica has removed the record and its tombstone.
    let mut log = ended(2, &["a"]);
    log.clean(1, 0, PASSES);
    log.clean(1, RETENTION_MS + 1, PASSES);
    let (first, next) = log.read(0, 1);
    assert_eq!((first[0].1.value.is_some(), next), (true, 1));
    assert!(log.change_leader());
    let (rest, _) = log.read(next, usize::MAX);
    assert!(rest.iter().all(|(_, stored)| stored.key.as_deref() == Some(b"last")), "no tombstone of it: {rest:?}");
}

#[test]
fn a_follower_that_was_away_for_long_has_a_deleted_record() {
    let missed = |is_empty| {
        let mut log = Log::new(2);
        log.append(record(0, "a", Some("schedule")));
        assert!(log.go_away(1));
        log.append(record(0, "a", None));
        log.append(record(0, "last", Some("")));
        log.clean(0, 0, PASSES);
        log.clean(0, RETENTION_MS + 1, PASSES);
        log.come_back(1, is_empty);
        log.compact(2 * RETENTION_MS + 2, PASSES);
        assert!(log.change_leader());
        found(&log)
    };
    assert_eq!(missed(false), ["a"]);
    assert_eq!(missed(true), [""; 0], "with its log deleted it copies the leader's");
}

#[test]
fn a_follower_that_was_away_gets_the_tombstones_that_remain() {
    let mut log = Log::new(2);
    log.append(record(0, "a", Some("schedule")));
    assert!(log.go_away(1));
    log.append(record(0, "a", None));
    log.append(record(0, "last", Some("")));
    log.clean(0, 0, PASSES);
    log.come_back(1, false);
    assert!(log.change_leader());
    assert_eq!(found(&log), ["a", "-a"]);
    // The stamp is the old leader's.
    assert_eq!(log.clean(1, RETENTION_MS + 1, PASSES), Compacted { records: 1, tombstones: 1, stamped: 0 });
}

#[test]
fn leadership_stays_with_replicas_in_sync() {
    let mut log = ended(3, &[]);
    assert!(log.go_away(1));
    assert!(!log.go_away(1), "it is away already");
    assert!(log.go_away(0), "the leader goes, and another replica leads");
    assert_eq!(log.leader, 2);
    assert!(!log.go_away(2) && !log.change_leader(), "the last one in sync stays");
    log.append(record(0, "b", Some("schedule")));
    log.come_back(0, false);
    assert!(log.change_leader());
    assert_eq!((log.leader, found(&log)), (0, vec!["b".to_owned()]));
    assert!(!Log::new(1).change_leader());
}
