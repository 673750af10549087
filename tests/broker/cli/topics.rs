//! Creating and checking topics.

use super::run;
use crate::kit::Case;
use crate::kit::case::TIMEOUT;
use crate::kit::client::create_topic;
use crate::kit::wait::eventually;

#[test]
fn topics_are_created_well_and_bad_ones_are_found() {
    let Some(case) = Case::new("cli-topics", 1) else { return };
    let new = |name: &str| format!("{}-{name}", case.group);
    let (schedules, history, dead) = (new("schedules"), new("history"), new("dead"));
    let env = [
        ("BOOTSTRAP_SERVERS", case.bootstrap()),
        ("SCHEDULES_TOPICS", &schedules),
        ("HISTORY_TOPIC", &history),
        ("DEAD_LETTER_TOPIC", &dead),
    ];
    run(&env, &["topics", "check"], b"").failed(4, &["3 problems"]);
    let said = run(&env, &["topics", "create", "--partitions", "2", "--replication-factor", "1"], b"").ok();
    assert!(said.contains("cleanup.policy=compact") && said.contains(&dead), "{said}");
    let checked = eventually("the topics are seen", TIMEOUT, || {
        let ran = run(&env, &["topics", "check"], b"");
        (ran.code == 0).then_some(ran.out)
    });
    assert_eq!(checked.matches(": good").count(), 3, "{checked}");
    assert!(run(&env, &["topics", "create"], b"").ok().contains("already exists"));
    let bad = new("bad");
    create_topic(
        case.bootstrap(),
        &bad,
        1,
        &[("cleanup.policy", "compact,delete"), ("retention.ms", "1000"), ("delete.retention.ms", "0")],
    );
    let env = [env[0], ("SCHEDULES_TOPICS", &bad), env[2]];
    let ran = run(&env, &["topics", "check"], b"");
    for setting in ["retention.ms=1000", "delete.retention.ms=0", "min.compaction.lag.ms=0"] {
        assert!(ran.out.contains(&format!("{bad}: {setting}")), "{setting}: {}", ran.out);
    }
    ran.failed(4, &["problems found"]);
}

#[test]
fn errors_of_the_brokers_are_quoted() {
    let Some(case) = Case::new("cli-topics-refused", 1) else { return };
    let new = format!("{}-new", case.group);
    let env = [("BOOTSTRAP_SERVERS", case.bootstrap()), ("SCHEDULES_TOPICS", new.as_str())];
    let ran = run(&env, &["topics", "create", "--replication-factor", "100"], b"");
    assert!(!ran.err.contains("mini"), "{}", ran.err);
    ran.failed(1, &[&new, "could not be created", "InvalidReplicationFactor"]);
}
