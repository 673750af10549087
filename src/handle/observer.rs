//! What the engine's loop tells the rest of the program.

use std::time::Duration;

use super::board::Snapshot;
use crate::core::batch::Batch;
use crate::core::io::{Counters, Millis, Record, Report};

/// Told what the engine does, on the loop's thread: it must not block.
pub trait Observer: Send {
    /// The counters have moved.
    fn counters(&mut self, counters: &Counters) {
        let _ = counters;
    }

    /// A batch with firings has been committed, and when that was known.
    fn fired(&mut self, batch: &Batch, at: Millis) {
        let _ = (batch, at);
    }

    /// A schedule has been accepted as pending, on a partition that fires already.
    fn planned(&mut self, record: &Record<'_>, topics: &[String]) {
        let _ = (record, topics);
    }

    /// A user has cancelled a pending schedule, on a partition that fires already.
    fn deleted(&mut self, record: &Record<'_>, topics: &[String]) {
        let _ = (record, topics);
    }

    /// A batch has ended: how, and how long after it was formed.
    fn settled(&mut self, batch: &Batch, outcome: &'static str, took: Duration) {
        let _ = (batch, outcome, took);
    }

    /// The loop has turned once, and what it did between two sleeps took so long.
    fn turned(&mut self, took: Duration) {
        let _ = took;
    }

    /// What is held has been looked at, as it is some times a second.
    fn held(&mut self, snapshot: &Snapshot) {
        let _ = snapshot;
    }

    /// The group has given or taken partitions.
    fn rebalanced(&mut self) {}

    /// Something worth a line in the log. `topics` are the names that partitions refer to.
    fn report(&mut self, report: &Report, topics: &[String]) {
        let _ = (report, topics);
    }
}
