//! Forms batches, which become transactions.
//!
//! A partition's barrier, start marker, clean commit and offset commits have batches of their own ([`Purpose`]).
//! Batches of entries (firings, rewrites and dead letters: [`Purpose::Entries`]) are divided into *lanes* ([`Lane`]),
//! so a rejected or backing-off batch of one lane does not stop the others from forming.

use std::sync::Arc;

use super::batch::{AfterFiring, Batch, Fired, Kind, OffsetCommit};
use super::bugs::{self, Bug};
use super::due::Due;
use super::in_flight::{BatchEntry, InFlight, Lane, Purpose, short_batch_id};
use super::io::Output;
use super::key_table::{Committed, KeyTable, UserRequest};
use super::occurrences::DuePlan;
use super::partition::{OwnedPartition, Stage};
use super::payload::Payload;
use super::progress::Repair;
use super::reason::Reason;
use super::targets::Verdict;
use super::wait_queues::Size;
use super::when::Form;
use super::{Millis, Scheduler, TopicPartition};

impl<P: Payload> Scheduler<P> {
    /// Forms batches while there is work and a free transactor.
    pub(super) fn form(&mut self) {
        while self.may_form() && self.has_work() {
            let formed = (self.is_ready(Purpose::Barrier) && self.barriers())
                || (self.is_ready(Purpose::StartMarker) && self.start_markers())
                || (self.is_ready(Purpose::CleanCommit) && self.clean_commits())
                || (self.is_ready(Purpose::Canary) && self.canaries())
                || self.firings()
                || (self.is_ready(Purpose::CommitOffsets) && self.commit_offsets());
            if !formed {
                break;
            }
        }
    }

    /// Forms a batch of the next lane that has work. Returns whether it formed one. Lanes take turns, so no lane
    /// starves.
    fn firings(&mut self) -> bool {
        let after = self.batches.last_lane as usize + 1;
        for turn in 0..Lane::ALL.len() {
            let lane = Lane::ALL[(after + turn) % Lane::ALL.len()];
            let formed = self.is_ready(Purpose::Entries(lane))
                && !(lane.fires_in_due_order() && self.batches.keeps_back(lane))
                && match lane {
                    Lane::Normal => self.normal(),
                    Lane::Large => self.large(),
                    Lane::Isolated => self.isolated(),
                    Lane::DeadLetters => self.dead_letters(),
                };
            if formed {
                self.batches.last_lane = lane;
                return true;
            }
        }
        self.batches.last_lane = Lane::DeadLetters;
        false
    }

    /// Returns when the next schedule of a lane is due; `None` also if the lane takes no schedules by due time now.
    pub(super) fn next_due(&self, lane: Lane) -> Option<Due> {
        let sizes = self.sizes(lane);
        self.partitions.values().filter(|owned| owned.may_fire()).filter_map(|owned| owned.keys.next_due(sizes)).min()
    }

    /// Returns whether a batch in flight concerns this partition.
    pub(super) fn has_in_flight(&self, id: TopicPartition) -> bool {
        self.batches.any_concerns(id)
    }

    pub(super) fn ids(&self, wanted: impl Fn(&OwnedPartition<P>) -> bool) -> Vec<TopicPartition> {
        self.partitions.values().filter(|owned| wanted(owned)).map(|owned| owned.id).collect()
    }

    fn barriers(&mut self) -> bool {
        let ids = self.ids(|owned| owned.stage == Stage::Barrier && !self.has_in_flight(owned.id));
        let mut batch = self.new_batch();
        for id in &ids {
            let label = format!("{}.{}", self.owner(), batch.id);
            batch.push::<P>(*id, -1, Kind::Barrier { label }, None);
            self.set_stage(*id, Stage::BarrierSent);
        }
        self.send(batch, Purpose::Barrier, ids, Vec::new())
    }

    fn start_markers(&mut self) -> bool {
        let mut batch = self.new_batch();
        let mut ids = Vec::new();
        for owned in self.partitions.values_mut() {
            if let Stage::StartMarker(start_marker) = owned.stage {
                owned.stage = Stage::StartMarkerSent(start_marker);
                owned.ownership.since = Some(start_marker.since);
                batch.push::<P>(
                    owned.id,
                    -1,
                    Kind::StartMarker { value: start_marker.encode(owned.partition_hash) },
                    None,
                );
                ids.push(owned.id);
            }
        }
        self.send(batch, Purpose::StartMarker, ids, Vec::new())
    }

