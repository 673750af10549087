//! Takes over assigned partitions: reads the metadata, commits the barrier, fences former owners, loads the log up to
//! the barrier, finds or writes the start marker.

use std::collections::BTreeMap;

use super::bugs::{self, Bug};
use super::in_flight::{InFlight, Purpose};
use super::io::{Output, RequestId};
use super::key_table::KeyTable;
use super::ownership::{FENCE_MAX, Ownership};
use super::partition::{OwnedPartition, Stage};
use super::payload::Payload;
use super::report::Report;
use super::start_marker::StartMarker;
use super::{Millis, Scheduler, TopicPartition, freshness, origin};

/// Invalid records that are reported when a partition is loaded; the others are only counted. As many schedules of an
/// unknown zone or syntax are reported.
pub(super) const LOADED_REPORTED_MAX: usize = 100;

/// A table shrinks after loading if at most one of this many slots is in use.
const LOADED_SLOTS_PER_ENTRY: usize = 4;

/// The cause of reading a partition again whose start marker is in the future.
const CLOCK_SET_BACK: &str = "the clock is before the partition's start marker";

/// Requests of takeovers, and the former incarnations of this process.
#[derive(Debug, Default)]
pub(super) struct Takeovers {
    /// Counts how often this process has changed its transactional ids.
    pub(super) incarnation: u32,
    /// Former incarnations of this process that left batches in flight, newest first. Possibly no metadata names them.
    pub(super) previous_owners: Vec<String>,
    /// By topic, the latest request for its `since`.
    since_requests: BTreeMap<u16, RequestId>,
    next_request: u64,
}

impl Takeovers {
    fn new_request(&mut self) -> RequestId {
        let request = RequestId(self.next_request);
        self.next_request += 1;
        request
    }

    pub(super) fn forget(&mut self) {
        self.since_requests.clear();
        self.incarnation += 1;
    }
}

impl<P: Payload> Scheduler<P> {
    pub(super) fn on_assigned(&mut self, partitions: &[TopicPartition], leftover_cutoff: Millis) {
        self.batches.stale_generation = None;
        for id in partitions {
            let partition_hash =
                origin::partition_hash(&self.names.cluster, &self.names.topics[usize::from(id.topic)], id.number);
            let keys = self.new_table();
            let limit_ms = self.canary_limit_ms(id.topic);
            self.partitions.insert(*id, OwnedPartition::new(*id, partition_hash, keys, leftover_cutoff, limit_ms));
        }
        if self.stopping {
            return self.stop();
        }
        if !partitions.is_empty() {
            self.outputs.push_back(Output::ReadCommitted(partitions.to_vec()));
        }
    }

    fn new_table(&self) -> KeyTable<P> {
        KeyTable::new(self.config.hash_seed, self.config.dead_letter.is_some())
    }

    pub(super) fn on_committed(&mut self, partition: TopicPartition, offset: Option<i64>, metadata: &[u8]) {
        let owner = self.owner();
        let Some(owned) = self.partitions.get_mut(&partition).filter(|owned| owned.stage == Stage::Metadata) else {
            return;
        };
        let former = Ownership::decode(metadata).unwrap_or_default();
        let mut fence = if former.owner.is_empty() { Vec::new() } else { former.to_fence(&owner) };
        for own in &self.takeovers.previous_owners {
            if fence.len() < FENCE_MAX && !fence.contains(own) {
                fence.push(own.clone());
            }
        }
        let clean = bugs::on(Bug::AlwaysClean);
        owned.ownership = Ownership { owner, owners_to_fence: fence, clean, since: former.since };
        let none = if bugs::on(Bug::NegativeOffset) { -1 } else { 0 };
        owned.committed = offset.unwrap_or(none).max(none);
        owned.accepted_before = owned.committed;
        owned.stage = Stage::Barrier;
        if bugs::on(Bug::FenceBeforeBarrier) {
            let fence = owned.ownership.owners_to_fence.clone();
            let transactional_ids = fence.iter().flat_map(|owner| self.transactional_ids_of(owner)).collect();
            self.outputs.push_back(Output::Fence { request: RequestId(u64::MAX), transactional_ids });
        }
    }

