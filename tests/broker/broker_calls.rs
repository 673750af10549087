//! What a real broker answers to single calls of the engine.

use std::time::{Duration, Instant};

use kafka_scheduler::config::Config;
use kafka_scheduler::internal::BrokerCalls;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::kit::broker::broker;
use crate::kit::client::{self, create_topic, delete_records_before, delete_topic};
use crate::kit::process::free_port;
use crate::kit::wait::eventually;
use crate::kit::{Case, Scheduled};

const LIMIT: Duration = Duration::from_secs(20);

fn calls(bootstrap: &str) -> BrokerCalls {
    BrokerCalls::new(&Config::builder().bootstrap_servers(bootstrap).build().expect("legal settings"))
}

/// Produces this many records to the schedules topic, `k0` and so on.
fn produce(case: &Case, count: usize) {
    let records: Vec<Scheduled> = (0..count).map(|n| case.due_in(format!("k{n}"), "v", 3_600)).collect();
    case.produce(&records);
}

#[test]
fn a_position_with_a_leader_epoch_is_validated() {
    let Some(case) = Case::new("seek", 1) else { return };
    produce(&case, 10);
    let calls = calls(case.bootstrap());
    let reader = || calls.reader(&case.schedules[0], 0).expect("a reader");
    let first = reader();
    let records = first.records(10, LIMIT).expect("records");
    let epoch = records.first().and_then(|(_, epoch)| *epoch).expect("a leader epoch");
    let expected = |from: i64| (from..10).map(|offset| (offset, Some(epoch))).collect::<Vec<_>>();
    assert_eq!(records, expected(0));
    for (offset, leader_epoch) in [(6, Some(epoch)), (2, Some(epoch)), (7, None)] {
        first.seek(offset, leader_epoch).expect("the partition is assigned");
        let count = usize::try_from(10 - offset).expect("some");
        assert_eq!(first.records(count, LIMIT).expect("records"), expected(offset), "{offset} {leader_epoch:?}");
    }
    assert_eq!(first.records(1, Duration::from_secs(1)).expect("no error"), [], "nothing is read twice");

    // Another epoch than the log has, and an offset that this epoch has not reached: the log was truncated.
    for (offset, leader_epoch) in [(5, epoch + 3), (30, epoch)] {
        let reader = reader();
        assert_eq!(reader.records(10, LIMIT).expect("records").len(), 10);
        reader.seek(offset, Some(leader_epoch)).expect("the partition is assigned");
        let said = reader.records(1, LIMIT).expect_err("the position is not valid");
        assert!(said.starts_with("AutoOffsetReset: ") && said.contains("Partition log truncation detected"), "{said}");
    }
    // Without one, librdkafka knows of no truncation.
    let reader = reader();
    assert_eq!(reader.records(10, LIMIT).expect("records").len(), 10);
    reader.seek(30, None).expect("the partition is assigned");
    let said = reader.records(1, LIMIT).expect_err("there is no such offset");
    assert!(said.starts_with("AutoOffsetReset: ") && said.contains("Offset out of range"), "{said}");
}

#[test]
fn a_seek_right_after_the_assignment_is_not_lost() {
    let Some(case) = Case::new("seek-early", 1) else { return };
    produce(&case, 3);
    let calls = calls(case.bootstrap());
    for _ in 0..10 {
        let reader = calls.reader(&case.schedules[0], 0).expect("a reader");
        let sought = reader.seek(1, Some(0));
        let expected: &[(i64, Option<i32>)] = &[(0, Some(0)), (1, Some(0)), (2, Some(0))];
        // If the assignment has not started, the seek says so.
        let expected = if sought.is_ok() { &expected[1..] } else { expected };
        assert_eq!(reader.records(expected.len(), LIMIT).expect("records"), expected, "{sought:?}");
    }
}

