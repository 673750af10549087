//! Redriving dead letters.

use super::moving::measured;
use super::{on, on_env};
use crate::kit::case::TIMEOUT;
use crate::kit::client::{create_topic, delete_records_before, read_all};
use crate::kit::wait::eventually;
use crate::kit::{Case, Scheduled};

#[test]
fn dead_letters_are_redriven_once_and_not_over_newer_records() {
    let Some(case) = Case::new("cli-redrive", 2) else { return };
    let dead = format!("{}-dead", case.group);
    create_topic(case.bootstrap(), &dead, 2, &[]);
    let mut engine = case.engine_with(&[("DEAD_LETTER_TOPIC", &dead)]);
    let late = format!("{}-late", case.target);
    let dead_letter = |key: &str| case.due_in(key, key, 0).target_key(key);
    let to = |mut schedule: Scheduled| {
        schedule.headers[1].1 = Some(late.clone().into_bytes());
        schedule
    };
    // In a partition that no hash selects.
    case.produce(&[
        to(dead_letter("back").header("h", "1")).partition(0),
        to(dead_letter("other")).partition(1),
        to(dead_letter("replaced")).partition(1),
        to(dead_letter("cancelled")).partition(0),
    ]);
    eventually("they are dead letters", TIMEOUT, || (read_all(case.bootstrap(), &dead).len() == 4).then_some(()));
    // The engine retries a missing target only after a while.
    engine.stop();
    case.produce(&[case.due_in("replaced", "new", 3_600).partition(1), Scheduled::cancel("cancelled").partition(0)]);
    create_topic(case.bootstrap(), &late, 1, &[]);
    let redrive = |args: &[&str]| on(&case, &[&["redrive", "--from", &dead], args].concat()).ok();
    let dry = redrive(&["--dry-run"]);
    assert!(
        dry.contains("would redrive back (unknown-target)") && dry.contains("2 dead letters would be redriven, 2"),
        "{dry}"
    );
    assert!(redrive(&["--key", "other"]).contains("1 dead letters redriven"));
    let said = redrive(&[]);
    assert!(said.contains("redriven back") && said.contains("1 dead letters redriven, 3 skipped"), "{said}");
    for skipped in ["other", "replaced", "cancelled"] {
        assert!(said.contains(&format!("skipped {skipped}")), "{said}");
    }
    let _engine = case.engine_with(&[("DEAD_LETTER_TOPIC", &dead)]);
    let fired = eventually("both fire", TIMEOUT, || {
        let fired = read_all(case.bootstrap(), &late);
        (fired.len() >= 2).then_some(fired)
    });
    let back = fired.iter().find(|record| record.key_text() == "back").expect("the redriven schedule fired");
    assert_eq!(back.value_text(), "back");
    let names: Vec<&str> = back.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        ["h", "scheduler-timestamp", "scheduler-key", "scheduler-topic"],
        "the triggered record has no headers of the dead letter"
    );
    assert!(redrive(&[]).contains("0 dead letters redriven, 0 skipped"), "an earlier run has read these dead letters");
    assert!(redrive(&["--all"]).contains("0 dead letters redriven, 4 skipped"), "no dead letter is redriven twice");
    assert_eq!(read_all(case.bootstrap(), &late).len(), 2);
}

