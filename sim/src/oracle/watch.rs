//! Checks each instance's decisions against the records that it has read.
//!
//! A cancel or an update can race a firing that is already decided: Kafka has no compare-and-set. But an instance must
//! not decide to fire a schedule after it has read a newer record for its key, and ready schedules fire in due order.

use std::collections::{BTreeMap, BTreeSet};

use kafka_scheduler::core::batch::{AfterFiring, Kind};
use kafka_scheduler::core::io::TopicPartition;
use kafka_scheduler::core::origin::{PROGRESS_PREFIX, RESERVED_PREFIX};
use kafka_scheduler::core::progress::progress_key;
use kafka_scheduler::core::start_marker::StartMarker;

use super::leftovers::start_markers_of;
use super::named;
use crate::engine::leftover_cutoff_ms;
use crate::history::{Decision, History, Holding};
use crate::kafka::LogId;
use crate::scenario::{RecordKind, Target};

type Key = Vec<u8>;

/// An item of a batch.
#[derive(Debug)]
struct Decided {
    partition: TopicPartition,
    key: Key,
    origin_offset: i64,
}

/// What one instance has read of one partition.
#[derive(Clone, Debug, Default)]
struct Reading {
    /// The newest user record for each key.
    newest: BTreeMap<Key, i64>,
    /// Schedules that wait to be due: due second and origin offset.
    ready: BTreeMap<Key, (i64, i64)>,
    /// Schedules that are their key's latest record, whether or not they can fire now.
    held: BTreeMap<Key, i64>,
    /// Keys whose schedule was overtaken: compaction may remove it, until a copy is written.
    overtaken: BTreeSet<Key>,
    /// Keys with an outstanding engine record.
    busy: BTreeSet<Key>,
    /// Schedules of aborted batches, or that wait for an outcome. They may fire later than others.
    excused: BTreeSet<(Key, i64)>,
    /// Keys with progress of an older record, which is ended first. A schedule that comes meanwhile waits for that.
    with_old_progress: BTreeSet<Key>,
    /// Origin offsets of schedules with large values.
    large: BTreeSet<i64>,
}

/// A schedule with a larger value may be overtaken while throughput is the limit.
const SMALL_BYTES_MAX: usize = 1_000;

#[derive(Debug, Default)]
pub(super) struct Watch {
    readings: BTreeMap<(usize, TopicPartition), Reading>,
    /// By snapshot, what its instance had read when it began.
    saved: BTreeMap<u64, Reading>,
    /// Instances whose limit was throughput at some time: large schedules have batches of their own, which alternate
    /// with the others. They remember it when they forget what they have read.
    throughput_limited: BTreeSet<usize>,
    /// The items of each batch, by instance and batch id.
    decided: BTreeMap<(usize, u64), Vec<Decided>>,
}

impl Watch {
    pub(super) fn forget(&mut self, number: usize) {
        self.readings.retain(|(other, _), _| *other != number);
    }

    pub(super) fn forget_partition(&mut self, number: usize, partition: TopicPartition) {
        self.readings.remove(&(number, partition));
    }

    /// Keeps what an instance has read of a partition when it begins a snapshot.
    pub(super) fn save(&mut self, number: usize, partition: TopicPartition, snapshot: u64) {
        let reading = self.readings.get(&(number, partition)).cloned().unwrap_or_default();
        self.saved.insert(snapshot, reading);
    }

    /// Lets an instance go on from a snapshot: nothing is outstanding.
    pub(super) fn restore(&mut self, number: usize, partition: TopicPartition, snapshot: u64) {
        let saved = self.saved.get(&snapshot).cloned().unwrap_or_default();
        let reading = Reading { busy: BTreeSet::new(), excused: BTreeSet::new(), ..saved };
        self.readings.insert((number, partition), reading);
    }

