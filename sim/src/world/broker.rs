//! Compaction and new partitions.

use kafka_scheduler::core::io::TopicPartition;

use super::World;
use crate::faults::Fault;
use crate::kafka::LogId;
use crate::kafka::log::{Compacted, Compaction};

/// `min.compaction.lag.ms`.
const MIN_COMPACTION_LAG_MS: i64 = 20_000;
/// `delete.retention.ms`.
const DELETE_RETENTION_MS: i64 = 25_000;
/// The engine promises nothing if outage, loading and delay together last longer than both of these, so compaction
/// waits for the owner: its records are settled once it has worked for this long since it read them.
const SETTLED_AFTER_MS: i64 = 12_000;

/// How far an owner has settled a partition.
#[derive(Clone, Copy, Debug)]
pub(super) struct Steady {
    /// When its owner had read everything, if it has worked without interruption since.
    read_ms: Option<i64>,
    /// Records appended before this are settled.
    before_ms: i64,
}

impl World {
    /// Notes which partitions have an owner at work.
    pub(super) fn note_steady(&mut self) {
        /// No instance stops and starts again within this.
        const INTERVAL_MS: i64 = 100;
        let now = self.now_ms;
        if now < self.noted_ms.saturating_add(INTERVAL_MS) {
            return;
        }
        self.noted_ms = now;
        for partition in &self.history.partitions {
            let owner = self.instances.iter().find(|instance| {
                instance.is_alive()
                    && instance.paused_until_ms <= now
                    && instance.owned.contains_key(partition)
                    && instance.live().contains(partition)
            });
            let end = self.history.kafka.log(LogId::Schedules(*partition)).end();
            let has_read = owner.is_some_and(|owner| owner.owned.get(partition) == Some(&end));
            let steady = self.steady.entry(*partition).or_insert(Steady { read_ms: None, before_ms: i64::MIN });
            steady.read_ms = steady.read_ms.filter(|_| owner.is_some()).or(has_read.then_some(now));
            if let Some(read) = steady.read_ms.filter(|read| read + SETTLED_AFTER_MS <= now) {
                steady.before_ms = read;
                steady.read_ms = has_read.then_some(now);
            }
        }
    }

    /// Compacts a partition: at any time, but only records that are old enough.
    pub(super) fn compact(&mut self, partition: u8, tombstones: bool) {
        let partition = self.history.partitions[usize::from(partition) % self.history.partitions.len()];
        let Compacted { records, tombstones } = self.clean(partition, tombstones);
        if records > 0 {
            self.record_hit_on(Fault::Compaction, partition);
        }
        if tombstones > 0 {
            self.record_hit_on(Fault::OldTombstones, partition);
        }
    }

    fn clean(&mut self, partition: TopicPartition, tombstones: bool) -> Compacted {
        let now = self.now_ms;
        let settled_ms = self.steady.get(&partition).map_or(i64::MIN, |steady| steady.before_ms);
        let before_ms = settled_ms.min(now - MIN_COMPACTION_LAG_MS);
        let log = self.history.kafka.logs.get_mut(&LogId::Schedules(partition)).expect("it is one of ours");
        let gone = log.compact(now, Compaction { before_ms, retention_ms: DELETE_RETENTION_MS, tombstones });
        self.trace(|| format!("broker {partition:?} is compacted: {gone:?}"));
        gone
    }

    /// Adds a partition to a topic.
    pub(super) fn grow(&mut self, topic: u8) {
        const PARTITIONS_MAX: usize = 4;
        let topic = u16::from(topic % self.history.setup.topics);
        let number = self.history.partitions.iter().filter(|p| p.topic == topic).count();
        if number < PARTITIONS_MAX {
            for number in 0..self.instances.len() {
                self.record_hit(Fault::Growth, number);
            }
            let partition = TopicPartition { topic, number: number as i32 };
            self.history.partitions.push(partition);
            self.history.kafka.add_partition(partition);
        }
    }

    /// Compacts everything that is settled.
    pub(crate) fn compact_all(&mut self) {
        for partition in self.history.partitions.clone() {
            self.clean(partition, true);
        }
    }
}