#[test]
fn a_dead_letter_that_cannot_fire_is_skipped() {
    let Some(case) = Case::new("redrive-invalid", 1) else { return };
    let dead = format!("{}-dead", case.group);
    create_topic(case.bootstrap(), &dead, 1, &[]);
    let engine = case.engine_with(&[("DEAD_LETTER_TOPIC", &dead)]);
    let dead_letters = || keys_of(&case, &dead);
    case.produce(&[
        Scheduled { headers: Vec::new(), ..case.due_in("invalid", "v", 0) }.header("scheduler-target-topic", "t")
    ]);
    eventually("the record is a dead letter", TIMEOUT, || (dead_letters() == ["invalid"]).then_some(()));
    let redrive = |args: &[&str]| on(&case, &[&["redrive", "--from", &dead], args].concat()).ok();
    for args in [&["--dry-run"][..], &["--all"], &[], &["--all"]] {
        let said = redrive(args);
        assert!(said.contains("skipped invalid (no-epoch)") && said.contains(", 1 skipped"), "{args:?}: {said}");
        assert!(said.contains("1 skipped: cannot fire (no-epoch)"), "{args:?}: {said}");
    }
    assert!(redrive(&[]).contains("0 dead letters redriven, 0 skipped"), "an earlier run has read this dead letter");
    // The engine has read all records up to here, without writing another dead letter.
    case.settled();
    assert_eq!(dead_letters(), ["invalid"]);
    // With these options the command redrives it all the same, and prints a warning.
    for (n, args) in [["--key", "invalid"], ["--error", "no-epoch"]].iter().enumerate() {
        assert!(redrive(args).contains("1 dead letters redriven"), "{args:?}");
        eventually("the redriven record is a dead letter again", TIMEOUT, || {
            (dead_letters().len() == n + 2).then_some(())
        });
    }
    drop(engine);
}

#[test]
fn the_commands_settings_decide_which_dead_letters_can_fire() {
    let dead_letters = |case: &Case| {
        // Redriven records come after the originals of the dead letters.
        case.produce(&[case.due_in("first", "v", 3_600)]);
        let of = |record| dead_letter_of(&case.schedules[0], 0, record, 0);
        vec![of(case.due_in("late", "v", -3_600)), of(case.due_in("far", "v", 7_200)), of(case.due_in("fit", "v", 60))]
    };
    let Some((case, dead)) = with_dead_letters("redrive-settings", dead_letters) else { return };
    let settings = [("SCHEDULE_GRACE_INTERVAL", "60"), ("MAX_HORIZON", "3600")];
    let said = on_env(&case, &settings, &["redrive", "--from", &dead]).ok();
    assert!(said.contains("1 dead letters redriven, 2 skipped"), "{said}");
    assert!(said.contains("1 skipped: cannot fire (over-grace)"), "{said}");
    assert!(said.contains("1 skipped: cannot fire (beyond-horizon)"), "{said}");
    let said = on(&case, &["redrive", "--from", &dead, "--all"]).ok();
    assert!(said.contains("2 dead letters redriven, 1 skipped"), "with other settings: {said}");
    assert!(said.contains("1 skipped: its key has a newer record"), "{said}");
}

/// Returns a dead letter as the engine writes it, for the record at this offset of the case's schedules topic.
fn dead_letter(case: &Case, key: impl AsRef<[u8]>, offset: i64) -> Scheduled {
    dead_letter_of(&case.schedules[0], 0, case.due_in(key, "v", 3_600).header("h", "1"), offset)
}

fn dead_letter_of(topic: &str, partition: i32, record: Scheduled, offset: i64) -> Scheduled {
    record
        .header("scheduler-error", "unknown-target")
        .header("scheduler-error-detail", "the target topic does not exist")
        .header("scheduler-topic", topic)
        .header("scheduler-partition", partition.to_string())
        .header("scheduler-offset", offset.to_string())
}

/// Creates a case with a dead-letter topic of one partition.
fn with_dead_letters(name: &str, dead_letters: impl Fn(&Case) -> Vec<Scheduled>) -> Option<(Case, String)> {
    let case = Case::new(name, 1)?;
    let dead = format!("{}-dead", case.group);
    create_topic(case.bootstrap(), &dead, 1, &[]);
    case.produce_elsewhere(&dead, &dead_letters(&case));
    Some((case, dead))
}

fn keys_of(case: &Case, topic: &str) -> Vec<String> {
    read_all(case.bootstrap(), topic).iter().map(crate::kit::Record::key_text).collect()
}

