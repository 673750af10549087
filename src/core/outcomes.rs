//! Handles the outcome of a batch: committed, aborted or unknown.

use super::bugs::{self, Bug};
use super::in_flight::{BatchEntry, InFlight, Lane, Purpose, short_batch_id};
use super::io::{Abort, BatchTimeout, Outcome};
use super::partition::{COMMIT_INTERVAL_MS, Stage, UnreadBatch};
use super::payload::Payload;
use super::reason::Reason;
use super::report::Report;
use super::targets::TargetState;
use super::{Scheduler, TopicPartition};

/// After this many rejections without a named record, the search stops holding up later schedules and isolates the
/// batch's. Enough to find two or three records among 10,000.
const UNATTRIBUTED_REJECTIONS_MAX: u32 = 32;

impl<P: Payload> Scheduler<P> {
    pub(super) fn on_batch_ended(&mut self, id: u64, outcome: Outcome) {
        let Some(batch) = self.batches.take(id) else {
            // It was sent before everything was forgotten.
            return;
        };
        match outcome {
            Outcome::Committed { last_offsets } => self.batch_committed(batch, &last_offsets),
            Outcome::Aborted(abort) => self.batch_aborted(batch, abort),
            Outcome::Unknown => {
                // Its transaction may still be open, so `rejoin` must see it.
                self.batches.in_flight.push_back(batch);
                return self.rejoin("a transaction's outcome is not known");
            }
        }
        self.reread_trimmed();
        if self.batches.throughput.is_large_apart() && !self.has_due(Lane::Large) {
            self.batches.throughput.none_large_due();
        }
        if self.batches.throughput.is_one_at_a_time() && !self.has_due(Lane::Normal) && !self.has_due(Lane::Large) {
            self.batches.throughput.caught_up();
        }
    }

    fn has_due(&self, lane: Lane) -> bool {
        self.next_due(lane).is_some_and(|due| due.is_due(self.now))
    }

    fn batch_committed(&mut self, batch: InFlight, last_offsets: &[(TopicPartition, i64)]) {
        self.batches.recovered(batch.purpose);
        if let Purpose::Entries(lane) = batch.purpose {
            let items_max = &mut self.batches.items_max[lane as usize];
            *items_max = (*items_max * 2).min(self.config.batch_items_max);
            if lane == Lane::Normal && *items_max == self.config.batch_items_max {
                self.batches.unattributed_rejections = 0;
            }
            let took_ms = self.now.0.saturating_sub(batch.formed_at.0);
            if self.batches.throughput.committed(batch.payload_bytes, took_ms) {
                self.report(Report::ThroughputIsLimit);
            }
        }
        for (id, offset) in &batch.offsets {
            if let Some(owned) = self.partitions.get_mut(id) {
                owned.committed = *offset;
                owned.next_commit_at = self.now.plus(COMMIT_INTERVAL_MS);
                // A batch that was formed before the answer still names the owners, until the next commit. That costs a
                // successor time, not safety.
                owned.fence_answered = false;
            }
        }
        match batch.purpose {
            Purpose::Barrier => {
                let barriers: Vec<_> = last_offsets.iter().filter(|(id, _)| batch.concerns(*id)).copied().collect();
                self.revert_stages(&batch, |id| !barriers.iter().any(|(other, _)| *other == id));
                self.barriers_committed(&barriers);
            }
            Purpose::StartMarker => {
                for (id, _) in &batch.offsets {
                    if let Some(Stage::StartMarkerSent(start_marker)) = self.partitions.get(id).map(|owned| owned.stage)
                    {
                        self.start_marker_committed(*id, start_marker);
                    }
                }
            }
            Purpose::CleanCommit => {
                let ids: Vec<_> = batch.offsets.iter().map(|(id, _)| *id).collect();
                self.released(&ids);
            }
            Purpose::CommitOffsets | Purpose::Canary => {}
            Purpose::Entries(_) => self.fired(&batch, last_offsets),
        }
    }

    fn fired(&mut self, batch: &InFlight, last_offsets: &[(TopicPartition, i64)]) {
        for target in batch.entries.iter().filter_map(|entry| entry.target) {
            if !self.targets.has_quarantined() {
                break;
            }
            if let Some(name) = self.targets.took_record(target) {
                self.report(Report::TargetChanged { name, state: TargetState::Exists });
            }
        }
        self.counters.triggered += batch.triggered;
        self.counters.missed += batch.missed;
        self.counters.dead_lettered += batch.entries.iter().filter(|entry| entry.is_dead_letter).count() as u64;
        let expired = || batch.entries.iter().filter(|entry| entry.has_expired);
        self.counters.expired += expired().count() as u64;
        // A dead letter was counted by its reason when it was decided.
        self.counters.by_reason[Reason::Expired] += expired().filter(|entry| !entry.is_dead_letter).count() as u64;
        self.counters.skipped += batch.entries.iter().map(|entry| entry.skipped).sum::<u64>();
        self.counters.rewritten += batch.entries.iter().filter(|entry| entry.is_rewrite()).count() as u64;
        for (id, _) in &batch.offsets {
            let Some(owned) = self.partitions.get_mut(id) else { continue };
            let read = bugs::on(Bug::SettledTakenForRead);
            let of_this = || batch.entries.iter().filter(|entry| entry.partition == *id);
            owned.unread_batches.push_back(UnreadBatch {
                batch: short_batch_id(batch.id),
                last_offset: match last_offsets.iter().find(|(other, _)| other == id) {
                    _ if read => Some(-1),
                    reported => reported.map(|(_, offset)| *offset),
                },
                items: of_this().map(|entry| (entry.slot, entry.origin_offset, entry.written)).collect(),
                progress: of_this().filter_map(|entry| entry.progress).collect(),
            });
            owned.clear_read();
        }
    }

