//! Producing, with every record acknowledged or named as lost.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, DeliveryResult, Producer, ProducerContext};
use rdkafka::types::RDKafkaRespErr;

use super::failure::Failure;
use super::link::{Link, refused};
use crate::core::batch::OutRecord;
use crate::core::io::{Header, TopicPartition};
use crate::kafka::native;

/// How long a record may take to be acknowledged.
const DELIVERY_MS: &str = "30000";
/// Memory for records that wait to be sent.
const QUEUE_KBYTES: &str = "32768";

/// What has become of the records.
#[derive(Debug, Default)]
struct Reports(Mutex<Told>);

#[derive(Debug, Default)]
struct Told {
    delivered: u64,
    lost: u64,
    why: Option<String>,
    last: Option<(i32, i64)>,
}

impl ClientContext for Reports {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}

    fn error(&self, _: KafkaError, _: &str) {}
}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, _: usize) {
        let Ok(mut told) = self.0.lock() else { return };
        match result {
            Ok(message) => {
                told.delivered += 1;
                told.last = Some((message.partition(), message.offset()));
            }
            Err((error, _)) => {
                told.lost += 1;
                told.why.get_or_insert_with(|| error.to_string());
            }
        }
    }
}

/// A record to produce.
#[derive(Clone, Copy, Debug)]
pub struct Out<'a> {
    /// Where to; by its key if not given.
    pub partition: Option<i32>,
    /// `None` is null.
    pub key: Option<&'a [u8]>,
    /// `None` is null.
    pub value: Option<&'a [u8]>,
    /// In order.
    pub headers: &'a [Header<'a>],
}

/// Produces to topics.
pub struct Writer {
    producer: BaseProducer<Reports>,
}

impl Writer {
    /// Partitions for new keys are chosen as `partitioner` says, else as the settings do.
    ///
    /// # Errors
    /// When librdkafka refuses its settings.
    pub fn new(link: &Link, partitioner: Option<&str>) -> Result<Self, Failure> {
        let mut config = link.settings().idempotent_producer();
        config.set("message.timeout.ms", DELIVERY_MS).set("queue.buffering.max.kbytes", QUEUE_KBYTES);
        if let Some(partitioner) = partitioner {
            config.set("partitioner", partitioner);
        }
        let producer = config.create_with_context(Reports::default()).map_err(|e| refused(&e))?;
        Ok(Self { producer })
    }

    /// Hands a record over; waits while too many are on their way.
    ///
    /// # Errors
    /// When librdkafka does not take it.
    pub fn send(&self, topic: &str, out: Out<'_>) -> Result<(), Failure> {
        let record = OutRecord {
            item: 0,
            topic,
            schedules: out.partition.map(|number| TopicPartition { topic: 0, number }),
            key: out.key,
            value: out.value,
            headers: out.headers,
        };
        loop {
            self.producer.poll(Duration::ZERO);
            match native::produce(&self.producer, &record) {
                Ok(()) => return Ok(()),
                Err(RDKafkaRespErr::RD_KAFKA_RESP_ERR__QUEUE_FULL) => self.producer.poll(Duration::from_millis(10)),
                Err(error) => {
                    let error = KafkaError::MessageProduction(error.into());
                    return Err(Failure::new(format!("a record for {topic:?} is refused: {error}")));
                }
            }
        }
    }

    /// Records that have been acknowledged so far.
    pub fn delivered(&self) -> u64 {
        self.producer.client().context().0.lock().map_or(0, |told| told.delivered)
    }

    /// Waits until every record is acknowledged, and tells where the last one lies.
    ///
    /// # Errors
    /// When a record was not delivered.
    pub fn finish(&self) -> Result<Option<(i32, i64)>, Failure> {
        let begun = Instant::now();
        while self.producer.in_flight_count() > 0 && begun.elapsed() < Duration::from_secs(60) {
            self.producer.poll(Duration::from_millis(20));
        }
        let left = u64::try_from(self.producer.in_flight_count()).unwrap_or(0);
        let Ok(told) = self.producer.client().context().0.lock() else { return Ok(None) };
        let lost = told.lost + left;
        if lost > 0 {
            let why = told.why.as_deref().unwrap_or("no answer");
            let delivered = told.delivered;
            return Err(Failure::new(format!("{lost} records were not acknowledged, {delivered} were: {why}")));
        }
        Ok(told.last)
    }
}
