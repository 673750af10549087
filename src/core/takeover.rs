//! Taking over a partition: metadata, barrier, fence, loading, floor.

use super::bugs::{self, Bug};
use super::floor::Floor;
use super::io::{Output, Report};
use super::owner::{FENCE_MAX, Ownership};
use super::partition::{Life, Step};
use super::payload::Payload;
use super::words::Words;
use super::{Millis, Partition, Scheduler, mark};

/// Unfit records that one loading names in reports; the rest is only counted.
const UNFIT_NAMED_MAX: usize = 100;

/// Tables shrink after loading if no more than one place of so many is in use.
const LOADED_SHARE: usize = 4;

/// Why a partition is read again whose floor lies in the future.
const AHEAD: &str = "the clock is before the partition's floor";

impl<P: Payload> Scheduler<P> {
    pub(super) fn assigned(&mut self, partitions: &[Partition], today: Millis) {
        self.refused = None;
        for id in partitions {
            let place = mark::place(&self.names.cluster, &self.names.topics[usize::from(id.topic)], id.number);
            self.lives.insert(*id, Life::new(*id, place, self.words(), today));
        }
        if self.stopping {
            return self.stop();
        }
        if !partitions.is_empty() {
            self.outputs.push_back(Output::ReadCommitted(partitions.to_vec()));
        }
    }

    fn words(&self) -> Words<P> {
        Words::new(self.config.hash_seed, self.config.dead_letter.is_some())
    }

    pub(super) fn committed(&mut self, partition: Partition, offset: Option<i64>, metadata: &[u8]) {
        let owner = self.owner();
        let Some(life) = self.lives.get_mut(&partition).filter(|life| life.step == Step::Metadata) else { return };
        let former = Ownership::decode(metadata).unwrap_or_default();
        let mut fence = if former.owner.is_empty() { Vec::new() } else { former.to_fence(&owner) };
        for own in &self.formers {
            if fence.len() < FENCE_MAX && !fence.contains(own) {
                fence.push(own.clone());
            }
        }
        let clean = bugs::on(Bug::AlwaysClean);
        life.ownership = Ownership { owner, fence, clean, since: former.since };
        // What was fenced for an earlier reading says nothing of these.
        life.fence_done = false;
        let none = if bugs::on(Bug::NegativeOffset) { -1 } else { 0 };
        life.committed = offset.unwrap_or(none).max(none);
        life.step = Step::Barrier;
        if bugs::on(Bug::FenceBeforeBarrier) {
            let fence = life.ownership.fence.clone();
            let transactional_ids = fence.iter().flat_map(|owner| self.ids_of(owner)).collect();
            self.outputs.push_back(Output::Fence { take: u64::MAX, transactional_ids });
        }
    }

    /// The barriers of `partitions` are committed: only now may their former owners be fenced. Fencing earlier, a late
    /// riser could fence a live owner.
    pub(super) fn barriers_stand(&mut self, partitions: &[(Partition, i64)]) {
        let mut to_fence: Vec<String> = Vec::new();
        for (id, barrier) in partitions {
            let Some(life) = self.lives.get_mut(id) else { continue };
            let barrier = if bugs::on(Bug::LoadsToCommitted) { life.committed } else { *barrier };
            life.barrier = Some(barrier);
            life.claimed = true;
            match &mut life.step {
                Step::Releasing { marked, .. } => *marked = true,
                step => *step = Step::Loading(barrier),
            }
            for owner in &life.ownership.fence {
                if !to_fence.contains(owner) && !bugs::on(Bug::DeadOwnerNotFenced) {
                    to_fence.push(owner.clone());
                }
            }
        }
        if !to_fence.is_empty() {
            let take = self.next_take;
            self.next_take += 1;
            self.fencing.insert(take, partitions.iter().map(|(id, _)| *id).collect());
            let transactional_ids = to_fence.iter().flat_map(|owner| self.ids_of(owner)).collect();
            self.outputs.push_back(Output::Fence { take, transactional_ids });
        }
        for (id, _) in partitions {
            if self.lives.get(id).is_some_and(|l| matches!(l.step, Step::Loading(_)) && l.is_loaded()) {
                self.loaded(*id);
            }
        }
    }

