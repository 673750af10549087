//! The harness itself.

use crate::kit::client::read_all;
use crate::kit::{Case, Scheduled};

#[test]
fn what_is_produced_is_read_back() {
    let Some(case) = Case::new("harness", 3) else { return };
    let sent = Scheduled::new([0xff, 0, 1], "value", 7, "nowhere")
        .header("twice", [0xfe])
        .null_header("null")
        .header("twice", "")
        .timestamp(1_607_918_336_000)
        .partition(2);
    case.produce(&[sent.clone(), Scheduled::cancel("k").partition(1)]);
    let read = read_all(case.bootstrap(), &case.schedules[0]);
    assert_eq!(read.len(), 2);
    let first = read.iter().find(|r| r.partition == 2).expect("a record in partition 2");
    assert_eq!((&first.key, &first.value, &first.headers), (&sent.key, &sent.value, &sent.headers));
    assert_eq!(first.timestamp, 1_607_918_336_000);
    let second = read.iter().find(|r| r.partition == 1).expect("a record in partition 1");
    assert_eq!((second.value.as_ref(), second.headers.len()), (None, 0));
}

#[test]
fn a_transaction_shows_all_its_records_at_once() {
    use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
    let Some(case) = Case::new("harness-transaction", 2) else { return };
    let producer: ThreadedProducer<DefaultProducerContext> = crate::kit::client::config(case.bootstrap())
        .set("transactional.id", &case.group)
        .create()
        .expect("a transactional producer");
    let limit = std::time::Duration::from_secs(30);
    producer.init_transactions(limit).expect("init");
    for commit in [false, true] {
        producer.begin_transaction().expect("begin");
        for partition in 0..2 {
            let value = format!("{commit}");
            let record: BaseRecord<'_, str, String> = BaseRecord::to(&case.target).payload(&value).partition(partition);
            producer.send(record).map_err(|(e, _)| e).expect("sent");
        }
        if commit {
            producer.commit_transaction(limit).expect("commit");
        } else {
            producer.abort_transaction(limit).expect("abort");
        }
    }
    let values: Vec<String> = case.fired(2).iter().map(crate::kit::Record::value_text).collect();
    assert_eq!(values, ["true", "true"]);
}
