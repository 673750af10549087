//! Creating and checking topics, and sending dead letters back.

use super::{on, run};
use crate::kit::Case;
use crate::kit::Scheduled;
use crate::kit::case::PATIENCE;
use crate::kit::client::{create_topic, read_all};
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
    run(&env, &["topics", "check"], b"").failed(4, &["3 things"]);
    let said = run(&env, &["topics", "create", "--partitions", "2", "--replication-factor", "1"], b"").ok();
    assert!(said.contains("cleanup.policy=compact") && said.contains(&dead), "{said}");
    let checked = eventually("the topics are seen", PATIENCE, || {
        let ran = run(&env, &["topics", "check"], b"");
        (ran.code == 0).then_some(ran.out)
    });
    assert_eq!(checked.matches(": good").count(), 3, "{checked}");
    assert!(run(&env, &["topics", "create"], b"").ok().contains("is there already"));
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
    ran.failed(4, &["to be put right"]);
}

#[test]
fn dead_letters_go_back_once_and_not_over_newer_words() {
    let Some(case) = Case::new("cli-redrive", 2) else { return };
    let dead = format!("{}-dead", case.group);
    create_topic(case.bootstrap(), &dead, 2, &[]);
    let mut engine = case.engine_with(&[("DEAD_LETTER_TOPIC", &dead)]);
    let late = format!("{}-late", case.target);
    let letter = |key: &str| case.due_in(key, key, 0).target_key(key);
    let to = |mut schedule: Scheduled| {
        schedule.headers[1].1 = Some(late.clone().into_bytes());
        schedule
    };
    // In a partition of their own choice, where no hash would look.
    case.produce(&[
        to(letter("back").header("h", "1")).partition(0),
        to(letter("other")).partition(1),
        to(letter("said-anew")).partition(1),
        to(letter("taken-back")).partition(0),
    ]);
    eventually("they are dead letters", PATIENCE, || (read_all(case.bootstrap(), &dead).len() == 4).then_some(()));
    // One that has just seen the target missing gives it up again for a while.
    engine.stop();
    case.produce(&[case.due_in("said-anew", "new", 3_600).partition(1), Scheduled::cancel("taken-back").partition(0)]);
    create_topic(case.bootstrap(), &late, 1, &[]);
    let redrive = |args: &[&str]| on(&case, &[&["redrive", "--from", &dead], args].concat()).ok();
    let dry = redrive(&["--dry-run"]);
    assert!(
        dry.contains("would redrive back (unknown-target)") && dry.contains("2 dead letters would go back, 2"),
        "{dry}"
    );
    assert!(redrive(&["--key", "other"]).contains("1 dead letters went back"));
    let said = redrive(&[]);
    assert!(said.contains("redriven back") && said.contains("1 dead letters went back, 3 were left"), "{said}");
    for left in ["other", "said-anew", "taken-back"] {
        assert!(said.contains(&format!("left {left}")), "{said}");
    }
    let _engine = case.engine_with(&[("DEAD_LETTER_TOPIC", &dead)]);
    let fired = eventually("both fire", PATIENCE, || {
        let fired = read_all(case.bootstrap(), &late);
        (fired.len() >= 2).then_some(fired)
    });
    let back = fired.iter().find(|record| record.key_text() == "back").expect("it is back");
    assert_eq!(back.value_text(), "back");
    let names: Vec<&str> = back.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        ["h", "scheduler-timestamp", "scheduler-key", "scheduler-topic"],
        "nothing of the letter is left"
    );
    assert!(redrive(&[]).contains("0 dead letters went back, 0 were left"), "an earlier run has looked at them");
    assert!(redrive(&["--all"]).contains("0 dead letters went back, 4 were left"), "and none goes back twice");
    assert_eq!(read_all(case.bootstrap(), &late).len(), 2);
}