    /// Starts loading and fences the former owners. Fencing them before the barrier is committed would let an instance
    /// that wakes up late fence the live owner.
    pub(super) fn barriers_committed(&mut self, partitions: &[(TopicPartition, i64)]) {
        let mut to_fence: Vec<String> = Vec::new();
        for (id, barrier) in partitions {
            let Some(owned) = self.partitions.get_mut(id) else { continue };
            let barrier = if bugs::on(Bug::LoadsToCommitted) { owned.committed } else { *barrier };
            owned.barrier = Some(barrier);
            owned.barrier_committed = true;
            match &mut owned.stage {
                Stage::Releasing { clean_commit_due, .. } => *clean_commit_due = true,
                stage => *stage = Stage::Loading,
            }
            for owner in &owned.ownership.owners_to_fence {
                if !to_fence.contains(owner) && !bugs::on(Bug::DeadOwnerNotFenced) {
                    to_fence.push(owner.clone());
                }
            }
        }
        if !to_fence.is_empty() {
            let request = self.takeovers.new_request();
            for (id, _) in partitions {
                if let Some(owned) = self.partitions.get_mut(id) {
                    owned.fence_request = Some(request);
                }
            }
            let transactional_ids = to_fence.iter().flat_map(|owner| self.transactional_ids_of(owner)).collect();
            self.outputs.push_back(Output::Fence { request, transactional_ids });
        }
        for (id, _) in partitions {
            if self.partitions.get(id).is_some_and(|owned| matches!(owned.stage, Stage::Loading) && owned.is_loaded()) {
                self.loaded(*id);
            }
        }
    }

    pub(super) fn on_fenced(&mut self, request: RequestId) {
        for owned in self.partitions.values_mut().filter(|owned| owned.fence_request == Some(request)) {
            self.takeovers.previous_owners.retain(|former| !owned.ownership.owners_to_fence.contains(former));
            owned.ownership.owners_to_fence.clear();
            owned.fence_request = None;
            owned.fence_answered = true;
        }
    }

    /// Ends loading: goes live if the log has a start marker, and otherwise looks for the topic's `since`.
    pub(super) fn loaded(&mut self, id: TopicPartition) {
        if self.must_prove_fold(id) {
            return;
        }
        let now = self.now;
        let Some(owned) = self.partitions.get_mut(&id) else { return };
        match owned.start_marker {
            Some(start_marker) if start_marker.since <= now => {
                owned.ownership.since.get_or_insert(start_marker.since);
                self.go_live(id);
            }
            _ => {
                owned.stage = Stage::Since;
                self.find_since(id.topic);
            }
        }
        self.use_siblings_since(id.topic);
    }

    /// Requests a topic's `since`, unless a request is pending.
    fn find_since(&mut self, topic: u16) {
        if self.takeovers.since_requests.contains_key(&topic) {
            return;
        }
        let request = self.takeovers.new_request();
        self.takeovers.since_requests.insert(topic, request);
        let stays =
            |owned: &&OwnedPartition<P>| owned.id.topic == topic && !matches!(owned.stage, Stage::Releasing { .. });
        let known = self.partitions.values().filter(stays).map(|owned| owned.id.number).collect();
        self.outputs.push_back(Output::FindSince { request, topic, known });
    }

    /// Repeats the request for a topic's `since` after one of its partitions was revoked. The pending answer does not
    /// include that partition's start marker, since its log was not read for it.
    pub(super) fn find_since_again(&mut self, topic: u16) {
        self.takeovers.since_requests.remove(&topic);
        let mut waiting = false;
        for owned in self.partitions.values_mut().filter(|owned| owned.id.topic == topic) {
            if matches!(owned.stage, Stage::Since | Stage::Siblings) {
                owned.stage = Stage::Since;
                waiting = true;
            }
        }
        if waiting {
            self.find_since(topic);
        }
    }

