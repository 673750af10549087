//! The documented example of etf1/kafka-message-scheduler, byte for byte.

use crate::kit::client::HeaderPair;
use crate::kit::wait::now_s;
use crate::kit::{Case, Scheduled};

/// Sorts headers by name: only the order of repeated headers and user headers is promised.
fn sorted(headers: &[HeaderPair]) -> Vec<(&str, &[u8])> {
    let mut headers: Vec<(&str, &[u8])> =
        headers.iter().map(|(name, value)| (name.as_str(), value.as_deref().expect("a value"))).collect();
    headers.sort_unstable();
    headers
}

#[test]
fn the_reference_example_arrives_byte_for_byte() {
    let Some(case) = Case::new("reference", 3) else { return };
    let _engine = case.engine();
    let due = now_s() + 3;
    let schedule = Scheduled::new("vid1-online", "video 1", due, &case.target)
        .target_key("vid1")
        .header("customer-header", "dummy")
        .timestamp(1_607_918_336_000)
        .partition(1);
    case.produce(&[schedule]);

    let target = case.fired(1);
    assert_eq!(target.len(), 1);
    assert_eq!(target[0].key.as_deref(), Some(&b"vid1"[..]));
    assert_eq!(target[0].value.as_deref(), Some(&b"video 1"[..]));
    let triggered = [
        ("customer-header", &b"dummy"[..]),
        ("scheduler-key", b"vid1-online"),
        ("scheduler-timestamp", b"1607918336"),
        ("scheduler-topic", case.schedules[0].as_bytes()),
    ];
    assert_eq!(sorted(&target[0].headers), triggered);
    assert!(target[0].timestamp >= due * 1000, "fired at {}, due at {due}", target[0].timestamp);

    let history = case.read_history();
    assert_eq!(history.len(), 1);
    assert_eq!(history[0].key.as_deref(), Some(&b"vid1"[..]));
    assert_eq!(history[0].value.as_deref(), Some(&b"video 1"[..]));
    let epoch = due.to_string();
    let mut with_request = triggered.to_vec();
    with_request.extend([
        ("scheduler-epoch", epoch.as_bytes()),
        ("scheduler-target-topic", case.target.as_bytes()),
        ("scheduler-target-key", b"vid1"),
    ]);
    with_request.sort_unstable();
    assert_eq!(sorted(&history[0].headers), with_request);

    let tombstones = case.tombstones();
    assert_eq!(tombstones.len(), 1);
    assert_eq!(tombstones[0].key.as_deref(), Some(&b"vid1-online"[..]));
    assert_eq!(tombstones[0].partition, 1, "the schedule's own partition");
}
