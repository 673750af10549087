//! Produces schedules.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::producer::{BaseProducer, DeliveryResult, Producer, ProducerContext};

use crate::kit::Case;
use crate::kit::client;
use crate::kit::wait::{now_ms, until_ms};
use crate::records::{Names, Values, send_recurring, send_schedule};

const FLUSH_LIMIT: Duration = Duration::from_secs(60);

/// The interval at which a steady stream is produced.
const SLICE_MS: i64 = 10;

/// If a steady stream lags by more than this many milliseconds, its measurement is invalid.
const BEHIND_MAX_MS: i64 = 500;

#[derive(Default)]
struct Failures(AtomicUsize);

impl ClientContext for Failures {}

impl ProducerContext for Failures {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if result.is_err() {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Produces schedules to the first schedules topic of a case.
pub struct Feed<'a> {
    case: &'a Case,
    values: &'a Values,
    producer: BaseProducer<Failures>,
    names: Names,
}

impl<'a> Feed<'a> {
    pub fn new(case: &'a Case, values: &'a Values) -> Result<Self, String> {
        let mut config = client::config(case.bootstrap());
        config
            .set("enable.idempotence", "true")
            .set("partitioner", "murmur2_random")
            .set("compression.type", "lz4")
            .set("linger.ms", "5")
            .set("batch.num.messages", "10000")
            .set("queue.buffering.max.messages", "500000");
        let producer =
            config.create_with_context(Failures::default()).map_err(|e| format!("creating a producer: {e}"))?;
        Ok(Self { case, values, producer, names: Names::default() })
    }

    /// Produces schedules as fast as possible, and waits until all are delivered.
    pub fn all(&mut self, count: u32, due_ms: impl Fn(u32) -> i64) -> Result<(), String> {
        for number in 0..count {
            self.send(number, due_ms(number))?;
        }
        self.flush()
    }

    /// Produces `per_s` schedules per second from a given time on, evenly, and waits until all are delivered.
    pub fn steadily(
        &mut self,
        count: u32,
        per_s: u32,
        from_ms: i64,
        due_ms: impl Fn(u32) -> i64,
    ) -> Result<(), String> {
        let planned_ms = |number: u32| from_ms + i64::from(number) * 1000 / i64::from(per_s);
        let mut behind_ms = 0;
        for number in 0..count {
            let at_ms = planned_ms(number);
            if number == 0 || at_ms / SLICE_MS > planned_ms(number - 1) / SLICE_MS {
                until_ms(at_ms);
                behind_ms = behind_ms.max(now_ms() - at_ms);
            }
            self.send(number, due_ms(number))?;
        }
        self.flush()?;
        if behind_ms > BEHIND_MAX_MS {
            return Err(format!(
                "{per_s}/s cannot be produced evenly on this machine: the producer was {behind_ms} ms behind"
            ));
        }
        Ok(())
    }

    /// Produces one schedule, and waits until it is delivered.
    pub fn one(&mut self, number: u32, due_ms: i64) -> Result<(), String> {
        self.send(number, due_ms)?;
        self.flush()
    }

    fn send(&mut self, number: u32, due_ms: i64) -> Result<(), String> {
        let (topic, target) = (&self.case.schedules[0], &self.case.target);
        send_schedule(&self.producer, topic, target, self.names.of(number, due_ms), self.values)
            .map_err(|e| format!("cannot produce to {topic}: {e}"))?;
        self.producer.poll(Duration::ZERO);
        Ok(())
    }

    /// Produces schedules that recur each second, and waits until all are delivered.
    pub fn recurring(&mut self, count: u32) -> Result<(), String> {
        for number in 0..count {
            let (topic, target) = (&self.case.schedules[0], &self.case.target);
            send_recurring(&self.producer, topic, target, self.names.of(number, 0), self.values)
                .map_err(|e| format!("cannot produce to {topic}: {e}"))?;
            self.producer.poll(Duration::ZERO);
        }
        self.flush()
    }

    fn flush(&self) -> Result<(), String> {
        self.producer.flush(FLUSH_LIMIT).map_err(|e| format!("schedules were not delivered: {e}"))?;
        match self.producer.context().0.load(Ordering::Relaxed) {
            0 => Ok(()),
            failed => Err(format!("{failed} schedules were not delivered")),
        }
    }
}
