//! Child processes that cannot outlive the tests, and ports for them.

use std::io::Write;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// Where build results go; the tests keep what they need below it.
pub fn target_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).parent().expect("tmp is in the target directory").to_owned()
}

/// A configuration file of this run of the tests. Gives its path, for `CONFIGURATION_FILE`.
pub fn configuration(name: &str, text: &str) -> String {
    let path = target_dir().join("tmp").join(format!("{name}-{}.yaml", std::process::id()));
    std::fs::write(&path, text).expect("a file");
    path.to_str().expect("UTF-8").to_owned()
}

/// A port of 127.0.0.1 that is free, below those the system gives to outgoing connections.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..10_000 {
        let n = NEXT.fetch_add(1, Ordering::Relaxed) + std::process::id().wrapping_mul(97);
        let port = 20_000 + u16::try_from(n % 10_000).expect("below 10,000");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between 20000 and 30000");
}

/// Runs a shell script that ends when the tests do, even by SIGKILL: a `read _` in it returns once the pipe to its
/// standard input closes. In a process group of its own, so it can clean up after a Ctrl-C for the tests.
pub fn outliving_shell(script: &str, args: &[&str]) -> Child {
    Command::new("sh")
        .arg("-c")
        .arg(script)
        .arg("sh")
        .args(args)
        .stdin(Stdio::piped())
        .process_group(0)
        .spawn()
        .expect("sh starts")
}

/// Sends a signal by name.
pub fn signal(pid: u32, name: &str) {
    let status = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status().expect("kill runs");
    assert!(status.success(), "kill -{name} {pid}: {status}");
}

/// Says loudly that something is not tested here, and why.
pub fn skipped(why: &str) {
    // Not with eprintln!, which the test runner keeps to itself when a test passes.
    let _ = writeln!(std::io::stderr(), "\n*** SKIPPED: {why} ***\n");
}
