//! Produces users' records: schedules and cancels, each to the partition in which its key is pending.
//!
//! Producers hash keys differently, so only the topic itself shows which partition has a key.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, DeliveryResult, Producer, ProducerContext};
use rdkafka::types::RDKafkaRespErr;

use super::broker_client::{BrokerClient, BrokerError};
use super::clients::Clients;
use super::ffi;
use super::fold::{KeyHasher, fold};
use crate::core::batch::OutRecord;
use crate::core::io::{Header, TopicPartition};

/// How long a record may take to be acknowledged.
const DELIVERY_TIMEOUT_MS: &str = "30000";
/// How long [`Publisher::flush`] waits: longer than a record may take, so librdkafka reports each of them.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(60);
/// Memory for records that wait to be sent.
const QUEUE_KBYTES: &str = "32768";

/// Why a record was not produced.
#[derive(Debug)]
pub(crate) enum PublishError {
    /// The topic cannot be read.
    Broker(BrokerError),
    /// The topic has no such partition.
    NoPartition {
        /// The topic.
        topic: String,
        /// The partition that was asked for.
        partition: i32,
        /// The topic's last partition.
        last: i32,
    },
    /// The key is pending in several partitions, as several schedules.
    Ambiguous {
        /// The topic.
        topic: String,
        /// The partitions in which the key is pending.
        partitions: Vec<i32>,
    },
    /// librdkafka did not queue a record.
    NotQueued {
        /// The topic.
        topic: String,
        /// What librdkafka returned.
        source: KafkaError,
    },
    /// Records were not acknowledged. They may have been written all the same.
    NotDelivered {
        /// Records that were not acknowledged.
        failed: u64,
        /// Records that were.
        delivered: u64,
        /// The first error; `None` if no broker answered in time.
        source: Option<KafkaError>,
    },
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broker(error) => error.fmt(f),
            Self::NoPartition { topic, last, .. } => write!(f, "topic {topic:?} has the partitions 0 to {last}"),
            Self::Ambiguous { topic, partitions } => {
                write!(
                    f,
                    "the key is pending in several partitions of {topic:?} ({partitions:?}), as several schedules"
                )
            }
            Self::NotQueued { topic, .. } => write!(f, "a record for {topic:?} cannot be sent"),
            Self::NotDelivered { failed, delivered, source } => {
                write!(f, "{failed} records were not acknowledged, {delivered} were")?;
                if source.is_none() { f.write_str(": no answer in time") } else { Ok(()) }
            }
        }
    }
}

impl std::error::Error for PublishError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            // Its message is this error's own.
            Self::Broker(error) => error.source(),
            Self::NotQueued { source, .. } => Some(source),
            Self::NotDelivered { source, .. } => source.as_ref().map(|source| source as _),
            Self::NoPartition { .. } | Self::Ambiguous { .. } => None,
        }
    }
}

impl From<BrokerError> for PublishError {
    fn from(error: BrokerError) -> Self {
        Self::Broker(error)
    }
}

/// Chooses the partition of a record.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Placement {
    /// The partition in which the key is pending; for a new key, the partitioner's choice. This reads the whole topic,
    /// until the deadline at the latest.
    ByKey {
        /// A command has none: reading takes as long as the topic is large.
        deadline: Option<Instant>,
    },
    /// This partition, whatever is pending in it.
    Partition(i32),
}

/// A record to produce.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewRecord<'a> {
    pub key: &'a [u8],
    /// `None` is null, which cancels the key.
    pub value: Option<&'a [u8]>,
    /// The headers, in order.
    pub headers: &'a [Header<'a>],
}

/// A schedule that was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Published {
    pub partition: i32,
    pub offset: i64,
    /// The key was pending in this partition, so its schedule is replaced. Only known for [`Placement::ByKey`].
    pub replaces_pending: bool,
}

/// Delivery reports since the last [`Publisher::flush`].
#[derive(Debug, Default)]
pub(crate) struct Deliveries {
    /// Acknowledged records.
    pub delivered: u64,
    failed: u64,
    error: Option<KafkaError>,
    /// Partition and offset of the record that was acknowledged last.
    last: Option<(i32, i64)>,
}

impl Deliveries {
    /// Returns the partition and the offset of the record that was acknowledged last.
    ///
    /// # Errors
    /// If a record was not acknowledged.
    pub(crate) fn confirmed(self) -> Result<Option<(i32, i64)>, PublishError> {
        if self.failed > 0 {
            return Err(PublishError::NotDelivered {
                failed: self.failed,
                delivered: self.delivered,
                source: self.error,
            });
        }
        Ok(self.last)
    }
}

#[derive(Debug, Default)]
struct Reports(Mutex<Deliveries>);

