//! Handles a wall clock that is set back: pending timers move back with it, so they do not wait for the repeated hours.

use super::partition::Stage;
use super::payload::Payload;
use super::{Millis, Scheduler};

impl<P: Payload> Scheduler<P> {
    /// Sets the current time. If it went back, every timer moves back by as much, so its wait keeps its length, and
    /// `live_at` too, or schedules due in the repeated hours would count as missed. Due times are wall-clock times and
    /// stay unchanged.
    pub(super) fn set_now(&mut self, now: Millis) {
        let back_ms = self.now.0.saturating_sub(now.0);
        self.now = now;
        if back_ms <= 0 {
            return;
        }
        let earlier = |at: Millis| at.plus(-back_ms);
        self.batches.set_back(back_ms);
        self.targets.set_back(back_ms);
        for owned in self.partitions.values_mut() {
            owned.keys.set_back(back_ms);
            owned.live_at = earlier(owned.live_at);
            owned.repairs_after = earlier(owned.repairs_after);
            owned.next_commit_at = earlier(owned.next_commit_at);
            owned.next_canary_at = owned.next_canary_at.map(earlier);
            if let Stage::Releasing { until, .. } = &mut owned.stage {
                *until = earlier(*until);
            }
        }
    }
}
