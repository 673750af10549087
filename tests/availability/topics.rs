//! Topics that change under a running engine.

use std::time::Duration;

use crate::kit::Case;
use crate::kit::client;
use crate::kit::process::configuration;
use crate::kit::wait::eventually;

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn partitions_that_are_added_are_taken_up() {
    let Some(case) = Case::new("grown", 1) else { return };
    let mut engine = case.engine_with(&[("CONFIGURATION_FILE", &fast_metadata())]);
    case.settled();
    client::add_partitions(case.bootstrap(), &case.schedules[0], 3);
    let schedules: Vec<_> = (0..3).map(|p| case.due_in(format!("k{p}"), "v", 1).partition(p)).collect();
    // The case's own producer does not know the new partitions yet.
    let producer = client::Producer::new(case.bootstrap(), &[]);
    schedules.iter().for_each(|schedule| producer.send(&case.schedules[0], schedule));
    producer.flush();
    let mut reader = case.target_reader();
    reader.wait("all three fire", PATIENCE, |r| r.iter().filter(|r| r.value_text() == "v").count() == 3);
    engine.stop();
}

#[test]
fn a_topic_that_is_deleted_and_made_anew_is_new() {
    let Some(case) = Case::new("anew", 1) else { return };
    let mut engine = case.engine_with(&[("CONFIGURATION_FILE", &fast_metadata())]);
    case.settled();
    case.produce(&[case.due_in("before", "v", 3_600)]);
    eventually("it is pending", PATIENCE, || (engine.get("/schedules")?.contains("\"before\"")).then_some(()));
    client::delete_topic(case.bootstrap(), &case.schedules[0]);
    let settings = [("cleanup.policy", "compact"), ("min.compaction.lag.ms", "86400000")];
    client::create_topic(case.bootstrap(), &case.schedules[0], 1, &settings);
    case.produce(&[case.due_in("after", "v", 1)]);
    let mut reader = case.target_reader();
    reader.wait("the new topic's schedule fires", PATIENCE, |r| r.iter().any(|r| r.value_text() == "v"));
    eventually("what the old topic held is gone", PATIENCE, || {
        (!engine.get("/schedules")?.contains("\"before\"")).then_some(())
    });
    assert_eq!(case.settled().len(), 1, "once");
    engine.stop();
}

/// So that the tests need not wait for the default of five minutes until a client looks at its topics again.
fn fast_metadata() -> String {
    configuration("metadata", "kafka.common.configuration:\n  topic.metadata.refresh.interval.ms: 1000\n")
}
