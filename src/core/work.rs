//! Lists which batches each partition needs, and when. Both the formation of batches and the deadlines derive from it.

use super::Scheduler;
use super::in_flight::{Lane, Purpose};
use super::partition::{OwnedPartition, Stage};
use super::payload::Payload;
use super::types::Millis;

/// The batches that one partition can need at a time.
const WORK_MAX: usize = 9;

/// A kind of batch, and the time from which on it is needed.
type Work = (Purpose, Millis);

impl<P: Payload> Scheduler<P> {
    /// Returns whether a transactor is free and the group's generation is valid.
    pub(super) fn may_form(&self) -> bool {
        let is_free = self.batches.in_flight.len() < self.config.transactors;
        self.batches.stale_generation.is_none() && !self.stopped && is_free
    }

    /// Returns whether some batch may be needed now. It runs after every record, mostly returns false, and is cheaper
    /// than to form a batch.
    pub(super) fn has_work(&self) -> bool {
        let is_ready = |(purpose, at): &Work| *at <= self.now && self.is_ready(*purpose);
        self.partitions.values().any(|owned| self.work(owned).any(|work| is_ready(&work)))
    }

    /// Returns whether batches of this kind are not backing off.
    pub(super) fn is_ready(&self, purpose: Purpose) -> bool {
        self.now >= self.batches.backoff_until(purpose)
    }

    /// Returns when the next batch can be formed, and why. Work that is due now and was not formed waits for a batch in
    /// flight to settle, which needs no deadline.
    pub(super) fn next_work(&self) -> Option<(Millis, &'static str)> {
        let later = self.partitions.values().flat_map(|owned| self.work(owned)).filter_map(|(purpose, at)| {
            let why = match purpose {
                _ if at <= self.now => "an aborted batch is tried again",
                Purpose::Entries(_) => "a schedule is due",
                Purpose::Canary => "a canary is written",
                _ => "progress is committed",
            };
            Some((at.max(self.batches.backoff_until(purpose)), why)).filter(|(at, _)| *at > self.now)
        });
        later.min_by_key(|(at, _)| *at)
    }

    /// Iterates over the work of one partition.
    fn work(&self, owned: &OwnedPartition<P>) -> impl Iterator<Item = Work> {
        let now = self.now;
        let is_live = owned.is_live();
        let work = match owned.stage {
            Stage::Metadata | Stage::BarrierSent | Stage::StartMarkerSent(_) => [None; WORK_MAX],
            Stage::Barrier => one(Purpose::Barrier, now),
            Stage::StartMarker(_) => one(Purpose::StartMarker, now),
            Stage::Releasing { .. } if self.batches.any_concerns(owned.id) => [None; WORK_MAX],
            Stage::Releasing { .. } => one(Purpose::CleanCommit, now),
            _ if owned.is_trimmed => [None; WORK_MAX],
            // They are live only with `Bug::FireBeforeBarrier`.
            Stage::Loading | Stage::CanaryCheck | Stage::Since | Stage::Siblings if !is_live => {
                if owned.fence_answered { one(Purpose::CommitOffsets, now) } else { [None; WORK_MAX] }
            }
            Stage::Loading | Stage::CanaryCheck | Stage::Since | Stage::Siblings | Stage::Live => {
                let due = |lane| owned.keys.next_due(self.sizes(lane)).map(|due| (Purpose::Entries(lane), due.at()));
                let waits = |does: bool, lane| does.then_some((Purpose::Entries(lane), now));
                let has_progress = owned.offset() > owned.committed;
                [
                    due(Lane::Normal),
                    due(Lane::Large),
                    waits(owned.keys.has_rewrites(), Lane::Normal),
                    owned.keys.has_repairs().then_some((Purpose::Entries(Lane::Normal), now.max(owned.repairs_after))),
                    waits(owned.keys.has_isolated(), Lane::Isolated),
                    waits(owned.keys.has_dead_letters(), Lane::DeadLetters),
                    owned.fence_answered.then_some((Purpose::CommitOffsets, now)),
                    has_progress.then_some((Purpose::CommitOffsets, owned.next_commit_at)),
                    owned.next_canary_at.map(|at| (Purpose::Canary, at)),
                ]
            }
        };
        work.into_iter().flatten()
    }
}

fn one(purpose: Purpose, at: Millis) -> [Option<Work>; WORK_MAX] {
    let mut work = [None; WORK_MAX];
    work[0] = Some((purpose, at));
    work
}
