//! `max.message.bytes` of a topic changes while the engine runs.

use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;

use crate::kit::case::TIMEOUT;
use crate::kit::client;
use crate::kit::wait::now_s;
use crate::kit::{Case, Scheduled};

const MANY: usize = 200;

fn set_limit(case: &Case, bytes: &str) {
    let admin: AdminClient<DefaultClientContext> = client::config(case.bootstrap()).create().expect("an admin client");
    let change = AlterConfig::new(ResourceSpecifier::Topic(&case.target))
        .set("max.message.bytes", bytes)
        .set("message.timestamp.type", "LogAppendTime");
    let answers = pollster::block_on(admin.alter_configs([&change], &AdminOptions::new())).expect("the broker answers");
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
}

fn sized(case: &Case, key: &str, bytes: usize, due: i64) -> Scheduled {
    Scheduled::new(key, vec![b'v'; bytes], due, &case.target).target_key(key)
}

#[test]
fn a_changed_size_limit_affects_only_records_beyond_it() {
    let Some(case) = Case::new("limits", 1) else { return };
    let dead = format!("{}-dead", case.target);
    client::create_topic(case.bootstrap(), &dead, 1, &[]);
    let mut engine = case.engine_with(&[("DEAD_LETTER_TOPIC", &dead)]);
    // The engine uses the target, and so knows its limit.
    case.settled();
    set_limit(&case, "2000");
    let due = now_s() + 2;
    for n in 0..MANY {
        case.queue(&sized(&case, &format!("small-{n}"), 500, due));
    }
    case.queue(&sized(&case, "large", 5_000, due));
    case.flush();
    let mut reader = case.target_reader();
    let smalls = |records: &[client::Record]| records.iter().filter(|r| r.key_text().starts_with("small-")).count();
    reader.wait("the small ones fire", TIMEOUT, |records| smalls(records) == MANY);
    let mut dead_letters = client::Reader::new(case.bootstrap(), &dead);
    dead_letters.wait("the large one is a dead letter", TIMEOUT, |records| !records.is_empty());

    let aborted = engine.metric("kafka_scheduler_transaction_duration_seconds_count{outcome=\"aborted\"}");
    assert!(aborted >= Some(1), "batches that were formed by the old limit were aborted and retried: {aborted:?}");
    set_limit(&case, "100000");
    // Longer than the interval at which the engine reads the limit.
    let due = now_s() + 11;
    case.produce(&[sized(&case, "large-2", 5_000, due)]);
    reader.wait("the large one fires", TIMEOUT, |records| records.iter().any(|r| r.key_text() == "large-2"));
    engine.stop();
    let dead_letters = client::read_all(case.bootstrap(), &dead);
    let keys: Vec<String> = dead_letters.iter().map(client::Record::key_text).collect();
    assert_eq!(keys, ["large"], "only the large record becomes a dead letter");
}
