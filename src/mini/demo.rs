//! Demo schedules that are scheduled again each time they fire.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use tracing::warn;

use crate::app::ProgramError;
use crate::client::{Moment, Schedule};
use crate::config::Config;
use crate::kafka::Clock;
use crate::kafka::clients::Clients;
use crate::kafka::publish::{NewRecord, Publisher};

/// The target topic of the demo schedules.
pub(super) const DEMO_TARGET: &str = "mini-demo";

/// Seconds between the firings of each demo.
const PERIODS_S: [u64; 3] = [5, 10, 30];

/// A demo that is overdue for longer is taken for lost, and scheduled again.
const LOST_AFTER_S: u64 = 20;

/// The thread that reschedules the demos.
pub(super) struct Demos {
    fired: Option<Sender<Vec<u8>>>,
    thread: JoinHandle<()>,
}

impl Demos {
    /// Starts the thread, which schedules each demo for the first time.
    pub(super) fn start(config: &Config, topic: &str, clock: Clock) -> Result<Self, ProgramError> {
        let clients = Clients::new(config, Arc::default());
        let mut publisher =
            Publisher::new(&clients, None).map_err(|e| ProgramError::System("the demo", io::Error::other(e)))?;
        let (fired, keys) = bounded(64);
        let topic = topic.to_owned();
        let thread = thread::Builder::new()
            .name("demo".into())
            .spawn(move || keep(&mut publisher, &topic, &clock, &keys))
            .map_err(|e| ProgramError::System("the demo", e))?;
        Ok(Self { fired: Some(fired), thread })
    }

    /// Returns a sender for the keys of schedules that have fired.
    pub(super) fn fired(&self) -> Sender<Vec<u8>> {
        self.fired.clone().expect("it is only taken by stop")
    }

    /// Ends the thread. All other senders must have been dropped.
    pub(super) fn stop(mut self) {
        self.fired = None;
        // It panics only on a bug in the demo, and has logged that.
        let _ = self.thread.join();
    }
}

/// Returns whether a key is a demo's.
pub(super) fn is_demo(key: &[u8]) -> bool {
    PERIODS_S.iter().any(|period_s| key == name(*period_s).as_bytes())
}

fn keep(publisher: &mut Publisher, topic: &str, clock: &Clock, fired: &Receiver<Vec<u8>>) {
    let mut due_s = PERIODS_S.map(|period_s| schedule(publisher, topic, clock, period_s));
    loop {
        let key = match fired.recv_timeout(Duration::from_secs(1)) {
            Ok(key) => Some(key),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => break,
        };
        for (period_s, due_s) in PERIODS_S.into_iter().zip(&mut due_s) {
            let has_fired = key.as_deref() == Some(name(period_s).as_bytes());
            // If the clock has been moved, all of them are overdue and fire one after the other.
            let is_lost = key.is_none() && now_s(clock) > *due_s + LOST_AFTER_S;
            if has_fired || is_lost {
                *due_s = schedule(publisher, topic, clock, period_s);
            }
        }
        if let Err(error) = publisher.reports().confirmed() {
            warn!(error = &error as &dyn std::error::Error, "a demo schedule was not delivered");
        }
    }
}

/// Produces the demo's next schedule, and returns the second in which it is due.
fn schedule(publisher: &mut Publisher, topic: &str, clock: &Clock, period_s: u64) -> u64 {
    let due_s = (now_s(clock) / period_s + 1) * period_s;
    let due = Moment::from_epoch_s(i64::try_from(due_s).unwrap_or(i64::MAX));
    let schedule = Schedule::new(name(period_s)).to(DEMO_TARGET).target_key("demo").at(due);
    let now = Moment::from_epoch_ms(clock.now().0);
    match schedule.value(format!("every {period_s} seconds")).build_at(now) {
        Ok(record) => {
            let key = record.key.as_deref().unwrap_or_default();
            let new = NewRecord { key, value: record.value.as_deref(), headers: &record.raw_headers() };
            // This is the only producer of the demo keys, so the partitioner always chooses the same partition.
            if let Err(error) = publisher.send(topic, None, new) {
                warn!(error = &error as &dyn std::error::Error, "a demo schedule could not be produced");
            }
        }
        Err(error) => warn!(%error, "a demo schedule could not be built"),
    }
    due_s
}

fn name(period_s: u64) -> String {
    format!("demo-{period_s}s")
}

fn now_s(clock: &Clock) -> u64 {
    u64::try_from(clock.now().0 / 1000).unwrap_or(0)
}
