//! The engine on Kafka: an event loop that feeds the core and carries out what it says.

pub(crate) mod admin;
mod clock;
mod group;
mod limits;
mod log_start;
pub(crate) mod lookup;
mod members;
pub(crate) mod native;
mod pump;
mod quiet;
mod reports;
pub(crate) mod scan;
pub(crate) mod settings;
mod start;
pub mod topics;
mod transaction;
mod transactor;
mod turn;
mod voice;
mod watch;
mod worker;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::Receiver;
use mio::{Events, Poll, Token, Waker};

use crate::config::{Config, Files};
use crate::core::listing::Page;
use crate::handle::board::{Board, Snapshot, Stage};
use crate::handle::{Handle, Observer, Query, Wake};
pub use clock::Clock;
use pump::Pump;
use settings::Settings;
use start::{NotReady, Ready};

/// How long to wait before the brokers are asked again at start; doubled each time.
const START_RETRY_MIN: Duration = Duration::from_millis(250);
const START_RETRY_MAX: Duration = Duration::from_secs(4);

/// Why the engine cannot go on.
#[derive(Debug)]
pub enum Error {
    /// The operating system refused something.
    System(std::io::Error),
    /// librdkafka rejects its settings.
    Settings(SettingsError),
    /// The brokers do not let the engine in, and this file was rewritten since the engine has read it.
    Outdated(String),
}

/// The reason why librdkafka rejects its settings.
///
/// It leaves out the value that librdkafka's own error has: a misspelt setting may hold a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingsError(String);

impl SettingsError {
    fn new(error: rdkafka::error::KafkaError) -> Self {
        match error {
            rdkafka::error::KafkaError::ClientConfig(_, reason, ..) => Self(reason),
            error => Self(error.to_string()),
        }
    }
}

impl std::fmt::Display for SettingsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SettingsError {}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::System(_) => f.write_str("the operating system refused a thread or a wake-up"),
            Self::Settings(_) => {
                f.write_str("librdkafka refuses its settings (see CONFIGURATION_FILE and SESSION_TIMEOUT)")
            }
            Self::Outdated(path) => write!(
                f,
                "the brokers do not let the engine in, and {path:?} was rewritten since the engine has read it: start the \
                 engine again, with the new content"
            ),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::System(error) => Some(error),
            Self::Settings(error) => Some(error),
            Self::Outdated(_) => None,
        }
    }
}

/// An engine that has not begun.
pub struct Engine {
    config: Config,
    clock: Clock,
    observer: Box<dyn Observer>,
    events: EventLoop,
    handle: Handle,
    wake: Wake,
    asks: Receiver<Query>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("config", &self.config).finish_non_exhaustive()
    }
}

struct EventLoop {
    poll: Poll,
    events: Events,
    board: Arc<Board>,
}

impl EventLoop {
    /// Sleeps until somebody wakes the loop, at most `limit`.
    fn sleep(&mut self, limit: Duration) {
        self.board.beat();
        if let Err(error) = self.poll.poll(&mut self.events, Some(limit))
            && error.kind() != std::io::ErrorKind::Interrupted
        {
            tracing::error!(%error, "the loop cannot sleep");
            std::thread::sleep(limit.min(Duration::from_millis(10)));
        }
        self.board.beat();
    }
}

impl Engine {
    /// Makes ready, without touching the network. `clock` says when schedules are due.
    ///
    /// # Errors
    /// When the operating system has no file descriptors left.
    pub fn new(config: Config, clock: Clock, observer: Box<dyn Observer>) -> Result<Self, Error> {
        let poll = Poll::new().map_err(Error::System)?;
        let waker = Waker::new(poll.registry(), Token(0)).map_err(Error::System)?;
        let wake: Wake = Arc::new(move || {
            if let Err(error) = waker.wake() {
                tracing::error!(%error, "the loop cannot be woken; it looks again within 100 ms");
            }
        });
        let (handle, asks) = Handle::new(Arc::clone(&wake), &config.schedules_topics);
        let events = EventLoop { poll, events: Events::with_capacity(8), board: Arc::clone(handle.board()) };
        Ok(Self { config, clock, observer, events, handle, wake, asks })
    }

