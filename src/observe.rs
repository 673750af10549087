//! What an operator gets to know of a running engine: metrics, lines in the log, and what the status page shows.

pub mod activity;
pub mod statistics;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use crate::core::batch::Batch;
use crate::core::io::{Counters, Millis, Partition, Report, TargetState};
use crate::handle::Observer;
use crate::metrics::Metrics;
use activity::{Activity, Refusal};

/// Lines a second on single records. A topic of bad records must not become a log of the same size.
const RECORD_LINES_PER_S: u32 = 100;

/// Characters of another group's name in a line: it comes from a record, which may hold anything.
const GROUP_SHOWN_MAX: usize = 100;

/// Feeds the metrics, the log and the status page. Payloads never get into the first two, and keys neither.
#[derive(Debug)]
pub struct Operator {
    metrics: Metrics,
    activity: Arc<Activity>,
    limit: Limit,
}

impl Operator {
    /// Counts into `metrics`.
    #[must_use]
    pub fn new(metrics: Metrics, activity: Arc<Activity>) -> Self {
        Self { metrics, activity, limit: Limit::new(Instant::now()) }
    }

    fn refused(&self, topic: String, at: Partition, offset: i64, reason: &'static str, parked: bool) {
        let now = Millis(jiff::Timestamp::now().as_millisecond());
        self.activity.refused(Refusal { at: now, topic, partition: at.number, offset, reason, parked });
    }

    /// Whether one more line on a single record may be written; says first how many could not be.
    fn allowed(&mut self, lines: u32) -> bool {
        let (allowed, suppressed) = self.limit.take(Instant::now(), lines);
        if suppressed > 0 {
            warn!(
                suppressed,
                "more lines on single records than {RECORD_LINES_PER_S} a second; the metrics count them all"
            );
        }
        allowed
    }
}

impl Observer for Operator {
    fn counters(&mut self, counters: &Counters) {
        self.metrics.count(counters);
        // Also tells what was held back once the flood is over.
        self.allowed(0);
    }

    fn fired(&mut self, batch: &Batch, at: Millis) {
        self.metrics.fired(batch, at);
        self.activity.fired(batch, at);
    }

    fn settled(&mut self, _: &Batch, outcome: &'static str, took: Duration) {
        self.metrics.settled(outcome, took);
    }

    fn turned(&mut self, took: Duration) {
        self.metrics.turned(took);
    }

    fn rebalanced(&mut self) {
        self.metrics.rebalanced();
    }

    fn report(&mut self, report: &Report, topics: &[String]) {
        let topic = |p: &Partition| topics.get(usize::from(p.topic)).map_or("?", String::as_str).to_owned();
        match report {
            Report::Invalid { partition, offset, reason } => {
                self.refused(topic(partition), *partition, *offset, reason.code(), false);
                if self.allowed(1) {
                    let (topic, number) = (topic(partition), partition.number);
                    warn!(topic, partition = number, offset, reason = reason.code(), "a record cannot fire");
                }
            }
            Report::Parked { partition, offset, reason, retry_at } => {
                self.refused(topic(partition), *partition, *offset, reason.code(), true);
                if self.allowed(1) {
                    let (topic, number, retry_at) = (topic(partition), partition.number, retry_at_text(*retry_at));
                    let reason = reason.code();
                    warn!(topic, partition = number, offset, reason, retry_at, "a schedule is put off");
                }
            }
            Report::GivenUp { partition, offset, reason } => {
                if self.allowed(1) {
                    let (topic, number, reason) = (topic(partition), partition.number, reason.code());
                    warn!(topic, partition = number, offset, reason, "a schedule becomes a dead letter");
                }
            }
            Report::TargetChanged { name, state } if self.allowed(1) => match state {
                TargetState::Exists => info!(target_topic = &**name, "the target topic can be produced to"),
                TargetState::Missing => {
                    warn!(target_topic = &**name, "the target topic does not exist; its schedules wait")
                }
                TargetState::Forbidden => {
                    warn!(target_topic = &**name, "the target topic may not be accessed; its schedules wait");
                }
                TargetState::Leaderless => {
                    warn!(
                        target_topic = &**name,
                        "a partition of the target topic takes no records; its schedules wait"
                    );
                }
                TargetState::NoAnswer => warn!(target_topic = &**name, "no metadata of the target topic in time"),
            },
            // Each of many schedules may name another target.
            Report::TargetChanged { .. } => {}
            Report::Live { partition, pending, overdue, leftovers } => {
                let (topic, number) = (topic(partition), partition.number);
                info!(topic, partition = number, pending, overdue, leftovers, "the partition is loaded and fires");
            }
            Report::ForeignGroup { partition, group } => {
                self.metrics.foreign_group();
                let (topic, number) = (topic(partition), partition.number);
                let group: String = group.chars().take(GROUP_SHOWN_MAX).collect();
                error!(
                    topic,
                    partition = number,
                    ?group,
                    "another group fires the same topic: each schedule fires twice"
                );
            }
            Report::Reread { partition, why } => {
                let (topic, number) = (topic(partition), partition.number);
                warn!(topic, partition = number, why, "the partition is read again from its beginning");
            }
        }
    }
}

fn retry_at_text(Millis(at): Millis) -> String {
    jiff::Timestamp::from_millisecond(at).map_or_else(|_| at.to_string(), |at| at.to_string())
}

/// Lines in the second that has begun, and lines held back since one was last said.
#[derive(Debug)]
struct Limit {
    since: Instant,
    lines: u32,
    suppressed: u64,
}

impl Limit {
    fn new(now: Instant) -> Self {
        Self { since: now, lines: 0, suppressed: 0 }
    }

    /// Whether `lines` more may be written, and how many were not in the seconds before.
    fn take(&mut self, now: Instant, lines: u32) -> (bool, u64) {
        let mut told = 0;
        if now.saturating_duration_since(self.since) >= Duration::from_secs(1) {
            told = std::mem::take(&mut self.suppressed);
            *self = Self::new(now);
        }
        if self.lines + lines > RECORD_LINES_PER_S {
            self.suppressed += u64::from(lines);
            return (false, told);
        }
        self.lines += lines;
        (true, told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_lines_is_cut_and_counted() {
        let start = Instant::now();
        let mut limit = Limit::new(start);
        let written = (0..1_000).filter(|_| limit.take(start, 1).0).count();
        assert_eq!(written, 100);
        assert_eq!(limit.take(start + Duration::from_secs(1), 1), (true, 900));
        assert_eq!(limit.take(start + Duration::from_secs(2), 0), (true, 0));
    }
}
