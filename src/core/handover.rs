//! Giving partitions up: on request, by force, or all of them to start anew.

use std::collections::BTreeSet;

use super::bugs::{self, Bug};
use super::io::Output;
use super::ownership::FENCE_MAX;
use super::partition::Stage;
use super::payload::Payload;
use super::{Scheduler, TopicPartition};

/// How long a release may take before it is given up.
const RELEASE_MS_MAX: i64 = 5_000;
/// The same when the process is to end.
const STOP_MS_MAX: i64 = 1_000;

impl<P: Payload> Scheduler<P> {
    pub(super) fn revoked(&mut self, partitions: &[TopicPartition]) {
        self.batches.stale_generation = None;
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
    fn begin_release(&mut self, id: TopicPartition, within_ms: i64, revoke: bool) -> bool {
        let until = self.now.plus(within_ms);
        let Some(state) = self.partitions.get_mut(&id) else { return false };
        match &mut state.stage {
            Stage::Metadata | Stage::Barrier if !state.claimed => {
                self.partitions.remove(&id);
                return false;
            }
            Stage::Releasing { revoked, .. } => *revoked |= revoke,
            stage => {
                *stage = Stage::Releasing { until, clean_commit_due: state.claimed, revoked: revoke };
            }
        }
        true
    }

    fn release(&mut self, partitions: Vec<TopicPartition>) {
        if !partitions.is_empty() {
            self.outputs.push_back(Output::Release(partitions));
        }
        self.end_if_empty();
    }

    /// These have nothing in flight and are marked clean, or need no mark.
    pub(super) fn released(&mut self, partitions: &[TopicPartition]) {
        let mut wanted = Vec::new();
        for id in partitions {
            if let Some(state) = self.partitions.remove(id)
                && matches!(state.stage, Stage::Releasing { revoked: true, .. })
            {
                wanted.push(*id);
            }
        }
        self.release(wanted);
    }

    pub(super) fn check_releases(&mut self) {
        let now = self.now;
        let late = |stage: Stage| matches!(stage, Stage::Releasing { until, .. } if until <= now);
        if self.partitions.values().any(|state| late(state.stage)) {
            self.rejoin("a partition could not be handed over in time");
        }
    }

    pub(super) fn lost(&mut self, partitions: &[TopicPartition]) {
        self.batches.stale_generation = None;
        if bugs::on(Bug::LostPartitionsKept) {
            return;
        }
        for id in partitions {
            self.partitions.remove(id);
        }
        if !self.partitions.is_empty() {
            return self.rejoin("some partitions were lost");
        }
        self.forget_all();
        self.end_if_empty();
    }

    /// Forgets everything and joins the group anew, under another name.
    pub(super) fn rejoin(&mut self, why: &'static str) {
        self.forget_all();
        if self.stopping {
            self.end_if_empty();
        } else {
            self.outputs.push_back(Output::Rejoin(why));
        }
    }

    fn forget_all(&mut self) {
        if !self.batches.in_flight.is_empty() {
            // Their transactions may be open still, also where no metadata names this owner yet.
            self.takeovers.previous_owners.insert(0, self.owner());
            self.takeovers.previous_owners.truncate(FENCE_MAX);
        }
        self.partitions.clear();
        self.batches.forget();
        self.takeovers.forget();
        self.targets.forget();
        if !self.stopping {
            self.outputs.push_back(Output::ReplaceTransactionalIds { transactional_ids: self.transactional_ids() });
        }
    }

    pub(super) fn stop(&mut self) {
        self.stopping = true;
        for id in self.partitions.keys().copied().collect::<Vec<_>>() {
            self.begin_release(id, STOP_MS_MAX, false);
        }
        self.end_if_empty();
    }

    fn end_if_empty(&mut self) {
        if self.stopping && self.partitions.is_empty() && !self.stopped {
            self.stopped = true;
            self.outputs.push_back(Output::Stopped);
        }
    }
}
