//! Records on their way into the fold.

use std::collections::BTreeSet;

use super::bugs::{self, Bug};
use super::floor::Floor;
use super::io::{Partition, Record, Report, TargetState};
use super::mark::{BARRIER_KEY, FLOOR_KEY, Mark};
use super::partition::{Life, Step};
use super::payload::{Parts, Payload};
use super::reason::Reason;
use super::words::{Meaning, New};
use super::{Millis, Scheduler, request, schedule};

impl<P: Payload> Scheduler<P> {
    pub(super) fn record(&mut self, record: &Record<'_>) {
        let Some(life) = self.lives.get_mut(&record.partition) else { return };
        if record.offset < life.position {
            return self.reread(record.partition, "an offset was delivered twice: the log was cut or made anew");
        }
        life.position = record.offset + 1;
        match record.key {
            None => self.unfit(record, Reason::NoKey),
            Some(key) if [BARRIER_KEY, FLOOR_KEY].contains(&key) => self.reserved(record, key),
            Some(key) => self.word(record, key),
        }
        if let Some(life) = self.lives.get_mut(&record.partition) {
            life.settle_read();
            if life.step == Step::Loading(life.barrier.unwrap_or(i64::MAX)) && life.is_loaded() {
                self.loaded(record.partition);
            }
        }
    }

    /// The engine's own keys: barriers and floors. Anything else under such a key is a user's, and refused.
    fn reserved(&mut self, record: &Record<'_>, key: &[u8]) {
        let Some(life) = self.lives.get_mut(&record.partition) else { return };
        if key == FLOOR_KEY
            && let Some(floor) = record.value.and_then(|value| Floor::decode(value, life.place))
        {
            if !bugs::on(Bug::FloorForgotten) {
                life.floor = Some(floor);
            }
            return;
        }
        let group = record.headers.iter().find(|h| h.name == request::GROUP).and_then(|h| h.value);
        match group {
            Some(group) if key == BARRIER_KEY && record.value.is_none() => {
                let after_our_own = life.barrier.is_some_and(|barrier| record.offset > barrier);
                if group == self.names.group.as_bytes() {
                    life.words.passed_barrier(record.offset);
                } else if after_our_own {
                    self.foreign(record, group);
                }
            }
            _ => self.unfit(record, Reason::ReservedKey),
        }
    }

    fn foreign(&mut self, record: &Record<'_>, group: &[u8]) {
        const NAMED_MAX: usize = 64;
        // Kafka's own limit for a group's name.
        let group = String::from_utf8_lossy(&group[..group.len().min(255)]).into_owned();
        if self.foreign_groups.len() < NAMED_MAX && self.foreign_groups.insert(group.clone()) {
            self.report(Report::ForeignGroup { partition: record.partition, group });
        }
    }

    /// A record that is no word on any key: counted and left alone.
    fn unfit(&mut self, record: &Record<'_>, reason: Reason) {
        self.counters.invalid += 1;
        self.counters.refused[reason as usize] += 1;
        self.report(Report::Invalid { partition: record.partition, offset: record.offset, reason });
    }

    fn word(&mut self, record: &Record<'_>, key: &[u8]) {
        let Some(life) = self.lives.get(&record.partition) else { return };
        match Mark::of(record, life.place) {
            Some(mark) => self.engine_word(record, key, &mark),
            None => self.user_word(record, key),
        }
    }

    fn engine_word(&mut self, record: &Record<'_>, key: &[u8], mark: &Mark) {
        let timestamp = if bugs::on(Bug::CopyTakesNewTimestamp) { record.timestamp } else { mark.timestamp };
        let identity = if bugs::on(Bug::CopyTakesNewIdentity) { record.offset } else { mark.offset };
        let read = record.value.map(|value| self.read(record, value, identity, timestamp));
        let Some(life) = self.lives.get_mut(&record.partition) else { return };
        match read {
            None => life.words.tombstone(key, mark.offset),
            Some(new) => life.words.copy(key, identity, || new),
        }
    }

