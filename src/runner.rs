//! The engine inside another program.
//!
//! A [`Runner`] runs the same engine as the program `kafka-scheduler`. It has threads of its own, takes over neither
//! signals nor the log (it logs through [`tracing`](https://docs.rs/tracing), which is silent until the program
//! subscribes), serves no HTTP, and shares nothing with another runner in the same process.
//!
//! ```no_run
//! use kafka_scheduler::{Event, Runner};
//!
//! let registry = prometheus::Registry::new();
//! let running = Runner::from_env()?
//!     .registry(&registry)
//!     .on_event(|event| {
//!         if let Event::Fired { firing, .. } = event {
//!             println!("fired {:?} to {}", firing.value, firing.target);
//!         }
//!     })
//!     .start()?;
//! // ... the rest of the program ...
//! running.close()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod event;
mod registry;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use prometheus::Registry;

use crate::config::{Config, ConfigError};
use crate::core::batch::Batch;
use crate::core::due::Due;
pub use crate::core::io::TargetState;
use crate::core::io::{Counters, Millis, Record, Report};
pub use crate::core::reason::Reason;
pub use crate::handle::HeaderRef;
use crate::handle::status_board::Snapshot;
use crate::handle::{Handle, Observer};
use crate::kafka::{Clock, Engine};
pub use crate::kafka::{EngineError, SettingsError};
use crate::metrics::Metrics;
use crate::observe::OperatorObserver;
use crate::observe::activity::Activity;
use event::Handler;
pub use event::{Event, Firing};

/// The reason why a runner could not start, or ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum RunnerError {
    /// The operating system refused a thread.
    System(io::Error),
    /// The registry that was passed in has the metrics already. The major version of the crate `prometheus` is part of
    /// this API.
    Registry(prometheus::Error),
    /// The engine could not start or continue.
    Engine(EngineError),
    /// The engine's thread has panicked, which is a bug.
    Panicked,
}

impl fmt::Display for RunnerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System(_) => f.write_str("the operating system refused a thread"),
            Self::Registry(_) => f.write_str(
                "the registry does not take the metrics (give each runner a registry of its own, with labels that tell \
                 them apart)",
            ),
            Self::Engine(e) => e.fmt(f),
            Self::Panicked => f.write_str("the engine's thread has panicked; please report what it said"),
        }
    }
}

impl std::error::Error for RunnerError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::System(e) => Some(e),
            Self::Registry(e) => Some(e),
            // `Display` shows the engine's own text.
            Self::Engine(e) => e.source(),
            Self::Panicked => None,
        }
    }
}

impl From<EngineError> for RunnerError {
    fn from(e: EngineError) -> Self {
        Self::Engine(e)
    }
}

/// Configures an engine and starts it. See the [module](self).
#[must_use = "it runs only when it is started"]
pub struct Runner {
    config: Config,
    clock: Clock,
    metrics: Metrics,
    registry: Option<Registry>,
    observers: Vec<Box<dyn Observer>>,
}