    /// Talks to the engine from other threads, also before it runs.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Runs on this thread until [`Handle::stop`]. Brokers that do not answer are waited for.
    ///
    /// # Errors
    /// When librdkafka refuses its settings, no thread can be started, or brokers do not let the engine in while a file
    /// that its settings came from was rewritten.
    pub fn run(mut self) -> Result<(), Error> {
        let mut settings = Settings::new(&self.config, Arc::clone(self.handle.board()));
        settings.files = Arc::new(Mutex::new(Files::of(&self.config)));
        for warning in &settings.warnings {
            tracing::warn!("{warning}");
        }
        settings
            .reporting_consumer()
            .create::<rdkafka::consumer::BaseConsumer>()
            .map_err(|e| Error::Settings(SettingsError::new(e)))?;
        let _: rdkafka::producer::BaseProducer =
            settings.reporting_producer("probe").create().map_err(|e| Error::Settings(SettingsError::new(e)))?;
        let client = start::client(&settings).map_err(|e| Error::Settings(SettingsError::new(e)))?;
        let ready = self.wait_until_ready(&client, &settings)?;
        drop(client);
        let Some(ready) = ready else { return Ok(()) };
        let board = Arc::clone(self.handle.board());
        let pump = Pump::new(self.config, self.clock, settings, &ready, self.observer, board, self.wake, self.asks)?;
        pump.run(&mut self.events)
    }

    /// Nothing if the engine was stopped before the brokers and topics were there.
    fn wait_until_ready(&mut self, client: &start::Client, settings: &Settings) -> Result<Option<Ready>, Error> {
        let mut said = None;
        let mut wait = START_RETRY_MIN;
        loop {
            match start::look(client, &self.config, settings, &|| self.events.board.beat()) {
                Ok(ready) => return Ok(Some(ready)),
                Err(reason) if said.as_ref() != Some(&reason) => {
                    tracing::warn!("{reason}; trying again until this changes");
                    let stage = Stage::Starting(reason.to_string());
                    let memory_warn_bytes = self.config.memory_warn_bytes;
                    let snapshot = Snapshot { at: self.clock.now(), stage, partitions: Vec::new(), memory_warn_bytes };
                    self.events.board.publish(snapshot);
                    said = Some(reason);
                    // Something has changed, and more may soon.
                    wait = START_RETRY_MIN;
                }
                Err(_) => {}
            }
            if self.asks.try_iter().any(answer_idle) {
                return Ok(None);
            }
            if said == Some(NotReady::Unreachable)
                && let Some(path) = settings.rewritten()
            {
                return Err(Error::Outdated(path));
            }
            self.events.sleep(wait);
            wait = (wait * 2).min(START_RETRY_MAX);
            if self.asks.try_iter().any(answer_idle) {
                return Ok(None);
            }
        }
    }
}

/// Answers a question while nothing is held. True if it was to stop.
fn answer_idle(query: Query) -> bool {
    match query {
        Query::Stop => return true,
        Query::Page { reply, .. } => reply.send(Ok(Page::default())),
        Query::Find { reply, .. } => reply.send(Vec::new()),
        Query::Upcoming { reply, .. } => reply.send(Vec::new()),
    }
    false
}

/// A barrier's batch, for tests.
#[cfg(test)]
fn a_batch() -> crate::core::batch::Batch {
    use crate::core::io::{Input, Millis, Output, TopicPartition};
    let config = crate::core::Config {
        cluster: "c".into(),
        topics: vec!["schedules".into()],
        history: "history".into(),
        dead_letter: None,
        record_bytes_max: Vec::new(),
        group: "g".into(),
        run: "ab".into(),
        grace_s: None,
        horizon_s: None,
        transactors: 1,
        batch_items_max: 1,
        batch_bytes_max: 1,
        hash_seed: 0,
    };
    let mut core: crate::core::Scheduler = crate::core::Scheduler::new(config);
    let partition = TopicPartition { topic: 0, number: 0 };
    core.handle(Millis(0), Input::Assigned { partitions: &[partition], leftover_cutoff: Millis(0) });
    core.handle(Millis(0), Input::Committed { partition, offset: None, metadata: b"" });
    let batch = |output| match output {
        Output::Transact(batch) => Some(batch),
        _ => None,
    };
    std::iter::from_fn(|| core.poll()).find_map(batch).expect("a takeover begins with a barrier")
}
