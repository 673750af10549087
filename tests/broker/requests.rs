//! Request headers as header mappers and converters of other programs write them.

use crate::cli;
use crate::kit::case::TIMEOUT;
use crate::kit::client::{self, Reader};
use crate::kit::engine::Engine;
use crate::kit::wait::{eventually, now_s};
use crate::kit::{Case, Record, Scheduled};

/// A time in 2030.
const EPOCH_S: i64 = 1_893_456_000;

fn asked(key: &str, epoch: impl AsRef<[u8]>, target: &str) -> Scheduled {
    Scheduled { key: Some(key.into()), value: Some(b"v".to_vec()), ..Scheduled::default() }
        .header("scheduler-epoch", epoch)
        .header("scheduler-target-topic", target)
}

fn text<'a>(record: &'a Record, header: &str) -> &'a str {
    std::str::from_utf8(record.header(header).expect("the header")).expect("text")
}

#[test]
fn a_header_that_cannot_be_read_is_described_and_never_shown() {
    let Some(case) = Case::with_defaults("shapes", 1) else { return };
    let dead = format!("{}-dead", case.group);
    client::create_topic(case.bootstrap(), &dead, 1, &[]);
    let mut engine = case.engine_with(&[("DEAD_LETTER_TOPIC", &dead)]);
    engine.ready();
    let digits = EPOCH_S.to_string();
    let bad = [
        (asked("quoted", format!("\"{digits}\""), &case.target), "bad-epoch", "scheduler-epoch is in JSON quotes"),
        (
            asked("long", EPOCH_S.to_be_bytes(), &case.target),
            "bad-epoch",
            "scheduler-epoch is 8 bytes that are not text",
        ),
        (asked("date", "2030-01-01T00:00:00Z", &case.target), "bad-epoch", "scheduler-epoch looks like a date"),
        (asked("name", &digits, "\"greetings\""), "bad-target", "scheduler-target-topic is in JSON quotes"),
    ];
    for (record, ..) in &bad {
        case.queue(record);
    }
    case.flush();
    let mut dead_letters = Reader::new(case.bootstrap(), &dead);
    dead_letters.wait("the dead letters", TIMEOUT, |records| records.len() >= bad.len());
    let output = engine.output();
    for (dead_letter, (record, code, beginning)) in dead_letters.records.iter().zip(&bad) {
        assert_eq!((&dead_letter.key, text(dead_letter, "scheduler-error")), (&record.key, *code));
        let detail = text(dead_letter, "scheduler-error-detail");
        assert!(detail.starts_with(beginning), "{beginning}: {detail}");
        let said = output.lines().filter(|line| line.contains(&format!("reason=\"{code}\" detail=\"{beginning}")));
        assert_eq!(said.count(), 1, "{beginning}: {output}");
    }
    for hidden in [digits.as_str(), "2030-01-01", "greetings"] {
        assert!(!output.contains(hidden), "{hidden} is in the log: {output}");
    }
    assert_eq!((engine.refused("bad-epoch"), engine.refused("bad-target")), (Some(3), Some(1)));
    engine.stop();
}

#[test]
fn request_headers_repeated_with_the_same_value_count_once() {
    let Some(case) = Case::with_defaults("repeats", 1) else { return };
    let mut engine = case.engine();
    let mut twice = case.due_in("k", "v", 0).target_key("to");
    twice.headers.extend(twice.headers.clone());
    let before_load = Scheduled { key: Some(b"first".to_vec()), ..twice.clone() };
    case.produce(&[before_load]);
    engine.ready();
    case.produce(&[twice]);
    let fired = case.fired(2);
    assert_eq!(fired.iter().map(|record| text(record, "scheduler-key")).collect::<Vec<_>>(), ["first", "k"]);
    for record in case.read_history() {
        for name in ["scheduler-epoch", "scheduler-target-topic", "scheduler-target-key"] {
            assert_eq!(record.headers.iter().filter(|(header, _)| header == name).count(), 1, "{name}: {record:?}");
        }
    }
    assert_eq!(engine.refused("duplicate-header"), Some(0));
    engine.stop();
}

#[test]
fn an_epoch_in_milliseconds_is_warned_about_counted_and_shown() {
    let Some(case) = Case::with_defaults("milliseconds", 1) else { return };
    let mut engine = case.engine();
    engine.ready();
    case.produce(&[Scheduled::new("ms", "v", EPOCH_S * 1_000, &case.target), case.due_in("s", "v", 3_600)]);
    let seen = |engine: &Engine| {
        eventually("the record is counted", TIMEOUT, || {
            (engine.metric("kafka_scheduler_far_ahead_schedules_total")? == 1).then_some(())
        });
        let output = engine.output();
        let said = output.lines().filter(|line| line.contains("due more than 100 years ahead; set MAX_HORIZON"));
        let said: Vec<&str> = said.collect();
        assert!(said.len() == 1 && said[0].contains("looks like milliseconds"), "{output}");
    };
    seen(&engine);
    for path in ["/schedules", "/schedules?limit=10"] {
        let answer = engine.ask("GET", path, &[]).json();
        let all = answer.as_array().or_else(|| answer["schedules"].as_array()).expect("a list").clone();
        let warned: Vec<_> = all.iter().filter(|schedule| !schedule["warning"].is_null()).collect();
        assert!(all.len() == 2 && warned.len() == 1 && warned[0]["id"] == "ms", "{path}: {answer}");
        assert!(warned[0]["warning"].as_str().is_some_and(|text| text.contains("looks like milliseconds")), "{answer}");
    }
    engine.stop();
    let env = [("BOOTSTRAP_SERVERS", case.bootstrap()), ("SCHEDULES_TOPICS", &case.schedules[0])];
    for (args, count) in [(&["list"][..], 1), (&["list", "--json"], 1), (&["show", "ms"], 1), (&["show", "s"], 0)] {
        let said = cli::run(&env, args, b"").ok();
        assert_eq!(said.matches("looks like milliseconds").count(), count, "{args:?}: {said}");
    }
    let mut again = case.engine();
    again.ready();
    seen(&again);
    again.stop();
    let mut bounded = case.engine_with(&[("MAX_HORIZON", "P400D")]);
    eventually("a horizon refuses it", TIMEOUT, || (bounded.refused("beyond-horizon")? == 1).then_some(()));
    bounded.stop();
    assert!(case.read_target().is_empty() && now_s() < EPOCH_S);
}