    /// Commits the last transaction of each partition that is given back, once its other batches have settled. It
    /// declares the partition *clean*: nothing is in flight, so a successor need not fence this owner.
    fn clean_commits(&mut self) -> bool {
        let without_clean_commit = self.ids(|owned| {
            matches!(owned.stage, Stage::Releasing { clean_commit_due: false, .. }) && !self.has_in_flight(owned.id)
        });
        if !without_clean_commit.is_empty() {
            self.released(&without_clean_commit);
        }
        let ids = self.ids(|owned| {
            matches!(owned.stage, Stage::Releasing { clean_commit_due: true, .. }) && !self.has_in_flight(owned.id)
        });
        for id in &ids {
            if let Some(owned) = self.partitions.get_mut(id) {
                owned.ownership.clean = true;
            }
        }
        let batch = self.new_batch();
        self.send(batch, Purpose::CleanCommit, ids, Vec::new())
    }

    /// Commits offsets alone: progress while nothing fires, and metadata without the owners that have been fenced.
    fn commit_offsets(&mut self) -> bool {
        let now = self.now;
        let ids = self.ids(|owned| {
            let ours = matches!(
                owned.stage,
                Stage::Loading | Stage::CanaryCheck | Stage::Since | Stage::Siblings | Stage::Live
            );
            ours && !owned.is_trimmed
                && !self.has_in_flight(owned.id)
                && (owned.fence_answered || owned.has_progress(now))
        });
        let batch = self.new_batch();
        self.send(batch, Purpose::CommitOffsets, ids, Vec::new())
    }

    fn normal(&mut self) -> bool {
        let mut batch = self.new_batch();
        let mut entries = Vec::new();
        self.add_rewrites(&mut batch, &mut entries);
        self.add_repairs(&mut batch, &mut entries);
        // While a bisection halves a batch with rewrites, filling up with other schedules would put the same records
        // together with new ones, so the rejected one would never be alone.
        if entries.is_empty() || self.batches.items_max[Lane::Normal as usize] == self.config.batch_items_max {
            self.add_due(&mut batch, &mut entries, Lane::Normal);
        }
        if bugs::on(Bug::LatestFirst) {
            batch.items.reverse();
            entries.reverse();
        }
        self.send(batch, Purpose::Entries(Lane::Normal), partitions_of(&entries), entries)
    }

    fn large(&mut self) -> bool {
        let (mut batch, mut entries) = (self.new_batch(), Vec::new());
        self.add_due(&mut batch, &mut entries, Lane::Large);
        self.send(batch, Purpose::Entries(Lane::Large), partitions_of(&entries), entries)
    }