impl ClientContext for Reports {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}

    fn error(&self, _: KafkaError, _: &str) {}
}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, _: usize) {
        let mut deliveries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(message) => {
                deliveries.delivered += 1;
                deliveries.last = Some((message.partition(), message.offset()));
            }
            Err((error, _)) => {
                deliveries.failed += 1;
                deliveries.error.get_or_insert_with(|| error.clone());
            }
        }
    }
}

/// An idempotent producer for schedules topics. It blocks, for a bounded time: use it on a thread that may wait.
pub(crate) struct Publisher {
    producer: BaseProducer<Reports>,
}

impl Publisher {
    /// Creates a producer, without asking a broker. `partitioner` is librdkafka's setting; without it that of the
    /// settings counts.
    ///
    /// # Errors
    /// If librdkafka rejects its settings.
    pub(crate) fn new(clients: &Clients, partitioner: Option<&str>) -> Result<Self, PublishError> {
        let mut config = clients.configs.idempotent_producer();
        config.set("message.timeout.ms", DELIVERY_TIMEOUT_MS).set("queue.buffering.max.kbytes", QUEUE_KBYTES);
        if let Some(partitioner) = partitioner {
            config.set("partitioner", partitioner);
        }
        let producer = config.create_with_context(Reports::default()).map_err(BrokerError::settings)?;
        Ok(Self { producer })
    }

    /// Produces a schedule and waits for its acknowledgement.
    ///
    /// # Errors
    /// If the partition cannot be chosen, or the record is not acknowledged.
    pub(crate) fn schedule(
        &mut self,
        broker: &BrokerClient,
        topic: &str,
        record: NewRecord<'_>,
        placement: Placement,
    ) -> Result<Published, PublishError> {
        let partitions = choose(broker, topic, record.key, placement)?;
        let partition = match partitions.as_slice() {
            [] => None,
            [partition] => Some(*partition),
            _ => return Err(PublishError::Ambiguous { topic: topic.to_owned(), partitions }),
        };
        self.send(topic, partition, record)?;
        let nothing = || PublishError::NotDelivered { failed: 1, delivered: 0, source: None };
        let (at, offset) = self.flush().confirmed()?.ok_or_else(nothing)?;
        let replaces_pending = partition.is_some() && matches!(placement, Placement::ByKey { .. });
        Ok(Published { partition: at, offset, replaces_pending })
    }

    /// Cancels a key in each partition in which it is pending, or in the given one, and waits for the acknowledgements.
    /// Returns these partitions: none if the key is not pending.
    ///
    /// # Errors
    /// If the partitions cannot be found, or a record is not acknowledged.
    pub(crate) fn cancel(
        &mut self,
        broker: &BrokerClient,
        topic: &str,
        key: &[u8],
        placement: Placement,
    ) -> Result<Vec<i32>, PublishError> {
        let partitions = choose(broker, topic, key, placement)?;
        for partition in &partitions {
            self.send(topic, Some(*partition), NewRecord { key, value: None, headers: &[] })?;
        }
        self.flush().confirmed()?;
        Ok(partitions)
    }

    /// Queues a record for this partition, or for the one that the partitioner chooses. Waits while the queue is full.
    ///
    /// # Errors
    /// If librdkafka does not queue it.
    pub(crate) fn send(
        &mut self,
        topic: &str,
        partition: Option<i32>,
        record: NewRecord<'_>,
    ) -> Result<(), PublishError> {
        let out = OutRecord {
            item: 0,
            topic,
            partition: partition.map(|number| TopicPartition { topic: 0, number }),
            key: Some(record.key),
            value: record.value,
            headers: record.headers,
        };
        loop {
            self.producer.poll(Duration::ZERO);
            match ffi::produce(&self.producer, &out) {
                Ok(()) => return Ok(()),
                // It ends: each queued record is delivered or times out.
                Err(RDKafkaRespErr::RD_KAFKA_RESP_ERR__QUEUE_FULL) => self.producer.poll(Duration::from_millis(10)),
                Err(error) => {
                    let source = KafkaError::MessageProduction(error.into());
                    return Err(PublishError::NotQueued { topic: topic.to_owned(), source });
                }
            }
        }
    }

    /// Waits until each queued record is acknowledged or has failed, and returns the reports since the last call.
    pub(crate) fn flush(&mut self) -> Deliveries {
        let begun = Instant::now();
        while self.producer.in_flight_count() > 0 && begun.elapsed() < FLUSH_TIMEOUT {
            self.producer.poll(Duration::from_millis(20));
        }
        let unanswered = u64::try_from(self.producer.in_flight_count()).unwrap_or(0);
        let mut deliveries = self.reports();
        deliveries.failed += unanswered;
        deliveries
    }

