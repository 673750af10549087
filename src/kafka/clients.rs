//! Makes Kafka clients for every thread, and holds what they share.

use std::sync::{Arc, Mutex};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::producer::{BaseProducer, DeliveryResult, ProducerContext};

use super::client_config::ClientConfigs;
use super::diagnostics::Diagnostics;
use super::record_batches::TopicLimits;
use crate::config::{Config, Files};
use crate::handle::status_board::StatusBoard;

#[derive(Clone, Debug)]
pub(crate) struct Clients {
    pub configs: ClientConfigs,
    pub diagnostics: Arc<Diagnostics>,
    pub topic_limits: Arc<TopicLimits>,
    /// The brokers answer requests to describe topics: the embedded one does not.
    pub can_describe: bool,
    /// The files that the configuration came from; empty until an engine runs with it.
    pub files: Arc<Mutex<Files>>,
}

/// Asks the brokers, and never joins the group.
pub(crate) type QueryConsumer = BaseConsumer<QueryContext>;

impl Clients {
    pub(crate) fn new(config: &Config, board: Arc<StatusBoard>) -> Self {
        let diagnostics = Diagnostics::new(board, config.group_id().to_owned(), config.session_timeout());
        Self {
            configs: ClientConfigs::new(config),
            diagnostics: Arc::new(diagnostics),
            topic_limits: Arc::default(),
            can_describe: !config.is_embedded(),
            files: Arc::default(),
        }
    }

    pub(crate) fn query_context(&self) -> QueryContext {
        QueryContext(Arc::clone(&self.diagnostics))
    }

    /// A client that reads committed offsets even while a transaction's offsets are pending.
    pub(crate) fn read_uncommitted_consumer(&self) -> KafkaResult<QueryConsumer> {
        self.configs.read_uncommitted_consumer().create_with_context(self.query_context())
    }

    /// A client that waits until no transaction's offsets are pending.
    pub(crate) fn read_committed_consumer(&self) -> KafkaResult<QueryConsumer> {
        self.configs.consumer().create_with_context(self.query_context())
    }

    /// A producer that only fences the one that has this transactional id.
    pub(crate) fn fencing_producer(&self, transactional_id: &str) -> KafkaResult<BaseProducer<QueryContext>> {
        self.configs.transactional_producer(transactional_id).create_with_context(self.query_context())
    }

    /// Returns a configuration file that has changed since it was read, if brokers reject the engine's connections:
    /// existing clients do not get new credentials.
    pub(crate) fn changed_file_if_locked_out(&self) -> Option<String> {
        self.diagnostics.is_locked_out().then(|| self.changed_file())?
    }

    /// Returns a configuration file that has changed since it was read.
    pub(crate) fn changed_file(&self) -> Option<String> {
        // If the file system does not answer, one check is enough.
        self.files.try_lock().ok()?.rewritten()
    }
}

/// The context of clients that only ask the brokers.
#[derive(Clone, Debug)]
pub(crate) struct QueryContext(Arc<Diagnostics>);

impl ClientContext for QueryContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        Diagnostics::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.on_error(&error, reason);
    }
}

impl ConsumerContext for QueryContext {}

impl ProducerContext for QueryContext {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}
