//! A wall clock that is set back: what waits for a time must not wait for the hours that come twice.

use super::partition::Stage;
use super::payload::Payload;
use super::{Millis, Scheduler};

impl<P: Payload> Scheduler<P> {
    /// Takes note of the time. Where it went back, every wait ends as much earlier, so that it lasts as long as it would
    /// have. When schedules are due stays as it is: that is a time of the clock on the wall.
    pub(super) fn set_now(&mut self, now: Millis) {
        let back_ms = self.now.0.saturating_sub(now.0);
        self.now = now;
        if back_ms <= 0 {
            return;
        }
        let earlier = |at: Millis| at.plus(-back_ms);
        self.batches.set_back(back_ms);
        self.targets.set_back(back_ms);
        for state in self.partitions.values_mut() {
            state.keys.set_back(back_ms);
            state.live_at = earlier(state.live_at);
            state.next_commit_at = earlier(state.next_commit_at);
            if let Stage::Releasing { until, .. } = &mut state.stage {
                *until = earlier(*until);
            }
        }
    }
}
