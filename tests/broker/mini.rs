//! A stock client in another process than `mini` schedules a message and receives it. Only mini's embedded broker is
//! needed.

use std::time::{Duration, Instant};

use crate::cli;
use crate::kit::Scheduled;
use crate::kit::client::{Producer, Reader};
use crate::kit::engine::Engine;
use crate::kit::http::post;
use crate::kit::wait::{eventually, now_ms, now_s};

const LIMIT: Duration = Duration::from_secs(30);

/// Starts mini, and waits until it has printed its broker's address.
fn start(args: &[&str]) -> (Engine, String) {
    start_with(args, &[])
}

fn start_with(args: &[&str], env: &[(&str, &str)]) -> (Engine, String) {
    let env: Vec<(String, String)> = env.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let mini = Engine::start("mini", args, &env);
    let bootstrap = eventually("mini prints its address", LIMIT, || {
        let output = mini.output();
        let line = output.lines().find(|line| line.contains("bootstrap server"))?;
        line.split_whitespace().find(|part| part.contains(':')).map(str::to_owned)
    });
    (mini, bootstrap)
}

#[test]
fn a_stock_client_schedules_and_receives_through_mini() {
    let (mut mini, bootstrap) = start(&["mini", "--topic", "mine:2"]);
    // Idempotent, like the producers of the commands.
    let producer = Producer::new(&bootstrap, &[]);
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
    eventually("the schedule is planned", LIMIT, || (mini.counter("planned_schedule")? == 1).then_some(()));
    let (status, body) = post(mini.port, "/advance?by=365d").expect("an answer");
    assert_eq!(status, 200, "{body}");
    // Its due second may begin a moment after the clock's.
    let (status, body) = post(mini.port, "/advance?by=1s").expect("an answer");
    let sent = Instant::now();
    assert!(status == 200 && body.contains("\"now\""), "{body}");
    reader.wait("it fires", LIMIT, |records| !records.is_empty());
    assert!(sent.elapsed() < Duration::from_secs(1), "advancing the clock took {:?}", sent.elapsed());
    let (status, body) = post(mini.port, "/advance?by=soon").expect("an answer");
    assert_eq!(status, 400, "{body}");
    assert!(
        body.contains("soon") && body.contains("1h30m"),
        "the message names the invalid value and a valid one: {body}"
    );
    assert_eq!(post(mini.port, "/schedules").map(|(status, _)| status), Some(405));
    // The status page uses mini's clock.
    let status = eventually("the firing is shown", LIMIT, || {
        let status = mini.ask("GET", "/status", &[]).json();
        (!status["firings"].as_array()?.is_empty()).then_some(status)
    });
    let year_ms = 365 * 86_400_000;
    let ahead_ms = status["now"].as_i64().expect("a time") - now_ms();
    assert!((year_ms..year_ms + 10_000).contains(&ahead_ms), "{ahead_ms} ms ahead");
    let (at, due) = (&status["firings"][0]["at"], &status["firings"][0]["due"]);
    assert!(at.as_i64() >= due.as_i64().map(|due_s| due_s * 1_000), "fired at {at}, due at {due} s");
    assert_eq!(
        status["seconds"].as_array().map(Vec::len),
        Some(1),
        "its rates use mini's clock: {}",
        status["seconds"]
    );
    mini.stop();
}

#[test]
fn advancing_the_clock_needs_the_token() {
    let env = [("REST_TOKEN".to_owned(), "hunter2hunter2".to_owned())];
    let mut mini = Engine::start("mini", &["mini", "--no-demo"], &env);
    mini.ready();
    let refused = mini.ask("POST", "/advance?by=1h", &[]);
    assert_eq!((refused.status, refused.header("www-authenticate")), (401, "Bearer"), "{}", refused.text());
    let moved = mini.ask("POST", "/advance?by=1h", &[("Authorization", "Bearer hunter2hunter2")]);
    assert_eq!(moved.status, 200, "{}", moved.text());
    mini.stop();
}

