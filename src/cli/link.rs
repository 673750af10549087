//! The commands' way to the brokers: the same settings as the engine's, and an answer within seconds.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, metadata::MetadataTopic};

use super::failure::Failure;
use crate::config::Config;
use crate::core::io::{Millis, TopicPartition, Record};
use crate::kafka::native;
use crate::kafka::scan::{Means, Span, Stop, scan};
use crate::kafka::settings::Settings;

/// How long the brokers may take to answer at all.
const ANSWER_MAX: Duration = Duration::from_secs(8);
/// How long one request may take.
const REQUEST_MAX: Duration = Duration::from_secs(2);
/// How long reading may go without a record before it is given up.
const SILENCE_MAX: Duration = Duration::from_secs(20);

/// Keeps what a client has last complained of.
#[derive(Clone, Debug, Default)]
pub struct Ear(Arc<Mutex<Option<String>>>);

impl Ear {
    fn heard(&self) -> String {
        let heard = self.0.lock().map_or(None, |heard| heard.clone());
        heard.map_or_else(String::new, |heard| format!(": {heard}"))
    }
}

impl ClientContext for Ear {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}

    fn error(&self, error: KafkaError, reason: &str) {
        // That all brokers are down says less than why each of them is.
        if error.rdkafka_error_code() != Some(Code::AllBrokersDown)
            && let Ok(mut heard) = self.0.lock()
        {
            *heard = Some(reason.to_owned());
        }
    }
}

impl ConsumerContext for Ear {}

/// Clients for the brokers of the settings.
pub struct Link {
    /// The settings.
    pub config: Config,
    settings: Settings,
    client: BaseConsumer<Ear>,
    ear: Ear,
    cluster: String,
    /// By topic and partition, where reading ends.
    ends: RefCell<BTreeMap<(String, i32), i64>>,
}

impl Link {
    /// Connects.
    ///
    /// # Errors
    /// When no broker answers within 8 s.
    pub fn new(config: Config) -> Result<Self, Failure> {
        let settings = Settings::new(&config, Arc::default());
        let ear = Ear::default();
        let client = consumer(&settings, &ear)?;
        let begun = Instant::now();
        loop {
            // Topics first: a client that has just been made learns the cluster's id with its first metadata.
            let answered = client.fetch_metadata(Some(&config.schedules_topics[0]), REQUEST_MAX);
            if answered.is_ok()
                && let Some(cluster) = client.client().fetch_cluster_id(REQUEST_MAX)
            {
                return Ok(Self { config, settings, client, ear, cluster, ends: RefCell::default() });
            }
            // Lets it say why.
            drop(client.poll(Duration::from_millis(100)));
            if begun.elapsed() > ANSWER_MAX {
                return Err(Failure::new(format!(
                    "no broker of BOOTSTRAP_SERVERS ({}) answers within {} s{}",
                    config.bootstrap_servers,
                    ANSWER_MAX.as_secs(),
                    ear.heard()
                )));
            }
        }
    }

    /// The settings of librdkafka's clients.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The client that asks.
    pub fn client(&self) -> &BaseConsumer<Ear> {
        &self.client
    }

    /// The cluster's id.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// Whether the broker is the one inside `mini`, by what it calls its cluster.
    pub fn is_embedded(&self) -> bool {
        self.cluster.starts_with("mockCluster")
    }

    /// The topic's partitions, in order.
    ///
    /// # Errors
    /// When the topic is missing, or may not be seen.
    pub fn partitions(&self, topic: &str) -> Result<Vec<i32>, Failure> {
        let failed = |why: String| Failure::new(format!("topic {topic:?}: {why}"));
        let metadata = self.client.fetch_metadata(Some(topic), REQUEST_MAX * 2).map_err(|e| failed(e.to_string()))?;
        let topics = metadata.topics();
        let told = topics.iter().find(|told| told.name() == topic);
        let mut partitions = match told.map(MetadataTopic::error) {
            Some(None) => told.map(|told| told.partitions().iter().map(|p| p.id()).collect()).unwrap_or_default(),
            Some(Some(error)) => match Code::from(error) {
                Code::TopicAuthorizationFailed => {
                    return Err(failed("it may not be seen: grant this user Describe on it".into()));
                }
                Code::UnknownTopic | Code::UnknownTopicOrPartition => Vec::new(),
                code => return Err(failed(code.to_string())),
            },
            None => Vec::new(),
        };
        if partitions.is_empty() {
            return Err(Failure::nothing(format!(
                "topic {topic:?} does not exist: create it (`kafka-scheduler topics create`), or name another"
            )));
        }
        partitions.sort_unstable();
        Ok(partitions)
    }

