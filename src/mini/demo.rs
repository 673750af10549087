//! Demo schedules that schedule themselves anew.

use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use tracing::warn;

use crate::app::Error;
use crate::kafka::Clock;

/// Where the demo schedules fire to.
pub const DEMO_TARGET: &str = "mini-demo";

/// Seconds between the firings of each demo.
const PERIODS_S: [u64; 3] = [5, 10, 30];

/// After this long overdue, a demo is taken for lost and scheduled again.
const PATIENCE_S: u64 = 20;

/// The thread that keeps the demos going.
pub struct Demos {
    fired: Option<Sender<Vec<u8>>>,
    thread: JoinHandle<()>,
}

impl Demos {
    /// Schedules each demo for the first time.
    pub fn start(bootstrap_servers: &str, topic: &str, clock: Clock) -> Result<Self, Error> {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap_servers)
            .set("broker.address.family", "v4")
            .set("client.id", "mini-demo")
            .create()
            .map_err(Error::Mini)?;
        let (fired, keys) = bounded(64);
        let topic = topic.to_owned();
        let thread = thread::Builder::new()
            .name("demo".into())
            .spawn(move || keep(&producer, &topic, &clock, &keys))
            .map_err(|e| Error::System("the demo", e))?;
        Ok(Self { fired: Some(fired), thread })
    }

    /// Takes the keys of schedules that have fired.
    pub fn fired(&self) -> Sender<Vec<u8>> {
        self.fired.clone().expect("it is only taken by stop")
    }

    /// Ends the thread. Everyone else's end of the channel must have been dropped.
    pub fn stop(mut self) {
        self.fired = None;
        // It panics only where the demo itself is broken, and says so then.
        let _ = self.thread.join();
    }
}

/// Whether a key is a demo's.
pub fn is_demo(key: &[u8]) -> bool {
    PERIODS_S.iter().any(|period| key == name(*period).as_bytes())
}

fn keep(producer: &BaseProducer, topic: &str, clock: &Clock, fired: &Receiver<Vec<u8>>) {
    let mut due = PERIODS_S.map(|period| schedule(producer, topic, clock, period));
    loop {
        let key = match fired.recv_timeout(Duration::from_secs(1)) {
            Ok(key) => Some(key),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => break,
        };
        for (period, due) in PERIODS_S.into_iter().zip(&mut due) {
            let has_fired = key.as_deref() == Some(name(period).as_bytes());
            // Where the clock has been moved all of them are overdue, and fire one after the other.
            let is_lost = key.is_none() && now_s(clock) > *due + PATIENCE_S;
            if has_fired || is_lost {
                *due = schedule(producer, topic, clock, period);
            }
        }
        producer.poll(Duration::ZERO);
    }
    // Nobody will see what is still on its way.
    producer.purge(rdkafka::producer::PurgeConfig::default().queue().inflight());
}

/// Produces the demo's next schedule, and says when it is due.
fn schedule(producer: &BaseProducer, topic: &str, clock: &Clock, period: u64) -> u64 {
    let due = (now_s(clock) / period + 1) * period;
    let (epoch, key, value) = (due.to_string(), name(period), format!("every {period} seconds"));
    let headers = OwnedHeaders::new()
        .insert(Header { key: "scheduler-epoch", value: Some(&epoch) })
        .insert(Header { key: "scheduler-target-topic", value: Some(DEMO_TARGET) })
        .insert(Header { key: "scheduler-target-key", value: Some("demo") });
    if let Err((e, _)) = producer.send(BaseRecord::to(topic).key(&key).payload(&value).headers(headers)) {
        warn!("{key} could not be scheduled: {e}");
    }
    producer.poll(Duration::ZERO);
    due
}

fn name(period: u64) -> String {
    format!("demo-{period}s")
}

fn now_s(clock: &Clock) -> u64 {
    u64::try_from(clock.now().0 / 1000).unwrap_or(0)
}
