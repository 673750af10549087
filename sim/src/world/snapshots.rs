//! Snapshots: an instance takes them while it works, and goes on from one when it is assigned a partition.

use kafka_scheduler::core::io::{Input, TopicPartition};
use kafka_scheduler::core::payload::Packed;
use kafka_scheduler::core::snapshot::{Fold, NoSnapshot, Restorer, SnapshotCursor};

use super::{Task, World};
use crate::engine;
use crate::faults::Fault;
use crate::history::Entry;
use crate::kafka::LogId;

/// A directory keeps this many snapshots of a partition, so an older one can be put back.
const KEPT_MAX: usize = 4;

/// A snapshot that is being taken.
#[derive(Debug)]
pub(super) struct Taking {
    id: u64,
    partition: TopicPartition,
    cursor: SnapshotCursor,
    bytes: Vec<u8>,
    entries_max: u32,
    gap_ms: i64,
}

/// A snapshot on the disk of an instance.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    id: u64,
    bytes: Vec<u8>,
}

impl World {
    /// Begins to take a snapshot.
    pub(super) fn begin_snapshot(&mut self, number: usize, partition: TopicPartition, entries_max: u8, gap_ms: u16) {
        if !self.instances[number].is_alive() {
            return;
        }
        self.next_snapshot += 1;
        let taking = Taking {
            id: self.next_snapshot,
            partition,
            cursor: SnapshotCursor::default(),
            bytes: Vec::new(),
            entries_max: u32::from(entries_max) + 1,
            gap_ms: i64::from(gap_ms),
        };
        self.go_on_snapshot(number, Box::new(taking));
    }

    /// Takes a snapshot of a partition that an instance gave back when it stopped.
    pub(super) fn take_last_snapshot(&mut self, number: usize, partition: TopicPartition) {
        if self.rng.chance(30) {
            return;
        }
        let (mut cursor, mut bytes) = (SnapshotCursor::default(), Vec::new());
        let core = &self.instances[number].core;
        if core.snapshot(partition, &mut cursor, u32::MAX, &mut bytes) == Ok(true) {
            self.next_snapshot += 1;
            let snapshot = self.next_snapshot;
            self.history.add(Entry::SnapshotBegan { instance: number, partition, snapshot });
            self.keep_snapshot(number, partition, Snapshot { id: snapshot, bytes });
        }
    }

    fn keep_snapshot(&mut self, number: usize, partition: TopicPartition, snapshot: Snapshot) {
        self.trace(|| format!("i{number}     has snapshot {} of {partition:?}", snapshot.id));
        let kept = self.disks.entry((number, partition)).or_default();
        kept.push(snapshot);
        if kept.len() > KEPT_MAX {
            kept.remove(0);
        }
    }

    /// Takes the next step of a snapshot.
    pub(super) fn go_on_snapshot(&mut self, number: usize, mut taking: Box<Taking>) {
        let is_first = taking.bytes.is_empty();
        let Taking { id, partition, entries_max, gap_ms, .. } = *taking;
        let core = &self.instances[number].core;
        let step = core.snapshot(partition, &mut taking.cursor, entries_max, &mut taking.bytes);
        if is_first && step.is_ok() {
            self.record_hit(Fault::Snapshot, number);
            self.history.add(Entry::SnapshotBegan { instance: number, partition, snapshot: id });
        }
        match step {
            Err(NoSnapshot) => {}
            Ok(false) => {
                let gap_ms = self.instances[number].rng.range(1, gap_ms.max(1));
                self.later(number, gap_ms, Task::Snapshot(taking));
            }
            Ok(true) => self.keep_snapshot(number, partition, Snapshot { id, bytes: taking.bytes }),
        }
    }

    /// Puts another instance's snapshot into an instance's directory, or an older one of its own.
    pub(super) fn copy_snapshot(&mut self, number: usize, partition: TopicPartition, from: usize, age: u8) {
        let kept = self.disks.get(&(from, partition)).map_or(&[][..], Vec::as_slice);
        let Some(copied) = kept.iter().rev().nth(usize::from(age) % KEPT_MAX).cloned() else { return };
        self.disks.entry((number, partition)).or_default().push(copied);
        self.record_hit(Fault::OldSnapshot, number);
    }

    /// Returns the fold of an instance's last snapshot of a partition, if the log still has its position.
    pub(super) fn stored_fold(&self, number: usize, partition: TopicPartition) -> Option<(u64, Fold<Packed>)> {
        let stored = self.disks.get(&(number, partition))?.last()?;
        let calendar = engine::calendar();
        let restorer = Restorer {
            hash_seed: 0,
            has_dead_letter_topic: self.history.setup.dead_letters,
            calendar: calendar.as_ref(),
        };
        let fold = Fold::decode(&stored.bytes, &restorer, &mut ()).ok()?;
        let end = self.history.kafka.log(LogId::Schedules(partition)).end();
        (fold.position() <= end).then_some((stored.id, fold))
    }

    /// Lets an instance go on from its snapshots of partitions that it was just assigned.
    pub(super) fn restore(&mut self, number: usize, folds: Vec<(TopicPartition, u64, Fold<Packed>)>) {
        for (partition, snapshot, fold) in folds {
            let position = fold.position();
            if self.instances[number].core.restore(partition, fold).is_ok() {
                self.instances[number].owned.insert(partition, position);
                self.record_hit(Fault::Restore, number);
                self.trace(|| format!("i{number}     goes on from snapshot {snapshot} of {partition:?} at {position}"));
                self.history.add(Entry::Restored { instance: number, partition, snapshot });
            }
        }
        self.feed(number, Input::Tick);
    }

    /// Forgets the snapshots of a partition that is read from its beginning.
    pub(super) fn discard_snapshots(&mut self, number: usize, partition: TopicPartition) {
        self.disks.remove(&(number, partition));
    }

    pub(super) fn check_canary(&mut self, number: usize, partition: TopicPartition, offset: i64, key: &[u8]) {
        let log = self.history.kafka.log(LogId::Schedules(partition));
        let found = log.get(offset).is_some_and(|stored| stored.key.as_deref() == Some(key));
        self.trace(|| format!("i{number}     canary of {partition:?} at {offset}: {found}"));
        self.feed(number, Input::CanaryChecked { partition, found });
    }
}
