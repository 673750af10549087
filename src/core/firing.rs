//! What goes into the next transaction.

use std::sync::Arc;

use super::batch::{Batch, Kind, Position};
use super::bugs::{self, Bug};
use super::io::Output;
use super::partition::{Life, Step};
use super::payload::Payload;
use super::reason::Reason;
use super::settling::{Entry, InFlight, Lot, Purpose, tag};
use super::targets::Verdict;
use super::words::{Meaning, Size, Words};
use super::{Millis, Partition, Scheduler};

/// Between two commits of progress while nothing fires.
pub(super) const MARK_MS: i64 = 30_000;

impl<P: Payload> Scheduler<P> {
    /// A batch could be formed now, but for an abort's delay.
    pub(super) fn may_form(&self) -> bool {
        self.refused.is_none() && !self.stopped && self.in_flight.len() < self.config.transactors
    }

    /// Forms as many batches as there is work and room for.
    pub(super) fn form(&mut self) {
        while self.may_form() && self.has_work() {
            let formed = (self.may_try(Purpose::Barrier) && self.barriers())
                || (self.may_try(Purpose::Floor) && self.floors())
                || (self.may_try(Purpose::Clean) && self.cleans())
                || self.work()
                || (self.may_try(Purpose::Mark) && self.marks());
            if !formed {
                break;
            }
        }
    }

    /// Whether there may be anything to form a batch of. Asked after every record, which mostly brings nothing: it costs
    /// less than to try.
    fn has_work(&self) -> bool {
        let second = self.second();
        self.lives.values().any(|life| match life.step {
            Step::Barrier | Step::Floor(_) | Step::Releasing { .. } => true,
            Step::Metadata | Step::BarrierSent | Step::FloorSent(_) => false,
            Step::Loading(_) | Step::Since | Step::Siblings if !life.is_live() => life.fence_done,
            _ if life.is_trimmed => false,
            _ => {
                life.fence_done
                    || life.words.has_outrun()
                    || life.words.has_suspects()
                    || life.words.has_letters()
                    || life.words.next_due(&Size::ALL).is_some_and(|due| second.is_some_and(|second| due <= second))
                    || life.has_progress(self.now)
            }
        })
    }

    fn may_try(&self, purpose: Purpose) -> bool {
        self.now >= self.patient_until(purpose)
    }

    /// The lots take turns, so that none keeps another waiting.
    fn work(&mut self) -> bool {
        let after = self.last_lot as usize + 1;
        for turn in 0..Lot::ALL.len() {
            let lot = Lot::ALL[(after + turn) % Lot::ALL.len()];
            let formed = self.may_try(Purpose::Fire(lot))
                && match lot {
                    Lot::Fresh => self.firing(),
                    Lot::Large => self.large(),
                    Lot::Suspects => self.suspects(),
                    Lot::Letters => self.letters(),
                };
            if formed {
                self.last_lot = lot;
                return true;
            }
        }
        self.last_lot = Lot::Letters;
        false
    }

    /// When work that an abort has put off is tried again.
    pub(super) fn next_try(&self) -> Option<Millis> {
        let mut next: Option<Millis> = None;
        let mut consider = |waits: bool, purpose: Purpose| {
            let at = self.patient_until(purpose);
            if waits && at > self.now {
                next = Some(next.map_or(at, |next| next.min(at)));
            }
        };
        for life in self.lives.values() {
            let is_live = life.step == Step::Live && !life.is_trimmed;
            let reads = matches!(life.step, Step::Loading(_) | Step::Since | Step::Siblings);
            let releases = matches!(life.step, Step::Releasing { .. });
            consider(life.step == Step::Barrier, Purpose::Barrier);
            consider(matches!(life.step, Step::Floor(_)), Purpose::Floor);
            consider(releases && !self.is_touched(life.id), Purpose::Clean);
            consider((is_live || reads) && life.fence_done, Purpose::Mark);
            consider(is_live && life.words.has_outrun(), Purpose::Fire(Lot::Fresh));
            consider(is_live && life.words.has_suspects(), Purpose::Fire(Lot::Suspects));
            consider(is_live && life.words.has_letters(), Purpose::Fire(Lot::Letters));
        }
        next
    }

