//! Topics that are missing, or change while the engine runs.

use std::process::Command;
use std::time::Duration;

use crate::kit::Case;
use crate::kit::client;
use crate::kit::cluster::Cluster;
use crate::kit::process::configuration;
use crate::kit::wait::{eventually, now_s};
use crate::ledger::{Ledger, alone};

const TIMEOUT: Duration = Duration::from_secs(60);

#[test]
fn partitions_that_are_added_are_taken_up() {
    let _alone = alone();
    let Some(mut case) = Case::new("grown", 1) else { return };
    let mut engine = case.engine_with(&[("CONFIGURATION_FILE", &fast_metadata())]);
    case.settled();
    case.grow(3);
    let mut ledger = Ledger::new(&case);
    (0..300).for_each(|n| ledger.queue(format!("k{n}"), now_s() + 1 + n % 5, Some(n as i32 % 3)));
    case.flush();
    ledger.settle();
    engine.stop();
}

#[test]
fn a_recreated_topic_with_more_records_is_read_from_its_start() {
    let _alone = alone();
    let Some(case) = Case::new("recreated-long", 1) else { return };
    // By default the consumer refreshes its metadata less often.
    let mut engine = case.engine();
    case.settled();
    client::delete_topic(case.bootstrap(), &case.schedules[0]);
    let settings = [("cleanup.policy", "compact"), ("min.compaction.lag.ms", "86400000")];
    client::create_topic(case.bootstrap(), &case.schedules[0], 1, &settings);
    let mut ledger = Ledger::new(&case);
    let due = now_s() + 1;
    ledger.schedule(0..500, |n| due + n as i64 % 3);
    ledger.settle();
    engine.stop();
}

#[test]
fn a_recreated_topic_is_a_new_one() {
    let _alone = alone();
    let Some(case) = Case::new("recreated", 1) else { return };
    let mut engine = case.engine_with(&[("CONFIGURATION_FILE", &fast_metadata())]);
    case.settled();
    case.produce(&[case.due_in("before", "v", 3_600)]);
    eventually("the schedule is pending", TIMEOUT, || (engine.get("/schedules")?.contains("\"before\"")).then_some(()));
    client::delete_topic(case.bootstrap(), &case.schedules[0]);
    let settings = [("cleanup.policy", "compact"), ("min.compaction.lag.ms", "86400000")];
    client::create_topic(case.bootstrap(), &case.schedules[0], 1, &settings);
    let mut ledger = Ledger::new(&case);
    let due = now_s() + 1;
    ledger.schedule(0..1, |_| due);
    ledger.settle();
    ledger.schedule(1..100, |n| due + n as i64 % 3);
    ledger.settle();
    eventually("what the old topic held is gone", TIMEOUT, || {
        (!engine.get("/schedules")?.contains("\"before\"")).then_some(())
    });
    engine.stop();
}

#[test]
fn a_missing_topic_is_named_once_and_waited_for() {
    let _alone = alone();
    let Some(case) = Case::new("missing", 1) else { return };
    client::delete_topic(case.bootstrap(), &case.schedules[0]);
    let mut engine = case.engine_with(&[("CONFIGURATION_FILE", &fast_metadata())]);
    let said = format!("topic \"{}\" does not exist: create it", case.schedules[0]);
    let count = |text: &str| text.matches(&said).count();
    eventually("the log names the topic", TIMEOUT, || (count(&engine.output()) > 0).then_some(()));
    let answer = engine.probe("/readiness").expect("an answer");
    assert_eq!(answer.status, 503);
    assert!(answer.json()["reason"].as_str().expect("a reason").contains(&said), "{}", answer.text());
    let settings = [("cleanup.policy", "compact"), ("min.compaction.lag.ms", "86400000")];
    client::create_topic(case.bootstrap(), &case.schedules[0], 1, &settings);
    let mut ledger = Ledger::new(&case);
    let due = now_s() + 1;
    ledger.schedule(0..10, |_| due);
    ledger.settle();
    engine.ready();
    assert_eq!(count(&engine.output()), 1, "once: {}", engine.output());
    engine.stop();
}

