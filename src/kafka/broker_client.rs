//! Reads topics up to the end that they have when it is asked, with the engine's settings: for commands, and to find
//! the partition in which a key is pending.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, metadata::MetadataTopic};

use super::clients::Clients;
use super::ffi;
use super::partition_scan::{ScanError, ScanRange, Scanner, is_final, scan};
use crate::config::Config;
use crate::core::io::{Millis, Record, TopicPartition};

/// How long the brokers may take to answer for the first time.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(8);
/// How long the first request waits before it is repeated.
const CONNECT_RETRY_INTERVAL: Duration = Duration::from_secs(2);
/// How long a request for metadata or offsets may take.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(4);
/// How long the brokers may go without sending a record.
const READ_TIMEOUT: Duration = Duration::from_secs(20);

/// Why topics cannot be read.
#[derive(Debug)]
pub(crate) enum BrokerError {
    /// librdkafka rejects its settings, for this reason.
    Settings(String),
    /// No broker answers.
    Unreachable {
        /// The bootstrap servers.
        servers: String,
        /// The client's last error.
        last_error: Option<String>,
    },
    /// The topic does not exist.
    NoTopic(String),
    /// The user lacks the permission to describe the topic.
    TopicDenied(String),
    /// The topic's metadata cannot be read.
    Metadata {
        /// The topic.
        topic: String,
        /// What the broker or librdkafka returned.
        source: KafkaError,
    },
    /// The offsets of a partition cannot be read.
    Offsets {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// What the broker or librdkafka returned.
        source: KafkaError,
    },
    /// A partition cannot be read.
    Read {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// What the broker or librdkafka returned.
        source: KafkaError,
    },
    /// The brokers stopped sending records.
    ReadTimeout {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The client's last error.
        last_error: Option<String>,
    },
    /// The caller's deadline passed before the end of the partition.
    Deadline {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
    },
}

impl BrokerError {
    /// Keeps the reason alone: the value of a misspelt setting may be a password.
    pub(crate) fn settings(error: KafkaError) -> Self {
        match error {
            KafkaError::ClientConfig(_, why, ..) => Self::Settings(why),
            error => Self::Settings(error.to_string()),
        }
    }
}

impl fmt::Display for BrokerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let because = |error: &Option<String>| error.as_ref().map_or_else(String::new, |error| format!(": {error}"));
        match self {
            Self::Settings(why) => write!(f, "librdkafka rejects its settings (see CONFIGURATION_FILE): {why}"),
            Self::Unreachable { servers, last_error } => write!(
                f,
                "no broker of BOOTSTRAP_SERVERS ({servers}) answers within {} s{}",
                CONNECT_TIMEOUT.as_secs(),
                because(last_error)
            ),
            Self::NoTopic(topic) => write!(
                f,
                "topic {topic:?} does not exist: create it (`kafka-scheduler topics create`) or name another one"
            ),
            Self::TopicDenied(topic) => {
                write!(f, "no permission to see topic {topic:?}: grant this user Describe on it")
            }
            Self::Metadata { topic, .. } => write!(f, "the metadata of topic {topic:?} cannot be read"),
            Self::Offsets { topic, partition, .. } => {
                write!(f, "the offsets of {topic:?} [{partition}] cannot be read")
            }
            Self::Read { topic, partition, .. } => write!(f, "{topic:?} [{partition}] cannot be read"),
            Self::ReadTimeout { topic, partition, last_error } => write!(
                f,
                "reading {topic:?} [{partition}]: no answer for {} s{}",
                READ_TIMEOUT.as_secs(),
                because(last_error)
            ),
            Self::Deadline { topic, partition } => {
                write!(f, "reading {topic:?} [{partition}] to its end takes too long")
            }
        }
    }
}

impl std::error::Error for BrokerError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Metadata { source, .. } | Self::Offsets { source, .. } | Self::Read { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// Keeps a client's last error: the reason why no broker answers.
#[derive(Clone, Debug, Default)]
pub(crate) struct LastError(Arc<Mutex<Option<String>>>);

impl LastError {
    fn get(&self) -> Option<String> {
        self.0.lock().ok()?.clone()
    }
}

impl ClientContext for LastError {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}