    fn batch_aborted(&mut self, batch: InFlight, abort: Abort) {
        if bugs::on(Bug::AbortedForgotten) && matches!(batch.purpose, Purpose::Entries(_)) {
            return;
        }
        for entry in &batch.entries {
            if let Some(owned) = self.partitions.get_mut(&entry.partition) {
                owned.keys.aborted(entry.slot, short_batch_id(batch.id));
                if let Some((slot, _)) = entry.progress {
                    owned.keys.progress_settled(slot, short_batch_id(batch.id), None);
                }
            }
        }
        if batch.purpose == Purpose::CleanCommit {
            // Rejoining under new transactional ids keeps a successor from fencing ids that are in use.
            return self.rejoin("a partition could not be committed as clean");
        }
        self.revert_stages(&batch, |_| true);
        match abort {
            Abort::RejectedUnnamed => self.bisect(&batch),
            Abort::Rejected(items) => {
                debug_assert!(!items.is_empty(), "without items, the same batch would be tried again at once");
                if items.iter().any(|(_, reason)| *reason == Reason::NoLeader) {
                    // If the metadata shows a leader, the partition was too slow, and a smaller batch may get through.
                    self.timed_out(&batch, BatchTimeout::Stalled);
                }
                for (item, reason) in items {
                    if let Some(entry) = batch.entries.get(item as usize) {
                        self.rejected(entry, reason);
                    }
                }
            }
            Abort::Retry => self.try_again(&batch),
            Abort::TimedOut(timeout) => {
                self.timed_out(&batch, timeout);
                self.try_again(&batch);
            }
            Abort::StaleGeneration { generation } => {
                self.batches.pause(batch.purpose, self.now);
                self.batches.generation_is_stale(generation);
            }
        }
    }

    /// Retries the entries of a batch that failed for no fault of theirs.
    fn try_again(&mut self, batch: &InFlight) {
        if matches!(batch.purpose, Purpose::Entries(lane) if lane.fires_in_due_order()) {
            self.batches.drain();
        }
        self.batches.back_off(batch.purpose, self.now);
    }

    fn timed_out(&mut self, batch: &InFlight, timeout: BatchTimeout) {
        let has_entries = matches!(batch.purpose, Purpose::Entries(_)) && !bugs::on(Bug::BatchesKeepTheirSize);
        if has_entries && self.batches.throughput.timed_out(batch.payload_bytes, timeout) {
            self.report(Report::ThroughputIsLimit);
        }
    }

    /// Lets partitions whose barrier or start marker was not committed wait for another batch.
    fn revert_stages(&mut self, batch: &InFlight, wanted: impl Fn(TopicPartition) -> bool) {
        for (id, _) in batch.offsets.iter().filter(|(id, _)| wanted(*id)) {
            let Some(owned) = self.partitions.get_mut(id) else { continue };
            match owned.stage {
                Stage::BarrierSent if batch.purpose == Purpose::Barrier => owned.stage = Stage::Barrier,
                Stage::StartMarkerSent(start_marker) if batch.purpose == Purpose::StartMarker => {
                    owned.stage = Stage::StartMarker(start_marker)
                }
                _ if batch.purpose == Purpose::Canary => {
                    owned.next_canary_at = owned.next_canary_at.map(|_| self.now);
                }
                _ => {}
            }
        }
    }

    /// Searches for the record that a broker rejected, if no delivery report names it: batches are halved until the
    /// record is alone. That keeps due order, but all later schedules wait; if it takes too long, the batch's schedules
    /// are isolated instead.
    fn bisect(&mut self, batch: &InFlight) {
        let Purpose::Entries(lane) = batch.purpose else { return self.batches.back_off(batch.purpose, self.now) };
        if let [alone] = batch.entries.as_slice() {
            self.rejected(alone, Reason::Rejected);
        }
        let mut remaining = batch.entries.len();
        if lane.fires_in_due_order() {
            self.batches.unattributed_rejections = self.batches.unattributed_rejections.saturating_add(1);
            let takes_long = self.batches.unattributed_rejections > UNATTRIBUTED_REJECTIONS_MAX;
            let must_isolate = |entry: &&BatchEntry| entry.target.is_some() && takes_long;
            for entry in batch.entries.iter().filter(must_isolate) {
                remaining -= 1;
                if let Some(owned) = self.partitions.get_mut(&entry.partition) {
                    owned.keys.isolate(entry.slot, entry.origin_offset);
                }
            }
        }
        if remaining > 0 {
            self.batches.items_max[lane as usize] = (remaining / 2).max(1);
        }
    }
}
