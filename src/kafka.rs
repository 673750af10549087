//! The engine on Kafka: an event loop that feeds the core and executes its outputs.

pub(crate) mod admin;
mod broker_calls;
#[cfg(feature = "cli")]
pub(crate) mod broker_client;
pub(crate) mod client_config;
pub(crate) mod clients;
mod clock;
mod cluster_monitor;
mod commit_order;
mod delivery;
mod diagnostics;
mod engine_loop;
mod error;
pub(crate) mod ffi;
#[cfg(test)]
mod fixtures;
#[cfg(feature = "cli")]
pub(crate) mod fold;
mod foreign_members;
mod group;
mod job;
mod log_start_offsets;
pub(crate) mod partition_scan;
mod producer_topics;
#[cfg(feature = "cli")]
pub(crate) mod publish;
mod random;
mod record_batches;
mod record_lookup;
mod restoring;
mod sleeper;
mod snapshot_file;
mod startup;
mod statistics;
pub(crate) mod target_lookup;
pub(crate) mod topics;
mod transaction;
mod transactor;
mod worker;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::Receiver;
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;
use rdkafka::producer::BaseProducer;

use crate::config::{Config, Files};
use crate::core::listing::Page;
use crate::handle::status_board::{EngineState, Snapshot};
use crate::handle::{Handle, Observer, Query};
pub use broker_calls::{BrokerCalls, RecordReader};
use clients::{Clients, QueryConsumer};
pub use clock::Clock;
use engine_loop::{EngineLoop, LoopParts};
pub use error::{EngineError, SettingsError};
use restoring::Restoring;
use sleeper::Sleeper;
use startup::{NotReady, Ready};

/// Before the start-up checks are repeated; doubled each time.
const START_RETRY_INTERVAL_MIN: Duration = Duration::from_millis(250);
const START_RETRY_INTERVAL_MAX: Duration = Duration::from_secs(4);

/// An engine that has not started.
pub struct Engine {
    config: Config,
    clock: Clock,
    observer: Box<dyn Observer>,
    sleeper: Sleeper,
    handle: Handle,
    queries: Receiver<Query>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Engine {
    /// Makes an engine, without using the network. `clock` determines when schedules are due.
    ///
    /// # Errors
    /// If the operating system has no file descriptors left.
    pub fn new(config: Config, clock: Clock, observer: Box<dyn Observer>) -> Result<Self, EngineError> {
        let sleeper = Sleeper::new().map_err(EngineError::System)?;
        let (handle, queries) = Handle::new(sleeper.wake(), config.schedules_topics());
        Ok(Self { config, clock, observer, sleeper, handle, queries })
    }

    /// Returns a handle for other threads, which works before the engine runs.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Runs on this thread until [`Handle::stop`]. If brokers do not answer, it waits for them.
    ///
    /// # Errors
    /// If librdkafka rejects its settings, no thread can be started, or brokers reject the engine's connections after
    /// a configuration file has changed.
    pub fn run(mut self) -> Result<(), EngineError> {
        let board = Arc::clone(self.handle.board());
        let mut clients = Clients::new(&self.config, Arc::clone(&board));
        clients.files = Arc::new(Mutex::new(Files::of(&self.config)));
        for warning in &clients.configs.warnings {
            tracing::warn!("{warning}");
        }
        let restoring = Restoring::start(&self.config)?;
        clients.configs.group_consumer().create::<BaseConsumer>().map_err(rejected)?;
        let _: BaseProducer = clients.configs.transactor_producer("probe").create().map_err(rejected)?;
        let consumer = clients.read_uncommitted_consumer().map_err(rejected)?;
        let ready = self.wait_until_ready(&consumer, &clients)?;
        drop(consumer);
        let Some(ready) = ready else { return Ok(()) };
        let wake = self.sleeper.wake();
        let Self { config, clock, observer, queries, .. } = self;
        let parts = LoopParts { config, clock, clients, observer, board, wake, queries };
        EngineLoop::new(parts, &ready, restoring)?.run(&mut self.sleeper)
    }

    /// Repeats the start-up checks until they pass. Returns `None` if the engine was stopped before that. One client
    /// makes all checks, so a slow handshake may take longer than one request.
    fn wait_until_ready(&mut self, consumer: &QueryConsumer, clients: &Clients) -> Result<Option<Ready>, EngineError> {
        let board = Arc::clone(self.handle.board());
        let mut logged = None;
        let mut interval = START_RETRY_INTERVAL_MIN;
        loop {
            match startup::check(consumer, &self.config, clients, &|| board.heartbeat()) {
                Ok(ready) => return Ok(Some(ready)),
                Err(reason) if logged.as_ref() != Some(&reason) => {
                    tracing::warn!("{reason}; trying again until this changes");
                    let state = EngineState::Starting(reason.to_string());
                    let memory_warn_bytes = self.config.memory_warn_bytes();
                    board.publish(Snapshot { at: self.clock.now(), state, partitions: Vec::new(), memory_warn_bytes });
                    logged = Some(reason);
                    // The reason has changed, and may soon change again.
                    interval = START_RETRY_INTERVAL_MIN;
                }
                Err(_) => {}
            }
            self.queries.try_iter().for_each(answer_idle);
            if board.is_stop_requested() {
                return Ok(None);
            }
            if logged == Some(NotReady::Unreachable)
                && let Some(path) = clients.changed_file()
            {
                return Err(EngineError::Outdated(path));
            }
            self.sleeper.sleep(&board, interval);
            interval = (interval * 2).min(START_RETRY_INTERVAL_MAX);
            self.queries.try_iter().for_each(answer_idle);
            if board.is_stop_requested() {
                return Ok(None);
            }
        }
    }
}

/// Wraps librdkafka's rejection of its configuration.
fn rejected(error: KafkaError) -> EngineError {
    EngineError::Settings(SettingsError::new(error))
}

/// Answers a query while no schedules are held.
fn answer_idle(query: Query) {
    match query {
        Query::Page { reply, .. } => reply.send(Ok(Page::default())),
        Query::Find { reply, .. } => reply.send(Vec::new()),
        Query::Upcoming { reply, .. } => reply.send(Vec::new()),
    }
}
