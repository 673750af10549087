//! Runs the engine as a process.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::http;
use super::process::{free_port, outliving_shell, signal, target_dir};
use super::wait::eventually;

/// A running engine. It is killed when it goes out of scope, or when the tests end.
pub struct Engine {
    child: Child,
    /// Kills the engine when the tests end.
    reaper: Child,
    log: PathBuf,
    keep: bool,
    /// The port of REST.
    pub port: u16,
    /// The port of metrics.
    pub metrics_port: u16,
}

impl Engine {
    /// Starts the binary with an environment of only these variables, `PATH` and `HOME`.
    pub fn start(name: &str, args: &[&str], env: &[(String, String)]) -> Self {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let n = STARTED.fetch_add(1, Ordering::Relaxed);
        let dir = target_dir().join("tmp").join("engine-logs");
        fs::create_dir_all(&dir).expect("a directory for logs");
        let log = dir.join(format!("{name}-{}-{n}.log", std::process::id()));
        let output = File::create(&log).expect("a log file");
        let (port, metrics_port) = (free_port(), free_port());
        let child = Command::new(env!("CARGO_BIN_EXE_kafka-scheduler"))
            .args(args)
            .env_clear()
            .envs(std::env::vars().filter(|(name, _)| matches!(name.as_str(), "PATH" | "HOME" | "RUST_BACKTRACE")))
            .env("SERVER_ADDR", format!("127.0.0.1:{port}"))
            .env("METRICS_HTTP_ADDR", format!("127.0.0.1:{metrics_port}"))
            .envs(env.iter().cloned())
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a second handle"))
            .stderr(output)
            .spawn()
            .expect("the engine starts");
        let reaper = outliving_shell("read _; kill -9 \"$1\"", &[&child.id().to_string()]);
        Self { child, reaper, log, keep: false, port, metrics_port }
    }

    /// Kills the engine with SIGKILL.
    pub fn kill(&mut self) {
        assert!(self.running(), "the engine exited by itself; {}", self.said());
        self.child.kill().expect("kill -9");
        self.child.wait().expect("the engine is gone");
    }

    /// Stops the engine with SIGTERM, and waits until it has exited.
    pub fn terminate(&mut self) -> ExitStatus {
        signal(self.child.id(), "TERM");
        self.wait(Duration::from_secs(15))
    }

    /// Stops the engine with SIGINT, as Ctrl-C does.
    pub fn interrupt(&mut self) -> ExitStatus {
        signal(self.child.id(), "INT");
        self.wait(Duration::from_secs(15))
    }

    /// Waits until the engine has exited.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let (child, log) = (&mut self.child, &self.log);
        eventually(&format!("the engine ends; see {}", log.display()), limit, || child.try_wait().expect("a status"))
    }

    /// Stops the engine, and expects exit code 0 in time.
    pub fn stop(&mut self) {
        let status = self.terminate();
        assert_eq!(status.code(), Some(0), "after SIGTERM; {}", self.said());
    }

    pub fn running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Keeps the log file after the engine is dropped. Returns its path.
    pub fn keep_log(&mut self) -> &std::path::Path {
        self.keep = true;
        &self.log
    }

    /// Returns the engine's output.
    pub fn output(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn said(&self) -> String {
        let output = self.output();
        let lines: Vec<&str> = output.lines().collect();
        let tail = lines[lines.len().saturating_sub(40)..].join("\n");
        format!("the last lines of {}:\n{tail}", self.log.display())
    }

    /// Returns the body of a 200 response of REST.
    pub fn get(&self, path: &str) -> Option<String> {
        http::get(self.port, path).filter(|(status, _)| *status == 200).map(|(_, body)| body)
    }

    /// Returns the response of REST, if there is one.
    pub fn probe(&self, path: &str) -> Option<http::Answer> {
        http::ask(self.port, "GET", path, &[]).ok()
    }

    /// Returns the number of records that cannot fire for this reason; `None` without a response.
    pub fn refused(&self, reason: &str) -> Option<u64> {
        self.metric(&format!("kafka_scheduler_unfired_records_total{{reason=\"{reason}\"}}"))
    }

    /// Sends a request to REST and returns the response.
    pub fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> http::Answer {
        http::ask(self.port, method, path, headers).unwrap_or_else(|e| panic!("{method} {path}: {e}; {}", self.said()))
    }

    /// Waits until the engine is ready.
    pub fn ready(&self) {
        eventually("the engine is ready", super::case::TIMEOUT, || self.get("/readiness"));
    }

    /// Returns the process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns all series of `/metrics` with their labels and values.
    pub fn metrics(&self) -> std::collections::BTreeMap<String, f64> {
        let (status, body) = http::get(self.metrics_port, "/metrics").expect("an answer");
        assert_eq!(status, 200, "/metrics: {body}");
        let lines = body.lines().filter(|line| !line.starts_with('#'));
        let series = lines.filter_map(|line| line.rsplit_once(' '));
        series.map(|(name, value)| (name.to_owned(), value.parse().expect("a number"))).collect()
    }

    /// Resets the peak of the memory to the current usage.
    pub fn forget_peak(&self) {
        fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").expect("Linux takes it");
    }

    /// Returns the anonymous memory, without the program and mapped files, in bytes.
    pub fn anonymous_memory(&self) -> u64 {
        self.memory("RssAnon:")
    }

    /// Returns the peak memory since the start or [`Engine::forget_peak`], in bytes.
    pub fn peak_memory(&self) -> u64 {
        self.memory("VmHWM:")
    }

    fn memory(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("a process");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("Linux says so");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }

    /// Returns one series of `/metrics`, as an integer.
    pub fn metric(&self, series: &str) -> Option<u64> {
        let (status, body) = http::get(self.metrics_port, "/metrics")?;
        assert_eq!(status, 200, "/metrics: {body}");
        let value = body.lines().find_map(|line| line.strip_prefix(series))?;
        Some(value.trim().parse().expect("a whole number"))
    }

    /// Returns one of the event counters; `None` without a response.
    pub fn counter(&self, event: &str) -> Option<u64> {
        self.metric(&format!("kafka_scheduler_event_total{{type=\"kafka_scheduler_{event}\"}}"))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // End the guard first: after the engine has exited, another process may get its process id.
        let _ = self.reaper.kill();
        let _ = self.reaper.wait();
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("{}", self.said());
        } else if !self.keep {
            let _ = fs::remove_file(&self.log);
        }
    }
}
