//! The program around an engine: its servers, its signals, and its end.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};
use std::thread;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tracing::info;

use crate::config::ConfigError;
use crate::handle::Handle;
use crate::http::{BindError, Listeners};
use crate::kafka::{self, Clock};
use crate::logging;
use crate::runner::{Runner, RunnerError};

/// The reason why the program ended.
#[derive(Debug)]
pub(crate) enum ProgramError {
    Config(ConfigError),
    Bind(BindError),
    Engine(kafka::EngineError),
    Runner(RunnerError),
    System(&'static str, io::Error),
    Mini(rdkafka::error::KafkaError),
}

impl ProgramError {
    /// Returns the program's exit code: 2 if the settings are wrong.
    #[must_use]
    pub(crate) const fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => 2,
            _ => 1,
        }
    }
}

impl fmt::Display for ProgramError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(e) => e.fmt(f),
            Self::Bind(e) => e.fmt(f),
            Self::Engine(e) => e.fmt(f),
            Self::Runner(e) => e.fmt(f),
            Self::System(what, _) => f.write_str(what),
            Self::Mini(_) => f.write_str("the embedded broker"),
        }
    }
}

impl std::error::Error for ProgramError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            // `Display` shows these errors themselves.
            Self::Config(e) => e.source(),
            Self::Bind(e) => e.source(),
            Self::Engine(e) => e.source(),
            Self::Runner(e) => e.source(),
            Self::System(_, e) => Some(e),
            Self::Mini(e) => Some(e),
        }
    }
}

/// Returns the text of an error and of each of its sources, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(error.source(), |error| error.source());
    sources.fold(error.to_string(), |text, source| format!("{text}: {source}"))
}

impl From<ConfigError> for ProgramError {
    fn from(e: ConfigError) -> Self {
        Self::Config(e)
    }
}

impl From<BindError> for ProgramError {
    fn from(e: BindError) -> Self {
        Self::Bind(e)
    }
}

impl From<kafka::EngineError> for ProgramError {
    fn from(e: kafka::EngineError) -> Self {
        Self::Engine(e)
    }
}

impl From<RunnerError> for ProgramError {
    fn from(e: RunnerError) -> Self {
        Self::Runner(e)
    }
}

/// Turns SIGINT and SIGTERM into a clean end.
#[derive(Debug)]
pub(crate) struct Stopper {
    handle: Arc<Mutex<Option<Handle>>>,
}

impl Stopper {
    /// Starts to listen to the signals.
    ///
    /// # Errors
    /// If the system refuses a thread or the signals.
    pub(crate) fn start() -> Result<Self, ProgramError> {
        let failed = |e| ProgramError::System("signals", e);
        let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(failed)?;
        let handle = Arc::new(Mutex::new(None::<Handle>));
        let shared = handle.clone();
        let wait = move || {
            let mut stopping = false;
            for _ in signals.forever() {
                let handle = shared.lock().expect("nothing panics while it holds the lock").clone();
                match handle {
                    Some(handle) if !stopping => {
                        info!("stopping; a second signal ends the program at once");
                        handle.stop();
                    }
                    // The engine has not begun, so there is nothing to hand over.
                    None => std::process::exit(0),
                    Some(_) => std::process::exit(1),
                }
                stopping = true;
            }
        };
        thread::Builder::new().name("signals".into()).spawn(wait).map_err(failed)?;
        Ok(Self { handle })
    }

    fn stops(&self, handle: Handle) {
        *self.handle.lock().expect("nothing panics while it holds the lock") = Some(handle);
    }
}

/// Runs an engine with its servers until a signal. A given `clock` can be moved over REST.
///
/// # Errors
/// If it cannot start or continue.
pub(crate) fn run(
    runner: Runner,
    listeners: Listeners,
    stopper: &Stopper,
    clock: Option<Clock>,
) -> Result<(), ProgramError> {
    let config = runner.config().clone();
    config.announce();
    let (engine, mut metrics, activity) = runner.engine()?;
    metrics.log(logging::lines_dropped);
    stopper.stops(engine.handle());
    listeners
        .serve(&config, engine.handle(), metrics, activity, clock)
        .map_err(|e| ProgramError::System("the HTTP servers", e))?;
    Ok(engine.run()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_text_of_a_chain_is_shown_once() {
        let inner = || io::Error::other("no descriptors left");
        assert_eq!(chain(&ProgramError::System("signals", inner())), "signals: no descriptors left");
        let engine = ProgramError::Runner(RunnerError::Engine(kafka::EngineError::System(inner())));
        let expected = "the operating system refused a thread or a wake-up: no descriptors left";
        assert_eq!(chain(&engine), expected);
    }
}