#[test]
fn dead_letters_deleted_by_retention_do_not_stop_a_run() {
    let dead_letters = |case: &Case| vec![dead_letter(case, "a", 0), dead_letter(case, "b", 0)];
    let Some((case, dead)) = with_dead_letters("redrive-retention", dead_letters) else { return };
    let redrive = |args: &[&str]| on(&case, &[&["redrive", "--from", &dead], args].concat()).ok();
    assert!(redrive(&[]).contains("2 dead letters redriven"));
    case.produce_elsewhere(&dead, &[dead_letter(&case, "deleted", 0), dead_letter(&case, "c", 0)]);
    delete_records_before(case.bootstrap(), &dead, 0, 3);
    assert!(
        redrive(&[]).contains("1 dead letters redriven, 0 skipped"),
        "redriving starts at the first record that is left"
    );
    assert_eq!(keys_of(&case, &case.schedules[0]), ["a", "b", "c"]);
    // The committed position is after the deleted dead letters, so the next run starts with newer ones.
    assert!(redrive(&[]).contains("0 dead letters redriven, 0 skipped"));
    assert!(redrive(&["--all"]).contains("0 dead letters redriven, 1 skipped"));
}

#[test]
fn dead_letters_go_to_schedules_topics_or_the_named_one() {
    let dead_letters = |case: &Case| {
        let at = |topic: &str, partition, key: &str| dead_letter_of(topic, partition, case.due_in(key, "v", 3_600), 0);
        vec![at(&case.schedules[0], 0, "mine"), at(&case.history, 0, "other"), at(&case.schedules[0], 99, "nowhere")]
    };
    let Some((case, dead)) = with_dead_letters("redrive-foreign", dead_letters) else { return };
    let redrive = |args: &[&str]| on(&case, &[&["redrive", "--from", &dead], args].concat());
    let ran = redrive(&[]);
    assert!(
        ran.err.contains("1 dead letters come from topics other than") && ran.err.contains(&case.history),
        "{}",
        ran.err
    );
    assert!(ran.err.contains("--topic"), "{}", ran.err);
    let said = ran.ok();
    assert!(said.contains("redriven mine") && said.contains("1 dead letters redriven, 1 skipped"), "{said}");
    assert!(said.contains("skipped nowhere") && said.contains("no such partition"), "{said}");
    assert_eq!(keys_of(&case, &case.history), [""; 0], "a dead letter's headers do not select the topic");
    let said = redrive(&["--topic", &case.history]).ok();
    assert!(said.contains("1 dead letters redriven"), "{said}");
    assert_eq!(keys_of(&case, &case.history), ["other"]);
}

#[test]
fn a_dead_letter_is_chosen_by_a_binary_key() {
    let dead_letters = |case: &Case| vec![dead_letter(case, [0xff, 0], 0), dead_letter(case, "/wA=", 1)];
    let Some((case, dead)) = with_dead_letters("redrive-key", dead_letters) else { return };
    let redrive = |args: &[&str]| on(&case, &[&["redrive", "--from", &dead], args].concat());
    assert!(redrive(&["--key", "/wA=", "--base64"]).ok().contains("1 dead letters redriven"));
    let back = case.read_schedules(0);
    assert_eq!((back.len(), back[0].key.as_deref()), (1, Some(&[0xff, 0][..])));
    let names: Vec<&str> = back[0].headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["scheduler-epoch", "scheduler-target-topic", "h"]);
    redrive(&["--key", "/wA", "--base64"]).failed(2, &["--key", "/wA", "base64"]);
}

#[test]
fn large_dead_letters_are_redriven_in_little_memory() {
    const COUNT: usize = 250;
    const BYTES: usize = 900_000;
    const PEAK_KIB: u64 = 160 * 1024;
    let large = |case: &Case| {
        let all = (0..COUNT).map(|n| {
            let record = case.due_in(format!("k{n}"), vec![b'x'; BYTES], 3_600);
            dead_letter_of(&case.schedules[0], 0, record, n as i64)
        });
        all.collect()
    };
    let Some((case, dead)) = with_dead_letters("redrive-large", large) else { return };
    let (peak, _) = measured(&case, &["redrive", "--from", &dead]);
    eprintln!("redrive of {} MB: at most {peak} KiB", COUNT * BYTES / 1_000_000);
    assert_eq!(case.read_schedules(0).len(), COUNT);
    assert!(peak > 0 && peak <= PEAK_KIB, "{peak} KiB");
}
