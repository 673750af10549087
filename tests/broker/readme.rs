//! Runs the README's commands.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::cli;
use crate::kit::Case;
use crate::kit::client::Reader;
use crate::kit::engine::Engine;
use crate::kit::wait::eventually;

const README: &str = include_str!("../../README.md");

const LIMIT: Duration = Duration::from_secs(60);

/// Returns the section under a heading, and its shell blocks.
fn section(heading: &str) -> (&'static str, Vec<&'static str>) {
    let section = README.split("\n## ").find(|section| section.lines().next() == Some(heading));
    let section = section.unwrap_or_else(|| panic!("the README has no section {heading:?}"));
    let blocks = section.split("```sh\n").skip(1);
    (section, blocks.map(|rest| rest.split_once("```").expect("the end of a block").0).collect())
}

/// Runs shell commands with the tests' build of the program instead of one that cargo would build.
fn sh(commands: &str) -> String {
    const CARGO: &str = "set -e
cargo() {
  [ \"$1 $2 $3\" = 'run --release --' ] || { echo \"not as the README says: cargo $*\" >&2; exit 9; }
  shift 3
  \"$PROGRAM\" \"$@\"
}
";
    let output = Command::new("sh")
        .args(["-c", &format!("{CARGO}{commands}")])
        .env("PROGRAM", env!("CARGO_BIN_EXE_kafka-scheduler"))
        .stdin(Stdio::null())
        .output()
        .expect("sh runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{commands}\n{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn a_newcomer_fires_a_message_of_their_own_with_three_commands() {
    const ADDRESS: &str = "127.0.0.1:12345";
    let (text, blocks) = section("Try it");
    assert_eq!(blocks.len(), 3, "{blocks:?}");
    assert_eq!(blocks[0].lines().chain(blocks[1].lines()).count(), 3, "the README has three commands: {blocks:?}");
    assert_eq!(blocks[2], "cargo test --workspace\n");
    let mini = blocks[0].trim().strip_prefix("cargo run --release -- ").expect("the command runs the program");
    let args: Vec<&str> = mini.split(' ').collect();
    let mini = Engine::start("readme", &args, &[]);
    let address = eventually("mini prints the address", LIMIT, || {
        let output = mini.output();
        let line = output.lines().find(|line| line.contains("bootstrap server"))?;
        line.split_whitespace().find(|argument| argument.starts_with("127.0.0.1:")).map(str::to_owned)
    });
    assert!(blocks[1].contains(ADDRESS), "{}", blocks[1]);
    sh(&blocks[1].replace(ADDRESS, &address));
    let shown = text.split_once("the first terminal shows it: `").expect("what is shown").1;
    let shown: Vec<&str> = shown.split_once('`').expect("its end").0.split(" ... ").collect();
    assert_eq!(shown.len(), 2, "{shown:?}");
    eventually(&format!("a line shows {shown:?}"), LIMIT, || {
        let output = mini.output();
        output.lines().any(|line| shown.iter().all(|part| line.contains(part))).then_some(())
    });
}

#[test]
fn topics_created_as_the_readme_says_pass_the_check() {
    let Some(case) = Case::new("readme", 1) else { return };
    let (_, blocks) = section("Running it");
    let [build, run, create] = blocks[..] else { panic!("{blocks:?}") };
    // The build command of the image; `tests/packaging` checks that.
    assert_eq!(build.trim(), "cargo build --release --locked");
    let (schedules, history) = (format!("{}-schedules", case.group), format!("{}-history", case.group));
    let own = |argument: &str| match argument {
        "schedules" => schedules.clone(),
        "history" => history.clone(),
        argument => argument.replace("kafka:9092", case.bootstrap()),
    };
    for command in create.replace("\\\n", " ").lines() {
        let arguments: Vec<String> = command.split_whitespace().map(own).collect();
        let [tool, server, at, args @ ..] = &arguments[..] else { panic!("{command}") };
        assert_eq!([tool, server, at], ["kafka-topics.sh", "--bootstrap-server", case.bootstrap()]);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        if case.broker.tool("org.apache.kafka.tools.TopicCommand", &args).is_none() {
            return;
        }
    }
    let arguments: Vec<&str> = run.split_whitespace().collect();
    let (program, variables) = arguments.split_last().expect("a program");
    assert_eq!(*program, "kafka-scheduler");
    let variable = |argument: &&str| {
        let (name, value) = argument.split_once('=').expect("a variable");
        (name.to_owned(), own(value))
    };
    let mut env: Vec<(String, String)> = variables.iter().map(variable).collect();
    // Other tests use the default topic, and a group.
    env.extend([("HISTORY_TOPIC".into(), history.clone()), ("GROUP_ID".into(), case.group.clone())]);
    let borrowed: Vec<(&str, &str)> = env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let checked = cli::run(&borrowed, &["topics", "check"], b"").ok();
    assert_eq!(checked.matches(": good").count(), 2, "{checked}");
    let engine = Engine::start("readme-run", &[], &env);
    let said = ["schedule", "--in", "0s", "--key", "k", "--target-topic", &case.target, "--value", "v"];
    cli::run(&borrowed, &said, b"").ok();
    let mut reader = Reader::new(case.bootstrap(), &case.target);
    reader.wait("it fires", LIMIT, |records| !records.is_empty());
    assert!(!engine.output().contains(" WARN "), "{}", engine.output());
}