    /// Returns the sizes of schedules that share batches of a lane; empty if the lane takes no schedules by due time
    /// now.
    pub(super) fn sizes(&self, lane: Lane) -> &'static [Size] {
        match (lane, self.batches.throughput.is_large_apart()) {
            (Lane::Normal, false) => &Size::ALL,
            (Lane::Normal, true) => &[Size::Small],
            (Lane::Large, true) => &[Size::Large],
            (Lane::Large, false) | (Lane::Isolated | Lane::DeadLetters, _) => &[],
        }
    }

    /// Returns the latest due time that may fire now.
    pub(super) fn fires_by(&self) -> Millis {
        self.now.plus(i64::from(bugs::on(Bug::OneMillisecondEarly)))
    }

    fn isolated(&mut self) -> bool {
        let by = self.fires_by();
        let mut batch = self.new_batch();
        let mut entries = Vec::new();
        for id in self.ids(|owned| owned.may_fire() && owned.keys.has_isolated()) {
            while !self.is_full(&batch, Lane::Isolated)
                && self.add_one(&mut batch, &mut entries, id, |keys| keys.take_isolated(by))
            {}
        }
        self.send(batch, Purpose::Entries(Lane::Isolated), partitions_of(&entries), entries)
    }

    pub(super) fn is_full(&self, batch: &Batch, lane: Lane) -> bool {
        batch.items.len() >= self.batches.items_max[lane as usize]
            || batch.payload_bytes() >= self.batches.throughput.bytes_max()
    }

    fn add_rewrites(&mut self, batch: &mut Batch, entries: &mut Vec<BatchEntry>) {
        let by = self.fires_by();
        for id in self.ids(OwnedPartition::may_fire) {
            while !self.is_full(batch, Lane::Normal) {
                let Some(owned) = self.partitions.get_mut(&id) else { break };
                let Some(slot) = owned.keys.take_rewrite(by) else { break };
                let Some(entry) = owned.keys.get(slot) else { continue };
                let (origin_offset, timestamp) = (entry.origin_offset, entry.timestamp);
                let (kind, written) = match entry.request {
                    UserRequest::Schedule { due, target, form } => {
                        let due = (form == Form::Epoch).then_some(due);
                        (
                            Kind::RewriteSchedule { target: self.targets.name(target), due, timestamp },
                            Committed::Nothing,
                        )
                    }
                    UserRequest::Cancel => (Kind::RewriteCancel { timestamp }, Committed::End),
                    UserRequest::Invalid(_) | UserRequest::Unknown(_) => {
                        (Kind::RewriteInvalid { timestamp }, Committed::Nothing)
                    }
                };
                let entry = BatchEntry::new(id, slot, origin_offset, written);
                add_entry(batch, entries, &mut owned.keys, kind, entry);
            }
        }
    }

    /// Takes due schedules from all partitions, in due order.
    fn add_due(&mut self, batch: &mut Batch, entries: &mut Vec<BatchEntry>, lane: Lane) {
        let (by, sizes) = (self.fires_by(), self.sizes(lane));
        while !self.is_full(batch, lane) {
            let next = self
                .partitions
                .values()
                .filter(|owned| owned.may_fire())
                .filter_map(|owned| owned.keys.next_due(sizes).map(|due| (due, owned.id)))
                .min();
            let Some((due, id)) = next.filter(|(due, _)| due.is_due(by)) else { break };
            while !self.is_full(batch, lane) && self.add_one(batch, entries, id, |keys| keys.take_due(due.at(), sizes))
            {
            }
        }
    }

    /// Takes one entry, and adds it to the batch or parks it for its target. Returns false if there was none to take.
    fn add_one(
        &mut self,
        batch: &mut Batch,
        entries: &mut Vec<BatchEntry>,
        id: TopicPartition,
        take: impl FnOnce(&mut KeyTable<P>) -> Option<u32>,
    ) -> bool {
        let Some(owned) = self.partitions.get_mut(&id) else { return false };
        let Some(slot) = take(&mut owned.keys) else { return false };
        let Some(entry) = owned.keys.get(slot) else { return false };
        let UserRequest::Schedule { due, target, form } = entry.request else { return false };
        let (origin_offset, timestamp) = (entry.origin_offset, entry.timestamp);
        let verdict = self.targets.verdict(self.now, target);
        if verdict != Verdict::Fire {
            if !self.park_for_target(id, slot, verdict) && self.targets.add_waiter(self.now, target) {
                self.check_target(target);
            }
            return true;
        }
        if form == Form::Recurring
            && let Some(owned) = self.partitions.get_mut(&id)
            && owned.keys.is_progress_outstanding(slot)
        {
            owned.keys.await_progress(slot);
            return true;
        }
        let mut decision = match form {
            Form::Epoch => DuePlan::Fire(Fired::OLD, AfterFiring::End { ends_progress: false }),
            Form::Once | Form::Recurring => self.decide(id, slot),
        };
        let mut has_expired = false;
        if let DuePlan::Expire(_, after) = decision {
            has_expired = true;
            if self.config.dead_letter.is_some() {
                let has_failed = self.partitions.get(&id).is_some_and(|s| s.keys.has_failed_for(slot, Reason::Expired));
                if !has_failed {
                    self.make_dead_letter(id, slot, Reason::Expired);
                    return true;
                }
                // One dead letter tells it, until an occurrence fires again.
                decision = DuePlan::Skip(1, after.failed(Reason::Expired));
            }
        }
        let name = self.targets.name(target);
        let Some(owned) = self.partitions.get_mut(&id) else { return false };
        let missed = due.at() <= owned.live_at;
        let done = owned.keys.timed(slot).and_then(|timed| timed.position).map_or(0, |position| position.done);
        let skipped = match decision {
            DuePlan::Skip(skipped, _) => skipped,
            DuePlan::Fire(fired, _) | DuePlan::Expire(fired, _) => fired.skipped(done),
            DuePlan::Nothing => 0,
        };
        let (kind, after, target) = match decision {
            DuePlan::Fire(fired, after) => {
                (Kind::Fire { target: name, due, timestamp, missed, fired, after }, after, Some(target))
            }
            DuePlan::Expire(fired, after) => {
                (Kind::Expired { target: name, due, timestamp, fired, after }, after, None)
            }
            DuePlan::Skip(_, after) => (Kind::Skip { timestamp, after }, after, None),
            DuePlan::Nothing => return true,
        };
        let progress = owned.keys.own_progress(slot);
        let entry = BatchEntry::new(id, slot, origin_offset, after.written());
        let entry = BatchEntry { target, has_expired, skipped, progress, ..entry };
        add_entry(batch, entries, &mut owned.keys, kind, entry);
        true
    }

    /// Writes progress records again, or ends them, that firings do not write.
    fn add_repairs(&mut self, batch: &mut Batch, entries: &mut Vec<BatchEntry>) {
        let now = self.now;
        for id in self.ids(|owned| owned.may_fire() && owned.repairs_after <= now) {
            while !self.is_full(batch, Lane::Normal) {
                let Some(owned) = self.partitions.get_mut(&id) else { break };
                let Some((slot, repair)) = owned.keys.take_repair() else { break };
                let Some(known) = owned.keys.progress(slot) else { continue };
                let (origin_offset, timestamp) = (known.origin_offset, known.timestamp);
                let kind = match repair {
                    Repair::End if bugs::on(Bug::ProgressKeptAfterEnd) => continue,
                    Repair::End => Kind::EndProgress { timestamp },
                    Repair::Rewrite => Kind::Progress { timestamp, value: known.progress.encode() },
                };
                batch.push_key(id, origin_offset, kind, &known.key);
                owned.keys.set_progress_outstanding(slot, short_batch_id(batch.id));
                let entry = BatchEntry::new(id, BatchEntry::NO_SLOT, origin_offset, Committed::Nothing);
                entries.push(BatchEntry { progress: Some((slot, Some(repair))), ..entry });
            }
        }
    }

    fn set_stage(&mut self, id: TopicPartition, stage: Stage) {
        if let Some(owned) = self.partitions.get_mut(&id) {
            owned.stage = stage;
        }
    }

    pub(super) fn new_batch(&self) -> Batch {
        Batch::new(self.batches.next_id, Arc::clone(&self.names))
    }

    /// Hands the batch out with the offset of every partition in `ids`. Returns false if there are none.
    pub(super) fn send(
        &mut self,
        mut batch: Batch,
        purpose: Purpose,
        ids: Vec<TopicPartition>,
        entries: Vec<BatchEntry>,
    ) -> bool {
        if ids.is_empty() {
            return false;
        }
        for id in &ids {
            let Some(owned) = self.partitions.get(id) else { continue };
            debug_assert!(
                bugs::on(Bug::NegativeOffset) || owned.offset() >= 0,
                "librdkafka drops negative offsets, and the fence with them"
            );
            batch.offsets.push(OffsetCommit {
                partition: *id,
                offset: owned.offset(),
                metadata: owned.ownership.encode(),
            });
        }
        let count = |wanted: bool| {
            let fired = |item: &&super::batch::Item| matches!(item.kind, Kind::Fire { missed, .. } if missed == wanted);
            batch.items.iter().filter(fired).count() as u64
        };
        self.batches.in_flight.push_back(InFlight {
            id: batch.id,
            purpose,
            missed: count(true),
            triggered: count(false),
            payload_bytes: batch.payload_bytes(),
            formed_at: self.now,
            offsets: batch.offsets.iter().map(|p| (p.partition, p.offset)).collect(),
            entries,
        });
        self.batches.next_id += 1;
        self.outputs.push_back(Output::Transact(batch));
        true
    }
}

/// Adds an entry to a batch. From now on its key has an outstanding engine record.
pub(super) fn add_entry<P: Payload>(
    batch: &mut Batch,
    entries: &mut Vec<BatchEntry>,
    keys: &mut KeyTable<P>,
    kind: Kind,
    entry: BatchEntry,
) {
    let payload = keys.get(entry.slot).map(|entry| &entry.payload);
    batch.push(entry.partition, entry.origin_offset, kind, payload);
    keys.mark_outstanding(entry.slot, short_batch_id(batch.id));
    if let Some((slot, _)) = entry.progress {
        keys.set_progress_outstanding(slot, short_batch_id(batch.id));
    }
    entries.push(entry);
}

pub(super) fn partitions_of(entries: &[BatchEntry]) -> Vec<TopicPartition> {
    let mut ids: Vec<TopicPartition> = entries.iter().map(|entry| entry.partition).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}
