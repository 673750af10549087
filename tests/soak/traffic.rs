//! Produces schedules, updates and cancels, many of them at about the time when the key's previous schedule is due.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};
use rdkafka::types::RDKafkaErrorCode;

use crate::kit::wait::now_ms;
use crate::kit::{Case, client};
use crate::ledger::{Id, UserRecord};
use crate::random::Random;

/// Keys of each topic: few, so a key is often used again while it is pending.
const KEYS: usize = 20_000;
const TICK: Duration = Duration::from_millis(20);
/// How long the producer retries a record.
const ACK_MAX_MS: &str = "90000";

/// All user records that were produced.
pub type UserRecords = Arc<Mutex<Vec<UserRecord>>>;

struct Acks(UserRecords);

impl ClientContext for Acks {}

impl ProducerContext for Acks {
    type DeliveryOpaque = Box<Id>;

    fn delivery(&self, result: &DeliveryResult<'_>, id: Box<Id>) {
        let record = &mut self.0.lock().expect("no panic")[*id];
        match result {
            Ok(message) => record.acked = Some((message.partition(), message.offset(), now_ms())),
            Err(_) => record.unknown = true,
        }
    }
}

/// A planned record: its time, key and topic, and whether it is a cancel.
type Plan = (i64, usize, usize, bool);

/// Produces records until the end of the test.
pub struct Traffic<'a> {
    case: &'a Case,
    records: UserRecords,
    random: Random,
    producer: BaseProducer<Acks>,
    /// The planned records, earliest first.
    plans: BinaryHeap<Reverse<Plan>>,
    /// Records per second, besides bursts and planned records.
    rate: u32,
    end_ms: i64,
}

impl<'a> Traffic<'a> {
    pub fn new(case: &'a Case, records: &UserRecords, random: Random, rate: u32, end_ms: i64) -> Self {
        let producer = producer(case, records);
        Self { case, records: Arc::clone(records), random, producer, plans: BinaryHeap::new(), rate, end_ms }
    }

    pub fn run(mut self) {
        let began = Instant::now();
        let mut produced = 0.0;
        let mut burst_ms = now_ms() + 10_000;
        while now_ms() < self.end_ms {
            while produced < began.elapsed().as_secs_f64() * f64::from(self.rate) {
                produced += 1.0;
                self.fresh(None);
            }
            if now_ms() > burst_ms {
                let due = now_ms() / 1_000 + self.random.of(2..6);
                (0..self.random.of(1_000..4_000)).for_each(|_| self.fresh(Some(due)));
                burst_ms = now_ms() + self.random.of(10_000..40_000);
            }
            while self.plans.peek().is_some_and(|Reverse((at_ms, ..))| *at_ms <= now_ms()) {
                if let Some(Reverse(plan)) = self.plans.pop() {
                    self.carry_out(plan);
                }
            }
            self.producer.poll(TICK);
            if self.producer.client().fatal_error().is_some() {
                // Records that were not delivered are reported as unknown.
                let _ = self.producer.flush(Duration::from_secs(1));
                self.producer = producer(self.case, &self.records);
            }
        }
        self.producer.flush(Duration::from_secs(100)).expect("every record is acknowledged or has failed");
    }

    /// Produces a schedule for a random key, which may be pending.
    fn fresh(&mut self, due: Option<i64>) {
        let (topic, key) = (self.random.index(self.case.schedules.len()), self.random.index(KEYS));
        let ahead = match self.random.of(0..100) {
            0..5 => self.random.of(-5..1),
            5..75 => self.random.of(1..15),
            75..95 => self.random.of(15..40),
            _ => self.random.of(40..90),
        };
        self.schedule(topic, key, due, ahead);
    }

    fn schedule(&mut self, topic: usize, key: usize, due: Option<i64>, ahead: i64) {
        let now = now_ms();
        // The last schedules are due soon after the end.
        let ahead = ahead.min(5.max((self.end_ms - now) / 1_000));
        let due = due.unwrap_or(now / 1_000 + ahead);
        self.say(topic, key, Some(due));
        let left_ms = due * 1_000 - now;
        let at_ms = match self.random.of(0..100) {
            // At about the time when the schedule fires.
            0..15 => due * 1_000 + self.random.of(-300..700),
            15..30 if left_ms > 100 => now + self.random.of(50..left_ms),
            _ => return,
        };
        let cancel = self.random.percent(40);
        self.plans.push(Reverse((at_ms, topic, key, cancel)));
    }

    fn carry_out(&mut self, (_, topic, key, cancel): Plan) {
        if cancel {
            self.say(topic, key, None);
        } else {
            let ahead = self.random.of(0..10);
            self.schedule(topic, key, None, ahead);
        }
    }

    fn say(&mut self, topic: usize, key: usize, due: Option<i64>) {
        let id = {
            let mut records = self.records.lock().expect("no panic");
            records.push(UserRecord { topic, key, due, sent_ms: now_ms(), acked: None, unknown: false });
            records.len() - 1
        };
        let (name, number) = (key_name(key), id.to_string());
        let mut headers = OwnedHeaders::new().insert(Header { key: "id", value: Some(&number) });
        if let Some(due) = due {
            let due = due.to_string();
            let target = Some(self.case.target.as_str());
            headers = headers
                .insert(Header { key: "scheduler-epoch", value: Some(&due) })
                .insert(Header { key: "scheduler-target-topic", value: target })
                .insert(Header { key: "scheduler-target-key", value: Some(&name) });
        }
        let mut record = BaseRecord::with_opaque_to(&self.case.schedules[topic], Box::new(id)).key(&name);
        record = record.headers(headers);
        if due.is_some() {
            record = record.payload(&number);
        }
        let mut left = Some(record);
        while let Some(record) = left.take() {
            match self.producer.send(record) {
                Ok(()) => {}
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), record)) => {
                    self.producer.poll(TICK);
                    left = Some(record);
                }
                Err((_, record)) => self.records.lock().expect("no panic")[*record.delivery_opaque].unknown = true,
            }
        }
    }
}

/// Returns the key's bytes.
pub fn key_name(key: usize) -> String {
    format!("key-{key}")
}

fn producer(case: &Case, records: &UserRecords) -> BaseProducer<Acks> {
    let mut config = client::config(case.bootstrap());
    config.set("enable.idempotence", "true").set("partitioner", "murmur2_random").set("linger.ms", "2");
    config
        .set("message.timeout.ms", ACK_MAX_MS)
        .set("log_level", "0")
        .set("topic.metadata.refresh.interval.ms", "5000");
    config.create_with_context(Acks(Arc::clone(records))).expect("a producer")
}
