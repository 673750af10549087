//! Tests of the test harness.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::kit::broker;
use crate::kit::client::read_all;
use crate::kit::process::target_dir;
use crate::kit::wait::eventually;
use crate::kit::{Case, Scheduled};

#[test]
fn what_is_produced_is_read_back() {
    let Some(case) = Case::new("harness", 3) else { return };
    let sent = Scheduled::new([0xff, 0, 1], "value", 7, "nowhere")
        .header("twice", [0xfe])
        .null_header("null")
        .header("twice", "")
        .timestamp(1_607_918_336_000)
        .partition(2);
    case.produce(&[sent.clone(), Scheduled::cancel("k").partition(1)]);
    let read = read_all(case.bootstrap(), &case.schedules[0]);
    assert_eq!(read.len(), 2);
    let first = read.iter().find(|r| r.partition == 2).expect("a record in partition 2");
    assert_eq!((&first.key, &first.value, &first.headers), (&sent.key, &sent.value, &sent.headers));
    assert_eq!(first.timestamp, 1_607_918_336_000);
    let second = read.iter().find(|r| r.partition == 1).expect("a record in partition 1");
    assert_eq!((second.value.as_ref(), second.headers.len()), (None, 0));
}

#[test]
fn a_transaction_shows_all_its_records_at_once() {
    use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
    let Some(case) = Case::new("harness-transaction", 2) else { return };
    let producer: ThreadedProducer<DefaultProducerContext> = crate::kit::client::config(case.bootstrap())
        .set("transactional.id", &case.group)
        .create()
        .expect("a transactional producer");
    let limit = std::time::Duration::from_secs(30);
    producer.init_transactions(limit).expect("init");
    for commit in [false, true] {
        producer.begin_transaction().expect("begin");
        for partition in 0..2 {
            let value = format!("{commit}");
            let record: BaseRecord<'_, str, String> = BaseRecord::to(&case.target).payload(&value).partition(partition);
            producer.send(record).map_err(|(e, _)| e).expect("sent");
        }
        if commit {
            producer.commit_transaction(limit).expect("commit");
        } else {
            producer.abort_transaction(limit).expect("abort");
        }
    }
    let values: Vec<String> = case.fired(2).iter().map(crate::kit::Record::value_text).collect();
    assert_eq!(values, ["true", "true"]);
}

/// Runs one test of this program in a process of its own, with a broker of its own if possible.
fn single_test(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args([test, "--exact"]).env_remove("KAFKA_BOOTSTRAP").env_remove("CI");
    command
}

#[test]
fn without_java_tests_are_skipped_loudly_and_in_ci_they_fail() {
    let run = |ci: &[(&str, &str)]| -> (Output, String) {
        let mut command = single_test("harness::what_is_produced_is_read_back");
        let output =
            command.env("PATH", "/no/such/directory").envs(ci.iter().copied()).output().expect("the test runs");
        let said = [output.stdout.clone(), output.stderr.clone()].concat();
        (output, String::from_utf8(said).expect("UTF-8"))
    };
    let (output, said) = run(&[]);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("*** SKIPPED: no java and no KAFKA_BOOTSTRAP"), "{said}");
    let (output, said) = run(&[("CI", "true")]);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("no java") && said.contains("with CI=true they must not be skipped"), "{said}");
}

/// Set in the process that is to be killed.
const RUN_UNTIL_KILLED: &str = "RUN_UNTIL_KILLED";

#[test]
fn runs_until_killed() {
    if std::env::var_os(RUN_UNTIL_KILLED).is_none() {
        return;
    }
    let case = Case::new("harness-killed", 1).expect("a broker");
    let _engine = case.engine();
    case.settled();
    writeln!(std::io::stderr(), "\nrunning").expect("the parent reads stderr");
    loop {
        std::thread::park();
    }
}

/// A running process: name, parent and start time.
struct Process {
    name: String,
    parent: u32,
    begun: String,
}

fn processes() -> BTreeMap<u32, Process> {
    let ids = fs::read_dir("/proc").expect("Linux").flatten();
    let ids = ids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter_map(|id| {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        // The name is in parentheses, and may contain parentheses.
        let (name, rest) = (stat.get(stat.find('(')? + 1..stat.rfind(')')?)?, stat.get(stat.rfind(')')? + 2..)?);
        let fields: Vec<&str> = rest.split(' ').collect();
        let is_zombie = fields.first() == Some(&"Z");
        let process =
            Process { name: name.into(), parent: fields.get(1)?.parse().ok()?, begun: (*fields.get(19)?).into() };
        (!is_zombie).then_some((id, process))
    })
    .collect()
}

/// Returns all descendants of a process.
fn descendants(ancestor: u32) -> BTreeMap<u32, Process> {
    let mut rest = processes();
    let mut found: BTreeMap<u32, Process> = BTreeMap::new();
    loop {
        let is_next = |process: &Process| process.parent == ancestor || found.contains_key(&process.parent);
        let Some(id) = rest.iter().find(|(_, process)| is_next(process)).map(|(id, _)| *id) else { return found };
        found.extend(rest.remove_entry(&id));
    }
}

#[test]
fn nothing_outlives_tests_that_are_killed() {
    if broker::home().expect("Kafka").is_none() {
        return;
    }
    let mut tests = single_test("harness::runs_until_killed")
        .env(RUN_UNTIL_KILLED, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the tests start");
    let mut said = BufReader::new(tests.stderr.take().expect("a pipe")).lines();
    assert!(said.any(|line| line.is_ok_and(|line| line == "running")), "the tests exited by themselves");
    let begun = descendants(tests.id());
    for name in ["java", "kafka-scheduler"] {
        assert!(begun.values().any(|process| process.name.starts_with(&name[..name.len().min(15)])), "no {name} runs");
    }
    let data = format!("kafka-{}-", tests.id());
    tests.kill().expect("kill -9");
    tests.wait().expect("the tests are gone");
    eventually("all processes of the tests are gone", Duration::from_secs(30), || {
        let now = processes();
        let is_left = |id: &u32, process: &Process| now.get(id).is_some_and(|other| other.begun == process.begun);
        (!begun.iter().any(|(id, process)| is_left(id, process))).then_some(())
    });
    eventually("the broker's data is removed", Duration::from_secs(30), || {
        let entries = fs::read_dir(target_dir().join("tmp")).expect("a directory").flatten();
        let mut names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        (!names.any(|name| name.starts_with(&data))).then_some(())
    });
}