    pub(super) fn fenced(&mut self, take: u64) {
        for id in self.fencing.remove(&take).unwrap_or_default() {
            if let Some(life) = self.lives.get_mut(&id) {
                self.formers.retain(|former| !life.ownership.fence.contains(former));
                life.ownership.fence.clear();
                life.fence_done = true;
            }
        }
    }

    /// Everything before the barrier has been read.
    pub(super) fn loaded(&mut self, id: Partition) {
        let now = self.now;
        let Some(life) = self.lives.get_mut(&id) else { return };
        match life.floor {
            Some(floor) if floor.since <= now => {
                life.ownership.since.get_or_insert(floor.since);
                self.go_live(id);
            }
            _ => {
                life.step = Step::Since;
                self.find_since(id.topic);
            }
        }
        self.ask_siblings(id.topic);
    }

    /// Asks for a topic's `since`, unless an answer is on its way.
    fn find_since(&mut self, topic: u16) {
        if self.asked.contains_key(&topic) {
            return;
        }
        let ask = self.next_ask;
        self.next_ask += 1;
        self.asked.insert(topic, ask);
        let stays = |life: &&Life<P>| life.id.topic == topic && !matches!(life.step, Step::Releasing { .. });
        let known = self.lives.values().filter(stays).map(|life| life.id.number).collect();
        self.outputs.push_back(Output::FindSince { ask, topic, known });
    }

    /// A partition of this topic goes. What was found without its floor is worthless: whoever waits asks again, and finds
    /// that floor in the log.
    pub(super) fn find_since_again(&mut self, topic: u16) {
        self.asked.remove(&topic);
        let mut waiting = false;
        for life in self.lives.values_mut().filter(|life| life.id.topic == topic) {
            if matches!(life.step, Step::Since | Step::Siblings) {
                life.step = Step::Since;
                waiting = true;
            }
        }
        if waiting {
            self.find_since(topic);
        }
    }

    pub(super) fn since(&mut self, ask: u64, since: Option<Millis>, today: Millis) {
        let Some((&topic, _)) = self.asked.iter().find(|(_, asked)| **asked == ask) else { return };
        self.asked.remove(&topic);
        let now = self.now;
        for life in self.lives.values_mut().filter(|life| life.id.topic == topic && life.step == Step::Since) {
            life.today = today;
            // A floor from the future was written by a clock that has been set back.
            let since = since.filter(|_| !bugs::on(Bug::SinceForgotten));
            let known = since.filter(|_| life.floor.is_none()).filter(|since| *since <= now);
            match (known, life.floor) {
                (Some(since), _) => life.step = Step::Floor(floor_from(life, since)),
                // By now the clock may be right again.
                (None, Some(floor)) if floor.since <= now => life.step = Step::Floor(floor),
                (None, Some(_)) => life.step = Step::Floor(floor_from(life, today)),
                (None, None) => life.step = Step::Siblings,
            }
        }
        self.ask_siblings(topic);
    }

    /// The group knows no `since`. Once all partitions of the topic that we hold are read, their floors tell; where
    /// none of them has one, the engine runs on this topic for the first time.
    fn ask_siblings(&mut self, topic: u16) {
        let of_topic = |life: &&Life<P>| life.id.topic == topic;
        let held = || self.lives.values().filter(of_topic);
        if !held().any(|life| life.step == Step::Siblings) || held().any(|life| life.is_before_loaded()) {
            return;
        }
        let floors = held().filter_map(|life| life.floor.map(|floor| floor.since)).min();
        let now = self.now;
        for life in self.lives.values_mut().filter(|life| life.id.topic == topic && life.step == Step::Siblings) {
            let floors = floors.filter(|_| !bugs::on(Bug::SinceForgotten));
            let since = floors.filter(|since| *since <= now).unwrap_or(life.today);
            life.step = Step::Floor(floor_from(life, since));
        }
    }

