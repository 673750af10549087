//! The engine's own topics: created if configured, and checked at the start.

use crate::cli;
use crate::kit::Case;
use crate::kit::case::TIMEOUT;
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
    eventually("the topics are there", TIMEOUT, || {
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
        for wanted in [
            "cleanup.policy=compact ",
            "min.compaction.lag.ms=86400000",
            "delete.retention.ms=172800000",
            "segment.ms=86400000",
            "unclean.leader.election.enable=false",
            "message.timestamp.after.max.ms=3600000",
        ] {
            assert!(settings.contains(wanted), "{wanted} is not in {settings}");
        }
    }
    let output = engine.output();
    let said = output.lines().find(|line| line.contains("the topic has been created") && line.contains(&schedules));
    let said = said.unwrap_or_else(|| panic!("no line says what was created: {output}"));
    for wanted in ["partitions=1", "replicas=1", "min.compaction.lag.ms=86400000", "min.insync.replicas=1"] {
        assert!(said.contains(wanted), "{wanted} is not in {said}");
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
        "cleanup.policy=delete: schedules that have fired are never removed",
        "retention.ms=604800000: the broker deletes schedules that are still pending",
        "min.compaction.lag.ms=0: an update at the moment of firing can be compacted away",
        "delete.retention.ms=1: a tombstone can be removed before an instance that was down has read it",
    ] {
        eventually(wanted, TIMEOUT, || engine.output().contains(wanted).then_some(()));
    }
    engine.stop();
}

#[test]
fn a_topic_with_only_broker_defaults_fails_the_check() {
    let Some(case) = Case::with_defaults("default-topic", 1) else { return };
    let plain = format!("{}-plain", case.group);
    client::create_topic(case.bootstrap(), &plain, 1, &[]);
    let env = [
        ("BOOTSTRAP_SERVERS", case.bootstrap()),
        ("SCHEDULES_TOPICS", plain.as_str()),
        ("HISTORY_TOPIC", case.history.as_str()),
    ];
    let ran = cli::run(&env, &["topics", "check"], b"");
    let advice =
        ["segment.ms=604800000: compaction skips", "delete.retention.ms=86400000: this is one broker's default"];
    let warnings =
        ["cleanup.policy=delete: schedules", "retention.ms=604800000: the", "min.compaction.lag.ms=0: an update"];
    for wanted in advice.iter().chain(&warnings) {
        assert!(ran.out.contains(&format!("{plain}: {wanted}")), "{wanted}: {}", ran.out);
    }
    assert!(ran.out.contains(&format!("{}: good", case.history)), "{}", ran.out);
    ran.failed(4, &["5 problems found"]);
    let mut engine = case.engine_with(&[("SCHEDULES_TOPICS", &plain)]);
    engine.ready();
    let output = engine.output();
    assert!(warnings.iter().all(|wanted| output.contains(wanted)), "{output}");
    assert!(
        !advice.iter().any(|wanted| output.contains(wanted)),
        "the engine warns only of settings that can lose schedules: {output}"
    );
    engine.stop();
}

#[test]
fn a_created_topic_passes_the_check_with_broker_defaults() {
    let Some(case) = Case::with_defaults("created-defaults", 1) else { return };
    let name = |what: &str| format!("{}-{what}", case.group);
    let (schedules, history, dead) = (name("new-schedules"), name("new-history"), name("new-dead"));
    let env = [
        ("BOOTSTRAP_SERVERS", case.bootstrap()),
        ("SCHEDULES_TOPICS", &schedules),
        ("HISTORY_TOPIC", &history),
        ("DEAD_LETTER_TOPIC", &dead),
    ];
    let said = cli::run(&env, &["topics", "create"], b"").ok();
    assert!(said.contains(&format!("{schedules} created: partitions=1, replicas=1 (cleanup.policy=compact")), "{said}");
    let checked = cli::run(&env, &["topics", "check"], b"").ok();
    assert_eq!(checked.matches(": good").count(), 3, "{checked}");
}

#[test]
fn a_record_too_large_for_the_history_is_invalid_on_arrival() {
    let Some(case) = Case::new("small-history", 1) else { return };
    let history = format!("{}-small", case.history);
    client::create_topic(case.bootstrap(), &history, 1, &[("max.message.bytes", "2000")]);
    let mut engine = case.engine_with(&[("HISTORY_TOPIC", &history)]);
    case.settled();
    case.produce(&[case.due_in("large", vec![7; 3_000], 3_600), case.due_in("fits", "v", 1)]);
    eventually("the record is rejected long before it is due", TIMEOUT, || {
        (engine.refused("too-large")? == 1).then_some(())
    });
    assert_eq!(case.fired(1 + 1).len(), 1 + 1, "the probe and the record that fits fire");
    engine.stop();
}
