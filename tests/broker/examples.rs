//! Runs the examples and the documented clients against mini.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::kit::client::Reader;
use crate::kit::engine::Engine;
use crate::kit::process::{skipped, target_dir};
use crate::kit::wait::eventually;

const LIMIT: Duration = Duration::from_secs(60);

fn mini(name: &str, topic: &str) -> (Engine, String) {
    let mini = Engine::start(name, &["mini", "--no-demo", "--topic", topic], &[]);
    let info = eventually("mini tells where its broker is", LIMIT, || {
        let info: serde_json::Value = serde_json::from_str(&mini.get("/info")?).ok()?;
        Some(info["kafka"]["bootstrap_servers"].as_str()?.to_owned())
    });
    (mini, info)
}

/// Builds and starts an example.
fn example(name: &str, bootstrap: &str) -> Child {
    Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--example", name])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("BOOTSTRAP_SERVERS", bootstrap)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("cargo starts")
}

fn output(child: Child) -> String {
    let output = child.wait_with_output().expect("the example exits");
    assert!(output.status.success(), "{}", output.status);
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn a_message_is_scheduled_and_arrives() {
    let (_mini, bootstrap) = mini("example-schedule", "greetings:1");
    let said = output(example("schedule", &bootstrap));
    assert!(said.contains("\"hello\" arrived, scheduled as \"greeting-1\""), "{said}");
}

#[test]
fn three_failures_lead_to_success_with_retry_attempt_3() {
    let (_mini, bootstrap) = mini("example-retry", "payments:1");
    let said = output(example("retry", &bootstrap));
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 4, "{said}");
    for (n, line) in lines[..3].iter().enumerate() {
        assert!(line.starts_with(&format!("the bank does not answer: retry {} in ", n + 1)), "{said}");
    }
    assert_eq!(lines[3], "done with retry-attempt 3");
}

#[test]
fn the_engine_runs_inside_another_program() {
    let Some(case) = crate::kit::Case::new("example-embedded", 1) else { return };
    case.produce(&[case.due_in("k", "v", 0)]);
    let mut child = Command::new(env!("CARGO"));
    child.args(["run", "--quiet", "--example", "embedded"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    child.envs([("BOOTSTRAP_SERVERS", case.bootstrap()), ("SCHEDULES_TOPICS", &case.schedules[0])]);
    child.envs([("HISTORY_TOPIC", &case.history), ("GROUP_ID", &case.group)]);
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("cargo starts");
    let stdin = child.stdin.take().expect("a pipe");
    assert_eq!(case.fired(1)[0].value_text(), "v");
    drop(stdin);
    let said = output(child);
    assert!(said.contains("1 pending") && said.contains("k fired to") && said.contains("shop_kafka"), "{said}");
}

/// Returns a Python with the client library of the documentation, installed once; prints a message and returns `None`
/// without Python.
fn python() -> Option<PathBuf> {
    let found = Command::new("python3").arg("--version").stdout(Stdio::null()).status().is_ok_and(|s| s.success());
    if !found {
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "no python3, and with CI=true this test must not be skipped"
        );
        skipped("no python3");
        return None;
    }
    let home = target_dir().join("python-client");
    let python = home.join("bin").join("python3");
    let has_client = |python: &Path| {
        let imported = Command::new(python).args(["-c", "import confluent_kafka"]).stderr(Stdio::null()).status();
        imported.is_ok_and(|status| status.success())
    };
    if !has_client(&python) {
        let venv = Command::new("python3").args(["-m", "venv"]).arg(&home).status().expect("python3 runs");
        assert!(venv.success(), "no virtual environment in {}", home.display());
        let pip = Command::new(&python).args(["-m", "pip", "install", "--quiet", "confluent-kafka"]).status();
        assert!(pip.expect("pip runs").success(), "pip cannot install confluent-kafka");
    }
    Some(python)
}

#[test]
fn the_documented_python_schedules_and_cancels() {
    let Some(python) = python() else { return };
    let document = include_str!("../../docs/client.md");
    let code =
        document.split("```python\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a block of Python");
    let (mini, bootstrap) = mini("example-python", "greetings:1");
    eventually("the engine fires", LIMIT, || (mini.output().matches("partition live").count() == 3).then_some(()));
    let run = Command::new(python).args(["-c", code]).env("BOOTSTRAP_SERVERS", &bootstrap).status().expect("it runs");
    assert!(run.success(), "{run}");
    eventually("both are seen, and one is cancelled", LIMIT, || {
        (mini.counter("planned_schedule")? == 2 && mini.counter("deleted_schedule")? == 1).then_some(())
    });
    crate::kit::http::post(mini.port, "/advance?by=11s").expect("an answer");
    let mut reader = Reader::new(&bootstrap, "greetings");
    let fired = reader.wait("it arrives", LIMIT, |records| !records.is_empty());
    assert_eq!((fired[0].key_text(), fired[0].value_text()), ("world".into(), "hello".into()));
    assert_eq!(fired[0].header("language"), Some(&b"en"[..]));
}
