//! The engine as the scenarios run it: with default settings, and with few log lines.

use std::time::{Duration, Instant};

use super::Bench;
use crate::kit::Case;
use crate::kit::engine::Engine;
use crate::process;

/// The polling interval: short enough for the measurements, and long enough not to load the engine.
const EVERY: Duration = Duration::from_millis(250);

/// The process of the release binary.
pub struct Running(pub Engine);

impl Running {
    pub fn start(bench: &Bench, case: &Case) -> Self {
        Self::start_with(bench, case, &[])
    }

    /// Starts it with more variables.
    pub fn start_with(bench: &Bench, case: &Case, more: &[(&str, &str)]) -> Self {
        let mut env = vec![("LOG_LEVEL", "warning"), ("SESSION_TIMEOUT", "6000")];
        env.extend(more);
        if let Some(path) = &bench.args.configuration {
            env.push(("CONFIGURATION_FILE", path.to_str().expect("a path in UTF-8")));
        }
        Self(case.engine_with(&env))
    }

    /// Starts the engine, and waits until it is ready.
    pub fn ready(bench: &Bench, case: &Case, limit: Duration) -> Result<Self, String> {
        let mut running = Self::start(bench, case);
        running.wait("everything is taken over", limit, |engine| engine.get("/readiness"))?;
        Ok(running)
    }

    /// Tells the engine to end, and waits until it has.
    pub fn terminate(mut self) {
        self.0.terminate();
    }

    pub fn pid(&self) -> u32 {
        self.0.pid()
    }

    /// Waits until the engine is idle.
    pub fn wait_until_idle(&self) {
        process::wait_until_idle(self.pid());
    }

    /// Polls until there is an answer.
    pub fn wait<T>(&mut self, what: &str, limit: Duration, ask: impl Fn(&Engine) -> Option<T>) -> Result<T, String> {
        let began = Instant::now();
        loop {
            if let Some(answer) = ask(&self.0) {
                return Ok(answer);
            }
            if !self.0.running() {
                return Err(format!("the engine exited before {what}: {}", self.0.output()));
            }
            if began.elapsed() > limit {
                return Err(format!("timed out after {limit:?}: {what}; output of the engine: {}", self.0.output()));
            }
            std::thread::sleep(EVERY);
        }
    }

    /// Waits until an event counter has reached a value.
    pub fn counted(&mut self, event: &str, count: u32) -> Result<(), String> {
        self.wait(&format!("{event} reaches {count}"), time_limit(count), |engine| {
            (engine.counter(event)? >= u64::from(count)).then_some(())
        })
    }

    /// Waits until this many schedules are pending.
    pub fn holds(&mut self, count: u32) -> Result<(), String> {
        let series = "kafka_scheduler_pending_schedules";
        self.wait(&format!("{count} are pending"), time_limit(count), |engine| {
            let all = engine.metrics();
            let pending: f64 = all.iter().filter(|(name, _)| name.starts_with(series)).map(|(_, value)| value).sum();
            (pending >= f64::from(count)).then_some(())
        })
    }

    /// Stops the engine with SIGTERM, and prints its warnings.
    pub fn stop(mut self) {
        self.0.stop();
        self.0.output().lines().take(5).for_each(|line| eprintln!("  the engine: {line}"));
    }
}

/// The time limit for this many schedules, far longer than needed.
pub fn time_limit(count: u32) -> Duration {
    Duration::from_secs(60 + u64::from(count / 5_000))
}