#[test]
fn the_commands_work_against_it_but_for_topics() {
    let (mut mini, bootstrap) = start(&["mini", "--topic", "mine:2", "--no-demo"]);
    let run = |args: &[&str]| cli::run(&[("BOOTSTRAP_SERVERS", &bootstrap)], args, b"");
    let schedule = |within, key, more: &[&str]| {
        let args = ["schedule", "--in", within, "--key", key, "--target-topic", "mine", "--value", "v"];
        run(&[&args[..], more].concat()).ok()
    };
    assert!(schedule("1h", "k", &["--header", "a=b"]).starts_with("scheduled k"));
    assert!(schedule("2h", "k", &[]).starts_with("rescheduled k"));
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
    let redriven = run(&["redrive", "--from", "history", "--all"]);
    assert!(redriven.err.contains("are not dead letters"), "{}", redriven.err);
    redriven.ok();
    run(&["topics", "check"]).failed(1, &["mini", "--topic"]);
    let missing = [("BOOTSTRAP_SERVERS", bootstrap.as_str()), ("SCHEDULES_TOPICS", "more")];
    let created = cli::run(&missing, &["topics", "create"], b"");
    assert!(created.code == 1 && created.err.contains("mini"), "{}{}", created.out, created.err);
    mini.stop();
}

#[test]
fn due_after_includes_its_second_in_rest_and_cli() {
    let (mut mini, bootstrap) = start(&["mini", "--topic", "mine:1", "--no-demo"]);
    let first = now_s() + 3_600;
    let producer = Producer::new(&bootstrap, &[]);
    for due in first..first + 4 {
        producer.send("schedules", &Scheduled::new(format!("k{}", due - first), "v", due, "mine"));
    }
    producer.flush();
    eventually("all are pending", LIMIT, || (mini.counter("planned_schedule")? == 4).then_some(()));
    let ids = |list: &[serde_json::Value]| {
        let mut ids: Vec<String> = list.iter().filter_map(|one| one["id"].as_str().map(str::to_owned)).collect();
        ids.sort();
        ids
    };
    let date = |second: i64| jiff::Timestamp::from_second(second).expect("a date").to_string();
    let (from, to) = (first + 1, first + 3);
    let list = |more: &[&str]| {
        let window = ["list", "--json", "--due-after", &date(from), "--due-before", &date(to)];
        let lines = cli::run(&[("BOOTSTRAP_SERVERS", &bootstrap)], &[&window[..], more].concat(), b"").ok();
        ids(&lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect::<Vec<_>>())
    };
    let server = format!("http://127.0.0.1:{}", mini.port);
    let page = mini.ask("GET", &format!("/schedules?due-after={from}&due-before={to}"), &[]).json();
    let rest = ids(page["schedules"].as_array().expect("a page"));
    assert_eq!(rest, ["k1", "k2"]);
    assert_eq!(list(&[]), rest, "from the topics");
    assert_eq!(list(&["--server", &server]), rest, "from the instance");
    mini.stop();
}

