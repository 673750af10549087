//! Child processes that end with the tests, and ports for them.

use std::io::Write;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// Returns cargo's target directory; the tests keep their files below it.
pub fn target_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).parent().expect("tmp is in the target directory").to_owned()
}

/// Writes a configuration file for this run. Returns its path, for `CONFIGURATION_FILE`.
pub fn configuration(name: &str, text: &str) -> String {
    let path = target_dir().join("tmp").join(format!("{name}-{}.yaml", std::process::id()));
    std::fs::write(&path, text).expect("a file");
    path.to_str().expect("UTF-8").to_owned()
}

/// Returns a free port of 127.0.0.1, below the range of outgoing connections.
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

/// Runs a shell script that outlives the tests briefly, even after SIGKILL: a `read _` in it returns when the pipe to
/// its stdin closes. It runs in a process group of its own, so it can clean up after Ctrl-C.
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

/// Sends a signal, given by its name.
pub fn signal(pid: u32, name: &str) {
    let status = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status().expect("kill runs");
    assert!(status.success(), "kill -{name} {pid}: {status}");
}

/// Reports prominently that something is not tested, and why.
pub fn skipped(why: &str) {
    // The test runner hides the output of eprintln! when a test passes.
    let _ = writeln!(std::io::stderr(), "\n*** SKIPPED: {why} ***\n");
}