    pub(super) fn floor_stands(&mut self, id: Partition, floor: Floor) {
        if let Some(life) = self.lives.get_mut(&id).filter(|life| matches!(life.step, Step::FloorSent(_))) {
            life.floor = Some(floor);
            if self.is_ahead(floor) {
                // The clock was set back while the floor was on its way.
                return self.reread(id, AHEAD);
            }
            self.go_live(id);
        }
    }

    fn go_live(&mut self, id: Partition) {
        let now = self.now;
        let Some(life) = self.lives.get_mut(&id) else { return };
        let floor = life.floor.expect("a partition goes live only when its floor is known");
        let unfit = life.words.loaded();
        let end = floor.since.min(life.today).0.div_euclid(1000);
        let end = if bugs::on(Bug::LeftoversFire) { 0 } else { end };
        let leftovers = life.words.drop_leftovers(floor.offset, u64::try_from(end).unwrap_or(0));
        // What was ended meanwhile has left room that may never be needed again.
        life.words.shrink(LOADED_SHARE);
        life.step = Step::Live;
        life.live_at = now;
        let pending = life.words.pending();
        let overdue = u64::try_from(now.0.div_euclid(1000)).map_or(0, |second| life.words.overdue(second));
        self.counters.planned += pending as u64;
        self.counters.leftovers += leftovers;
        self.counters.invalid += unfit.len() as u64;
        for (_, reason) in &unfit {
            self.counters.refused[*reason as usize] += 1;
        }
        for (offset, reason) in unfit.into_iter().take(UNFIT_NAMED_MAX) {
            self.report(Report::Invalid { partition: id, offset, reason });
        }
        self.doubt_loaded(id);
        self.report(Report::Live { partition: id, pending, overdue, leftovers });
    }

    pub(super) fn reread(&mut self, id: Partition, why: &'static str) {
        if self.in_flight.iter().any(|batch| batch.touches(id)) {
            // Batches decided from the old reading cannot be told apart from the new one's.
            return self.restart(why);
        }
        let words = self.words();
        let Some(life) = self.lives.get_mut(&id) else { return };
        match life.step {
            Step::Releasing { .. } => return,
            Step::Metadata => {
                life.reread(words);
                life.step = Step::Metadata;
            }
            _ => life.reread(words),
        }
        self.outputs.push_back(Output::Seek(id));
        self.report(Report::Reread { partition: id, why });
    }

    /// The log of a partition begins at `start` now: records or segments were deleted. What was before it does not
    /// fire, as after a restart. Where a word that was written again lies now, only the log says.
    pub(super) fn trimmed(&mut self, id: Partition, start: i64) {
        let Some(life) = self.lives.get_mut(&id) else { return };
        if life.words.reaches_below(start) && !matches!(life.step, Step::Releasing { .. }) {
            life.is_trimmed = true;
            self.reread_trimmed();
        }
    }

    /// Reads partitions again whose log was trimmed, once no batch touches them: until then they form none.
    pub(super) fn reread_trimmed(&mut self) {
        let trimmed = self.lives.values().filter(|life| life.is_trimmed && !self.is_touched(life.id));
        for id in trimmed.map(|life| life.id).collect::<Vec<_>>() {
            self.reread(id, "records were deleted from its beginning");
        }
    }

    /// A clock that was set back to before a floor: that floor is written again after a new reading.
    pub(super) fn check_clock(&mut self) {
        for id in self.ahead().collect::<Vec<_>>() {
            self.reread(id, AHEAD);
        }
    }

    /// Partitions that fire with a floor from the future.
    pub(super) fn ahead(&self) -> impl Iterator<Item = Partition> {
        let ahead = |life: &&Life<P>| life.is_live() && life.floor.is_some_and(|floor| self.is_ahead(floor));
        self.lives.values().filter(ahead).map(|life| life.id)
    }

    fn is_ahead(&self, floor: Floor) -> bool {
        floor.since > self.now && !bugs::on(Bug::ClockSetBackIgnored)
    }
}

fn floor_from<P: Payload>(life: &Life<P>, since: Millis) -> Floor {
    // What an earlier floor counted as owed stays owed: only the date changes.
    let offset = life.floor.map_or(life.barrier.unwrap_or(0), |floor| floor.offset);
    Floor { since, offset }
}
