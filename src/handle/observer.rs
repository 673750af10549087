//! Callbacks from the engine's loop to the rest of the program.

use std::time::Duration;

use super::status_board::Snapshot;
use crate::core::batch::Batch;
use crate::core::due::Due;
use crate::core::io::{Counters, Millis, Record, Report};

/// Receives what the engine does, on the loop's thread: it must not block.
pub trait Observer: Send {
    /// The counters have changed.
    fn counters(&mut self, counters: &Counters) {
        let _ = counters;
    }

    /// A batch with firings was committed; `at` is when that was known.
    fn fired(&mut self, batch: &Batch, at: Millis) {
        let _ = (batch, at);
    }

    /// A schedule has been accepted as pending, on a live partition.
    fn accepted(&mut self, record: &Record<'_>, due: Due, target: &str, topics: &[String]) {
        let _ = (record, due, target, topics);
    }

    /// A user has cancelled a pending schedule, on a live partition.
    fn cancelled(&mut self, record: &Record<'_>, topics: &[String]) {
        let _ = (record, topics);
    }

    /// A batch ended; `took` is the time since it was formed.
    fn settled(&mut self, batch: &Batch, outcome: &'static str, took: Duration) {
        let _ = (batch, outcome, took);
    }

    /// The loop finished an iteration; `took` is its time between two sleeps.
    fn on_iteration(&mut self, took: Duration) {
        let _ = took;
    }

    /// The loop took a snapshot, as it does some times a second.
    fn on_snapshot(&mut self, snapshot: &Snapshot) {
        let _ = snapshot;
    }

    /// A partition's snapshot was written at `at`: the size of its file, and the time since it was begun.
    fn snapshot_written(&mut self, topic: &str, partition: i32, bytes: u64, took: Duration, at: Millis) {
        let _ = (topic, partition, bytes, took, at);
    }

    /// The core had work at a regular tick, and had announced no deadline for it.
    fn missed_deadline(&mut self) {}

    /// The group assigned or revoked partitions.
    fn rebalanced(&mut self) {}

    /// Something for the log. `topics` are the names that partitions refer to.
    fn report(&mut self, report: &Report, topics: &[String]) {
        let _ = (report, topics);
    }
}
