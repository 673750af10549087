//! The engine on Kafka: an event loop that feeds the core and carries out what it says.

mod clock;
mod group;
mod native;
mod pump;
mod settings;
mod start;
mod transactor;
mod turn;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Receiver;
use mio::{Events, Poll, Token, Waker};

use crate::config::Config;
use crate::handle::{Ask, Handle, Observer, Page, Wake};
use pump::Pump;
use settings::Settings;

/// How long to wait before the brokers are asked again at start.
const START_RETRY: Duration = Duration::from_secs(1);

/// Why the engine cannot go on.
#[derive(Debug)]
pub enum Error {
    /// The operating system refused something.
    System(std::io::Error),
    /// librdkafka refuses its settings.
    Settings(rdkafka::error::KafkaError),
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::System(error) => write!(f, "the operating system refused a thread or a wake-up: {error}"),
            Self::Settings(error) => {
                write!(f, "librdkafka refuses its settings (see CONFIGURATION_FILE and SESSION_TIMEOUT): {error}")
            }
        }
    }
}

impl std::error::Error for Error {}

/// An engine that has not begun.
pub struct Engine {
    config: Config,
    observer: Box<dyn Observer>,
    events: EventLoop,
    handle: Handle,
    wake: Wake,
    asks: Receiver<Ask>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("config", &self.config).finish_non_exhaustive()
    }
}

struct EventLoop {
    poll: Poll,
    events: Events,
}

impl EventLoop {
    /// Sleeps until somebody wakes the loop, at most `limit`.
    fn sleep(&mut self, limit: Duration) {
        if let Err(error) = self.poll.poll(&mut self.events, Some(limit))
            && error.kind() != std::io::ErrorKind::Interrupted
        {
            tracing::error!(%error, "the loop cannot sleep");
            std::thread::sleep(limit.min(Duration::from_millis(10)));
        }
    }
}

impl Engine {
    /// Makes ready, without touching the network.
    ///
    /// # Errors
    /// When the operating system has no file descriptors left.
    pub fn new(config: Config, observer: Box<dyn Observer>) -> Result<Self, Error> {
        let poll = Poll::new().map_err(Error::System)?;
        let waker = Waker::new(poll.registry(), Token(0)).map_err(Error::System)?;
        let wake: Wake = Arc::new(move || {
            if let Err(error) = waker.wake() {
                tracing::error!(%error, "the loop cannot be woken; it looks again within 100 ms");
            }
        });
        let (handle, asks) = Handle::new(Arc::clone(&wake));
        let events = EventLoop { poll, events: Events::with_capacity(8) };
        Ok(Self { config, observer, events, handle, wake, asks })
    }

    /// Talks to the engine from other threads, also before it runs.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Runs on this thread until [`Handle::stop`]. Brokers that do not answer are waited for.
    ///
    /// # Errors
    /// When librdkafka refuses its settings, or no thread can be started.
    pub fn run(mut self) -> Result<(), Error> {
        let settings = Settings::new(&self.config);
        for warning in &settings.warnings {
            tracing::warn!("{warning}");
        }
        settings.consumer().create::<rdkafka::consumer::BaseConsumer>().map_err(Error::Settings)?;
        let _: rdkafka::producer::BaseProducer = settings.producer("probe").create().map_err(Error::Settings)?;
        let Some(cluster) = self.wait_for_cluster(&settings) else { return Ok(()) };
        let pump = Pump::new(self.config, settings, cluster, self.observer, self.wake, self.asks)?;
        pump.run(&mut self.events);
        Ok(())
    }

    /// The cluster's id, or nothing if the engine was stopped before any broker answered.
    fn wait_for_cluster(&mut self, settings: &Settings) -> Option<String> {
        let mut topics: Vec<&str> = self.config.schedules_topics.iter().map(String::as_str).collect();
        topics.push(&self.config.history_topic);
        let mut said = None;
        loop {
            match start::cluster(settings, &topics) {
                Ok(id) => return Some(id),
                Err(reason) if said.as_ref() != Some(&reason) => {
                    tracing::warn!("{reason}; trying again until this changes");
                    said = Some(reason);
                }
                Err(_) => {}
            }
            if self.asks.try_iter().any(|ask| answer_idle(&ask)) {
                return None;
            }
            self.events.sleep(START_RETRY);
            if self.asks.try_iter().any(|ask| answer_idle(&ask)) {
                return None;
            }
        }
    }
}

/// Answers a question while nothing is held. True if it was to stop.
fn answer_idle(ask: &Ask) -> bool {
    match ask {
        Ask::Stop => return true,
        Ask::Page { reply, .. } => drop(reply.try_send(Page { entries: Vec::new(), next: None })),
        Ask::Status { reply } => drop(reply.try_send(Vec::new())),
    }
    false
}
