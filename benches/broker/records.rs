//! The schedules that all scenarios use, and the records that they result in.

use std::fmt::Write;
use std::time::Duration;

use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, ProducerContext};
use rdkafka::types::RDKafkaErrorCode;

pub const VALUE_BYTES: usize = 200;

/// Name and value of the user header.
const CUSTOMER: (&str, &str) = ("kind", "benchmark");

/// Larger than the window of any codec.
const POOL_VALUES: usize = 80_000;

const TARGET_KEY: &str = "target-";

/// Bytes that a user puts into a schedule besides its due time and target topic: key, value, target key and user
/// header.
pub fn user_bytes() -> usize {
    let names = Names::default().of(0, 0).bytes();
    names + VALUE_BYTES + CUSTOMER.0.len() + CUSTOMER.1.len()
}

/// Returns the number of the schedule that a triggered record belongs to.
pub fn number_of(target_key: &[u8]) -> Option<u32> {
    std::str::from_utf8(target_key).ok()?.strip_prefix(TARGET_KEY)?.parse().ok()
}

/// Values that no codec can compress.
pub struct Values(Vec<u8>);

impl Values {
    pub fn new() -> Self {
        let mut state = 1_u64;
        let numbers = std::iter::repeat_with(|| splitmix(&mut state).to_le_bytes());
        Self(numbers.take(POOL_VALUES * VALUE_BYTES / 8).flatten().collect())
    }

    pub fn of(&self, number: u32) -> &[u8] {
        let start = number as usize % POOL_VALUES * VALUE_BYTES;
        &self.0[start..start + VALUE_BYTES]
    }
}

fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The texts of one schedule. They are rewritten in place, so formatting does not slow the producer down.
#[derive(Default)]
pub struct Names {
    number: u32,
    key: String,
    target_key: String,
    due: String,
    /// The due time has milliseconds.
    has_ms: bool,
}

impl Names {
    pub fn of(&mut self, number: u32, due_ms: i64) -> &Self {
        self.number = number;
        for text in [&mut self.key, &mut self.target_key, &mut self.due] {
            text.clear();
        }
        let _ = write!(self.key, "schedule-{number:07}");
        let _ = write!(self.target_key, "{TARGET_KEY}{number:09}");
        self.has_ms = due_ms % 1_000 != 0;
        let _ = write!(self.due, "{}", if self.has_ms { due_ms } else { due_ms / 1_000 });
        self
    }

    fn bytes(&self) -> usize {
        self.key.len() + self.target_key.len()
    }

    fn requested(&self, headers: OwnedHeaders, target: &str) -> OwnedHeaders {
        let name = if self.has_ms { "scheduler-epoch-ms" } else { "scheduler-epoch" };
        self.aimed(add(headers, name, self.due.as_bytes()), target)
    }

    fn aimed(&self, headers: OwnedHeaders, target: &str) -> OwnedHeaders {
        let headers = add(headers, "scheduler-target-topic", target.as_bytes());
        add(headers, "scheduler-target-key", self.target_key.as_bytes())
    }

    fn triggered(&self, capacity: usize, topic: &str) -> OwnedHeaders {
        let headers = add(OwnedHeaders::new_with_capacity(capacity), CUSTOMER.0, CUSTOMER.1.as_bytes());
        let headers = add(headers, "scheduler-timestamp", self.due.as_bytes());
        let headers = add(headers, "scheduler-key", self.key.as_bytes());
        add(headers, "scheduler-topic", topic.as_bytes())
    }
}

/// The topics and partition of the three records of a firing.
pub struct Places<'a> {
    pub schedules: &'a str,
    pub partitions: i32,
    pub target: &'a str,
    pub history: &'a str,
}

/// Passes a schedule with its four headers to the client.
pub fn send_schedule<C: ProducerContext<DeliveryOpaque = ()>>(
    producer: &BaseProducer<C>,
    topic: &str,
    target: &str,
    names: &Names,
    values: &Values,
) -> Result<(), KafkaError> {
    send_request(producer, topic, names, values, names.requested(OwnedHeaders::new_with_capacity(4), target))
}

/// Passes a schedule that recurs each second to the client.
pub fn send_recurring<C: ProducerContext<DeliveryOpaque = ()>>(
    producer: &BaseProducer<C>,
    topic: &str,
    target: &str,
    names: &Names,
    values: &Values,
) -> Result<(), KafkaError> {
    let headers = add(OwnedHeaders::new_with_capacity(4), "scheduler-every", b"1s");
    send_request(producer, topic, names, values, names.aimed(headers, target))
}

fn send_request<C: ProducerContext<DeliveryOpaque = ()>>(
    producer: &BaseProducer<C>,
    topic: &str,
    names: &Names,
    values: &Values,
    headers: OwnedHeaders,
) -> Result<(), KafkaError> {
    let headers = add(headers, CUSTOMER.0, CUSTOMER.1.as_bytes());
    send(producer, BaseRecord::to(topic).key(names.key.as_str()).payload(values.of(names.number)).headers(headers))
}

/// Passes the records that the engine writes for a schedule to the client: triggered record, history record and
/// tombstone.
pub fn send_fired<C: ProducerContext<DeliveryOpaque = ()>>(
    producer: &BaseProducer<C>,
    to: &Places<'_>,
    names: &Names,
    values: &Values,
) -> Result<(), KafkaError> {
    // As long as the engine's origin header.
    const ORIGIN_BYTES: usize = 33;
    let value = values.of(names.number);
    let triggered =
        |topic, headers| BaseRecord::to(topic).key(names.target_key.as_str()).payload(value).headers(headers);
    send(producer, triggered(to.target, names.triggered(4, to.schedules)))?;
    send(producer, triggered(to.history, names.requested(names.triggered(7, to.schedules), to.target)))?;
    let origin = add(OwnedHeaders::new_with_capacity(1), "scheduler-engine", &value[..ORIGIN_BYTES]);
    let partition = i32::try_from(names.number).unwrap_or(0) % to.partitions;
    let tombstone: BaseRecord<'_, str, [u8]> = BaseRecord::to(to.schedules).key(names.key.as_str());
    send(producer, tombstone.partition(partition).headers(origin))
}

fn send<C: ProducerContext<DeliveryOpaque = ()>>(
    producer: &BaseProducer<C>,
    mut record: BaseRecord<'_, str, [u8]>,
) -> Result<(), KafkaError> {
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                record = back;
                producer.poll(Duration::from_millis(1));
            }
            Err((error, _)) => return Err(error),
        }
    }
}

fn add(headers: OwnedHeaders, key: &str, value: &[u8]) -> OwnedHeaders {
    headers.insert(Header { key, value: Some(value) })
}
