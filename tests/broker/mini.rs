//! A stock client in another process than `mini` schedules a message and receives it. Needs no broker but mini's own.

use std::time::{Duration, Instant};

use crate::cli;
use crate::kit::Scheduled;
use crate::kit::client::{Producer, Reader};
use crate::kit::engine::Engine;
use crate::kit::http::post;
use crate::kit::wait::{eventually, now_s};

const LIMIT: Duration = Duration::from_secs(30);

/// Starts it and waits until it has said where its broker is.
fn start(args: &[&str]) -> (Engine, String) {
    let mini = Engine::start("mini", args, &[]);
    let bootstrap = eventually("mini prints its address", LIMIT, || {
        let output = mini.output();
        let line = output.lines().find(|line| line.contains("bootstrap server"))?;
        line.split_whitespace().find(|word| word.contains(':')).map(str::to_owned)
    });
    (mini, bootstrap)
}

#[test]
fn a_stock_client_schedules_and_receives_through_mini() {
    let (mut mini, bootstrap) = start(&["mini", "--topic", "mine:2"]);
    // The embedded broker does not know idempotent producers well enough to be asked for one.
    let producer = Producer::new(&bootstrap, &[("enable.idempotence", "false")]);
    let due = now_s() + 2;
    producer.send("schedules", &Scheduled::new("id", "hello", due, "mine").target_key("k").header("h", "x"));
    producer.flush();
    let mut reader = Reader::new(&bootstrap, "mine");
    let fired = reader.wait("the message arrives", LIMIT, |records| !records.is_empty());
    assert_eq!((fired[0].key_text(), fired[0].value_text()), ("k".to_owned(), "hello".to_owned()));
    assert_eq!(fired[0].header("h"), Some(&b"x"[..]));
    assert!(mini.get("/schedules").is_some() && mini.counter("triggered_schedule").is_some());
    mini.stop();
}

#[test]
fn next_year_comes_with_a_request_and_the_demo_can_be_left_out() {
    let (mut mini, bootstrap) = start(&["mini", "--topic", "mine:2", "--no-demo"]);
    assert!(!mini.output().contains("demo"), "{}", mini.output());
    let producer = Producer::new(&bootstrap, &[("enable.idempotence", "false")]);
    producer.send("schedules", &Scheduled::new("id", "hello", now_s() + 365 * 86_400, "mine"));
    producer.flush();
    let mut reader = Reader::new(&bootstrap, "mine");
    eventually("it is planned", LIMIT, || (mini.counter("planned_schedule")? == 1).then_some(()));
    let (status, body) = post(mini.port, "/advance?by=365d").expect("an answer");
    assert_eq!(status, 200, "{body}");
    // Its due second may begin a moment after the clock's.
    let (status, body) = post(mini.port, "/advance?by=1s").expect("an answer");
    let sent = Instant::now();
    assert!(status == 200 && body.contains("\"now\""), "{body}");
    reader.wait("it fires", LIMIT, |records| !records.is_empty());
    assert!(sent.elapsed() < Duration::from_secs(1), "it took {:?}", sent.elapsed());
    let (status, body) = post(mini.port, "/advance?by=soon").expect("an answer");
    assert_eq!(status, 400, "{body}");
    assert!(body.contains("soon") && body.contains("1h30m"), "names what is wrong and what is allowed: {body}");
    assert_eq!(post(mini.port, "/schedules").map(|(status, _)| status), Some(405));
    mini.stop();
}

#[test]
fn the_commands_work_against_it_but_for_topics() {
    let (mut mini, bootstrap) = start(&["mini", "--topic", "mine:2", "--no-demo"]);
    let dead = "history";
    let run = |args: &[&str]| cli::run(&[("BOOTSTRAP_SERVERS", &bootstrap)], args, b"");
    let schedule = |within, key, more: &[&str]| {
        let args = ["schedule", "--in", within, "--key", key, "--target-topic", "mine", "--value", "v"];
        run(&[&args[..], more].concat()).ok()
    };
    assert!(schedule("1h", "k", &["--header", "a=b"]).starts_with("scheduled k"));
    assert!(schedule("2h", "k", &[]).starts_with("moved k"));
    schedule("2h", "cancelled", &[]);
    assert!(run(&["cancel", "cancelled"]).ok().starts_with("cancelled cancelled"));
    run(&["cancel", "cancelled"]).failed(3, &["nothing is pending"]);
    assert!(run(&["show", "k"]).ok().contains("mine"));
    assert_eq!(run(&["list"]).ok().lines().count(), 2);
    let exported = run(&["export"]).ok();
    assert_eq!(cli::run(&[("BOOTSTRAP_SERVERS", &bootstrap)], &["import", "-"], exported.as_bytes()).code, 0);
    schedule("0s", "now", &[]);
    let mut reader = Reader::new(&bootstrap, "mine");
    reader.wait("it fires", LIMIT, |records| !records.is_empty());
    assert!(run(&["history", "now"]).ok().contains("mine"));
    let redriven = run(&["redrive", "--from", dead, "--all"]);
    assert!(redriven.err.contains("no dead letters"), "{}", redriven.err);
    redriven.ok();
    run(&["topics", "check"]).failed(1, &["mini", "--topic"]);
    let missing = [("BOOTSTRAP_SERVERS", bootstrap.as_str()), ("SCHEDULES_TOPICS", "more")];
    let created = cli::run(&missing, &["topics", "create"], b"");
    assert!(created.code == 1 && created.err.contains("mini"), "{}{}", created.out, created.err);
    mini.stop();
}
