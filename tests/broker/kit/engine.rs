//! The engine as a process.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::http;
use super::process::{free_port, outliving_shell, signal, target_dir};
use super::wait::eventually;

/// A running engine, killed when it goes out of scope or when the tests end in any way.
pub struct Engine {
    child: Child,
    /// Kills the engine when the tests are gone.
    reaper: Child,
    log: PathBuf,
    keep: bool,
    /// Where REST is served.
    pub port: u16,
    /// Where metrics are served.
    pub metrics_port: u16,
}

impl Engine {
    /// Starts the binary with nothing in its environment but this, `PATH` and `HOME`.
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

    /// Ends it like a power failure of the process: no clean-up of any kind.
    pub fn kill(&mut self) {
        assert!(self.running(), "the engine has ended by itself; {}", self.said());
        self.child.kill().expect("kill -9");
        self.child.wait().expect("the engine is gone");
    }

    /// Asks it to end, and waits until it has.
    pub fn terminate(&mut self) -> ExitStatus {
        signal(self.child.id(), "TERM");
        self.wait(Duration::from_secs(15))
    }

    /// The same as Ctrl-C does it.
    pub fn interrupt(&mut self) -> ExitStatus {
        signal(self.child.id(), "INT");
        self.wait(Duration::from_secs(15))
    }

    /// Waits for its end.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let (child, log) = (&mut self.child, &self.log);
        eventually(&format!("the engine ends; see {}", log.display()), limit, || child.try_wait().expect("a status"))
    }

    /// Asks it to end, and expects it to do so well and in time.
    pub fn stop(&mut self) {
        let status = self.terminate();
        assert_eq!(status.code(), Some(0), "after SIGTERM; {}", self.said());
    }

    pub fn running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Leaves what it prints when it is gone. Gives the file.
    pub fn keep_log(&mut self) -> &std::path::Path {
        self.keep = true;
        &self.log
    }

    /// What it has printed.
    pub fn output(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn said(&self) -> String {
        let output = self.output();
        let lines: Vec<&str> = output.lines().collect();
        let tail = lines[lines.len().saturating_sub(40)..].join("\n");
        format!("its last words, more in {}:\n{tail}", self.log.display())
    }

    /// The body of a 200 answer of REST.
    pub fn get(&self, path: &str) -> Option<String> {
        http::get(self.port, path).filter(|(status, _)| *status == 200).map(|(_, body)| body)
    }

    /// What REST answers, if anyone does.
    pub fn probe(&self, path: &str) -> Option<http::Answer> {
        http::ask(self.port, "GET", path, &[]).ok()
    }

    /// Records that cannot fire for this reason; `None` without an answer.
    pub fn refused(&self, reason: &str) -> Option<u64> {
        self.metric(&format!("kafka_scheduler_unfired_records_total{{reason=\"{reason}\"}}"))
    }

    /// A whole exchange with REST.
    pub fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> http::Answer {
        http::ask(self.port, method, path, headers).unwrap_or_else(|e| panic!("{method} {path}: {e}; {}", self.said()))
    }

    /// Waits until it says that everything fires.
    pub fn ready(&self) {
        eventually("it is ready", super::case::PATIENCE, || self.get("/readiness"));
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything at `/metrics`: series with their labels, and values.
    pub fn metrics(&self) -> std::collections::BTreeMap<String, f64> {
        let (status, body) = http::get(self.metrics_port, "/metrics").expect("an answer");
        assert_eq!(status, 200, "/metrics: {body}");
        let lines = body.lines().filter(|line| !line.starts_with('#'));
        let series = lines.filter_map(|line| line.rsplit_once(' '));
        series.map(|(name, value)| (name.to_owned(), value.parse().expect("a number"))).collect()
    }

    /// Resets the peak of memory to the current use.
    pub fn forget_peak(&self) {
        fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").expect("Linux takes it");
    }

    /// The memory that it holds now beside its program and what is mapped from files, in bytes.
    pub fn anonymous_memory(&self) -> u64 {
        self.memory("RssAnon:")
    }

    /// The most memory that it has held since its start or [`Engine::forget_peak`], in bytes.
    pub fn peak_memory(&self) -> u64 {
        self.memory("VmHWM:")
    }

    fn memory(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("a process");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("Linux says so");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }

    /// One series of `/metrics`, as a whole number.
    pub fn metric(&self, series: &str) -> Option<u64> {
        let (status, body) = http::get(self.metrics_port, "/metrics")?;
        assert_eq!(status, 200, "/metrics: {body}");
        let value = body.lines().find_map(|line| line.strip_prefix(series))?;
        Some(value.trim().parse().expect("a whole number"))
    }

    /// One of the event counters; `None` without an answer.
    pub fn counter(&self, event: &str) -> Option<u64> {
        self.metric(&format!("kafka_scheduler_event_total{{type=\"kafka_scheduler_{event}\"}}"))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // The reaper first: after the engine's end its process id may be another's.
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