    fn error(&self, error: KafkaError, reason: &str) {
        // The error of a single broker has the reason; "all brokers are down" has not.
        if error.rdkafka_error_code() != Some(Code::AllBrokersDown)
            && let Ok(mut last) = self.0.lock()
        {
            *last = Some(reason.to_owned());
        }
    }
}

impl ConsumerContext for LastError {}

/// A consumer without a group that reads one partition at a time.
pub(crate) struct BrokerClient {
    clients: Clients,
    client: BaseConsumer<LastError>,
    last_error: LastError,
    cluster: String,
    /// By topic and partition, the offset at which reading ends.
    ends: RefCell<BTreeMap<(String, i32), i64>>,
}

impl BrokerClient {
    /// Connects.
    ///
    /// # Errors
    /// If no broker answers within 8 s, or librdkafka rejects the settings.
    pub(crate) fn connect(config: &Config) -> Result<Self, BrokerError> {
        let clients = Clients::new(config, Arc::default());
        let last_error = LastError::default();
        let consumer = || reading(&clients).create_with_context(last_error.clone()).map_err(BrokerError::settings);
        let client: BaseConsumer<LastError> = consumer()?;
        let begun = Instant::now();
        loop {
            if let Some(cluster) = client.client().fetch_cluster_id(CONNECT_RETRY_INTERVAL) {
                return Ok(Self { clients, client, last_error, cluster, ends: RefCell::default() });
            }
            // Errors are reported while it is polled.
            drop(client.poll(Duration::from_millis(100)));
            if begun.elapsed() > CONNECT_TIMEOUT {
                let servers = config.bootstrap_servers().to_owned();
                return Err(BrokerError::Unreachable { servers, last_error: last_error.get() });
            }
        }
    }

    /// Returns what makes further clients with the same settings.
    pub(crate) fn clients(&self) -> &Clients {
        &self.clients
    }

    /// Returns the consumer.
    pub(crate) fn client(&self) -> &BaseConsumer<LastError> {
        &self.client
    }

    /// Returns the cluster's id.
    pub(crate) fn cluster(&self) -> &str {
        &self.cluster
    }

    /// Returns whether the broker is the one inside `mini`, by its cluster's id.
    pub(crate) fn is_embedded(&self) -> bool {
        self.cluster.starts_with("mockCluster")
    }

    /// Returns the topic's partitions, in order.
    ///
    /// # Errors
    /// If the topic does not exist, or its metadata cannot be read.
    pub(crate) fn partitions(&self, topic: &str) -> Result<Vec<i32>, BrokerError> {
        let failed = |source| BrokerError::Metadata { topic: topic.to_owned(), source };
        let metadata = self.client.fetch_metadata(Some(topic), LOOKUP_TIMEOUT).map_err(failed)?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        let mut partitions: Vec<i32> = match found.map(MetadataTopic::error) {
            Some(None) => found.map(|found| found.partitions().iter().map(|p| p.id()).collect()).unwrap_or_default(),
            Some(Some(error)) => match Code::from(error) {
                Code::TopicAuthorizationFailed => return Err(BrokerError::TopicDenied(topic.to_owned())),
                Code::UnknownTopic | Code::UnknownTopicOrPartition => Vec::new(),
                code => return Err(failed(KafkaError::MetadataFetch(code))),
            },
            None => Vec::new(),
        };
        if partitions.is_empty() {
            return Err(BrokerError::NoTopic(topic.to_owned()));
        }
        partitions.sort_unstable();
        Ok(partitions)
    }

    /// Returns the most records that a partition can hold, by its offsets.
    pub(crate) fn count_max(&self, topic: &str, partition: i32) -> u64 {
        self.bounds(topic, partition).map_or(0, |(low, end)| u64::try_from(end - low).unwrap_or(0))
    }

