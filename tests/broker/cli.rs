//! Runs each command as a process against a real broker.

mod moving;
mod redrive;
mod schedules;
mod topics;
mod trouble;

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::kit::Case;
use crate::kit::process::target_dir;

/// The output and exit code of a command.
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// Expects exit code 0, and returns stdout.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{}{}", self.out, self.err);
        self.out
    }

    /// Expects this exit code, and a message with these texts.
    #[track_caller]
    pub fn failed(self, code: i32, texts: &[&str]) {
        assert_eq!(self.code, code, "{}{}", self.out, self.err);
        for part in texts {
            assert!(self.err.contains(part), "{part:?} is not in: {}", self.err);
        }
    }
}

/// Runs the program with an environment of only these variables, `PATH` and `HOME`.
pub fn run(env: &[(&str, &str)], args: &[&str], input: &[u8]) -> Ran {
    let mut child = Command::new(env!("CARGO_BIN_EXE_kafka-scheduler"))
        .args(args)
        .env_clear()
        .envs(std::env::vars().filter(|(name, _)| matches!(name.as_str(), "PATH" | "HOME" | "RUST_BACKTRACE")))
        .envs(env.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    // A command that exits before it has read all its input prints the reason.
    let _ = stdin.write_all(input);
    drop(stdin);
    let output = child.wait_with_output().expect("the program exits");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Ran { code: output.status.code().expect("an exit code"), out: text(output.stdout), err: text(output.stderr) }
}

/// Runs a command on a case's topics.
pub fn on(case: &Case, args: &[&str]) -> Ran {
    on_with(case, args, b"")
}

/// Runs a command on a case's topics with more environment variables.
pub fn on_env(case: &Case, more: &[(&str, &str)], args: &[&str]) -> Ran {
    on_all(case, more, args, b"")
}

/// Runs a command on a case's topics with standard input.
pub fn on_with(case: &Case, args: &[&str], input: &[u8]) -> Ran {
    on_all(case, &[], args, input)
}

fn on_all(case: &Case, more: &[(&str, &str)], args: &[&str], input: &[u8]) -> Ran {
    let topics = case.schedules.join(",");
    let env = [
        ("BOOTSTRAP_SERVERS", case.bootstrap()),
        ("SCHEDULES_TOPICS", &topics),
        ("HISTORY_TOPIC", &case.history),
        ("GROUP_ID", &case.group),
    ];
    run(&[&env, more].concat(), args, input)
}

/// Returns a path for a test's file.
pub fn path(case: &Case, name: &str) -> PathBuf {
    target_dir().join("tmp").join(format!("{}-{name}", case.group))
}
