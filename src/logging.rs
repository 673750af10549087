//! Log lines on stderr.
//!
//! They are written by a thread of their own: whoever reads stderr may stop reading, and the engine's loop must not wait
//! for that. Lines beyond those that may wait are given up and counted.

use std::sync::OnceLock;

use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};

use crate::config::{ConfigError, Env, set};

/// Lines that may wait for stderr.
const LINES_MAX: usize = 10_000;

static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();

/// How to log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Logging {
    /// `LOG_FORMAT` is `json`.
    pub json: bool,
    /// `LOG_LEVEL`
    pub level: LevelFilter,
}

impl Logging {
    /// Reads `LOG_FORMAT` and `LOG_LEVEL`.
    ///
    /// # Errors
    /// When one of them is not allowed.
    pub fn load(env: Env<'_>) -> Result<Self, ConfigError> {
        let json = match set(env, "LOG_FORMAT") {
            None => false,
            Some(format) => match format.to_ascii_lowercase().as_str() {
                "json" => true,
                "text" => false,
                _ => return Err(ConfigError::wrong("LOG_FORMAT", &format, "text or json")),
            },
        };
        let name = set(env, "LOG_LEVEL").unwrap_or("info".into());
        let level = match name.to_ascii_lowercase().as_str() {
            "trace" => LevelFilter::TRACE,
            "debug" => LevelFilter::DEBUG,
            "info" => LevelFilter::INFO,
            "warn" | "warning" => LevelFilter::WARN,
            "error" | "fatal" | "panic" => LevelFilter::ERROR,
            _ => {
                let allowed = "trace, debug, info, warn, warning, error, fatal or panic";
                return Err(ConfigError::wrong("LOG_LEVEL", &name, allowed));
            }
        };
        Ok(Self { json, level })
    }

    /// Sends the lines of the whole program to stderr. Only the first call counts. Dropping what is returned writes
    /// what waits, for at most about a second.
    #[must_use]
    pub fn start(self) -> Flush {
        let (writer, guard) =
            NonBlockingBuilder::default().lossy(true).buffered_lines_limit(LINES_MAX).finish(std::io::stderr());
        let _ = DROPPED.set(writer.error_counter());
        // librdkafka's own lines repeat with every lost connection; what matters of them is logged by the engine.
        let clients = if self.level >= LevelFilter::DEBUG { "" } else { ",librdkafka=off,rdkafka=off" };
        let filter = tracing_subscriber::EnvFilter::new(format!("{}{clients}", self.level));
        let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
        // A second call fails, which happens in tests only.
        let _ = if self.json {
            builder.json().flatten_event(true).try_init()
        } else {
            let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
            builder.with_ansi(terminal).try_init()
        };
        Flush { _guard: guard }
    }
}

/// Writes the last lines when it is dropped.
#[derive(Debug)]
pub struct Flush {
    _guard: WorkerGuard,
}

/// Lines given up so far because stderr did not take them in time.
#[must_use]
pub fn lines_dropped() -> u64 {
    DROPPED.get().map_or(0, |dropped| dropped.dropped_lines() as u64)
}