/// Runs `topics check`. Returns its exit code and output.
fn check(env: &[(&str, &str)]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kafka-scheduler"));
    let output = command.args(["topics", "check"]).envs(env.iter().copied()).output().expect("it runs");
    (output.status.code().expect("an exit code"), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn topics_with_one_replica_are_found_on_three_brokers() {
    let _alone = alone();
    let Some(cluster) = Cluster::configured(0, "default.replication.factor=1\nmin.insync.replicas=1\n") else { return };
    let case = Case::on(cluster.broker, "replicas", 1, 1);
    for (replicas, code) in [(None, 4), (Some("3"), 0)] {
        let name = |what: &str| format!("{}-{what}-{}", case.group, replicas.unwrap_or("default"));
        let (schedules, history) = (name("schedules"), name("history"));
        let mut env =
            vec![("CREATE_TOPICS", "true"), ("SCHEDULES_TOPICS", schedules.as_str()), ("HISTORY_TOPIC", &history)];
        env.extend(replicas.map(|replicas| ("CREATE_TOPICS_REPLICATION_FACTOR", replicas)));
        let mut engine = case.engine_with(&env);
        engine.ready();
        let output = engine.output();
        let got = replicas.unwrap_or("1");
        let created = output.lines().filter(|line| line.contains("the topic has been created"));
        assert_eq!(created.filter(|line| line.contains(&format!("replicas={got} "))).count(), 2, "{output}");
        let warning = "replication.factor=1: nothing fires while its broker is down";
        assert_eq!(output.matches(warning).count(), if code == 0 { 0 } else { 2 }, "{output}");
        assert_eq!(output.contains(" WARN "), code != 0, "{output}");
        engine.stop();
        env.push(("BOOTSTRAP_SERVERS", case.bootstrap()));
        let (ended, said) = check(&env);
        assert_eq!((ended, said.matches(warning).count()), (code, if code == 0 { 0 } else { 2 }), "{said}");
    }
    let env = [("BOOTSTRAP_SERVERS", case.bootstrap()), ("SCHEDULES_TOPICS", &case.schedules[0])];
    let (ended, said) = check(&env);
    assert!(said.contains("min.insync.replicas=1: a record counts as written"), "three replicas, one in sync: {said}");
    assert_eq!(ended, 4, "{said}");
}

#[test]
fn schedules_deleted_from_the_log_do_not_fire() {
    let _alone = alone();
    let Some(case) = Case::new("deleted-records", 1) else { return };
    let mut engine = case.engine();
    case.settled();
    let ten: Vec<_> = (0..10).map(|n| case.due_in(format!("gone-{n}"), "gone", 40)).collect();
    case.produce(&ten);
    eventually("they are pending", TIMEOUT, || {
        (engine.get("/schedules")?.matches("\"gone-").count() == 10).then_some(())
    });
    let policy = |policy: &str| {
        let add = format!("cleanup.policy={policy}");
        let entity = ["--entity-type", "topics", "--entity-name", case.schedules[0].as_str()];
        case.broker.tool("kafka.admin.ConfigCommand", &[&["--alter", "--add-config", &add][..], &entity].concat())
    };
    if policy("[compact,delete]").is_none() {
        return;
    }
    client::delete_records_before(
        case.bootstrap(),
        &case.schedules[0],
        0,
        client::end(case.bootstrap(), &case.schedules[0], 0),
    );
    eventually("the engine has noticed", Duration::from_secs(15), || {
        (!engine.get("/schedules")?.contains("\"gone-")).then_some(())
    });
    policy("compact");
    case.produce(&[case.due_in("stays", "stays", 41)]);
    let mut reader = case.target_reader();
    let fired = |records: &[crate::kit::Record], value: &str| records.iter().any(|r| r.value_text() == value);
    reader.wait("what was produced since fires", TIMEOUT, |records| fired(records, "stays"));
    assert!(!fired(&reader.records, "gone"), "deleted schedules do not fire after a restart");
    engine.stop();
}

/// Shortens the metadata refresh interval, whose default of five minutes is too long for a test.
fn fast_metadata() -> String {
    configuration(
        "metadata",
        "kafka.common.configuration:\n  topic.metadata.refresh.interval.ms: 1000\n\
         kafka.producer.configuration:\n  transaction.timeout.ms: 60000\n",
    )
}
