//! What goes into the next transaction.

use std::sync::Arc;

use super::batch::{Batch, Kind, Position};
use super::bugs::{self, Bug};
use super::io::Output;
use super::key_table::{KeyTable, Request, Size};
use super::outcomes::{BatchEntry, InFlight, Lane, Purpose, short_batch_id};
use super::partition::{PartitionState, Stage};
use super::payload::Payload;
use super::reason::Reason;
use super::targets::Verdict;
use super::{Millis, Scheduler, TopicPartition};

/// Between two commits of progress while nothing fires.
pub(super) const COMMIT_INTERVAL_MS: i64 = 30_000;

impl<P: Payload> Scheduler<P> {
    /// A batch could be formed now, but for an abort's delay.
    pub(super) fn may_form(&self) -> bool {
        self.stale_generation.is_none() && !self.stopped && self.in_flight.len() < self.config.transactors
    }

    /// Forms as many batches as there is work and room for.
    pub(super) fn form(&mut self) {
        while self.may_form() && self.has_work() {
            let formed = (self.is_ready(Purpose::Barrier) && self.barriers())
                || (self.is_ready(Purpose::StartMarker) && self.start_markers())
                || (self.is_ready(Purpose::Handover) && self.handovers())
                || self.work()
                || (self.is_ready(Purpose::CommitOffsets) && self.commit_offsets());
            if !formed {
                break;
            }
        }
    }

    /// Whether there may be anything to form a batch of. Asked after every record, which mostly brings nothing: it costs
    /// less than to try.
    fn has_work(&self) -> bool {
        let second = self.second();
        self.partitions.values().any(|state| match state.stage {
            Stage::Barrier | Stage::StartMarker(_) | Stage::Releasing { .. } => true,
            Stage::Metadata | Stage::BarrierSent | Stage::StartMarkerSent(_) => false,
            Stage::Loading(_) | Stage::Since | Stage::Siblings if !state.is_live() => state.fence_done,
            _ if state.is_trimmed => false,
            _ => {
                state.fence_done
                    || state.keys.has_rewrites()
                    || state.keys.has_quarantined()
                    || state.keys.has_dead_letters()
                    || state.keys.next_due(&Size::ALL).is_some_and(|due| second.is_some_and(|second| due <= second))
                    || state.has_progress(self.now)
            }
        })
    }

    fn is_ready(&self, purpose: Purpose) -> bool {
        self.now >= self.backoff_until(purpose)
    }

    /// The lots take turns, so that none keeps another waiting.
    fn work(&mut self) -> bool {
        let after = self.last_lane as usize + 1;
        for turn in 0..Lane::ALL.len() {
            let lane = Lane::ALL[(after + turn) % Lane::ALL.len()];
            let formed = self.is_ready(Purpose::Fire(lane))
                && match lane {
                    Lane::Normal => self.firing(),
                    Lane::Large => self.large(),
                    Lane::Quarantined => self.quarantined_batch(),
                    Lane::DeadLetters => self.dead_letters(),
                };
            if formed {
                self.last_lane = lane;
                return true;
            }
        }
        self.last_lane = Lane::DeadLetters;
        false
    }

    /// When work that an abort has put off is tried again.
    pub(super) fn next_try(&self) -> Option<Millis> {
        let mut next: Option<Millis> = None;
        let mut consider = |waits: bool, purpose: Purpose| {
            let at = self.backoff_until(purpose);
            if waits && at > self.now {
                next = Some(next.map_or(at, |next| next.min(at)));
            }
        };
        for state in self.partitions.values() {
            let is_live = state.stage == Stage::Live && !state.is_trimmed;
            let reads = matches!(state.stage, Stage::Loading(_) | Stage::Since | Stage::Siblings);
            let releases = matches!(state.stage, Stage::Releasing { .. });
            consider(state.stage == Stage::Barrier, Purpose::Barrier);
            consider(matches!(state.stage, Stage::StartMarker(_)), Purpose::StartMarker);
            consider(releases && !self.is_touched(state.id), Purpose::Handover);
            consider((is_live || reads) && state.fence_done, Purpose::CommitOffsets);
            consider(is_live && state.keys.has_rewrites(), Purpose::Fire(Lane::Normal));
            consider(is_live && state.keys.has_quarantined(), Purpose::Fire(Lane::Quarantined));
            consider(is_live && state.keys.has_dead_letters(), Purpose::Fire(Lane::DeadLetters));
        }
        next
    }

