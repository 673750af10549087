//! The operator's view of a running engine: metrics, log lines, and the data of the status page.

pub(crate) mod activity;
mod limit;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use crate::core::batch::Batch;
use crate::core::io::{Counters, Millis, Report, TargetState, TopicPartition};
use crate::handle::Observer;
use crate::handle::status_board::Snapshot;
use crate::metrics::Metrics;
use activity::{Activity, Rejection};
use limit::{LINES_MAX, Limit};

/// Kinds of log lines that every record can cause. A topic of bad records must not become a log of the same size, and a
/// flood of one kind must not hide the others.
const RATE_LIMITED: [&str; 7] = [
    "records that cannot fire",
    "parked schedules",
    "new dead letters",
    "target topics",
    "other groups",
    "schedules due far ahead",
    "schedules that this version does not know",
];

/// Characters of another group's name in a line: it comes from a record, which may hold anything.
const GROUP_SHOWN_MAX: usize = 100;

/// Reads the engine's clock.
pub(crate) type Now = Box<dyn Fn() -> Millis + Send>;

/// Feeds the metrics, the log and the status page. Metrics and log never contain payloads or keys.
pub(crate) struct OperatorObserver {
    metrics: Metrics,
    activity: Arc<Activity>,
    now: Now,
    limits: [Limit; RATE_LIMITED.len()],
    /// The warning about `MEMORY_WARN_BYTES` was logged.
    exceeded: bool,
}

impl fmt::Debug for OperatorObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OperatorObserver").finish_non_exhaustive()
    }
}

impl OperatorObserver {
    #[must_use]
    pub(crate) fn new(metrics: Metrics, activity: Arc<Activity>, now: Now) -> Self {
        Self { metrics, activity, now, limits: Default::default(), exceeded: false }
    }

    fn on_rejection(&self, topics: &[String], at: TopicPartition, offset: i64, reason: &'static str, parked: bool) {
        let topic = name(topics, at);
        self.activity.rejected(Rejection { at: (self.now)(), topic, partition: at.number, offset, reason, parked });
    }

    /// Logs how many lines were left out, once there is room for it.
    fn log_suppressed(&mut self) {
        let now = Instant::now();
        for (about, limit) in RATE_LIMITED.iter().zip(&mut self.limits) {
            if let Some(suppressed) = limit.take_suppressed(now) {
                warn!(suppressed, about, "lines were left out beyond {LINES_MAX} a second; the metrics count them all");
            }
        }
    }
}

fn name(topics: &[String], at: TopicPartition) -> String {
    topics.get(usize::from(at.topic)).map_or("?", String::as_str).to_owned()
}

/// Returns the index of a report in [`RATE_LIMITED`]. Other reports are rare.
const fn rate_limited(report: &Report) -> Option<usize> {
    match report {
        Report::Invalid { .. } => Some(0),
        Report::Parked { .. } => Some(1),
        Report::ToDeadLetter { .. } => Some(2),
        Report::TargetChanged { .. } => Some(3),
        Report::ForeignGroup { .. } => Some(4),
        Report::FarAhead { .. } => Some(5),
        Report::UnknownSyntax { .. } => Some(6),
        Report::Accepted { .. }
        | Report::Cancelled { .. }
        | Report::Live { .. }
        | Report::Reread { .. }
        | Report::ThroughputIsLimit => None,
    }
}

impl Observer for OperatorObserver {
    fn counters(&mut self, counters: &Counters) {
        self.metrics.count(counters);
    }

    fn fired(&mut self, batch: &Batch, at: Millis) {
        self.metrics.fired(batch, at);
        self.activity.fired(batch, at);
    }

    fn settled(&mut self, _: &Batch, outcome: &'static str, took: Duration) {
        self.metrics.settled(outcome, took);
    }

    fn on_iteration(&mut self, took: Duration) {
        self.metrics.on_iteration(took);
        self.log_suppressed();
    }

    fn missed_deadline(&mut self) {
        self.metrics.missed_deadline();
    }

    fn on_snapshot(&mut self, snapshot: &Snapshot) {
        let held_bytes = snapshot.held_bytes();
        let Some(memory_warn_bytes) = snapshot.memory_warn_bytes else { return };
        if !self.exceeded && held_bytes > memory_warn_bytes {
            self.exceeded = true;
            warn!(held_bytes, memory_warn_bytes, "pending schedules use more memory than MEMORY_WARN_BYTES");
        } else if self.exceeded && held_bytes <= memory_warn_bytes / 10 * 9 {
            // Hysteresis: usage may oscillate around the bound.
            self.exceeded = false;
            info!(held_bytes, memory_warn_bytes, "pending schedules use less memory than MEMORY_WARN_BYTES again");
        }
    }

