//! A whole program around an engine: its servers, its signals, its end.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};
use std::thread;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tracing::info;

use crate::config::{Config, ConfigError};
use crate::handle::{Handle, Observer};
use crate::http::{BindError, Listeners};
use crate::kafka::{self, Engine};
use crate::metrics::Metrics;
use crate::observe::Operator;

/// Why the program ended.
#[derive(Debug)]
pub enum Error {
    /// A setting is wrong.
    Config(ConfigError),
    /// An address is taken.
    Bind(BindError),
    /// The engine could not start or go on.
    Engine(kafka::Error),
    /// Something of the system's.
    System(&'static str, io::Error),
    /// The broker in the process could not be started.
    Mini(rdkafka::error::KafkaError),
}

impl Error {
    /// The program's exit code: 2 where the settings are at fault.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => 2,
            _ => 1,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(e) => e.fmt(f),
            Self::Bind(e) => e.fmt(f),
            Self::Engine(e) => e.fmt(f),
            Self::System(what, e) => write!(f, "{what}: {e}"),
            Self::Mini(e) => write!(f, "the embedded broker: {e}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<ConfigError> for Error {
    fn from(e: ConfigError) -> Self {
        Self::Config(e)
    }
}

impl From<BindError> for Error {
    fn from(e: BindError) -> Self {
        Self::Bind(e)
    }
}

impl From<kafka::Error> for Error {
    fn from(e: kafka::Error) -> Self {
        Self::Engine(e)
    }
}

/// Turns SIGINT and SIGTERM into a clean end.
#[derive(Debug)]
pub struct Stopper {
    handle: Arc<Mutex<Option<Handle>>>,
}

impl Stopper {
    /// Listens to the signals from now on.
    ///
    /// # Errors
    /// When the system does not allow it.
    pub fn start() -> Result<Self, Error> {
        let failed = |e| Error::System("signals", e);
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
                    // Nothing has been begun yet that would have to be handed over.
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

/// Runs an engine with its servers until a signal. `also` is told of everything as well.
///
/// # Errors
/// When it cannot start or go on.
pub fn run(
    config: Config,
    listeners: Listeners,
    stopper: &Stopper,
    also: Option<Box<dyn Observer>>,
) -> Result<(), Error> {
    let metrics = Metrics::new();
    let operator = Operator::new(metrics.clone());
    let observer: Box<dyn Observer> = match also {
        None => Box::new(operator),
        Some(also) => Box::new(Both(operator, also)),
    };
    let engine = Engine::new(config.clone(), observer)?;
    stopper.stops(engine.handle());
    listeners.serve(&config, engine.handle(), metrics).map_err(|e| Error::System("the HTTP servers", e))?;
    Ok(engine.run()?)
}

/// Two observers of one engine.
struct Both(Operator, Box<dyn Observer>);

impl Observer for Both {
    fn counters(&mut self, counters: &crate::core::io::Counters) {
        self.0.counters(counters);
        self.1.counters(counters);
    }

    fn fired(&mut self, batch: &crate::core::batch::Batch, at: crate::core::io::Millis) {
        self.0.fired(batch, at);
        self.1.fired(batch, at);
    }

    fn report(&mut self, report: &crate::core::io::Report, topics: &[String]) {
        self.0.report(report, topics);
        self.1.report(report, topics);
    }
}
