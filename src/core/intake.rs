//! Records on their way into the fold.

use super::floor::Floor;
use super::io::{Output, Record, Report, TargetState};
use super::mark::{BARRIER_KEY, FLOOR_KEY, Mark, RESERVED_PREFIX};
use super::partition::Step;
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
            Some(key) if key.starts_with(RESERVED_PREFIX) => self.reserved(record, key),
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
            life.floor = Some(floor);
            return;
        }
        let group = record.headers.iter().find(|h| h.name == request::GROUP).and_then(|h| h.value);
        match group {
            Some(group) if key == BARRIER_KEY && record.value.is_none() => {
                let behind_our_own = life.barrier.is_some_and(|barrier| record.offset > barrier);
                if behind_our_own && group != self.names.group.as_bytes() {
                    self.foreign(record, group);
                }
            }
            _ => self.unfit(record, Reason::ReservedKey),
        }
    }

    fn foreign(&mut self, record: &Record<'_>, group: &[u8]) {
        const NAMED_MAX: usize = 64;
        let group = String::from_utf8_lossy(group).into_owned();
        if self.foreign_groups.len() < NAMED_MAX && self.foreign_groups.insert(group.clone()) {
            self.report(Report::ForeignGroup { partition: record.partition, group });
        }
    }

    /// A record that is no word on any key: counted and left alone.
    fn unfit(&mut self, record: &Record<'_>, reason: Reason) {
        self.counters.invalid += 1;
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
        let read = record.value.map(|value| self.read(record, value, mark.offset, mark.timestamp));
        let Some(life) = self.lives.get_mut(&record.partition) else { return };
        match read {
            None => life.words.tombstone(key, mark.offset),
            Some(new) => life.words.copy(key, mark.offset, || new),
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
        let Some(life) = self.lives.get_mut(&record.partition) else { return };
        let loaded = life.is_live() || matches!(life.step, Step::Releasing { .. });
        let change = life.words.user(new);
        if !loaded {
            // Counted in sum when loading ends: what is superseded on the way is no event.
            return;
        }
        match meaning {
            Meaning::Schedule { .. } => self.counters.planned += 1,
            Meaning::Cancel if change.ended_pending => self.counters.deleted += 1,
            Meaning::Cancel => self.counters.other += 1,
            Meaning::Unfit(reason) => self.unfit(record, reason),
        }
    }

    fn read(&mut self, record: &Record<'_>, value: &[u8], identity: i64, timestamp: Millis) -> New<P> {
        match schedule::parse(record, value, timestamp, &self.names.topics, &self.limits) {
            Ok(request) => {
                let (target, new) = self.targets.intern(request.target);
                if new {
                    self.check_target(target);
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

    pub(super) fn check_target(&mut self, target: u32) {
        self.outputs.push_back(Output::CheckTarget { target, name: self.targets.name(target) });
    }

    pub(super) fn target(&mut self, target: u32, state: TargetState) {
        let answer = self.targets.answered(self.now, target, state);
        for (partition, slot, identity) in answer.wake {
            if let Some(life) = self.lives.get_mut(&partition) {
                life.words.wake(slot, identity);
            }
        }
        if let Some(name) = answer.changed {
            self.report(Report::TargetChanged { name, state });
        }
    }
}
