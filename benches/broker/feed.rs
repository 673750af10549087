//! Produces schedules.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::producer::{BaseProducer, DeliveryResult, Producer, ProducerContext};

use crate::kit::Case;
use crate::kit::client;
use crate::kit::wait::{now_ms, until_ms};
use crate::records::{Names, Values, send_schedule};

const FLUSH_LIMIT: Duration = Duration::from_secs(60);

/// Between two portions of a steady stream.
const SLICE_MS: i64 = 10;

/// How far a steady stream may fall behind, in milliseconds, before what it says is worthless.
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

/// Produces to a case's first schedules topic.
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
        let producer = config.create_with_context(Failures::default()).map_err(|e| format!("a producer: {e}"))?;
        Ok(Self { case, values, producer, names: Names::default() })
    }

    /// Produces one after the other as fast as it goes, and waits until all have arrived.
    pub fn all(&mut self, count: u32, due_s: impl Fn(u32) -> i64) -> Result<(), String> {
        for number in 0..count {
            self.send(number, due_s(number))?;
        }
        self.flush()
    }

    /// Produces so many a second from a moment on, evenly, and waits until all have arrived.
    pub fn steadily(&mut self, count: u32, per_s: u32, from_ms: i64, due_s: impl Fn(u32) -> i64) -> Result<(), String> {
        let planned_ms = |number: u32| from_ms + i64::from(number) * 1000 / i64::from(per_s);
        let mut behind_ms = 0;
        for number in 0..count {
            let at_ms = planned_ms(number);
            if number == 0 || at_ms / SLICE_MS > planned_ms(number - 1) / SLICE_MS {
                until_ms(at_ms);
                behind_ms = behind_ms.max(now_ms() - at_ms);
            }
            self.send(number, due_s(number))?;
        }
        self.flush()?;
        if behind_ms > BEHIND_MAX_MS {
            return Err(format!("{per_s}/s could not be produced evenly here: once {behind_ms} ms behind"));
        }
        Ok(())
    }

    /// Produces a single one, and waits until it has arrived.
    pub fn one(&mut self, number: u32, due_s: i64) -> Result<(), String> {
        self.send(number, due_s)?;
        self.flush()
    }

    fn send(&mut self, number: u32, due_s: i64) -> Result<(), String> {
        let (topic, target) = (&self.case.schedules[0], &self.case.target);
        send_schedule(&self.producer, topic, target, self.names.of(number, due_s), self.values)
            .map_err(|e| format!("{topic} was not produced to: {e}"))?;
        self.producer.poll(Duration::ZERO);
        Ok(())
    }

    fn flush(&self) -> Result<(), String> {
        self.producer.flush(FLUSH_LIMIT).map_err(|e| format!("schedules were not delivered: {e}"))?;
        match self.producer.context().0.load(Ordering::Relaxed) {
            0 => Ok(()),
            failed => Err(format!("{failed} schedules were not delivered")),
        }
    }
}
