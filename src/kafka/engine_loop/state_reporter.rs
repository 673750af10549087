//! Shows the loop's state to the observer and on the board.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::EngineLoop;
use crate::core::io::Counters;
use crate::handle::Observer;
use crate::handle::status_board::{EngineState, Snapshot, StatusBoard};

/// Minimum interval between counter updates to the observer.
const COUNTERS_INTERVAL: Duration = Duration::from_millis(100);
/// Minimum interval between snapshots. It grows until they take at most a twentieth of the loop's time.
const SNAPSHOT_INTERVAL: Duration = Duration::from_millis(500);
const SNAPSHOT_SHARE: u32 = 20;

/// The outlets for the loop's state, and when they were last served.
pub(super) struct StateReporter {
    pub observer: Box<dyn Observer>,
    pub board: Arc<StatusBoard>,
    reported: Counters,
    reported_at: Instant,
    publish_at: Instant,
}

impl StateReporter {
    pub(super) fn new(observer: Box<dyn Observer>, board: Arc<StatusBoard>) -> Self {
        let now = Instant::now();
        Self { observer, board, reported: Counters::default(), reported_at: now, publish_at: now }
    }

    /// Has the next iteration publish a snapshot.
    pub(super) fn publish_soon(&mut self) {
        self.publish_at = Instant::now();
    }

    /// Reports the counters if they have changed, once in an interval.
    pub(super) fn report_counters(&mut self, counters: Counters) {
        if self.reported_at.elapsed() >= COUNTERS_INTERVAL {
            self.report_counters_now(counters);
        }
    }

    pub(super) fn report_counters_now(&mut self, counters: Counters) {
        if counters != self.reported {
            self.reported = counters;
            self.reported_at = Instant::now();
            self.observer.counters(&counters);
        }
    }
}

impl EngineLoop {
    pub(super) fn publish(&mut self) {
        let started = Instant::now();
        if self.reporter.publish_at > started {
            return;
        }
        let state = match (self.shutdown.is_stopping, self.group.is_member) {
            (true, _) => EngineState::Ending,
            (false, true) => EngineState::Member,
            (false, false) => EngineState::Joining,
        };
        let memory_warn_bytes = self.config.memory_warn_bytes();
        let snapshot = Snapshot { at: self.clock.now(), state, partitions: self.core.status(), memory_warn_bytes };
        self.reporter.observer.on_snapshot(&snapshot);
        self.reporter.board.publish(snapshot);
        self.reporter.publish_at = started + SNAPSHOT_INTERVAL.max(started.elapsed() * SNAPSHOT_SHARE);
    }
}