    /// When the next schedule of a lot is due, if the lot is one of those that fire in due order.
    pub(super) fn next_due(&self, lot: Lot) -> Option<Millis> {
        let (live, sizes) = (self.lives.values().filter(|life| life.may_fire()), self.sizes(lot));
        let due = live.filter_map(|life| life.words.next_due(sizes)).min()?;
        // A schedule's second was checked to fit into milliseconds.
        Some(Millis(due as i64 * 1000))
    }

    pub(super) fn next_mark(&self) -> Option<Millis> {
        self.lives.values().filter(|life| life.may_fire() && life.offset() > life.committed).map(|l| l.mark_at).min()
    }

    pub(super) fn is_touched(&self, id: Partition) -> bool {
        self.in_flight.iter().any(|batch| batch.touches(id))
    }

    fn ids(&self, wanted: impl Fn(&Life<P>) -> bool) -> Vec<Partition> {
        self.lives.values().filter(|life| wanted(life)).map(|life| life.id).collect()
    }

    fn barriers(&mut self) -> bool {
        let ids = self.ids(|life| life.step == Step::Barrier && !self.is_touched(life.id));
        let mut batch = self.batch();
        for id in &ids {
            let owner = format!("{}.{}", self.owner(), batch.id);
            batch.push::<P>(*id, -1, Kind::Barrier { owner }, None);
            self.set_step(*id, Step::BarrierSent);
        }
        self.send(batch, Purpose::Barrier, ids, Vec::new())
    }

    fn floors(&mut self) -> bool {
        let mut batch = self.batch();
        let mut ids = Vec::new();
        for life in self.lives.values_mut() {
            if let Step::Floor(floor) = life.step {
                life.step = Step::FloorSent(floor);
                life.ownership.since = Some(floor.since);
                batch.push::<P>(life.id, -1, Kind::Floor { value: floor.encode(life.place) }, None);
                ids.push(life.id);
            }
        }
        self.send(batch, Purpose::Floor, ids, Vec::new())
    }

    /// The last transaction of a partition that is given back, once everything else on it has settled.
    fn cleans(&mut self) -> bool {
        let unmarked =
            self.ids(|life| matches!(life.step, Step::Releasing { marked: false, .. }) && !self.is_touched(life.id));
        if !unmarked.is_empty() {
            self.released(&unmarked);
        }
        let ids =
            self.ids(|life| matches!(life.step, Step::Releasing { marked: true, .. }) && !self.is_touched(life.id));
        for id in &ids {
            if let Some(life) = self.lives.get_mut(id) {
                life.ownership.clean = true;
            }
        }
        let batch = self.batch();
        self.send(batch, Purpose::Clean, ids, Vec::new())
    }

    /// Offsets alone: progress while nothing fires, and fence lists that have been worked off.
    fn marks(&mut self) -> bool {
        let now = self.now;
        let ids = self.ids(|life| {
            let ours = matches!(life.step, Step::Loading(_) | Step::Since | Step::Siblings | Step::Live);
            ours && !life.is_trimmed && !self.is_touched(life.id) && (life.fence_done || life.has_progress(now))
        });
        let batch = self.batch();
        self.send(batch, Purpose::Mark, ids, Vec::new())
    }

    fn firing(&mut self) -> bool {
        let mut batch = self.batch();
        let mut entries = Vec::new();
        let Some(second) = self.second() else { return false };
        self.add_outrun(&mut batch, &mut entries, second);
        // While the refused one is looked for among what is written again, nothing else is mixed with that.
        if entries.is_empty() || self.items_max[Lot::Fresh as usize] == self.config.batch_items_max {
            self.add_due(&mut batch, &mut entries, second, Lot::Fresh);
        }
        if bugs::on(Bug::LatestFirst) {
            batch.items.reverse();
            entries.reverse();
        }
        self.send(batch, Purpose::Fire(Lot::Fresh), touched(&entries), entries)
    }