    /// How many records a partition holds at most.
    pub fn count_max(&self, topic: &str, partition: i32) -> u64 {
        self.bounds(topic, partition).map_or(0, |(low, end)| u64::try_from(end - low).unwrap_or(0))
    }

    /// Fixes the end of each partition of these topics, so the command sees all of them as they are now.
    ///
    /// # Errors
    /// When a topic is missing, or a leader does not answer.
    pub fn fix_ends(&self, topics: impl IntoIterator<Item = impl AsRef<str>>) -> Result<(), Failure> {
        for topic in topics {
            for partition in self.partitions(topic.as_ref())? {
                self.bounds(topic.as_ref(), partition)?;
            }
        }
        Ok(())
    }

    /// The first offset of a partition, and the end offset that it had when the command first asked. Later reads go up to
    /// there, too: partitions may be written to all the time.
    ///
    /// # Errors
    /// When its leader does not say.
    pub fn bounds(&self, topic: &str, partition: i32) -> Result<(i64, i64), Failure> {
        let told = self.client.fetch_watermarks(topic, partition, REQUEST_MAX * 2);
        let (low, end) =
            told.map_err(|e| Failure::new(format!("the offsets of {topic:?} [{partition}] cannot be learned: {e}")))?;
        let end = *self.ends.borrow_mut().entry((topic.to_owned(), partition)).or_insert(end);
        Ok((low, end))
    }

    /// Shows each committed record of a partition from an offset on, up to the end of [`Link::bounds`]. `visit` must not
    /// read itself: there is one client, and what it was reading before is forgotten.
    ///
    /// # Errors
    /// Whatever `visit` returns, or when the brokers fall silent.
    pub fn read(
        &self,
        topic: &str,
        partition: i32,
        from: Offset,
        mut visit: impl FnMut(&Record<'_>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let failed = |why: String| Failure::new(format!("reading {topic:?} [{partition}]: {why}"));
        let (low, end) = self.bounds(topic, partition)?;
        let means = Means {
            consumer: &self.client,
            settings: &reading(&self.settings),
            silence_max: SILENCE_MAX,
            is_final,
            is_closing: &|| false,
        };
        scan(&means, Span { topic, partition, low, from, end }, &mut |message| show(message, &mut visit)).map_err(
            |stop| match stop {
                Stop::Visitor(failure) => failure,
                Stop::Client(error) => failed(error.to_string()),
                Stop::Silence | Stop::Closing => {
                    failed(format!("no answer for {} s{}", SILENCE_MAX.as_secs(), self.ear.heard()))
                }
            },
        )
    }
}

const fn is_final(code: Code) -> bool {
    matches!(code, Code::TopicAuthorizationFailed | Code::UnknownTopicOrPartition | Code::AutoOffsetReset)
}

fn show(
    message: &BorrowedMessage<'_>,
    visit: &mut impl FnMut(&Record<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut headers = Vec::new();
    if let Some(borrowed) = message.headers() {
        native::headers(borrowed, &mut headers);
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

fn consumer(settings: &Settings, ear: &Ear) -> Result<BaseConsumer<Ear>, Failure> {
    reading(settings).create_with_context(ear.clone()).map_err(|e| refused(&e))
}

fn reading(settings: &Settings) -> ClientConfig {
    let mut config: ClientConfig = settings.consumer();
    // A command reads a topic once; what is fetched ahead is all that it holds of it.
    config.set("enable.partition.eof", "true").set("queued.max.messages.kbytes", "16384");
    config
}

/// librdkafka takes no client of these settings.
pub fn refused(error: &KafkaError) -> Failure {
    Failure::usage(format!("librdkafka refuses its settings (see CONFIGURATION_FILE): {error}"))
}