#[test]
fn a_dead_letter_goes_back_and_fires_once_its_target_is_there() {
    let (mut mini, bootstrap) = start_with(&["mini", "--no-demo"], &[("DEAD_LETTER_TOPIC", "dead")]);
    let run = |args: &[&str]| cli::run(&[("BOOTSTRAP_SERVERS", &bootstrap)], args, b"");
    let schedule =
        ["schedule", "--in", "0s", "--key", "k", "--target-topic", "late", "--header", "h=1", "--value", "v"];
    run(&schedule).ok();
    let mut dead_letters = Reader::new(&bootstrap, "dead");
    dead_letters.wait("it is a dead letter", LIMIT, |records| !records.is_empty());
    let dry = run(&["redrive", "--from", "dead", "--dry-run"]).ok();
    assert!(
        dry.contains("would redrive k (unknown-target)") && dry.contains("1 dead letters would be redriven"),
        "{dry}"
    );
    // The embedded broker creates a topic when a record is first produced to it.
    let producer = Producer::new(&bootstrap, &[("enable.idempotence", "false")]);
    producer.send("late", &Scheduled { headers: Vec::new(), ..Scheduled::new("first", "first", 0, "-") });
    producer.flush();
    let mut reader = Reader::new(&bootstrap, "late");
    eventually("the engine sees the target", LIMIT * 2, || {
        let said = run(&["redrive", "--from", "dead", "--all"]).ok();
        assert!(said.contains("1 dead letters redriven") || said.contains("1 skipped"), "{said}");
        reader.poll(Duration::from_secs(5));
        reader.records.iter().any(|record| record.value_text() == "v").then_some(())
    });
    let fired: Vec<_> = reader.records.iter().filter(|record| record.value_text() == "v").collect();
    assert_eq!((fired.len(), fired[0].header("h")), (1, Some(&b"1"[..])));
    assert!(run(&["redrive", "--from", "dead", "--all"]).ok().contains("0 dead letters redriven"));
    mini.stop();
}

/// Parses a line about a demo's firing: due second, and lateness in milliseconds.
fn firing(line: &str, key: &str) -> Option<(String, i64)> {
    let (time, rest) = line.split_once("  ")?;
    let rest = rest.strip_prefix(&format!("{key} -> mini-demo  due "))?;
    let (due, rest) = rest.split_once("  ")?;
    let (late, value) = rest.split_once(" ms late  ")?;
    let is_time = |text: &str| text.len() >= 8 && text.chars().all(|c| c.is_ascii_digit() || ":.".contains(c));
    let period = key.strip_prefix("demo-")?.strip_suffix('s')?;
    assert!(is_time(time) && is_time(due) && value == format!("\"every {period} seconds\""), "{line}");
    Some((due.to_owned(), late.parse().unwrap_or_else(|e| panic!("{e}: {line}"))))
}

#[test]
fn the_demos_print_readable_lines_until_ctrl_c() {
    let (mut mini, _) = start(&["mini"]);
    for limit in ["does not fence", "does not compact", "5 MB a partition", "aborted records", "nothing after exit"] {
        assert!(mini.output().contains(limit), "{limit:?} is not in {}", mini.output());
    }
    let firings =
        |key: &str| -> Vec<(String, i64)> { mini.output().lines().filter_map(|line| firing(line, key)).collect() };
    // One demo runs by the real clock.
    eventually("the demo of 5 s fires again", LIMIT, || (firings("demo-5s").len() >= 3).then_some(()));
    for (n, (due, late)) in firings("demo-5s").iter().enumerate() {
        assert!(due.ends_with(['0', '5']), "every 5 seconds: {due}");
        // The first schedule may be due before the engine is up.
        assert!((0..5_000).contains(late) || n == 0, "{late} ms late");
    }
    // All three run by a clock that is advanced, in steps: what one step misses becomes one firing.
    while firings("demo-30s").len() < 3 {
        let before = firings("demo-5s").len();
        post(mini.port, "/advance?by=20s").expect("an answer");
        eventually("a demo fires", LIMIT, || (firings("demo-5s").len() > before).then_some(()));
        assert!(before < 30, "the 30 s demo does not fire: {}", mini.output());
    }
    for key in ["demo-5s", "demo-10s", "demo-30s"] {
        let dues: Vec<String> = firings(key).into_iter().map(|(due, _)| due).collect();
        let distinct: std::collections::BTreeSet<&String> = dues.iter().collect();
        assert!(dues.len() >= 3 && distinct.len() == dues.len(), "{key}: {dues:?}");
    }
    assert_eq!(mini.interrupt().code(), Some(0), "{}", mini.output());
    assert!(mini.output().contains("Stopped. The embedded broker and its data are gone."), "{}", mini.output());
}
