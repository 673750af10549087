//! Fuzzes the parsing of records and headers: which record is a schedule, and which one the engine wrote.

use kafka_scheduler::calendar::ZoneCalendar;
use kafka_scheduler::core::headers;
use kafka_scheduler::core::io::{Header, Record, TopicPartition};
use kafka_scheduler::core::origin::{ORIGIN_HEADER, Origin, RESERVED_PREFIX};
use kafka_scheduler::core::payload::{Packed, Parts, Payload, Stored};
use kafka_scheduler::core::schedule::{self, AcceptanceRules};
use kafka_scheduler::core::when::{Form, is_fired, is_when};

use super::bytes::Bytes;
use super::kept::Kept;

const PLACE: u64 = 0x1234_5678_9abc_def0;
const HERE: TopicPartition = TopicPartition { topic: 0, number: 3 };

/// Checks one record against limits from the input.
pub fn run(data: &[u8]) {
    let mut bytes = Bytes(data);
    let limits = AcceptanceRules {
        grace_s: bytes.pick(&[None, Some(0), Some(60), Some(u64::MAX)]),
        horizon_s: bytes.pick(&[None, Some(0), Some(60), Some(u64::MAX)]),
        record_bytes_max: vec![bytes.pick(&[None, Some(0), Some(200), Some(usize::MAX)])],
    };
    let offset = match bytes.byte() {
        0xff => bytes.long().max(0),
        small => i64::from(small),
    };
    let kept = Kept::decode(&mut bytes);
    let headers = kept.headers();
    let record = kept.at(HERE, offset, &headers);
    // No engine wrote this record, so it may have any header.
    let _ = Origin::of(&record, PLACE);
    parsed(&record, &limits);
    check_origin(&kept, offset);
}

fn parsed(record: &Record<'_>, limits: &AcceptanceRules) {
    let Some(value) = record.value else { return };
    let topics = ["schedules".to_owned(), "more".to_owned()];
    let verbatim = schedule::verbatim(record, value);
    packs(&verbatim);
    let kept = record.headers.iter().filter(|h| h.name != ORIGIN_HEADER);
    assert!(verbatim.headers.iter().eq(kept), "an invalid record keeps all headers but the engine's");
    let Ok(request) = schedule::parse(record, value, record.timestamp, &topics, limits, &ZoneCalendar::default())
    else {
        return;
    };
    let is_old = request.form() == Form::Epoch;
    assert!(request.due().is_none_or(|due| due.at().0 >= 0), "the due time fits in milliseconds");
    assert!(!topics.iter().any(|topic| topic == request.target), "a schedules topic cannot be a target");
    assert!((1..=249).contains(&request.target.len()));
    assert!(record.key.is_some_and(|key| key == request.parts.key && !key.starts_with(RESERVED_PREFIX)));
    assert_eq!(request.parts.value, value);
    let own =
        |h: &&Header<'_>| !h.name.starts_with(b"scheduler-") || [headers::GROUP, headers::BARRIER].contains(&h.name);
    let unknown = |h: &&Header<'_>| {
        let known = [headers::TARGET_TOPIC, headers::TARGET_KEY, headers::TIMESTAMP];
        let is_engines = if is_old { is_when(h.name) } else { is_fired(h.name) };
        !known.contains(&h.name) && !is_engines && ![headers::KEY, headers::TOPIC, ORIGIN_HEADER].contains(&h.name)
    };
    assert!(record.headers.iter().filter(own).all(|h| request.parts.headers.contains(h)));
    assert!(request.parts.headers.iter().eq(record.headers.iter().filter(unknown)), "user headers keep their order");
    packs(&request.parts);
}

fn packs(parts: &Parts<'_>) {
    let packed = Packed::pack(parts, &mut ());
    assert!(packed.has_key(parts.key));
    assert_eq!(packed.hash(7), Packed::hash_of(parts.key, 7));
    let Stored::Memory(written) = packed.stored() else { panic!("the bytes are stored in memory") };
    assert_eq!(packed.memory_bytes(), written.len());
    assert_eq!(&Parts::unpack(written), parts);
}

/// An origin header is valid only in its own partition, and on the record that it was written for.
fn check_origin(kept: &Kept, offset: i64) {
    let mut own = kept.clone();
    own.headers.retain(|(name, _)| name != ORIGIN_HEADER);
    let origin = own.origin(PLACE, offset / 2);
    own.headers.push((ORIGIN_HEADER.to_vec(), Some(origin.encode().to_vec())));
    let read = |kept: &Kept, place| Origin::of(&kept.at(HERE, offset, &kept.headers()), place);
    let expected = (offset / 2 < offset).then_some(origin);
    assert_eq!(read(&own, PLACE), expected);
    assert_eq!(read(&own, PLACE + 1), None, "a record copied to another partition");
    if let Some(byte) = own.value.as_mut().and_then(|value| value.first_mut()) {
        *byte ^= 1;
        assert_eq!(read(&own, PLACE), None, "a record with another value");
        *own.value
            .as_mut()
            .and_then(|value| value.first_mut())
            .expect("the value was changed above, so it has a byte") ^= 1;
    }
    own.headers.push((b"more".to_vec(), None));
    assert_eq!(read(&own, PLACE), None, "a record with one more header");
}
