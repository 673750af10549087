//! New credentials do not reach clients that are there: the engine ends, for whoever runs it to start it again.

use std::time::{Duration, Instant};

use super::EngineLoop;
use crate::kafka::Error;

/// Between two looks at the files that settings came from, while brokers do not let clients in.
const LOOK: Duration = Duration::from_secs(3);

impl EngineLoop {
    pub(super) fn check_files(&mut self) {
        if self.files_at <= Instant::now() && self.settings.voice.is_locked_out() {
            self.files_at = Instant::now() + LOOK;
            self.worker.look_at_files();
        }
    }

    /// Hands over what can be, and ends.
    pub(super) fn outdated(&mut self, path: String) {
        if !self.ending {
            self.failure = Some(Error::Outdated(path));
            self.stop();
        }
    }
}