    /// Returns the delivery reports since the last call, without waiting.
    pub(crate) fn reports(&mut self) -> Deliveries {
        self.producer.poll(Duration::ZERO);
        let reports = &self.producer.client().context().0;
        std::mem::take(&mut *reports.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Returns the partitions that a record belongs to; none for a new key.
fn choose(broker: &BrokerClient, topic: &str, key: &[u8], placement: Placement) -> Result<Vec<i32>, PublishError> {
    let all = broker.partitions(topic)?;
    let deadline = match placement {
        Placement::ByKey { deadline } => deadline,
        Placement::Partition(partition) if all.contains(&partition) => return Ok(vec![partition]),
        Placement::Partition(partition) => {
            let last = all.last().copied().unwrap_or(0);
            return Err(PublishError::NoPartition { topic: topic.to_owned(), partition, last });
        }
    };
    broker.fix_ends([topic])?;
    let hasher = KeyHasher::default();
    let mut found = Vec::new();
    for partition in all {
        let is_key = |record: &crate::core::io::Record<'_>| record.key == Some(key);
        let fold = fold::<BrokerError>(broker, &hasher, topic, partition, false, deadline, is_key)?;
        if fold.pending() > 0 {
            found.push(partition);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use rdkafka::mocking::MockCluster;

    use super::*;
    use crate::config::Config;

    const TOPIC: &str = "schedules";

    fn config(servers: String) -> Config {
        Config::builder().bootstrap_servers(servers).build().expect("the mock's address is one")
    }

    fn record(key: &[u8]) -> NewRecord<'_> {
        NewRecord { key, value: Some(b"v"), headers: &[] }
    }

    #[test]
    fn a_worker_thread_can_own_a_publisher_and_report_its_errors() {
        const fn is_send<T: Send>() {}
        is_send::<BrokerClient>();
        is_send::<Publisher>();
        is_send::<PublishError>();
    }

    #[test]
    fn a_key_keeps_its_partition() {
        const BY_KEY: Placement = Placement::ByKey { deadline: None };
        let cluster = MockCluster::new(1).expect("an embedded broker");
        cluster.create_topic(TOPIC, 3, 1).expect("a topic");
        let broker = BrokerClient::connect(&config(cluster.bootstrap_servers())).expect("it answers");
        let mut publisher = Publisher::new(broker.clients(), None).expect("legal settings");
        let first = publisher.schedule(&broker, TOPIC, record(b"k"), BY_KEY).expect("it is delivered");
        assert!(!first.replaces_pending);
        let other = (first.partition + 1) % 3;
        let placed = publisher.schedule(&broker, TOPIC, record(b"here"), Placement::Partition(other));
        assert_eq!(placed.expect("delivered"), Published { partition: other, offset: 0, replaces_pending: false });
        let replaced = publisher.schedule(&broker, TOPIC, record(b"k"), BY_KEY).expect("it is delivered");
        assert_eq!(
            replaced,
            Published { partition: first.partition, offset: first.offset + 1, replaces_pending: true }
        );
        // The same key in another partition is another schedule.
        publisher.schedule(&broker, TOPIC, record(b"k"), Placement::Partition(other)).expect("it is delivered");
        let mut both = [first.partition, other];
        both.sort_unstable();
        match publisher.schedule(&broker, TOPIC, record(b"k"), BY_KEY) {
            Err(PublishError::Ambiguous { partitions, .. }) => assert_eq!(partitions, both),
            result => panic!("{result:?}"),
        }
        assert_eq!(publisher.cancel(&broker, TOPIC, b"k", BY_KEY).expect("cancelled"), both);
        assert_eq!(publisher.cancel(&broker, TOPIC, b"k", BY_KEY).expect("nothing is pending"), [0; 0]);
        match publisher.cancel(&broker, TOPIC, b"k", Placement::Partition(3)) {
            Err(PublishError::NoPartition { partition: 3, last: 2, .. }) => {}
            result => panic!("{result:?}"),
        }
        // A caller that cannot wait is not held up by a topic of any size.
        let late = Placement::ByKey { deadline: Some(Instant::now()) };
        match publisher.schedule(&broker, TOPIC, record(b"here"), late) {
            Err(PublishError::Broker(BrokerError::Deadline { .. })) => {}
            result => panic!("{result:?}"),
        }
        match publisher.schedule(&broker, "missing", record(b"k"), Placement::Partition(0)) {
            Err(error @ PublishError::Broker(BrokerError::NoTopic(_))) => assert!(error.source().is_none()),
            result => panic!("{result:?}"),
        }
    }
}
