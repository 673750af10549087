//! Fuzzes the texts that the engine stores and reads back: the metadata of committed offsets, and start markers.

use kafka_scheduler::core::ownership::Ownership;
use kafka_scheduler::core::start_marker::StartMarker;

/// The whole input is the text.
pub fn run(data: &[u8]) {
    metadata(data);
    start_marker(data);
}

fn metadata(data: &[u8]) {
    let Some(read) = Ownership::decode(data) else { return };
    let written = read.encode();
    assert!(written.len() <= 2_048, "the broker rejects longer metadata");
    assert_eq!(Ownership::decode(written.as_bytes()).as_ref(), Some(&read));
    let successor = "ab.7";
    let fence = read.to_fence(successor);
    assert!(fence.len() <= 16 && !fence.iter().any(|owner| owner == successor));
    assert!(
        read.clean || read.owner == successor || fence.contains(&read.owner),
        "an owner that is not clean is fenced"
    );
    // The names become transactional ids.
    let harmless =
        |owner: &String| owner.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b) || b == b'.');
    assert!(fence.iter().all(harmless));
    let next = Ownership { owner: successor.into(), owners_to_fence: fence, clean: false, since: read.since };
    assert_eq!(Ownership::decode(next.encode().as_bytes()), Some(next));
}

fn start_marker(data: &[u8]) {
    const PLACE: u64 = 0x0123_4567_89ab_cdef;
    let Some(read) = StartMarker::decode(data, PLACE) else { return };
    let written = read.encode(PLACE);
    assert_eq!(StartMarker::decode(written.as_bytes(), PLACE), Some(read));
    assert_eq!(StartMarker::decode(written.as_bytes(), PLACE ^ 1), None);
}
