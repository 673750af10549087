//! What a schedule turns into.

use std::time::Duration;

use crate::kit::{World, now};

const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn the_reference_example_arrives_byte_for_byte() {
    let Some(world) = World::new("reference") else { return };
    let (epoch, target) = ((now() - 1).to_string(), world.target());
    let request = [
        ("scheduler-epoch", Some(epoch.as_bytes())),
        ("scheduler-target-topic", Some(target.as_bytes())),
        ("scheduler-target-key", Some(b"vid1".as_slice())),
        ("customer-header", Some(b"dummy")),
    ];
    world.send(b"vid1-online", Some(b"video 1"), &request, Some(1_607_918_336_000));
    world.flush();
    let mut engine = world.engine();
    let fired = world.wait_for(1, LIMIT);
    let header = |name: &str, value: &[u8]| (name.to_owned(), Some(value.to_vec()));
    let triggered = vec![
        header("customer-header", b"dummy"),
        header("scheduler-key", b"vid1-online"),
        header("scheduler-timestamp", b"1607918336"),
        header("scheduler-topic", world.schedules().as_bytes()),
    ];
    let sorted = |mut headers: Vec<(String, Option<Vec<u8>>)>| {
        headers.sort();
        headers
    };
    assert_eq!(fired.len(), 1);
    assert_eq!(fired[0].key.as_deref(), Some(b"vid1".as_slice()));
    assert_eq!(fired[0].value.as_deref(), Some(b"video 1".as_slice()));
    assert_eq!(sorted(fired[0].headers.clone()), sorted(triggered.clone()));
    let history = world.read(&world.history());
    assert_eq!(history.len(), 1);
    assert_eq!((&history[0].key, &history[0].value), (&fired[0].key, &fired[0].value));
    let requested = request[..3].iter().map(|(name, value)| header(name, value.unwrap_or_default()));
    assert_eq!(sorted(history[0].headers.clone()), sorted(triggered.into_iter().chain(requested).collect()));
    let schedule = world.read(&world.schedules()).into_iter().find(|seen| seen.value.as_deref() == Some(b"video 1"));
    let tombstones = world.tombstones();
    assert_eq!(tombstones.len(), 1);
    assert_eq!(tombstones[0].key.as_deref(), Some(b"vid1-online".as_slice()));
    assert_eq!(Some(tombstones[0].partition), schedule.map(|seen| seen.partition));
    assert_eq!(engine.terminate().code(), Some(0));
}

#[test]
fn the_last_word_counts_and_a_restart_fires_nothing_again() {
    let Some(world) = World::new("last-word") else { return };
    let soon = now() + 8;
    for key in ["later", "earlier", "cancelled", "again", "far"] {
        world.schedule(key, "first", if key == "earlier" { soon + 3600 } else { soon });
    }
    world.flush();
    let mut engine = world.engine();
    world.schedule("later", "second", soon + 1);
    world.schedule("earlier", "second", soon);
    world.send(b"cancelled", None, &[], None);
    world.send(b"again", None, &[], None);
    world.schedule("again", "second", soon);
    world.schedule("far", "second", 32_503_680_000);
    world.flush();
    let fired = world.wait_for(3, LIMIT);
    assert_eq!(engine.terminate().code(), Some(0));
    let mut engine = world.engine();
    world.schedule("last", "second", now() - 1);
    world.flush();
    let mut after = world.wait_for(4, LIMIT);
    assert_eq!(fired.len(), 3);
    after.sort_by(|a, b| a.key.cmp(&b.key));
    let keys: Vec<_> =
        after.iter().map(|seen| String::from_utf8_lossy(seen.key.as_deref().unwrap_or_default())).collect();
    assert_eq!(keys, ["again", "earlier", "last", "later"]);
    assert!(after.iter().all(|seen| seen.value.as_deref() == Some(b"second")));
    for seen in &after {
        let due = match seen.key.as_deref() {
            Some(b"later") => soon + 1,
            Some(b"last") => 0,
            _ => soon,
        };
        assert!(seen.timestamp.to_millis().is_some_and(|at| at >= due as i64 * 1000), "early: {seen:?}");
    }
    engine.kill();
}

#[test]
fn bytes_nulls_and_repeats_survive() {
    let Some(world) = World::new("bytes") else { return };
    let (epoch, target) = ((now() - 1).to_string(), world.target());
    let headers = [
        ("b", Some(b"1".as_slice())),
        ("scheduler-epoch", Some(epoch.as_bytes())),
        ("a", None),
        ("b", Some(b"\xff\x00")),
        ("scheduler-target-topic", Some(target.as_bytes())),
        ("scheduler-timestamp", Some(b"forged")),
        ("scheduler-key", Some(b"forged")),
        ("b", Some(b"")),
    ];
    world.send(b"\xff\xfekey", Some(b""), &headers, Some(5_000));
    world.flush();
    let _engine = world.engine();
    let fired = world.wait_for(1, LIMIT);
    assert_eq!(fired[0].key, None, "no target key");
    assert_eq!(fired[0].value.as_deref(), Some(b"".as_slice()), "empty, not null");
    let expected: Vec<(String, Option<Vec<u8>>)> = vec![
        ("b".into(), Some(b"1".to_vec())),
        ("a".into(), None),
        ("b".into(), Some(b"\xff\x00".to_vec())),
        ("b".into(), Some(Vec::new())),
    ];
    assert_eq!(fired[0].headers[..4], expected);
    assert_eq!(fired[0].header("scheduler-timestamp"), Some(b"5".as_slice()));
    assert_eq!(fired[0].header("scheduler-key"), Some(b"\xff\xfekey".as_slice()));
    assert_eq!(fired[0].headers.len(), 7, "forged headers are replaced, not doubled: {:?}", fired[0].headers);
}
