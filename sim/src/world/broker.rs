//! What brokers do on their own: compaction, when it legally can.

use kafka_scheduler::core::batch::{Batch, Kind};
use kafka_scheduler::core::io::TopicPartition;

use super::World;
use crate::failure::Failure;
use crate::faults::Fault;
use crate::kafka::Place;
use crate::kafka::group::SESSION_MS;
use crate::kafka::log::{Compacted, Compaction};

/// `min.compaction.lag.ms`.
const LAG_MS: i64 = 20_000;
/// `delete.retention.ms`.
const RETENTION_MS: i64 = 25_000;
/// The promise holds where outage, loading and delay together are shorter than both, or else compaction keeps off. What
/// an owner has read is settled when it has been at work for this long since.
const DELAY_MS: i64 = 12_000;

/// A newer word that could be read for this long stops a firing: an owner stands still for at most its session, or else
/// its commit is refused, and reads at once when it wakes.
const RACE_MS_MAX: i64 = SESSION_MS + 1_000;
/// A slow consumer takes this long to catch up.
const SLOW_MS_MAX: i64 = 5_000;

/// What has been settled of a partition.
#[derive(Clone, Copy, Debug)]
pub(super) struct Steady {
    /// Its owner had read everything then, and has been at work since.
    read_ms: Option<i64>,
    /// What was appended before this has been settled.
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
            let owner = self.instances.iter().find(|instance| {
                instance.is_alive()
                    && instance.paused_until_ms <= now
                    && instance.owned.contains_key(partition)
                    && instance.live().contains(partition)
            });
            let end = self.kafka.log(Place::Schedules(*partition)).end();
            let has_read = owner.is_some_and(|owner| owner.owned.get(partition) == Some(&end));
            let steady = self.steady.entry(*partition).or_insert(Steady { read_ms: None, before_ms: i64::MIN });
            steady.read_ms = steady.read_ms.filter(|_| owner.is_some()).or(has_read.then_some(now));
            if let Some(read) = steady.read_ms.filter(|read| read + DELAY_MS <= now) {
                steady.before_ms = read;
                steady.read_ms = has_read.then_some(now);
            }
        }
    }

    /// Compacts a partition: at any moment, but only what is old enough.
    pub(super) fn compact(&mut self, partition: u8, tombstones: bool) {
        let partition = self.partitions[usize::from(partition) % self.partitions.len()];
        let Compacted { records, tombstones } = self.clean(partition, tombstones);
        if records > 0 {
            self.hit_partition(Fault::Compaction, partition);
        }
        if tombstones > 0 {
            self.hit_partition(Fault::OldTombstones, partition);
        }
    }

    fn clean(&mut self, partition: TopicPartition, tombstones: bool) -> Compacted {
        let now = self.now_ms;
        let settled_ms = self.steady.get(&partition).map_or(i64::MIN, |steady| steady.before_ms);
        let before_ms = settled_ms.min(now - LAG_MS);
        let log = self.kafka.logs.get_mut(&Place::Schedules(partition)).expect("it is one of ours");
        let gone = log.compact(now, Compaction { before_ms, retention_ms: RETENTION_MS, tombstones });
        self.trace(|| format!("broker {partition:?} is compacted: {gone:?}"));
        gone
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
            let partition = TopicPartition { topic, number: number as i32 };
            self.partitions.push(partition);
            self.kafka.add_partition(partition);
        }
    }

    /// Everything that is settled is compacted.
    pub(crate) fn compact_all(&mut self) {
        for partition in self.partitions.clone() {
            self.clean(partition, true);
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

    /// The latest `since` that a floor may have on which an instance fires a partition: one from the future would be
    /// written again. With days to look back even a floor from a wrong day lies in the past.
    pub(crate) fn latest_since(&self, number: usize) -> i64 {
        match self.setup.since_days {
            0 => self.instances[number].today_as_told(self.now_ms, &self.setup).0,
            _ => i64::MAX,
        }
    }

    /// Local midnight of the clock that is furthest ahead: what is due before may be a leftover.
    pub(crate) fn latest_today(&self) -> i64 {
        self.today_of(self.now_ms + self.ahead_ms_max)
    }

    /// The firings of a batch that a newer word on their key has raced, and for how long each could have been read:
    /// `None` where the instance was behind, since it had just taken the partition over or its consumer is slow.
    pub(super) fn races(&self, number: usize, batch: &Batch) -> Vec<Option<i64>> {
        let instance = &self.instances[number];
        let slow = instance.slow_consumer_until_ms + SLOW_MS_MAX > self.now_ms;
        let mut races = Vec::new();
        for item in batch.items.iter().filter(|item| matches!(item.kind, Kind::Fire { .. })) {
            let Some(said) = self.said.get(&(item.partition, item.origin_offset)) else { continue };
            let mut newer = self.said.range((item.partition, item.origin_offset + 1)..=(item.partition, i64::MAX));
            if let Some((_, newer)) = newer.find(|(_, newer)| newer.is_word() && newer.key == said.key) {
                let caught_up_ms = instance.caught_up_ms.get(&item.partition).filter(|_| !slow);
                races.push(caught_up_ms.map(|at| self.now_ms - newer.readable_ms.max(*at)));
            }
        }
        races
    }

    /// A batch with such firings was committed.
    pub(super) fn count_races(&mut self, number: usize, races: &[Option<i64>]) {
        self.summary.raced += races.len() as u64;
        let Some(longest_ms) = races.iter().flatten().max().copied() else { return };
        self.summary.raced_ms_max = self.summary.raced_ms_max.max(longest_ms);
        if longest_ms > RACE_MS_MAX {
            let broken = format!("i{number} fired what a newer word had replaced {longest_ms} ms before");
            self.fail(Failure::Safety(broken));
        }
    }
}