    /// Fixes the present end of each partition of these topics, so later reads see all of them as they are now.
    ///
    /// # Errors
    /// If a topic does not exist, or a leader does not answer.
    pub(crate) fn fix_ends(&self, topics: impl IntoIterator<Item = impl AsRef<str>>) -> Result<(), BrokerError> {
        for topic in topics {
            let topic = topic.as_ref();
            for partition in self.partitions(topic)? {
                self.ends.borrow_mut().remove(&(topic.to_owned(), partition));
                self.bounds(topic, partition)?;
            }
        }
        Ok(())
    }

    /// Returns the first offset of a partition, and the end at which reads stop: the one that the partition had when
    /// its end was fixed, or else when it was first asked for. Producers may write to it all the time.
    ///
    /// # Errors
    /// If its leader does not answer.
    pub(crate) fn bounds(&self, topic: &str, partition: i32) -> Result<(i64, i64), BrokerError> {
        let watermarks = self.client.fetch_watermarks(topic, partition, LOOKUP_TIMEOUT);
        let (low, end) =
            watermarks.map_err(|source| BrokerError::Offsets { topic: topic.to_owned(), partition, source })?;
        let end = *self.ends.borrow_mut().entry((topic.to_owned(), partition)).or_insert(end);
        Ok((low, end))
    }

    /// Passes each committed record of a partition to `visit`, from an offset up to the end of
    /// [`BrokerClient::bounds`]. `visit` must not read itself: there is one client, and a new read replaces the one
    /// before.
    ///
    /// # Errors
    /// If the brokers stop sending records, or `visit` returns an error.
    pub(crate) fn read<E: From<BrokerError>>(
        &self,
        topic: &str,
        partition: i32,
        from: Offset,
        visit: impl FnMut(&Record<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.read_before(None, topic, partition, from, visit)
    }

    /// Reads as [`BrokerClient::read`] does, and gives up at the deadline.
    ///
    /// # Errors
    /// If [`BrokerClient::read`] fails, or the deadline has passed ([`BrokerError::Deadline`]).
    pub(crate) fn read_before<E: From<BrokerError>>(
        &self,
        deadline: Option<Instant>,
        topic: &str,
        partition: i32,
        from: Offset,
        mut visit: impl FnMut(&Record<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let is_late = || deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if is_late() {
            return Err(BrokerError::Deadline { topic: topic.to_owned(), partition }.into());
        }
        let (low, end) = self.bounds(topic, partition)?;
        let scanner = Scanner {
            consumer: &self.client,
            config: &reading(&self.clients),
            silence_timeout: READ_TIMEOUT,
            is_final,
            is_closing: &is_late,
        };
        let range = ScanRange { topic, partition, low, from, end };
        let topic = || topic.to_owned();
        scan(&scanner, range, &mut |message| show(message, &mut visit)).map_err(|error| match error {
            ScanError::Visitor(error) => error,
            ScanError::Client(source) => BrokerError::Read { topic: topic(), partition, source }.into(),
            ScanError::Silence => {
                BrokerError::ReadTimeout { topic: topic(), partition, last_error: self.last_error.get() }.into()
            }
            ScanError::Closing => BrokerError::Deadline { topic: topic(), partition }.into(),
        })
    }
}

fn show<E>(message: &BorrowedMessage<'_>, visit: &mut impl FnMut(&Record<'_>) -> Result<(), E>) -> Result<(), E> {
    let mut headers = Vec::new();
    if let Some(borrowed) = message.headers() {
        ffi::headers(borrowed, &mut headers);
    }
    visit(&Record {
        partition: TopicPartition { topic: 0, number: message.partition() },
        offset: message.offset(),
        timestamp: Millis(message.timestamp().to_millis().unwrap_or(-1)),
        key: message.key(),
        value: message.payload(),
        headers: &headers,
    })
}

fn reading(clients: &Clients) -> ClientConfig {
    let mut config: ClientConfig = clients.configs.consumer();
    // It reads a topic once: the records fetched ahead are all that it keeps in memory.
    config.set("enable.partition.eof", "true").set("queued.max.messages.kbytes", "16384");
    config
}