    /// When the next schedule of a lot is due, if the lot is one of those that fire in due order.
    pub(super) fn next_due(&self, lane: Lane) -> Option<Millis> {
        let (live, sizes) = (self.partitions.values().filter(|state| state.may_fire()), self.sizes(lane));
        let due = live.filter_map(|state| state.keys.next_due(sizes)).min()?;
        // A schedule's second was checked to fit into milliseconds.
        Some(Millis(due as i64 * 1000))
    }

    pub(super) fn next_commit(&self) -> Option<Millis> {
        self.partitions
            .values()
            .filter(|state| state.may_fire() && state.offset() > state.committed)
            .map(|l| l.next_commit_at)
            .min()
    }

    pub(super) fn is_touched(&self, id: TopicPartition) -> bool {
        self.in_flight.iter().any(|batch| batch.touches(id))
    }

    fn ids(&self, wanted: impl Fn(&PartitionState<P>) -> bool) -> Vec<TopicPartition> {
        self.partitions.values().filter(|state| wanted(state)).map(|state| state.id).collect()
    }

    fn barriers(&mut self) -> bool {
        let ids = self.ids(|state| state.stage == Stage::Barrier && !self.is_touched(state.id));
        let mut batch = self.batch();
        for id in &ids {
            let owner = format!("{}.{}", self.owner(), batch.id);
            batch.push::<P>(*id, -1, Kind::Barrier { owner }, None);
            self.set_stage(*id, Stage::BarrierSent);
        }
        self.send(batch, Purpose::Barrier, ids, Vec::new())
    }

    fn start_markers(&mut self) -> bool {
        let mut batch = self.batch();
        let mut ids = Vec::new();
        for state in self.partitions.values_mut() {
            if let Stage::StartMarker(start_marker) = state.stage {
                state.stage = Stage::StartMarkerSent(start_marker);
                state.ownership.since = Some(start_marker.since);
                batch.push::<P>(
                    state.id,
                    -1,
                    Kind::StartMarker { value: start_marker.encode(state.partition_hash) },
                    None,
                );
                ids.push(state.id);
            }
        }
        self.send(batch, Purpose::StartMarker, ids, Vec::new())
    }

    /// The last transaction of a partition that is given back, once everything else on it has settled.
    fn handovers(&mut self) -> bool {
        let without_clean_commit = self.ids(|state| {
            matches!(state.stage, Stage::Releasing { clean_commit_due: false, .. }) && !self.is_touched(state.id)
        });
        if !without_clean_commit.is_empty() {
            self.released(&without_clean_commit);
        }
        let ids = self.ids(|state| {
            matches!(state.stage, Stage::Releasing { clean_commit_due: true, .. }) && !self.is_touched(state.id)
        });
        for id in &ids {
            if let Some(state) = self.partitions.get_mut(id) {
                state.ownership.clean = true;
            }
        }
        let batch = self.batch();
        self.send(batch, Purpose::Handover, ids, Vec::new())
    }

    /// Offsets alone: progress while nothing fires, and fence lists that have been worked off.
    fn commit_offsets(&mut self) -> bool {
        let now = self.now;
        let ids = self.ids(|state| {
            let ours = matches!(state.stage, Stage::Loading(_) | Stage::Since | Stage::Siblings | Stage::Live);
            ours && !state.is_trimmed && !self.is_touched(state.id) && (state.fence_done || state.has_progress(now))
        });
        let batch = self.batch();
        self.send(batch, Purpose::CommitOffsets, ids, Vec::new())
    }

    fn firing(&mut self) -> bool {
        let mut batch = self.batch();
        let mut entries = Vec::new();
        let Some(second) = self.second() else { return false };
        self.add_rewrites(&mut batch, &mut entries, second);
        // While the refused one is looked for among what is written again, nothing else is mixed with that.
        if entries.is_empty() || self.items_max[Lane::Normal as usize] == self.config.batch_items_max {
            self.add_due(&mut batch, &mut entries, second, Lane::Normal);
        }
        if bugs::on(Bug::LatestFirst) {
            batch.items.reverse();
            entries.reverse();
        }
        self.send(batch, Purpose::Fire(Lane::Normal), touched(&entries), entries)
    }

    fn large(&mut self) -> bool {
        let Some(second) = self.second() else { return false };
        let (mut batch, mut entries) = (self.batch(), Vec::new());
        self.add_due(&mut batch, &mut entries, second, Lane::Large);
        self.send(batch, Purpose::Fire(Lane::Large), touched(&entries), entries)
    }

