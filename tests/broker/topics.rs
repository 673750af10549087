//! The engine's own topics: made where that is wanted, and looked at when it starts.

use crate::kit::Case;
use crate::kit::case::PATIENCE;
use crate::kit::client;
use crate::kit::wait::eventually;

#[test]
fn missing_topics_are_created_with_settings_that_lose_nothing() {
    let Some(case) = Case::new("created", 1) else { return };
    let name = |what: &str| format!("{}-{what}", case.group);
    let (schedules, history, dead) = (name("new-schedules"), name("new-history"), name("new-dead"));
    let mut engine = case.engine_with(&[
        ("CREATE_TOPICS", "true"),
        ("SCHEDULES_TOPICS", &schedules),
        ("HISTORY_TOPIC", &history),
        ("DEAD_LETTER_TOPIC", &dead),
    ]);
    let record = case.due_in("k", "v", 0);
    eventually("the topics are there", PATIENCE, || {
        let all = [&schedules, &history, &dead];
        all.iter().all(|topic| client::partitions(case.bootstrap(), topic) > 0).then_some(())
    });
    let producer = client::Producer::new(case.bootstrap(), &[]);
    producer.send(&schedules, &record);
    producer.flush();
    case.fired(1);
    let settings = |topic: &str| {
        let args = ["--describe", "--entity-type", "topics", "--entity-name", topic, "--all"];
        case.broker.tool("kafka.admin.ConfigCommand", &args)
    };
    if let Some(settings) = settings(&schedules) {
        for wanted in ["cleanup.policy=compact ", "min.compaction.lag.ms=86400000", "delete.retention.ms=172800000"] {
            assert!(settings.contains(wanted), "{wanted} is not in {settings}");
        }
    }
    assert!(!engine.output().contains("WARN"), "{}", engine.output());
    engine.stop();
}

#[test]
fn settings_that_can_lose_schedules_are_warned_about() {
    let Some(case) = Case::new("risky", 1) else { return };
    let risky = format!("{}-risky", case.group);
    client::create_topic(case.bootstrap(), &risky, 1, &[("cleanup.policy", "delete"), ("delete.retention.ms", "1")]);
    let mut engine = case.engine_with(&[("SCHEDULES_TOPICS", &risky)]);
    for wanted in [
        "cleanup.policy=delete: what has fired is never removed",
        "retention.ms=604800000: the broker deletes schedules that are still pending",
        "min.compaction.lag.ms=0: an update made in the moment of firing can be compacted away",
        "delete.retention.ms=1: a tombstone can vanish before an instance that was away has read it",
    ] {
        eventually(wanted, PATIENCE, || engine.output().contains(wanted).then_some(()));
    }
    engine.stop();
}

#[test]
fn a_record_that_fits_the_schedules_topic_but_not_the_history_is_refused_on_arrival() {
    let Some(case) = Case::new("small-history", 1) else { return };
    let history = format!("{}-small", case.history);
    client::create_topic(case.bootstrap(), &history, 1, &[("max.message.bytes", "2000")]);
    let mut engine = case.engine_with(&[("HISTORY_TOPIC", &history)]);
    case.settled();
    case.produce(&[case.due_in("large", vec![7; 3_000], 3_600), case.due_in("fits", "v", 1)]);
    eventually("it is refused long before it is due", PATIENCE, || (engine.refused("too-large")? == 1).then_some(()));
    assert_eq!(case.fired(1 + 1).len(), 1 + 1, "the probe and the one that fits");
    engine.stop();
}
