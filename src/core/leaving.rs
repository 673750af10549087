//! Giving partitions up: on request, by force, or all of them to start anew.

use std::collections::BTreeSet;

use super::bugs::{self, Bug};
use super::io::Output;
use super::owner::FENCE_MAX;
use super::partition::Step;
use super::payload::Payload;
use super::{Partition, Scheduler};

/// How long a release may take before it is given up.
const RELEASE_MS_MAX: i64 = 5_000;
/// The same when the process is to end.
const STOP_MS_MAX: i64 = 1_000;

impl<P: Payload> Scheduler<P> {
    pub(super) fn revoked(&mut self, partitions: &[Partition]) {
        self.refused = None;
        let mut free = Vec::new();
        for id in partitions {
            if !self.begin_release(*id, RELEASE_MS_MAX, true) {
                free.push(*id);
            }
        }
        let topics: BTreeSet<u16> = partitions.iter().map(|id| id.topic).collect();
        for topic in topics.into_iter().filter(|_| !bugs::on(Bug::SiblingsNotAskedAgain)) {
            self.find_since_again(topic);
        }
        self.release(free);
    }

    /// Returns false if there is nothing to wait for: the partition is forgotten.
    fn begin_release(&mut self, id: Partition, within_ms: i64, revoke: bool) -> bool {
        let until = self.now.plus(within_ms);
        let Some(life) = self.lives.get_mut(&id) else { return false };
        match &mut life.step {
            Step::Metadata | Step::Barrier if !life.claimed => {
                self.lives.remove(&id);
                return false;
            }
            Step::Releasing { revoked, .. } => *revoked |= revoke,
            step => {
                *step = Step::Releasing { until, marked: life.claimed, revoked: revoke };
            }
        }
        true
    }

    fn release(&mut self, partitions: Vec<Partition>) {
        if !partitions.is_empty() {
            self.outputs.push_back(Output::Release(partitions));
        }
        self.end_if_empty();
    }

    /// These have nothing in flight and are marked clean, or need no mark.
    pub(super) fn released(&mut self, partitions: &[Partition]) {
        let mut wanted = Vec::new();
        for id in partitions {
            if let Some(life) = self.lives.remove(id)
                && matches!(life.step, Step::Releasing { revoked: true, .. })
            {
                wanted.push(*id);
            }
        }
        self.release(wanted);
    }

    pub(super) fn check_releases(&mut self) {
        let now = self.now;
        let late = |step: Step| matches!(step, Step::Releasing { until, .. } if until <= now);
        if self.lives.values().any(|life| late(life.step)) {
            self.restart("a partition could not be handed over in time");
        }
    }

    pub(super) fn lost(&mut self, partitions: &[Partition]) {
        self.refused = None;
        if bugs::on(Bug::LostPartitionsKept) {
            return;
        }
        for id in partitions {
            self.lives.remove(id);
        }
        if !self.lives.is_empty() {
            return self.restart("some partitions were lost");
        }
        self.forget_all();
        self.end_if_empty();
    }

    /// Forgets everything and joins the group anew, under another name.
    pub(super) fn restart(&mut self, why: &'static str) {
        self.forget_all();
        if self.stopping {
            self.end_if_empty();
        } else {
            self.outputs.push_back(Output::Restart(why));
        }
    }

    fn forget_all(&mut self) {
        if !self.in_flight.is_empty() {
            // Their transactions may be open still, also where no metadata names this owner yet.
            self.formers.insert(0, self.owner());
            self.formers.truncate(FENCE_MAX);
        }
        self.lives.clear();
        self.in_flight.clear();
        self.fencing.clear();
        self.asked.clear();
        self.targets.forget();
        self.refused = None;
        self.incarnation += 1;
        if !self.stopping {
            self.outputs.push_back(Output::Renew { transactional_ids: self.transactional_ids() });
        }
    }

    pub(super) fn stop(&mut self) {
        self.stopping = true;
        for id in self.lives.keys().copied().collect::<Vec<_>>() {
            self.begin_release(id, STOP_MS_MAX, false);
        }
        self.end_if_empty();
    }

    fn end_if_empty(&mut self) {
        if self.stopping && self.lives.is_empty() && !self.stopped {
            self.stopped = true;
            self.outputs.push_back(Output::Stopped);
        }
    }
}
