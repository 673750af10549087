//! Log lines on stderr.
//!
//! A thread of their own writes them: the reader of stderr may stop, and the engine's loop must not wait for it. Lines
//! beyond those that may wait are dropped and counted.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt;
use std::io::Write;
use std::panic::PanicHookInfo;
use std::sync::OnceLock;

use serde_json::{Value, json};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::registry::LookupSpan;

use crate::config::{ConfigError, Env, set};

/// Lines that may wait for stderr.
const LINES_MAX: usize = 10_000;

static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();

/// The settings of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Logging {
    /// Whether `LOG_FORMAT` is `json`.
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

    /// Sends the log of the whole program to stderr. Only the first call has an effect. Dropping the result writes the
    /// lines that wait, for at most about a second.
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
            builder.json().flatten_event(true).map_event_format(Severe).try_init()
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

/// JSON lines with `severity` for Google's collectors, which take a line from stderr without one for an error.
struct Severe<F>(F);

impl<S, N, F> FormatEvent<S, N> for Severe<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = String::new();
        self.0.format_event(ctx, Writer::new(&mut line), event)?;
        match line.strip_prefix('{') {
            Some(rest) => write!(writer, "{{\"severity\":\"{}\",{rest}", severity(*event.metadata().level())),
            None => writer.write_str(&line),
        }
    }
}

const fn severity(level: Level) -> &'static str {
    match level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARNING",
        Level::INFO => "INFO",
        _ => "DEBUG",
    }
}

/// Returns whether `LOG_FORMAT` is `json`. It also works before the settings are read, and if they are wrong.
#[must_use]
pub(crate) fn is_json() -> bool {
    set(&|name| std::env::var(name).ok(), "LOG_FORMAT").is_some_and(|format| format.eq_ignore_ascii_case("json"))
}

/// Prints the result of a command on stderr, at once and beside the log.
pub(crate) fn note(text: &str) {
    say(Level::INFO, text);
}

/// Prints a warning there.
pub(crate) fn warning(text: &str) {
    say(Level::WARN, text);
}

/// Prints there why the program ends.
pub(crate) fn failure(text: &str) {
    say(Level::ERROR, text);
}

fn say(level: Level, text: &str) {
    let line = match (is_json(), level) {
        (true, _) => json_line(level, text, &[]),
        (false, Level::ERROR | Level::WARN) => format!("kafka-scheduler: {text}"),
        (false, _) => text.to_owned(),
    };
    write(line);
}

/// Makes each panic write a JSON line.
pub(crate) fn panics_as_json() {
    std::panic::set_hook(Box::new(|panic: &PanicHookInfo<'_>| {
        let (text, payload) = (panic.payload().downcast_ref::<&str>(), panic.payload());
        let why = text.copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let why = why.unwrap_or("without a message");
        let place = panic.location().map(|at| format!(" at {at}")).unwrap_or_default();
        let mut more = vec![("thread", std::thread::current().name().unwrap_or_default().to_owned())];
        let backtrace = Backtrace::capture();
        if backtrace.status() == BacktraceStatus::Captured {
            more.push(("backtrace", backtrace.to_string()));
        }
        write(json_line(Level::ERROR, &format!("panicked{place}: {why}"), &more));
    }));
}

fn json_line(level: Level, message: &str, more: &[(&str, String)]) -> String {
    let mut line = json!({
        "timestamp": jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string(),
        "level": level.as_str(),
        "severity": severity(level),
        "target": env!("CARGO_CRATE_NAME"),
        "message": message,
    });
    for (name, value) in more {
        line[*name] = Value::from(value.as_str());
    }
    line.to_string()
}

/// Writes the line in one piece, so lines of other threads cannot split it. Errors are ignored: there is no reader.
fn write(mut line: String) {
    line.push('\n');
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// Returns the number of lines dropped so far because stderr was too slow.
#[must_use]
pub(crate) fn lines_dropped() -> u64 {
    DROPPED.get().map_or(0, |dropped| dropped.dropped_lines() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    /// Set in the process that panics.
    const CHILD: &str = "LOGGING_TEST_PANICS";

    #[test]
    fn a_panic_is_a_line_of_json_too() {
        if std::env::var_os(CHILD).is_some() {
            let _flush = Logging { json: true, level: LevelFilter::TRACE }.start();
            panics_as_json();
            tracing::warn!(answer = 42, "a line");
            tracing::trace!("one more");
            panic!("on \"purpose\"\nand over two lines");
        }
        for backtrace in ["0", "1"] {
            let output = Command::new(std::env::current_exe().expect("this program"))
                .args(["--exact", "logging::tests::a_panic_is_a_line_of_json_too", "--nocapture"])
                .envs([(CHILD, "1"), ("RUST_BACKTRACE", backtrace)])
                .stdin(Stdio::null())
                .output()
                .expect("it runs");
            let said = String::from_utf8(output.stderr).expect("UTF-8");
            let lines: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
            let found = |text: &str| {
                let line = lines.iter().find(|line| line["message"].as_str().is_some_and(|m| m.contains(text)));
                line.unwrap_or_else(|| panic!("{text}: {said}"))
            };
            let panic = found("on \"purpose\"\nand over two lines");
            assert_eq!((&panic["severity"], &panic["level"]), (&json!("ERROR"), &json!("ERROR")), "{said}");
            assert_eq!(panic["backtrace"].is_string(), backtrace == "1", "{said}");
            assert_eq!((&found("a line")["severity"], &found("a line")["answer"]), (&json!("WARNING"), &json!(42)));
            assert_eq!(found("one more")["severity"], "DEBUG");
        }
    }
}