    pub(super) fn on_since(&mut self, request: RequestId, since: Option<Millis>, leftover_cutoff: Millis) {
        let Some((&topic, _)) = self.takeovers.since_requests.iter().find(|(_, pending)| **pending == request) else {
            return;
        };
        self.takeovers.since_requests.remove(&topic);
        let now = self.now;
        for owned in self.partitions.values_mut().filter(|owned| owned.id.topic == topic && owned.stage == Stage::Since)
        {
            owned.leftover_cutoff = leftover_cutoff;
            // A start marker or `since` in the future comes from before the clock was set back: it does not count.
            let since = since.filter(|_| !bugs::on(Bug::SinceForgotten));
            let known = since.filter(|_| owned.start_marker.is_none()).filter(|since| *since <= now);
            // A start marker that counts by now is kept. One in the future is replaced by the cutoff, at its old
            // offset. Without a start marker, the answer is used if it counts, and otherwise the topic's other
            // partitions.
            match (known, owned.start_marker) {
                (Some(since), _) => owned.stage = Stage::StartMarker(start_marker_from(owned, since)),
                // The clock may be right again by now.
                (None, Some(start_marker)) if start_marker.since <= now => {
                    owned.stage = Stage::StartMarker(start_marker)
                }
                (None, Some(_)) => owned.stage = Stage::StartMarker(start_marker_from(owned, leftover_cutoff)),
                (None, None) => owned.stage = Stage::Siblings,
            }
        }
        self.use_siblings_since(topic);
    }

    /// Takes the `since` from the topic's other partitions, once all of them are loaded. If none has a start marker,
    /// the engine runs on this topic for the first time.
    fn use_siblings_since(&mut self, topic: u16) {
        let of_topic = |owned: &&OwnedPartition<P>| owned.id.topic == topic;
        let siblings = || self.partitions.values().filter(of_topic);
        if !siblings().any(|owned| owned.stage == Stage::Siblings) || siblings().any(|owned| owned.is_before_siblings())
        {
            return;
        }
        let earliest = siblings().filter_map(|owned| owned.start_marker.map(|start_marker| start_marker.since)).min();
        let now = self.now;
        for owned in
            self.partitions.values_mut().filter(|owned| owned.id.topic == topic && owned.stage == Stage::Siblings)
        {
            let earliest = earliest.filter(|_| !bugs::on(Bug::SinceForgotten));
            let since = earliest.filter(|since| *since <= now).unwrap_or(owned.leftover_cutoff);
            owned.stage = Stage::StartMarker(start_marker_from(owned, since));
        }
    }

    pub(super) fn start_marker_committed(&mut self, id: TopicPartition, start_marker: StartMarker) {
        if let Some(owned) =
            self.partitions.get_mut(&id).filter(|owned| matches!(owned.stage, Stage::StartMarkerSent(_)))
        {
            owned.start_marker = Some(start_marker);
            if self.is_ahead(start_marker) {
                // The clock was set back while the batch was in flight.
                return self.reread(id, CLOCK_SET_BACK);
            }
            self.go_live(id);
        }
    }

    fn go_live(&mut self, id: TopicPartition) {
        let now = self.now;
        let limit_ms = self.canary_limit_ms(id.topic);
        let Some(owned) = self.partitions.get_mut(&id) else { return };
        let start_marker = owned.start_marker.expect("a partition goes live only when its start marker is known");
        let end = start_marker.since.min(owned.leftover_cutoff).0.div_euclid(1000);
        let end = if bugs::on(Bug::LeftoversFire) { 0 } else { u64::try_from(end).unwrap_or(0) };
        if end < owned.dropped_before_s {
            return self.reread(id, "its snapshot lacks schedules that are owed by now");
        }
        owned.dropped_before_s = end;
        let invalid = owned.keys.finish_loading();
        let leftovers = owned.keys.drop_leftovers(start_marker.offset, end);
        // Schedules that ended during loading have left free slots, which may never be needed again.
        owned.keys.shrink(LOADED_SLOTS_PER_ENTRY);
        owned.stage = Stage::Live;
        owned.awaits_dates = owned.keys.awaits_dates();
        owned.live_at = now;
        // The first canary is written at once.
        owned.next_canary_at = freshness::canary_interval_ms(limit_ms).map(|_| now);
        let pending = owned.keys.pending();
        let overdue = owned.keys.overdue(now);
        let takeovers =
            if owned.is_warm { &mut self.counters.warm_takeovers } else { &mut self.counters.cold_takeovers };
        *takeovers += 1;
        self.counters.planned += pending as u64;
        self.counters.leftovers += leftovers;
        self.counters.invalid += invalid.len() as u64;
        for (_, reason) in &invalid {
            self.counters.by_reason[*reason] += 1;
        }
        for (offset, reason) in invalid.into_iter().take(LOADED_REPORTED_MAX) {
            self.report(Report::Invalid { partition: id, offset, reason });
        }
        self.report_unknown_of_loaded(id);
        self.check_far_ahead_of_loaded(id);
        self.report(Report::Live { partition: id, pending, overdue, leftovers });
    }

