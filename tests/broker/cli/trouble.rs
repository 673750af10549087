//! Invalid arguments, invalid settings, and unreachable brokers.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use super::{on, run};
use crate::kit::Case;
use crate::kit::engine::Engine;
use crate::kit::wait::eventually;

/// An address where no server listens.
const NO_BROKER: &[(&str, &str)] = &[("BOOTSTRAP_SERVERS", "127.0.0.1:1")];

#[test]
fn wrong_arguments_are_named_with_what_is_allowed() {
    let schedule = |more: &[&'static str]| {
        let mut args = vec!["schedule", "--key", "k", "--target-topic", "t"];
        args.extend(more);
        args
    };
    for (args, texts) in [
        (vec!["shedule"], vec!["shedule", "schedule"]),
        (vec!["schedule"], vec!["--key", "--target-topic", "--at", "--in", "--value", "--file"]),
        (schedule(&["--in", "10m"]), vec!["--value", "--file"]),
        (schedule(&["--value", "v"]), vec!["--at", "--in"]),
        (schedule(&["--in", "soon", "--value", "v"]), vec!["soon", "--in", "1h30m"]),
        (schedule(&["--in=-5m", "--value", "v"]), vec!["-5m", "--in", "not negative"]),
        (schedule(&["--at", "tomorrow", "--value", "v"]), vec!["tomorrow", "--at", "2030-01-01T00:00:00Z"]),
        (schedule(&["--at", "2001-01-01T00:00:00Z", "--value", "v"]), vec!["passed", "978307200"]),
        (schedule(&["--in", "1m", "--at", "2030-01-01T00:00:00Z", "--value", "v"]), vec!["--in", "--at"]),
        (schedule(&["--in", "1m", "--value", "v", "--header", "x"]), vec!["--header", "source=cli"]),
        (schedule(&["--in", "1m", "--value", "v", "--header", "scheduler-x=1"]), vec!["scheduler-x"]),
        (schedule(&["--in", "1m", "--value", "v", "--partitioner", "md5"]), vec!["md5", "murmur2_random", "fnv1a"]),
        (schedule(&["--in", "1m", "--value", "v", "--partition", "-1"]), vec!["-1", "--partition"]),
        (schedule(&["--in", "1m", "--file", "/no/such/file"]), vec!["--file", "/no/such/file"]),
        (schedule(&["--in", "1m", "--value", "v", "--topic", "a b"]), vec!["a b", "--topic", "a-z"]),
        (vec!["schedule", "--key", "", "--target-topic", "t", "--in", "1m", "--value", "v"], vec!["no key"]),
        (
            vec!["schedule", "--key", "?", "--base64", "--target-topic", "t", "--in", "1m", "--value", "v"],
            vec!["--key", "base64"],
        ),
        (
            vec!["schedule", "--key", "k", "--target-topic", "schedules", "--in", "1m", "--value", "v"],
            vec!["--target-topic", "schedules topic"],
        ),
        (vec!["list", "--limit", "0"], vec!["--limit", "1 to 1000000"]),
        (vec!["list", "--due-before", "noon"], vec!["noon", "--due-before", "2030-01-01T00:00:00Z"]),
        (vec!["list", "--server", "localhost:8000"], vec!["--server", "http://localhost:8000"]),
        (vec!["cancel"], vec!["<KEY>"]),
        (vec!["cancel", "?", "--base64"], vec!["KEY", "\"?\"", "base64"]),
        (vec!["cancel", "k", "--partition", "-1"], vec!["--partition", "-1", "0..="]),
        (vec!["show"], vec!["<KEY>"]),
        (vec!["show", "k", "--topic", "a/b"], vec!["a/b", "--topic", "a-z"]),
        (vec!["history", "k", "--topic", "a/b"], vec!["a/b", "--topic", "a-z"]),
        (vec!["history", "?", "--base64"], vec!["KEY", "\"?\"", "base64"]),
        (vec!["export", "--topic", "a/b"], vec!["a/b", "--topic", "a-z"]),
        (vec!["export", "--to", "/no/such/directory/file"], vec!["--to", "/no/such/directory/file"]),
        (vec!["topics", "create", "--partitions", "0"], vec!["--partitions", "0", "1..=100000"]),
        (vec!["topics", "create", "--replication-factor", "0"], vec!["--replication-factor", "0", "1..=10000"]),
        (vec!["topics", "delete"], vec!["delete", "topics"]),
        (vec!["redrive"], vec!["--from", "DEAD_LETTER_TOPIC"]),
        (vec!["redrive", "--from", "dead", "--base64"], vec!["--key"]),
        (vec!["redrive", "--from", "dead", "--key", "?", "--base64"], vec!["--key", "\"?\"", "base64"]),
        (vec!["import", "/no/such/file"], vec!["/no/such/file"]),
        (vec!["run", "--fast"], vec!["--fast", "run"]),
        (vec!["run", "now"], vec!["now", "run"]),
        (vec!["man", "--to", "/no/such/directory"], vec!["--to", "/no/such/directory"]),
        (vec!["completions", "tcsh"], vec!["tcsh", "bash", "zsh", "fish"]),
        (vec!["mini", "--topic", "x"], vec!["--topic", "number of partitions"]),
    ] {
        let ran = run(NO_BROKER, &args, b"");
        assert_eq!(ran.code, 2, "{args:?}: {}", ran.err);
        for part in texts {
            assert!(ran.err.contains(part), "{args:?}: {part:?} is not in: {}", ran.err);
        }
    }
    run(&[("SESSION_TIMEOUT", "x")], &["list"], b"").failed(2, &["SESSION_TIMEOUT", "\"x\""]);
}

