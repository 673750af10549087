//! What brokers do on their own: compaction, when it legally can.

use kafka_scheduler::core::batch::{Batch, Kind};
use kafka_scheduler::core::io::Partition;

use super::World;
use crate::faults::Fault;
use crate::kafka::Place;
use crate::kafka::group::SESSION_MS;

/// Outage, loading and delay together are shorter than this, or else compaction keeps off: the promise needs
/// `min.compaction.lag.ms` and `delete.retention.ms` that are longer.
const STEADY_MS: i64 = 20_000;

/// Since when a partition has been fired without a break.
#[derive(Clone, Copy, Debug)]
pub(super) struct Steady {
    since_ms: Option<i64>,
    /// What was appended before this has been settled; it only grows.
    before_ms: i64,
}

impl World {
    /// Notes which partitions are served.
    pub(super) fn note_steady(&mut self) {
        /// Often enough: nobody stops and starts again within this.
        const EVERY_MS: i64 = 100;
        let now = self.now_ms;
        if now < self.noted_ms.saturating_add(EVERY_MS) {
            return;
        }
        self.noted_ms = now;
        for partition in &self.partitions {
            let served = self.instances.iter().any(|instance| {
                instance.is_alive()
                    && instance.paused_until_ms <= now
                    && instance.owned.contains_key(partition)
                    && instance.live().contains(partition)
            });
            let steady = self.steady.entry(*partition).or_insert(Steady { since_ms: None, before_ms: i64::MIN });
            steady.since_ms = served.then(|| steady.since_ms.unwrap_or(now));
            if let Some(since) = steady.since_ms.filter(|since| since + STEADY_MS <= now) {
                steady.before_ms = steady.before_ms.max(now - STEADY_MS).max(since);
            }
        }
    }

    /// Compacts a partition: at any moment, but only what was settled long ago.
    pub(super) fn compact(&mut self, partition: u8, tombstones: bool) {
        let partition = self.partitions[usize::from(partition) % self.partitions.len()];
        let Some(steady) = self.steady.get(&partition).copied() else { return };
        let before = steady.before_ms;
        // Whoever is reading the partition began less than delete.retention.ms ago.
        let reading = self.instances.iter().any(|i| i.is_alive() && i.owned.contains_key(&partition));
        let settled = !reading || steady.since_ms.is_some_and(|since| since + SESSION_MS <= self.now_ms);
        let expired = if tombstones && settled { before.saturating_sub(STEADY_MS) } else { i64::MIN };
        self.hit_partition(if tombstones { Fault::OldTombstones } else { Fault::Compaction }, partition);
        self.clean(partition, before, expired);
    }

    fn clean(&mut self, partition: Partition, before_ms: i64, tombstones_before_ms: i64) {
        let log = self.kafka.logs.get_mut(&Place::Schedules(partition)).expect("it is one of ours");
        let gone = log.compact(before_ms, tombstones_before_ms);
        self.trace(|| format!("broker {partition:?} compacts {gone}"));
    }

    /// A topic gets another partition.
    pub(super) fn grow(&mut self, topic: u8) {
        /// Partitions of a topic at most.
        const PARTITIONS_MAX: usize = 4;
        let topic = u16::from(topic % self.setup.topics);
        let number = self.partitions.iter().filter(|p| p.topic == topic).count();
        if number < PARTITIONS_MAX {
            for number in 0..self.instances.len() {
                self.hit(Fault::Growth, number);
            }
            let partition = Partition { topic, number: number as i32 };
            self.partitions.push(partition);
            self.kafka.add_partition(partition);
        }
    }

    /// Everything that is settled is compacted.
    pub(crate) fn compact_all(&mut self) {
        let before = self.now_ms - STEADY_MS;
        for partition in self.partitions.clone() {
            self.clean(partition, before, before - STEADY_MS);
        }
    }

    /// Today, by a clock at `at_ms`: what a first start then looks back to.
    pub(crate) fn today_of(&self, at_ms: i64) -> i64 {
        super::instance::today_ms(at_ms, &self.setup)
    }

    /// The earliest today that any clock has shown.
    pub(crate) fn earliest_today(&self) -> i64 {
        self.today_of(self.start_ms + self.behind_ms_max)
    }

    /// Local midnight of the clock that is furthest ahead: what is due before may be a leftover.
    pub(crate) fn latest_today(&self) -> i64 {
        self.today_of(self.now_ms + self.ahead_ms_max)
    }

    /// Counts the firings that a newer word on their key has raced, and for how long it could have been read.
    pub(super) fn count_races(&mut self, batch: &Batch) {
        for item in batch.items.iter().filter(|item| matches!(item.kind, Kind::Fire { .. })) {
            let Some(said) = self.said.get(&(item.partition, item.identity)) else { continue };
            let mut newer = self.said.range((item.partition, item.identity + 1)..=(item.partition, i64::MAX));
            if let Some((_, newer)) = newer.find(|(_, newer)| newer.is_word() && newer.key == said.key) {
                self.summary.raced += 1;
                self.summary.raced_ms_max = self.summary.raced_ms_max.max(self.now_ms - newer.readable_ms);
            }
        }
    }
}