    pub(super) fn reread(&mut self, id: TopicPartition, why: &'static str) {
        let holds_up = |batch: &InFlight| batch.concerns(id) && batch.purpose != Purpose::CommitOffsets;
        if self.batches.in_flight.iter().any(holds_up) {
            // Their entries are in slots of the old table.
            return self.rejoin(why);
        }
        let (keys, limit_ms) = (self.new_table(), self.canary_limit_ms(id.topic));
        let Some(owned) = self.partitions.get_mut(&id) else { return };
        match owned.stage {
            Stage::Releasing { .. } => return,
            Stage::Metadata => {
                owned.reread(keys, limit_ms);
                owned.stage = Stage::Metadata;
            }
            _ => owned.reread(keys, limit_ms),
        }
        self.outputs.push_back(Output::Seek(id));
        self.report(Report::Reread { partition: id, why });
    }

    /// Handles that records before `start` were deleted from a partition's log: their schedules must not fire, as after
    /// a restart. An entry may have a copy after `start`, which only reading the log again can find.
    pub(super) fn on_trimmed(&mut self, id: TopicPartition, start: i64) {
        let Some(owned) = self.partitions.get_mut(&id) else { return };
        if owned.keys.reaches_below(start) {
            // One that is being released is not read again, and has no last snapshot.
            owned.is_trimmed = true;
            self.reread_trimmed();
        }
    }

    /// Reads trimmed partitions again, once no batch concerns them. Until then they join no new batch.
    pub(super) fn reread_trimmed(&mut self) {
        let trimmed = self.partitions.values().filter(|owned| owned.is_trimmed && !self.has_in_flight(owned.id));
        for id in trimmed.map(|owned| owned.id).collect::<Vec<_>>() {
            self.reread(id, "records were deleted from its beginning");
        }
    }

    /// Reads partitions again whose start marker is in the future since the clock was set back; loading writes a new
    /// one.
    pub(super) fn check_clock(&mut self) {
        for id in self.ahead_of_clock().collect::<Vec<_>>() {
            self.reread(id, CLOCK_SET_BACK);
        }
    }

    /// Iterates over the live partitions whose start marker is in the future.
    pub(super) fn ahead_of_clock(&self) -> impl Iterator<Item = TopicPartition> {
        let ahead = |owned: &&OwnedPartition<P>| {
            owned.is_live() && owned.start_marker.is_some_and(|start_marker| self.is_ahead(start_marker))
        };
        self.partitions.values().filter(ahead).map(|owned| owned.id)
    }

    fn is_ahead(&self, start_marker: StartMarker) -> bool {
        start_marker.since > self.now && !bugs::on(Bug::ClockSetBackIgnored)
    }
}

fn start_marker_from<P: Payload>(owned: &OwnedPartition<P>, since: Millis) -> StartMarker {
    // Keep the offset of an earlier start marker: schedules after it stay owed.
    let offset = owned.start_marker.map_or(owned.barrier.unwrap_or(0), |start_marker| start_marker.offset);
    StartMarker { since, offset }
}