    fn user_word(&mut self, record: &Record<'_>, key: &[u8]) {
        let new = match record.value {
            None => New {
                identity: record.offset,
                timestamp: record.timestamp,
                meaning: Meaning::Cancel,
                payload: P::pack(&Parts { key, ..Parts::default() }),
            },
            Some(value) => self.read(record, value, record.offset, record.timestamp),
        };
        let meaning = new.meaning;
        if bugs::on(Bug::UnfitLeftOut) && matches!(meaning, Meaning::Unfit(_)) {
            return;
        }
        let Some(life) = self.lives.get_mut(&record.partition) else { return };
        let loaded = life.is_live() || matches!(life.step, Step::Releasing { .. });
        let change = life.words.user(new);
        if !loaded {
            // Counted in sum when loading ends: what is superseded on the way is no event.
            return;
        }
        match meaning {
            Meaning::Schedule { due, .. } => {
                self.counters.planned += 1;
                self.doubt(record.partition, record.offset, due, record.timestamp);
            }
            Meaning::Cancel if change.ended_pending => self.counters.deleted += 1,
            Meaning::Cancel => self.counters.other += 1,
            Meaning::Unfit(reason) => self.unfit(record, reason),
        }
    }

    /// Counts a schedule that is due too far ahead to be meant.
    fn doubt(&mut self, partition: Partition, offset: i64, due: u64, timestamp: Millis) {
        if let Some(why) = schedule::far_ahead(due, timestamp) {
            self.counters.far_ahead += 1;
            self.report(Report::FarAhead { partition, offset, why });
        }
    }

    /// The same for those that were found when a partition was loaded.
    pub(super) fn doubt_loaded(&mut self, id: Partition) {
        let Some(life) = self.lives.get(&id) else { return };
        // No record was written before 1970.
        let far = life.words.due_from(schedule::FAR_S);
        let far: Vec<_> = far.filter_map(|word| Some((word.identity, word.due()?, word.timestamp))).collect();
        far.into_iter().for_each(|(offset, due, timestamp)| self.doubt(id, offset, due, timestamp));
    }

    fn read(&mut self, record: &Record<'_>, value: &[u8], identity: i64, timestamp: Millis) -> New<P> {
        match schedule::parse(record, value, timestamp, &self.names.topics, &self.limits) {
            Ok(request) => {
                let (target, new) = self.targets.intern(request.target);
                if new {
                    self.check_target(target);
                    self.sweep_targets(target);
                }
                let meaning = Meaning::Schedule { due: request.due, target };
                New { identity, timestamp, meaning, payload: P::pack(&request.parts) }
            }
            Err(reason) => New {
                identity,
                timestamp,
                meaning: Meaning::Unfit(reason),
                payload: P::pack(&schedule::verbatim(record, value)),
            },
        }
    }

    /// Forgets the names that no word uses any more, once there are many.
    fn sweep_targets(&mut self, new: u32) {
        if !self.targets.is_full() {
            return;
        }
        let mut used: BTreeSet<u32> = self.lives.values().flat_map(|life| life.words.targets()).collect();
        used.insert(new);
        used.extend(self.dead_letter);
        self.targets.sweep(&used);
    }

    pub(super) fn target(&mut self, target: u32, state: TargetState) {
        if let Some(name) = self.targets.answered(self.now, target, state) {
            self.report(Report::TargetChanged { name, state });
        }
        match state {
            TargetState::Exists => self.lives.values_mut().for_each(|life| life.words.wake_held(target)),
            _ => self.still_held(target),
        }
    }

    /// Counts who waits for a target that cannot be used, and gives them up where that has not helped for long.
    fn still_held(&mut self, target: u32) {
        let verdict = self.targets.verdict(self.now, target);
        let waits = |life: &Life<P>| life.words.held(target).collect::<Vec<_>>();
        let held: Vec<_> = self.lives.values().map(|life| (life.id, waits(life))).collect();
        let mut remaining = self.dead_letter == Some(target);
        for (id, slots) in held {
            for slot in slots {
                remaining |= !self.put_off(id, slot, verdict);
            }
        }
        if !remaining {
            self.targets.unawaited(target);
        }
    }
}
