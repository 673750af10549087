//! Turns what the engine reports into metrics and log lines.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::core::io::{Counters, Partition, Report};
use crate::handle::Observer;
use crate::metrics::Metrics;

/// Lines about single records in a second.
const LINES_MAX: u32 = 100;

/// An observer for a running service.
#[derive(Debug)]
pub struct Watch {
    metrics: Arc<Mutex<Metrics>>,
    second: Instant,
    lines: u32,
    suppressed: u64,
}

impl Watch {
    /// Feeds these metrics.
    #[must_use]
    pub fn new(metrics: Arc<Mutex<Metrics>>) -> Self {
        Self { metrics, second: Instant::now(), lines: 0, suppressed: 0 }
    }

    /// Whether one more line about a record may be written.
    fn may_tell(&mut self) -> bool {
        if self.second.elapsed() >= Duration::from_secs(1) {
            if self.suppressed > 0 {
                tracing::warn!(suppressed = self.suppressed, "more records than lines");
            }
            (self.second, self.lines, self.suppressed) = (Instant::now(), 0, 0);
        }
        self.lines += 1;
        self.suppressed += u64::from(self.lines > LINES_MAX);
        self.lines <= LINES_MAX
    }
}

impl Observer for Watch {
    fn counters(&mut self, counters: &Counters) {
        self.metrics.lock().unwrap_or_else(PoisonError::into_inner).count(counters);
    }

    fn report(&mut self, report: &Report, topics: &[String]) {
        let name = |at: &Partition| format!("{}-{}", topics[usize::from(at.topic)], at.number);
        match report {
            Report::Invalid { partition, offset, reason } => {
                if self.may_tell() {
                    let (partition, reason) = (name(partition), reason.code());
                    tracing::warn!(partition, offset, reason, "a record cannot fire and stays where it is");
                }
            }
            Report::Parked { partition, offset, reason, retry_at } => {
                if self.may_tell() {
                    let (partition, reason) = (name(partition), reason.code());
                    tracing::warn!(
                        partition,
                        offset,
                        reason,
                        retry_at_ms = retry_at.0,
                        "a schedule is tried again later"
                    );
                }
            }
            // A target is named by users: it is a legal topic name, so that nothing in it needs to be escaped.
            Report::TargetChanged { name, state } => tracing::warn!(target_topic = &**name, ?state, "target topic"),
            Report::Live { partition, pending, overdue, leftovers } => {
                tracing::info!(partition = name(partition), pending, overdue, leftovers, "live");
            }
            Report::ForeignGroup { partition, group } => {
                tracing::error!(
                    partition = name(partition),
                    ?group,
                    "another consumer group schedules from this topic: everything fires once for each of them"
                );
            }
            Report::Reread { partition, why } => tracing::warn!(partition = name(partition), why, "reading again"),
        }
    }
}
