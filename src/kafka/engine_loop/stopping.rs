//! The engine stops on request, or because its credentials are outdated: new ones do not reach existing clients.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::EngineLoop;
use crate::core::io::Input;
use crate::kafka::error::EngineError;

/// Between two checks of the configuration files, while brokers reject clients' connections.
const FILE_CHECK_INTERVAL: Duration = Duration::from_secs(3);
/// How long the end of the process waits for its transactors, and then for leaving the group.
const TRANSACTORS_TIMEOUT: Duration = Duration::from_millis(250);
const LEAVE_TIMEOUT: Duration = Duration::from_millis(250);

#[derive(Default)]
pub(super) struct Shutdown {
    /// The core hands its partitions over.
    pub is_stopping: bool,
    /// The core has handed them over.
    pub has_stopped: bool,
    /// Why the engine stops by itself.
    failure: Option<EngineError>,
}

impl EngineLoop {
    pub(super) fn stop(&mut self) {
        self.shutdown.is_stopping = true;
        self.reporter.publish_soon();
        self.input(Input::Stop);
    }

    pub(super) fn check_files(&mut self) {
        if self.timers.check_files_at <= Instant::now() && self.clients.diagnostics.is_locked_out() {
            self.timers.check_files_at = Instant::now() + FILE_CHECK_INTERVAL;
            self.requests.worker.check_files();
        }
    }

    /// Hands over and ends, for the program to be started again.
    pub(super) fn on_file_change(&mut self, path: String) {
        if !self.shutdown.is_stopping {
            self.shutdown.failure = Some(EngineError::Outdated(path));
            self.stop();
        }
    }

    pub(super) fn end(mut self) -> Result<(), EngineError> {
        self.reporter.report_counters_now(self.core.counters());
        self.requests.worker.closing.store(true, Ordering::Release);
        if let Some(transactors) = self.running_batches.transactors.take() {
            transactors.stop(TRANSACTORS_TIMEOUT);
        }
        if let Some(left) = self.group.leave() {
            let _ = left.recv_timeout(LEAVE_TIMEOUT);
        }
        self.take_last_snapshots();
        tracing::info!("stopped");
        self.shutdown.failure.map_or(Ok(()), Err)
    }
}