impl fmt::Debug for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runner").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Runner {
    /// Takes the settings of the engine.
    pub fn new(config: Config) -> Self {
        Self { config, clock: Clock::default(), metrics: Metrics::new(), registry: None, observers: Vec::new() }
    }

    /// Reads the settings from the environment, as the program does. Those for HTTP and for the log have no effect.
    ///
    /// # Errors
    /// If a variable, or the file that `CONFIGURATION_FILE` names, is wrong.
    pub fn from_env() -> Result<Self, ConfigError> {
        Ok(Self::new(Config::from_env()?))
    }

    /// Registers the metrics in this registry as well, such as [`prometheus::default_registry`], except those of the
    /// process (`process_...`), which are the program's. Two runners need two registries, with different labels or
    /// prefixes (`Registry::new_custom`).
    pub fn registry(mut self, registry: &Registry) -> Self {
        self.registry = Some(registry.clone());
        self
    }

    /// Calls `handler` for each event, on the engine's loop: it must return soon, and must not block.
    pub fn on_event(self, handler: impl FnMut(&Event<'_>) + Send + 'static) -> Self {
        self.observer(Box::new(Handler::new(handler)))
    }

    /// Uses a clock that can be moved.
    pub(crate) fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Connects to an embedded broker instead of those of the settings.
    pub(crate) fn embedded(mut self, servers: String) -> Self {
        self.config = self.config.with_embedded_broker(servers);
        self
    }

    pub(crate) fn observer(mut self, observer: Box<dyn Observer>) -> Self {
        self.observers.push(observer);
        self
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// Returns the engine, not yet running, its metrics, and the data of the status page.
    pub(crate) fn engine(mut self) -> Result<(Engine, Metrics, Arc<Activity>), RunnerError> {
        let topics = self.config.schedules_topics().to_vec();
        let activity = Arc::<Activity>::default();
        let clock = self.clock.clone();
        let operator =
            OperatorObserver::new(self.metrics.clone(), Arc::clone(&activity), Box::new(move || clock.now()));
        self.observers.insert(0, Box::new(operator));
        let engine = Engine::new(self.config, self.clock, Box::new(All(self.observers)))?;
        if let Some(registry) = &self.registry {
            registry::register(&self.metrics, engine.handle().board(), &topics, registry)
                .map_err(RunnerError::Registry)?;
        }
        Ok((engine, self.metrics, activity))
    }

    /// Starts the engine on a thread of its own. It waits for brokers that do not answer.
    ///
    /// # Errors
    /// If the system has no threads or file descriptors left, or the registry has the metrics already. Later
    /// errors are returned by [`Running::close`] and [`Running::wait`].
    pub fn start(self) -> Result<Running, RunnerError> {
        let topics = self.config.schedules_topics().to_vec();
        let (engine, metrics, _) = self.engine()?;
        let handle = engine.handle();
        let thread =
            thread::Builder::new().name("scheduler".into()).spawn(move || engine.run()).map_err(RunnerError::System)?;
        Ok(Running { handle, metrics, topics, thread: Some(thread) })
    }
}

/// A running engine. Dropping it closes it.
#[derive(Debug)]
pub struct Running {
    handle: Handle,
    metrics: Metrics,
    topics: Vec<String>,
    thread: Option<JoinHandle<Result<(), EngineError>>>,
}

impl Running {
    /// Returns a handle that queries the engine from any thread.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Returns the metrics in Prometheus' text format.
    #[must_use]
    pub fn metrics(&self) -> String {
        self.metrics.text(self.handle.board(), &self.topics)
    }

    /// Returns whether the engine has ended by itself; [`Running::close`] returns the reason.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Hands over the partitions and ends. Transactions in flight settle first, for at most some seconds.
    ///
    /// # Errors
    /// If the engine had ended before: the reason.
    pub fn close(self) -> Result<(), RunnerError> {
        self.handle.stop();
        self.wait()
    }

    /// Waits until the engine ends by itself or through [`Handle::stop`].
    ///
    /// # Errors
    /// If the engine ended because of an error.
    pub fn wait(mut self) -> Result<(), RunnerError> {
        match self.thread.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(ended)) => Ok(ended?),
            Some(Err(_)) => Err(RunnerError::Panicked),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.handle.stop();
            // The caller has dropped its only way to see the result.
            let _ = thread.join();
        }
    }
}

struct All(Vec<Box<dyn Observer>>);

impl Observer for All {
    fn counters(&mut self, counters: &Counters) {
        self.0.iter_mut().for_each(|one| one.counters(counters));
    }

    fn fired(&mut self, batch: &Batch, at: Millis) {
        self.0.iter_mut().for_each(|one| one.fired(batch, at));
    }

    fn accepted(&mut self, record: &Record<'_>, due: Due, target: &str, topics: &[String]) {
        self.0.iter_mut().for_each(|one| one.accepted(record, due, target, topics));
    }

    fn cancelled(&mut self, record: &Record<'_>, topics: &[String]) {
        self.0.iter_mut().for_each(|one| one.cancelled(record, topics));
    }

    fn settled(&mut self, batch: &Batch, outcome: &'static str, took: Duration) {
        self.0.iter_mut().for_each(|one| one.settled(batch, outcome, took));
    }

    fn on_iteration(&mut self, took: Duration) {
        self.0.iter_mut().for_each(|one| one.on_iteration(took));
    }

    fn on_snapshot(&mut self, snapshot: &Snapshot) {
        self.0.iter_mut().for_each(|one| one.on_snapshot(snapshot));
    }

    fn missed_deadline(&mut self) {
        self.0.iter_mut().for_each(|one| one.missed_deadline());
    }

    fn snapshot_written(&mut self, topic: &str, partition: i32, bytes: u64, took: Duration, at: Millis) {
        self.0.iter_mut().for_each(|one| one.snapshot_written(topic, partition, bytes, took, at));
    }

    fn rebalanced(&mut self) {
        self.0.iter_mut().for_each(|one| one.rebalanced());
    }

    fn report(&mut self, report: &Report, topics: &[String]) {
        self.0.iter_mut().for_each(|one| one.report(report, topics));
    }
}