    /// Sizes of schedules in batches of a lot that fires in due order.
    fn sizes(&self, lane: Lane) -> &'static [Size] {
        match (lane, self.throughput.is_large_apart()) {
            (Lane::Normal, false) => &Size::ALL,
            (Lane::Normal, true) => &[Size::Small],
            (Lane::Large, true) => &[Size::Large],
            (Lane::Large, false) | (Lane::Quarantined | Lane::DeadLetters, _) => &[],
        }
    }

    /// What is due by now is due by the end of this second.
    fn second(&self) -> Option<u64> {
        let early = i64::from(bugs::on(Bug::OneMillisecondEarly));
        u64::try_from(self.now.plus(early).0.div_euclid(1000)).ok()
    }

    fn quarantined_batch(&mut self) -> bool {
        let Some(second) = self.second() else { return false };
        let mut batch = self.batch();
        let mut entries = Vec::new();
        for id in self.ids(|state| state.may_fire() && state.keys.has_quarantined()) {
            while !self.is_full(&batch, Lane::Quarantined)
                && self.add_one(&mut batch, &mut entries, id, |keys| keys.take_quarantined(second))
            {}
        }
        self.send(batch, Purpose::Fire(Lane::Quarantined), touched(&entries), entries)
    }

    fn is_full(&self, batch: &Batch, lane: Lane) -> bool {
        batch.items.len() >= self.items_max[lane as usize] || batch.bytes() >= self.throughput.bytes_max()
    }

    fn add_rewrites(&mut self, batch: &mut Batch, entries: &mut Vec<BatchEntry>, second: u64) {
        for id in self.ids(PartitionState::may_fire) {
            while !self.is_full(batch, Lane::Normal) {
                let Some(state) = self.partitions.get_mut(&id) else { break };
                let Some(slot) = state.keys.take_rewrite(second) else { break };
                let Some(entry) = state.keys.get(slot) else { continue };
                let (origin_offset, timestamp) = (entry.origin_offset, entry.timestamp);
                let (kind, ended) = match entry.request {
                    Request::Schedule { due, target } => {
                        (Kind::Schedule { target: self.targets.name(target), due, timestamp }, false)
                    }
                    Request::Cancel => (Kind::Cancel { timestamp }, true),
                    Request::Invalid(_) => (Kind::Invalid { timestamp }, false),
                };
                batch.push(id, origin_offset, kind, Some(&entry.payload));
                state.keys.decided(slot, short_batch_id(batch.id));
                entries.push(BatchEntry {
                    partition: id,
                    slot,
                    origin_offset,
                    ended,
                    target: None,
                    dead_letter: false,
                });
            }
        }
    }

    /// Takes what is due from all partitions, earliest second first.
    fn add_due(&mut self, batch: &mut Batch, entries: &mut Vec<BatchEntry>, second: u64, lane: Lane) {
        let sizes = self.sizes(lane);
        while !self.is_full(batch, lane) {
            let next = self
                .partitions
                .values()
                .filter(|state| state.may_fire())
                .filter_map(|state| state.keys.next_due(sizes).map(|due| (due, state.id)))
                .min();
            let Some((due, id)) = next.filter(|(due, _)| *due <= second) else { break };
            while !self.is_full(batch, lane) && self.add_one(batch, entries, id, |keys| keys.take_due(due, sizes)) {}
        }
    }

    fn add_one(
        &mut self,
        batch: &mut Batch,
        entries: &mut Vec<BatchEntry>,
        id: TopicPartition,
        take: impl FnOnce(&mut KeyTable<P>) -> Option<u32>,
    ) -> bool {
        let Some(state) = self.partitions.get_mut(&id) else { return false };
        let Some(slot) = take(&mut state.keys) else { return false };
        let Some(entry) = state.keys.get(slot) else { return false };
        let Request::Schedule { due, target } = entry.request else { return false };
        let (origin_offset, timestamp) = (entry.origin_offset, entry.timestamp);
        let verdict = self.targets.verdict(self.now, target);
        if verdict != Verdict::Send {
            if !self.deferred(id, slot, verdict) && self.targets.wait(self.now, target) {
                self.check_target(target);
            }
            return true;
        }
        // A schedule's second was checked to fit into milliseconds.
        let missed = Millis(due as i64 * 1000) <= state.live_at;
        let kind = Kind::Fire { target: self.targets.name(target), due, timestamp, missed };
        batch.push(id, origin_offset, kind, Some(&entry.payload));
        state.keys.decided(slot, short_batch_id(batch.id));
        entries.push(BatchEntry {
            partition: id,
            slot,
            origin_offset,
            ended: true,
            target: Some(target),
            dead_letter: false,
        });
        true
    }

    /// Moves what cannot fire to the dead-letter topic, in batches of its own: that topic's troubles delay no firing.
    fn dead_letters(&mut self) -> bool {
        let Some(name) = self.names.dead_letter.clone() else { return false };
        if !self.partitions.values().any(|state| state.may_fire() && state.keys.has_dead_letters()) {
            return false;
        }
        let (topic, new) = self.targets.intern(&name);
        self.dead_letter = Some(topic);
        if self.targets.verdict(self.now, topic) != Verdict::Send {
            if self.targets.wait(self.now, topic) || new {
                self.check_target(topic);
            }
            return false;
        }
        let mut batch = self.batch();
        let mut entries = Vec::new();
        for id in self.ids(PartitionState::may_fire) {
            while !self.is_full(&batch, Lane::DeadLetters) && self.add_dead_letter(&mut batch, &mut entries, id, topic)
            {
            }
        }
        self.send(batch, Purpose::Fire(Lane::DeadLetters), touched(&entries), entries)
    }

    fn add_dead_letter(
        &mut self,
        batch: &mut Batch,
        entries: &mut Vec<BatchEntry>,
        id: TopicPartition,
        topic: u32,
    ) -> bool {
        let Some(state) = self.partitions.get_mut(&id) else { return false };
        let Some(slot) = state.keys.take_dead_letter() else { return false };
        let Some(entry) = state.keys.get(slot) else { return false };
        let (origin_offset, timestamp) = (entry.origin_offset, entry.timestamp);
        let (reason, request) = match entry.request {
            Request::Schedule { due, target } => {
                (entry.deferred.unwrap_or(Reason::Refused), Some((self.targets.name(target), due)))
            }
            Request::Invalid(reason) => (reason, None),
            Request::Cancel => return true,
        };
        batch.push(id, origin_offset, Kind::DeadLetter { reason, request, timestamp }, Some(&entry.payload));
        state.keys.decided(slot, short_batch_id(batch.id));
        entries.push(BatchEntry {
            partition: id,
            slot,
            origin_offset,
            ended: true,
            target: Some(topic),
            dead_letter: true,
        });
        true
    }

    fn set_stage(&mut self, id: TopicPartition, stage: Stage) {
        if let Some(state) = self.partitions.get_mut(&id) {
            state.stage = stage;
        }
    }

    fn batch(&self) -> Batch {
        let names = Arc::clone(&self.names);
        Batch { id: self.next_batch, items: Vec::new(), offsets: Vec::new(), names, packed: Vec::new() }
    }

    /// Sends the batch with the offsets of every partition that it touches. False if it touches none.
    fn send(&mut self, mut batch: Batch, purpose: Purpose, ids: Vec<TopicPartition>, entries: Vec<BatchEntry>) -> bool {
        if ids.is_empty() {
            return false;
        }
        for id in &ids {
            let Some(state) = self.partitions.get(id) else { continue };
            debug_assert!(
                bugs::on(Bug::NegativeOffset) || state.offset() >= 0,
                "librdkafka drops negative offsets, and the fence with them"
            );
            batch.offsets.push(Position { partition: *id, offset: state.offset(), metadata: state.ownership.encode() });
        }
        let count = |wanted: bool| {
            let fired = |item: &&super::batch::Item| matches!(item.kind, Kind::Fire { missed, .. } if missed == wanted);
            batch.items.iter().filter(fired).count() as u64
        };
        self.in_flight.push_back(InFlight {
            id: batch.id,
            purpose,
            missed: count(true),
            triggered: count(false),
            bytes: batch.bytes(),
            formed_at: self.now,
            offsets: batch.offsets.iter().map(|p| (p.partition, p.offset)).collect(),
            entries,
        });
        self.next_batch += 1;
        self.outputs.push_back(Output::Transact(batch));
        true
    }
}

fn touched(entries: &[BatchEntry]) -> Vec<TopicPartition> {
    let mut ids: Vec<TopicPartition> = entries.iter().map(|entry| entry.partition).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}