    /// Takes a record that an instance has read.
    pub(super) fn read(&mut self, history: &History, number: usize, (partition, offset): (TopicPartition, i64)) {
        let record = history.kafka.log(LogId::Schedules(partition)).get(offset).expect("the log has it still");
        let Some(key) = record.key.as_deref() else { return };
        let reading = self.readings.entry((number, partition)).or_default();
        if let Some(user_key) = key.strip_prefix(PROGRESS_PREFIX) {
            // One that a user wrote again ends nothing.
            if named(record).is_some() && record.transaction.is_some() {
                reading.busy.remove(key);
                if record.value.is_some() {
                    reading.busy.remove(user_key);
                    // A newer schedule of the key waits until the outcome is known: the record could be a user's copy.
                    if let Some(newer) = reading.newest.get(user_key).filter(|newest| Some(**newest) != named(record)) {
                        reading.excused.insert((user_key.to_vec(), *newer));
                        reading.with_old_progress.insert(user_key.to_vec());
                    }
                } else {
                    reading.with_old_progress.remove(user_key);
                }
            }
            return;
        }
        if key.starts_with(RESERVED_PREFIX) {
            return;
        }
        if let Some(user_record) = history.produced.get(&(partition, offset)) {
            reading.newest.insert(key.to_vec(), offset);
            if reading.with_old_progress.contains(key) {
                reading.excused.insert((key.to_vec(), offset));
            }
            reading.ready.remove(key);
            reading.held.remove(key);
            reading.overtaken.remove(key);
            if user_record.can_fire {
                reading.held.insert(key.to_vec(), offset);
            }
            if user_record.value.len() > SMALL_BYTES_MAX {
                reading.large.insert(offset);
            }
            if user_record.can_fire && user_record.target == Target::Open && user_record.kind == RecordKind::Schedule {
                reading.ready.insert(key.to_vec(), (user_record.due_s, offset));
            }
            return;
        }
        let Some(named) = named(record) else { return };
        reading.busy.remove(key);
        if reading.held.get(key).is_some_and(|origin_offset| *origin_offset > named) {
            reading.overtaken.insert(key.to_vec());
        } else {
            reading.overtaken.remove(key);
        }
        if record.value.is_some() {
            // A copy counts as its original, which compaction may have removed. The order of copies is not checked.
            let known = reading.newest.get(key).copied().unwrap_or(-1);
            if known < named {
                reading.newest.insert(key.to_vec(), named);
                reading.held.remove(key);
                if history.produced.get(&(partition, named)).is_some_and(|user_record| user_record.can_fire) {
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

    /// Checks a batch that an instance has formed.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub(super) fn decide(&mut self, history: &History, decision: &Decision) -> Result<(), String> {
        let Decision { instance, batch, .. } = decision;
        let latest_cutoff_ms = leftover_cutoff_ms(decision.at_ms + history.ahead_ms_max, &history.setup);
        let mut decided = Vec::new();
        for item in batch.items.iter().filter(|item| item.origin_offset >= 0) {
            let Some(user_record) = history.produced.get(&(item.partition, item.origin_offset)) else {
                return Err(format!("{item:?} is for a record that no user produced"));
            };
            let repairs = matches!(item.kind, Kind::Progress { .. } | Kind::EndProgress { .. });
            let key = if repairs { progress_key(&user_record.key) } else { user_record.key.clone() };
            let is_limited = self.throughput_limited.contains(instance);
            let reading = self.readings.entry((*instance, item.partition)).or_default();
            if let Some(newer) = reading.newest.get(&key).filter(|newest| **newest > item.origin_offset && !repairs) {
                return Err(format!("{item:?} was decided after {newer} on the same key had been read"));
            }
            let stays = matches!(item.kind, Kind::Fire { after: AfterFiring::Progress { .. }, .. });
            if stays && reading.overtaken.contains(&key) {
                return Err(format!("{item:?} leaves its schedule on a key on which it was overtaken"));
            }
            // Schedules for other targets may have to wait for these, and overtake one another. Schedules of an aborted
            // batch alternate with the others.
            if let Kind::Fire { due, target, .. } = &item.kind
                && **target == *Target::Open.name()
                && user_record.kind == RecordKind::Schedule
                && !reading.excused.contains(&(key.clone(), item.origin_offset))
                && let Some(first) =
                    reading.earlier_than(due.epoch_s() as i64, item.origin_offset, latest_cutoff_ms, is_limited)
            {
                return Err(format!("{item:?} was decided before {first:?}, which is due earlier"));
            }
            if !reading.busy.insert(key.clone()) {
                return Err(format!("{item:?} is the second outstanding engine record for its key"));
            }
            decided.push(Decided { partition: item.partition, key, origin_offset: item.origin_offset });
        }
        self.decided.insert((*instance, batch.id), decided);
        Ok(())
    }

    /// Checks that an instance holds exactly the schedules that it has read.
    ///
    /// # Errors
    /// The first difference.
    pub(super) fn folds(&self, history: &History, holding: &Holding) -> Result<(), String> {
        let Holding { instance, partition, offsets, .. } = holding;
        let reading = self.readings.get(&(*instance, *partition));
        let expected: BTreeSet<i64> = reading.map(|r| r.held.values().copied().collect()).unwrap_or_default();
        if let Some(odd) = offsets.difference(&expected).next() {
            let user_record = history.produced.get(&(*partition, *odd));
            return Err(format!(
                "i{instance} holds {odd} of {partition:?}, which ended according to what it has read: {user_record:?}"
            ));
        }
        // A start marker from the future would be rewritten. With days to look back, even a start marker from a
        // wrong day is in the past.
        let latest_since_ms = if history.setup.since_days == 0 { holding.leftover_cutoff_ms } else { i64::MAX };
        let mut start_markers = None;
        for offset in expected.difference(offsets) {
            let Some(user_record) = history.produced.get(&(*partition, *offset)) else { continue };
            let start_markers = start_markers.get_or_insert_with(|| start_markers_of(history, holding.now_ms));
            let since_ms = |start_marker: &StartMarker| start_marker.since.0.min(latest_since_ms);
            let leftover = |start_marker: &StartMarker| {
                *offset < start_marker.offset
                    && !user_record.kind.recurs()
                    && user_record.due_s * 1000 < since_ms(start_marker)
            };
            if !start_markers.get(partition).is_some_and(leftover) {
                return Err(format!("i{instance} has forgotten {offset} of {partition:?}: {user_record:?}"));
            }
        }
        Ok(())
    }

    /// Notes that throughput is an instance's limit.
    pub(super) fn limit_throughput(&mut self, number: usize) {
        self.throughput_limited.insert(number);
    }

    /// Takes back a batch that was not committed, as far as its instance knows.
    pub(super) fn abort(&mut self, number: usize, batch: u64) {
        for Decided { partition, key, origin_offset } in self.decided.remove(&(number, batch)).unwrap_or_default() {
            if let Some(reading) = self.readings.get_mut(&(number, partition)) {
                reading.busy.remove(&key);
                reading.excused.insert((key, origin_offset));
            }
        }
    }
}

impl Reading {
    /// Returns a schedule that should have fired before one that is due at `due`, except possible leftovers.
    fn earlier_than(
        &self,
        due: i64,
        origin_offset: i64,
        leftover_cutoff_ms: i64,
        is_throughput_limited: bool,
    ) -> Option<(&Key, i64)> {
        let of_one_size = |other: &i64| self.large.contains(other) == self.large.contains(&origin_offset);
        let owed = |(key, (other, origin_offset)): &(&Key, &(i64, i64))| {
            *other < due
                && *other * 1000 >= leftover_cutoff_ms
                && !self.busy.contains(*key)
                && (!is_throughput_limited || of_one_size(origin_offset))
                && !self.excused.contains(&((*key).clone(), *origin_offset))
        };
        self.ready.iter().find(owed).map(|(key, (_, origin_offset))| (key, *origin_offset))
    }
}
