//! The one list of what needs a batch, and when: batches are formed from it, and deadlines are read from it.

use super::in_flight::{Lane, Purpose};
use super::partition::{PartitionState, Stage};
use super::payload::Payload;
use super::types::Millis;
use super::{Scheduler, TRANSACTORS_MAX};

/// A batch of this purpose is needed from that time on.
type Work = (Purpose, Millis);

impl<P: Payload> Scheduler<P> {
    /// Whether a batch may be handed out now.
    pub(super) fn may_form(&self) -> bool {
        let transactors = self.config.transactors.clamp(1, TRANSACTORS_MAX);
        self.batches.stale_generation.is_none() && !self.stopped && self.batches.in_flight.len() < transactors
    }

    /// Whether there may be something to form a batch of. Asked after every record, which mostly brings nothing: it costs
    /// less than to try.
    pub(super) fn has_work(&self) -> bool {
        let is_ready = |(purpose, at): &Work| *at <= self.now && self.is_ready(*purpose);
        self.partitions.values().any(|state| self.work(state).any(|work| is_ready(&work)))
    }

    /// Whether no abort delays batches of this purpose.
    pub(super) fn is_ready(&self, purpose: Purpose) -> bool {
        self.now >= self.batches.backoff_until(purpose)
    }

    /// When the next batch can be formed, and why then. What could be formed by now has been: the rest waits for a batch in
    /// flight to settle.
    pub(super) fn next_work(&self) -> Option<(Millis, &'static str)> {
        let later = self.partitions.values().flat_map(|state| self.work(state)).filter_map(|(purpose, at)| {
            let why = match purpose {
                _ if at <= self.now => "an aborted batch is tried again",
                Purpose::Fire(_) => "a schedule is due",
                _ => "progress is committed",
            };
            Some((at.max(self.batches.backoff_until(purpose)), why)).filter(|(at, _)| *at > self.now)
        });
        later.min_by_key(|(at, _)| *at)
    }

    /// What one partition needs batches for.
    fn work(&self, state: &PartitionState<P>) -> impl Iterator<Item = Work> {
        let now = self.now;
        let is_live = state.is_live();
        let work = match state.stage {
            Stage::Metadata | Stage::BarrierSent | Stage::StartMarkerSent(_) => [None; 7],
            Stage::Barrier => one(Purpose::Barrier, now),
            Stage::StartMarker(_) => one(Purpose::StartMarker, now),
            Stage::Releasing { .. } if self.batches.touch(state.id) => [None; 7],
            Stage::Releasing { .. } => one(Purpose::Handover, now),
            _ if state.is_trimmed => [None; 7],
            Stage::Loading(_) | Stage::Since | Stage::Siblings if !is_live => {
                if state.fence_done {
                    one(Purpose::CommitOffsets, now)
                } else {
                    [None; 7]
                }
            }
            Stage::Loading(_) | Stage::Since | Stage::Siblings | Stage::Live => {
                let due = |lane| state.keys.next_due(self.sizes(lane)).map(|due| (Purpose::Fire(lane), due.at()));
                let waits = |does: bool, lane| does.then_some((Purpose::Fire(lane), now));
                let has_progress = state.offset() > state.committed;
                [
                    due(Lane::Normal),
                    due(Lane::Large),
                    waits(state.keys.has_rewrites(), Lane::Normal),
                    waits(state.keys.has_quarantined(), Lane::Quarantined),
                    waits(state.keys.has_dead_letters(), Lane::DeadLetters),
                    state.fence_done.then_some((Purpose::CommitOffsets, now)),
                    has_progress.then_some((Purpose::CommitOffsets, state.next_commit_at)),
                ]
            }
        };
        work.into_iter().flatten()
    }
}

fn one(purpose: Purpose, at: Millis) -> [Option<Work>; 7] {
    let mut work = [None; 7];
    work[0] = Some((purpose, at));
    work
}