/// Every command that needs a broker and ends.
const COMMANDS: [&[&str]; 10] = [
    &["schedule", "--in", "1m", "--key", "k", "--target-topic", "t", "--value", "v"],
    &["cancel", "k"],
    &["list"],
    &["show", "k"],
    &["history", "k"],
    &["redrive", "--from", "dead"],
    &["topics", "check"],
    &["topics", "create"],
    &["export"],
    &["import", "-"],
];

const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Runs each command against an address where no broker answers. It must fail in time, with these texts in its message.
fn names_the_broker(bootstrap: &str, texts: &[&str]) {
    std::thread::scope(|scope| {
        for args in COMMANDS {
            scope.spawn(move || {
                let begun = Instant::now();
                let ran = run(&[("BOOTSTRAP_SERVERS", bootstrap)], args, b"");
                let took = begun.elapsed();
                ran.failed(1, &[&["BOOTSTRAP_SERVERS", bootstrap], texts].concat());
                assert!(took < ANSWER_MAX, "{args:?} took {took:?}");
            });
        }
        scope.spawn(move || {
            let env = [("BOOTSTRAP_SERVERS".to_owned(), bootstrap.to_owned())];
            let mut engine = Engine::start("no-broker", &["run"], &env);
            eventually("the engine says that no broker answers", ANSWER_MAX, || {
                engine.output().contains("no broker of BOOTSTRAP_SERVERS answers").then_some(())
            });
            // The engine keeps trying, and can be stopped.
            assert!(engine.running());
            engine.stop();
        });
        scope.spawn(move || {
            let begun = Instant::now();
            let server = format!("http://{bootstrap}");
            let ran = run(&[], &["list", "--server", &server], b"");
            let took = begun.elapsed();
            ran.failed(1, &["--server", &server]);
            assert!(took < ANSWER_MAX, "the command took {took:?}");
        });
    });
}

#[test]
fn unreachable_brokers_are_named_within_ten_seconds() {
    names_the_broker(NO_BROKER[0].1, &["Connection refused"]);
}

#[test]
fn brokers_that_never_answer_are_named_within_ten_seconds() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    // Accepts connections and keeps them open, without sending anything.
    std::thread::spawn(move || listener.incoming().flatten().collect::<Vec<_>>());
    names_the_broker(&address, &["answers within 8 s"]);
}

#[test]
fn missing_topics_are_named() {
    let Some(case) = Case::new("cli-missing", 1) else { return };
    for command in [&["list"][..], &["cancel", "k"], &["export"], &["show", "k"]] {
        on(&case, &[command, &["--topic", "no-such-topic"]].concat()).failed(3, &["no-such-topic", "does not exist"]);
    }
}

#[test]
fn every_command_reads_the_configuration_file() {
    let Some(case) = Case::new("cli-file", 1) else { return };
    let path = super::path(&case, "settings.yaml");
    let servers = format!("kafka.common.configuration:\n  bootstrap.servers: {}\n", case.bootstrap());
    std::fs::write(&path, servers).expect("a file");
    let file = path.to_str().expect("UTF-8");
    let env = [("CONFIGURATION_FILE", file), ("SCHEDULES_TOPICS", &case.schedules[0])];
    assert_eq!(run(&env, &["export"], b"").ok(), "");
    std::fs::write(&path, "kafka.common.configuration:\n  security.protocol: banana\n").expect("a file");
    run(&env, &["list"], b"").failed(2, &["CONFIGURATION_FILE", "security.protocol"]);
    std::fs::remove_file(path).expect("removed");
}

#[test]
fn completions_and_manual_pages_are_printed() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = run(&[], &["completions", shell], b"").ok();
        assert!(script.contains("redrive") && script.contains("partitioner"), "{shell}: {script}");
    }
    let page = run(&[], &["man"], b"").ok();
    assert!(page.contains(".TH kafka-scheduler 1") && page.contains("Exit codes"), "{page}");
    let directory = crate::kit::process::target_dir().join("tmp").join(format!("man-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    run(&[], &["man", "--to", directory.to_str().expect("UTF-8")], b"").ok();
    let schedule = std::fs::read_to_string(directory.join("kafka-scheduler-schedule.1")).expect("a page");
    assert!(schedule.contains("target\\-topic"), "{schedule}");
    std::fs::remove_dir_all(directory).expect("removed");
    let help = run(&[], &["schedule", "--help"], b"").ok();
    assert!(help.contains("Examples:") && help.contains("[Europe/Berlin]"), "{help}");
}