    fn snapshot_written(&mut self, topic: &str, partition: i32, bytes: u64, took: Duration, at: Millis) {
        self.metrics.snapshot_written(topic, partition, bytes, took, at);
    }

    fn rebalanced(&mut self) {
        self.metrics.rebalanced();
    }

    fn report(&mut self, report: &Report, topics: &[String]) {
        match report {
            Report::Invalid { partition, offset, reason } => {
                self.on_rejection(topics, *partition, *offset, reason.code(), false);
            }
            Report::Parked { partition, offset, reason, .. } => {
                self.on_rejection(topics, *partition, *offset, reason.code(), true);
            }
            Report::ForeignGroup { .. } => self.metrics.foreign_group(),
            _ => {}
        }
        self.log_suppressed();
        if rate_limited(report).is_none_or(|kind| self.limits[kind].line(Instant::now())) {
            log_report(report, topics);
        }
    }
}

fn log_report(report: &Report, topics: &[String]) {
    let topic = |partition: &TopicPartition| name(topics, *partition);
    match report {
        Report::Invalid { partition, offset, reason } => {
            let (topic, number) = (topic(partition), partition.number);
            let (reason, detail) = (reason.code(), reason.detail());
            warn!(topic, partition = number, offset, reason, detail, "a record cannot fire");
        }
        Report::FarAhead { partition, offset, why } => {
            let (topic, number) = (topic(partition), partition.number);
            warn!(
                topic,
                partition = number,
                offset,
                why,
                "due more than 100 years ahead; set MAX_HORIZON to reject such schedules"
            );
        }
        Report::UnknownSyntax { partition, offset, reason } => {
            let (topic, number) = (topic(partition), partition.number);
            let (reason, detail) = (reason.code(), reason.detail());
            warn!(
                topic,
                partition = number,
                offset,
                reason,
                detail,
                "a schedule that was read before has a zone or a syntax that this version does not know: it stays in the \
                 log until an instance of a version that knows it owns the partition"
            );
        }
        Report::Parked { partition, offset, reason, retry_at } => {
            let (topic, number, retry_at) = (topic(partition), partition.number, retry_at_text(*retry_at));
            warn!(topic, partition = number, offset, reason = reason.code(), retry_at, "schedule parked");
        }
        Report::ToDeadLetter { partition, offset, reason } => {
            let (topic, number, reason) = (topic(partition), partition.number, reason.code());
            warn!(topic, partition = number, offset, reason, "a schedule becomes a dead letter");
        }
        Report::TargetChanged { name, state } => log_target(name, *state),
        Report::Live { partition, pending, overdue, leftovers } => {
            let (topic, number) = (topic(partition), partition.number);
            info!(topic, partition = number, pending, overdue, leftovers, "partition live");
        }
        Report::ForeignGroup { partition, group } => {
            let (topic, number) = (topic(partition), partition.number);
            let group: String = group.chars().take(GROUP_SHOWN_MAX).collect();
            error!(topic, partition = number, ?group, "another group fires the same topic: each schedule fires twice");
        }
        // Logged by the clients' diagnostics.
        Report::ThroughputIsLimit => {}
        // Metrics count them; a line for each would be too many.
        Report::Accepted { .. } | Report::Cancelled { .. } => {}
        Report::Reread { partition, why } => {
            let (topic, number) = (topic(partition), partition.number);
            warn!(topic, partition = number, why, "the partition is read again from its beginning");
        }
    }
}

fn log_target(name: &str, state: TargetState) {
    match state {
        TargetState::Exists => info!(target_topic = name, "the target topic can be produced to"),
        TargetState::Missing => {
            warn!(target_topic = name, "the target topic does not exist; its schedules are parked")
        }
        TargetState::Forbidden => {
            warn!(
                target_topic = name,
                "no permission to write to the target topic: grant Write on it; its schedules are parked"
            );
        }
        TargetState::Leaderless => {
            warn!(target_topic = name, "a partition of the target topic takes no records; its schedules are parked");
        }
        // The clients' diagnostics name the clock, also in `/readiness`.
        TargetState::RejectsTimestamps => {}
        TargetState::NoAnswer => {
            warn!(target_topic = name, "the target topic's metadata did not arrive in time")
        }
    }
}

fn retry_at_text(Millis(at): Millis) -> String {
    jiff::Timestamp::from_millisecond(at).map_or_else(|_| at.to_string(), |at| at.to_string())
}