    fn large(&mut self) -> bool {
        let Some(second) = self.second() else { return false };
        let (mut batch, mut entries) = (self.batch(), Vec::new());
        self.add_due(&mut batch, &mut entries, second, Lot::Large);
        self.send(batch, Purpose::Fire(Lot::Large), touched(&entries), entries)
    }

    /// Sizes of schedules in batches of a lot that fires in due order.
    fn sizes(&self, lot: Lot) -> &'static [Size] {
        match (lot, self.throughput.is_large_apart()) {
            (Lot::Fresh, false) => &Size::ALL,
            (Lot::Fresh, true) => &[Size::Small],
            (Lot::Large, true) => &[Size::Large],
            (Lot::Large, false) | (Lot::Suspects | Lot::Letters, _) => &[],
        }
    }

    /// What is due by now is due by the end of this second.
    fn second(&self) -> Option<u64> {
        let early = i64::from(bugs::on(Bug::OneMillisecondEarly));
        u64::try_from(self.now.plus(early).0.div_euclid(1000)).ok()
    }

    fn suspects(&mut self) -> bool {
        let Some(second) = self.second() else { return false };
        let mut batch = self.batch();
        let mut entries = Vec::new();
        for id in self.ids(|life| life.may_fire() && life.words.has_suspects()) {
            while !self.is_full(&batch, Lot::Suspects)
                && self.add_one(&mut batch, &mut entries, id, |words| words.take_suspect(second))
            {}
        }
        self.send(batch, Purpose::Fire(Lot::Suspects), touched(&entries), entries)
    }

    fn is_full(&self, batch: &Batch, lot: Lot) -> bool {
        batch.items.len() >= self.items_max[lot as usize] || batch.bytes() >= self.throughput.bytes_max()
    }

    fn add_outrun(&mut self, batch: &mut Batch, entries: &mut Vec<Entry>, second: u64) {
        for id in self.ids(Life::may_fire) {
            while !self.is_full(batch, Lot::Fresh) {
                let Some(life) = self.lives.get_mut(&id) else { break };
                let Some(slot) = life.words.take_outrun(second) else { break };
                let Some(word) = life.words.get(slot) else { continue };
                let (identity, timestamp) = (word.identity, word.timestamp);
                let (kind, ended) = match word.meaning {
                    Meaning::Schedule { due, target } => {
                        (Kind::Schedule { target: self.targets.name(target), due, timestamp }, false)
                    }
                    Meaning::Cancel => (Kind::Cancel { timestamp }, true),
                    Meaning::Unfit(_) => (Kind::Unfit { timestamp }, false),
                };
                batch.push(id, identity, kind, Some(&word.payload));
                life.words.decided(slot, tag(batch.id));
                entries.push(Entry { partition: id, slot, identity, ended, target: None, letter: false });
            }
        }
    }

    /// Takes what is due from all partitions, earliest second first.
    fn add_due(&mut self, batch: &mut Batch, entries: &mut Vec<Entry>, second: u64, lot: Lot) {
        let sizes = self.sizes(lot);
        while !self.is_full(batch, lot) {
            let next = self
                .lives
                .values()
                .filter(|life| life.may_fire())
                .filter_map(|life| life.words.next_due(sizes).map(|due| (due, life.id)))
                .min();
            let Some((due, id)) = next.filter(|(due, _)| *due <= second) else { break };
            while !self.is_full(batch, lot) && self.add_one(batch, entries, id, |words| words.take_due(due, sizes)) {}
        }
    }

    fn add_one(
        &mut self,
        batch: &mut Batch,
        entries: &mut Vec<Entry>,
        id: Partition,
        take: impl FnOnce(&mut Words<P>) -> Option<u32>,
    ) -> bool {
        let Some(life) = self.lives.get_mut(&id) else { return false };
        let Some(slot) = take(&mut life.words) else { return false };
        let Some(word) = life.words.get(slot) else { return false };
        let Meaning::Schedule { due, target } = word.meaning else { return false };
        let (identity, timestamp) = (word.identity, word.timestamp);
        let verdict = self.targets.verdict(self.now, target);
        if verdict != Verdict::Send {
            if !self.put_off(id, slot, verdict) && self.targets.wait(self.now, target) {
                self.check_target(target);
            }
            return true;
        }
        // A schedule's second was checked to fit into milliseconds.
        let missed = Millis(due as i64 * 1000) <= life.live_at;
        let kind = Kind::Fire { target: self.targets.name(target), due, timestamp, missed };
        batch.push(id, identity, kind, Some(&word.payload));
        life.words.decided(slot, tag(batch.id));
        entries.push(Entry { partition: id, slot, identity, ended: true, target: Some(target), letter: false });
        true
    }

    /// Moves what cannot fire to the dead-letter topic, in batches of its own: that topic's troubles delay no firing.
    fn letters(&mut self) -> bool {
        let Some(name) = self.names.dead_letter.clone() else { return false };
        if !self.lives.values().any(|life| life.may_fire() && life.words.has_letters()) {
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
        for id in self.ids(Life::may_fire) {
            while !self.is_full(&batch, Lot::Letters) && self.add_letter(&mut batch, &mut entries, id, topic) {}
        }
        self.send(batch, Purpose::Fire(Lot::Letters), touched(&entries), entries)
    }

    fn add_letter(&mut self, batch: &mut Batch, entries: &mut Vec<Entry>, id: Partition, topic: u32) -> bool {
        let Some(life) = self.lives.get_mut(&id) else { return false };
        let Some(slot) = life.words.take_letter() else { return false };
        let Some(word) = life.words.get(slot) else { return false };
        let (identity, timestamp) = (word.identity, word.timestamp);
        let (reason, request) = match word.meaning {
            Meaning::Schedule { due, target } => {
                (word.put_off.unwrap_or(Reason::Refused), Some((self.targets.name(target), due)))
            }
            Meaning::Unfit(reason) => (reason, None),
            Meaning::Cancel => return true,
        };
        batch.push(id, identity, Kind::DeadLetter { reason, request, timestamp }, Some(&word.payload));
        life.words.decided(slot, tag(batch.id));
        entries.push(Entry { partition: id, slot, identity, ended: true, target: Some(topic), letter: true });
        true
    }

    fn set_step(&mut self, id: Partition, step: Step) {
        if let Some(life) = self.lives.get_mut(&id) {
            life.step = step;
        }
    }

    fn batch(&self) -> Batch {
        let names = Arc::clone(&self.names);
        Batch { id: self.next_batch, items: Vec::new(), offsets: Vec::new(), names, packed: Vec::new() }
    }

    /// Sends the batch with the offsets of every partition that it touches. False if it touches none.
    fn send(&mut self, mut batch: Batch, purpose: Purpose, ids: Vec<Partition>, entries: Vec<Entry>) -> bool {
        if ids.is_empty() {
            return false;
        }
        for id in &ids {
            let Some(life) = self.lives.get(id) else { continue };
            debug_assert!(
                bugs::on(Bug::NegativeOffset) || life.offset() >= 0,
                "librdkafka drops negative offsets, and the fence with them"
            );
            batch.offsets.push(Position { partition: *id, offset: life.offset(), metadata: life.ownership.encode() });
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

fn touched(entries: &[Entry]) -> Vec<Partition> {
    let mut ids: Vec<Partition> = entries.iter().map(|entry| entry.partition).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}
