//! What each instance has been given to read, and what it decides knowing that.
//!
//! A cancel or an update can race a firing that has been decided already: Kafka has no compare-and-set. But nothing may
//! be decided after its instance has read the newer word, and what is ready fires in the order in which it is due.

use std::collections::{BTreeMap, BTreeSet};

use kafka_scheduler::core::batch::{Batch, Kind};
use kafka_scheduler::core::io::{Record, TopicPartition};
use kafka_scheduler::core::origin::{ORIGIN_HEADER, RESERVED_PREFIX};

use crate::scenario::Target;
use crate::world::Said;

type Key = Vec<u8>;

/// An item of a batch.
#[derive(Clone, Debug)]
pub(crate) struct Decided {
    partition: TopicPartition,
    key: Key,
    origin_offset: i64,
}

/// One instance's reading of one partition.
#[derive(Debug, Default)]
struct Reading {
    /// The newest user record read, for each key.
    newest: BTreeMap<Key, i64>,
    /// Schedules that wait for their time: due second and identity.
    ready: BTreeMap<Key, (i64, i64)>,
    /// The schedule that is each key's last word, whatever keeps it from firing.
    held: BTreeMap<Key, i64>,
    /// Keys with an engine record on its way.
    busy: BTreeSet<Key>,
    /// What an aborted batch held may come later.
    excused: BTreeSet<(Key, i64)>,
    /// Identities of schedules with large values.
    large: BTreeSet<i64>,
    /// Throughput was the limit: large schedules have batches of their own, and take turns with small ones.
    held_up: bool,
}

/// A schedule with a larger value may be overtaken while throughput is the limit.
const SMALL_BYTES_MAX: usize = 1_000;

/// Every reading.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    readings: BTreeMap<(usize, TopicPartition), Reading>,
}

impl Watch {
    /// An instance has an empty memory.
    pub fn forget(&mut self, number: usize) {
        self.readings.retain(|(other, _), _| *other != number);
    }

    /// An instance reads a partition from its beginning, or no more.
    pub fn forget_partition(&mut self, number: usize, partition: TopicPartition) {
        self.readings.remove(&(number, partition));
    }

    /// An instance is given a record.
    pub fn read(&mut self, number: usize, record: &Record<'_>, said: &BTreeMap<(TopicPartition, i64), Said>) {
        let Some(key) = record.key.filter(|key| !key.starts_with(RESERVED_PREFIX)) else { return };
        let reading = self.readings.entry((number, record.partition)).or_default();
        if let Some(said) = said.get(&(record.partition, record.offset)) {
            reading.newest.insert(key.to_vec(), record.offset);
            reading.ready.remove(key);
            reading.held.remove(key);
            if said.fit {
                reading.held.insert(key.to_vec(), record.offset);
            }
            if said.value.len() > SMALL_BYTES_MAX {
                reading.large.insert(record.offset);
            }
            if said.fit && said.target == Target::Open {
                reading.ready.insert(key.to_vec(), (said.due, record.offset));
            }
            return;
        }
        let origin = record.headers.iter().find(|h| h.name == ORIGIN_HEADER).and_then(|h| h.value);
        let Some(named) = origin.and_then(|m| Some(i64::from_be_bytes(m.get(9..17)?.try_into().ok()?))) else { return };
        reading.busy.remove(key);
        if record.value.is_some() {
            // A copy counts as its original, which may be compacted away; its turn to fire is not looked at.
            let known = reading.newest.get(key).copied().unwrap_or(-1);
            if known < named {
                reading.newest.insert(key.to_vec(), named);
                reading.held.remove(key);
                if said.get(&(record.partition, named)).is_some_and(|said| said.fit) {
                    reading.held.insert(key.to_vec(), named);
                }
            }
            return;
        }
        if reading.ready.get(key).is_some_and(|(_, origin_offset)| *origin_offset <= named) {
            reading.ready.remove(key);
        }
        if reading.held.get(key).is_some_and(|origin_offset| *origin_offset <= named) {
            reading.held.remove(key);
            reading.newest.entry(key.to_vec()).or_insert(named);
        }
    }

    /// An instance has decided a batch.
    ///
    /// # Errors
    /// Why it may not.
    pub fn decide(
        &mut self,
        number: usize,
        batch: &Batch,
        said: &BTreeMap<(TopicPartition, i64), Said>,
        today_ms: i64,
    ) -> Result<Vec<Decided>, String> {
        let mut decided = Vec::new();
        for item in batch.items.iter().filter(|item| item.origin_offset >= 0) {
            let Some(word) = said.get(&(item.partition, item.origin_offset)) else {
                return Err(format!("{item:?} speaks for what no user said"));
            };
            let key = word.key.clone();
            let reading = self.readings.entry((number, item.partition)).or_default();
            if let Some(newer) = reading.newest.get(&key).filter(|newest| **newest > item.origin_offset) {
                return Err(format!("{item:?} was decided after {newer} on the same key had been read"));
            }
            // Schedules for other targets may have to wait for those, and overtake one another; what was in an aborted
            // batch takes turns with the rest.
            if let Kind::Fire { due, target, .. } = &item.kind
                && **target == *Target::Open.name()
                && !reading.excused.contains(&(key.clone(), item.origin_offset))
                && let Some(first) = reading.earlier_than(due.epoch_s() as i64, item.origin_offset, today_ms)
            {
                return Err(format!("{item:?} was decided before {first:?}, which is due earlier"));
            }
            if !reading.busy.insert(key.clone()) {
                return Err(format!("{item:?} is the second engine record on its way for its key"));
            }
            decided.push(Decided { partition: item.partition, key, origin_offset: item.origin_offset });
        }
        Ok(decided)
    }

    /// Identities of the schedules that an instance must hold after what it has read of a partition.
    pub fn held(&self, number: usize, partition: TopicPartition) -> BTreeSet<i64> {
        let reading = self.readings.get(&(number, partition));
        reading.map(|reading| reading.held.values().copied().collect()).unwrap_or_default()
    }

    /// Throughput is the limit for an instance.
    pub fn held_up(&mut self, number: usize) {
        let of_it = self.readings.iter_mut().filter(|((other, _), _)| *other == number);
        of_it.for_each(|(_, reading)| reading.held_up = true);
    }

    /// A batch has not been committed, as far as its instance knows.
    pub fn aborted(&mut self, number: usize, decided: &[Decided]) {
        for Decided { partition, key, origin_offset } in decided {
            if let Some(reading) = self.readings.get_mut(&(number, *partition)) {
                reading.busy.remove(key);
                reading.excused.insert((key.clone(), *origin_offset));
            }
        }
    }
}

impl Reading {
    /// What should have fired before something that is due at `due`. What may be a leftover is not asked about.
    fn earlier_than(&self, due: i64, origin_offset: i64, today_ms: i64) -> Option<(&Key, i64)> {
        let of_one_size = |other: &i64| self.large.contains(other) == self.large.contains(&origin_offset);
        let owed = |(key, (other, origin_offset)): &(&Key, &(i64, i64))| {
            *other < due
                && *other * 1000 >= today_ms
                && !self.busy.contains(*key)
                && (!self.held_up || of_one_size(origin_offset))
                && !self.excused.contains(&((*key).clone(), *origin_offset))
        };
        self.ready.iter().find(owed).map(|(key, (_, origin_offset))| (key, *origin_offset))
    }
}
