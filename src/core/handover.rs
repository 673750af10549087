//! Gives partitions back: when the group revokes them, when they are lost, or all of them to rejoin the group.

use std::collections::BTreeSet;

use super::bugs::{self, Bug};
use super::io::Output;
use super::ownership::FENCE_MAX;
use super::partition::Stage;
use super::payload::Payload;
use super::{Scheduler, TopicPartition};

/// Time for a clean release of revoked partitions.
const RELEASE_TIMEOUT_MS: i64 = 5_000;
/// The same while the process shuts down, which process managers limit.
const STOP_TIMEOUT_MS: i64 = 1_000;

impl<P: Payload> Scheduler<P> {
    pub(super) fn on_revoked(&mut self, partitions: &[TopicPartition]) {
        self.batches.stale_generation = None;
        let mut free = Vec::new();
        for id in partitions {
            if !self.begin_release(*id, RELEASE_TIMEOUT_MS, true) {
                free.push(*id);
            }
        }
        let topics: BTreeSet<u16> = partitions.iter().map(|id| id.topic).collect();
        for topic in topics.into_iter().filter(|_| !bugs::on(Bug::SiblingsNotAskedAgain)) {
            self.find_since_again(topic);
        }
        self.release(free);
    }

    /// Returns false if there is nothing to wait for, and forgets the partition.
    fn begin_release(&mut self, id: TopicPartition, within_ms: i64, revoke: bool) -> bool {
        let until = self.now.plus(within_ms);
        let Some(owned) = self.partitions.get_mut(&id) else { return false };
        match &mut owned.stage {
            Stage::Metadata | Stage::Barrier if !owned.barrier_committed => {
                self.partitions.remove(&id);
                return false;
            }
            Stage::Releasing { revoked, .. } => *revoked |= revoke,
            stage => {
                *stage = Stage::Releasing { until, clean_commit_due: owned.barrier_committed, revoked: revoke };
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

    /// Forgets partitions that have nothing in flight and are committed as clean, or have no barrier of ours.
    pub(super) fn released(&mut self, partitions: &[TopicPartition]) {
        let mut wanted = Vec::new();
        for id in partitions {
            let Some(owned) = self.partitions.remove(id) else { continue };
            if matches!(owned.stage, Stage::Releasing { revoked: true, .. }) {
                wanted.push(*id);
            }
            if self.stopping
                && self.canary_limit_ms(id.topic) > 0
                && owned.is_loaded()
                && !owned.is_unproven
                && !owned.is_trimmed
            {
                self.retired.insert(*id, owned);
            }
        }
        self.release(wanted);
    }

    pub(super) fn check_releases(&mut self) {
        let now = self.now;
        let late = |stage: Stage| matches!(stage, Stage::Releasing { until, .. } if until <= now);
        if self.partitions.values().any(|owned| late(owned.stage)) {
            self.rejoin("a partition could not be handed over in time");
        }
    }

    pub(super) fn on_lost(&mut self, partitions: &[TopicPartition]) {
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

    /// Forgets everything and rejoins the group as a new incarnation.
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
            // Their transactions may still be open, even if no committed metadata names this owner yet.
            self.takeovers.previous_owners.insert(0, self.owner());
            self.takeovers.previous_owners.truncate(FENCE_MAX);
        }
        self.partitions.clear();
        self.batches.clear_in_flight();
        self.takeovers.forget();
        self.targets.clear_waiters();
        if !self.stopping {
            self.outputs.push_back(Output::ReplaceTransactionalIds { transactional_ids: self.transactional_ids() });
        }
    }

    pub(super) fn stop(&mut self) {
        self.stopping = true;
        for id in self.partitions.keys().copied().collect::<Vec<_>>() {
            self.begin_release(id, STOP_TIMEOUT_MS, false);
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