#[test]
fn a_recreated_topic_has_another_id() {
    let Some(case) = Case::new("topic-id", 1) else { return };
    let (calls, topic) = (calls(case.bootstrap()), case.schedules[0].as_str());
    let id = calls.topic_id(topic).expect("it is described").expect("it has an id");
    if let Some(said) = case.broker.tool("org.apache.kafka.tools.TopicCommand", &["--describe", "--topic", topic]) {
        assert!(said.contains(&format!("TopicId: {id}")), "{id}: {said}");
    }
    assert_eq!(calls.topic_id(topic), Ok(Some(id.clone())));
    delete_topic(case.bootstrap(), topic);
    assert!(calls.topic_id(topic).is_err(), "it is gone");
    create_topic(case.bootstrap(), topic, 1, &[]);
    let recreated = calls.topic_id(topic).expect("it is described").expect("it has an id");
    assert_ne!(recreated, id);
}

#[test]
fn only_the_topics_own_settings_give_a_limit() {
    let Some(case) = Case::new("cleaning", 1) else { return };
    let calls = calls(case.bootstrap());
    let (retention, lag) = (("delete.retention.ms", "120000"), ("min.compaction.lag.ms", "50000"));
    for (number, (settings, expected)) in [
        (&[retention, lag][..], [Some(120_000), Some(50_000), Some(50_000)]),
        (&[retention, ("min.compaction.lag.ms", "0")], [Some(120_000), Some(0), Some(60_000)]),
        (&[retention], [Some(120_000), None, None]),
        (&[lag], [None, Some(50_000), None]),
        (&[], [None, None, None]),
    ]
    .into_iter()
    .enumerate()
    {
        let topic = format!("{}-{number}", case.schedules[0]);
        create_topic(case.bootstrap(), &topic, 1, settings);
        assert_eq!(calls.cleaning_ms(&topic), Ok(expected), "{settings:?}");
    }
    assert_eq!(calls.cleaning_ms("no-such-topic"), Ok([None, None, None]));
}

#[test]
fn a_key_is_found_at_its_own_offset_alone() {
    let Some(broker) = broker() else { return };
    // Records are deleted only where the policy allows it.
    let case = Case::configured(broker, "key-at", 1, 1, &[("cleanup.policy", "compact,delete")]);
    let (calls, topic) = (calls(case.bootstrap()), case.schedules[0].as_str());
    let key_at = |offset: i64| {
        let begun = Instant::now();
        let key = calls.key_at(topic, 0, offset, LIMIT).expect("an answer");
        assert!(begun.elapsed() < Duration::from_secs(10), "an answer took {:?}", begun.elapsed());
        key.map(|key| String::from_utf8(key).expect("UTF-8"))
    };
    produce(&case, 5);
    assert_eq!(key_at(2).as_deref(), Some("k2"));
    assert_eq!(key_at(4).as_deref(), Some("k4"));
    for missing in [-1, 5, 6, 1_000_000] {
        assert_eq!(key_at(missing), None, "{missing}");
    }

    // The marker of a transaction takes an offset, first as the last one of the log.
    let producer: BaseProducer =
        client::config(case.bootstrap()).set("transactional.id", &case.group).create().expect("a producer");
    producer.init_transactions(LIMIT).expect("a coordinator");
    producer.begin_transaction().expect("a transaction");
    producer.send(BaseRecord::to(topic).partition(0).key("k5").payload("v")).expect("space in the queue");
    producer.commit_transaction(LIMIT).expect("a commit");
    eventually("the marker is written", LIMIT, || (client::end(case.bootstrap(), topic, 0) == 7).then_some(()));
    assert_eq!((key_at(5).as_deref(), key_at(6)), (Some("k5"), None));
    produce(&case, 1);
    assert_eq!((key_at(6), key_at(7).as_deref()), (None, Some("k0")));

    delete_records_before(case.bootstrap(), topic, 0, 3);
    assert_eq!((key_at(2), key_at(3).as_deref()), (None, Some("k3")));
}

#[test]
fn a_key_that_cannot_be_looked_up_is_an_error() {
    let Some(case) = Case::new("key-at-error", 1) else { return };
    let missing = calls(case.bootstrap()).key_at("no-such-topic", 0, 0, Duration::from_secs(5));
    assert!(missing.is_err(), "{missing:?}");
    let begun = Instant::now();
    let nowhere = calls(&format!("127.0.0.1:{}", free_port()));
    let unanswered = nowhere.key_at(&case.schedules[0], 0, 0, Duration::from_secs(3));
    assert!(unanswered.is_err(), "{unanswered:?}");
    assert!(begun.elapsed() < Duration::from_secs(8), "it took {:?}", begun.elapsed());
}
