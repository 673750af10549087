//! Compaction, replicas, and new partitions.

use kafka_scheduler::core::io::TopicPartition;

use super::{Event, World};
use crate::faults::Fault;
use crate::kafka::LogId;
use crate::kafka::log::{Compacted, Compaction, Log};

/// `min.compaction.lag.ms`.
const MIN_COMPACTION_LAG_MS: i64 = 20_000;
/// `delete.retention.ms`, unless it is lower for a while.
const DELETE_RETENTION_MS: i64 = 25_000;
/// How long a fold is usable, from these two.
pub(super) const CANARY_LIMIT_MS: i64 = DELETE_RETENTION_MS / 2;
/// The engine promises nothing if outage, loading and delay together last longer than both of these, so compaction
/// waits for the owner: its records are settled once it has worked for this long since it read them.
const SETTLED_AFTER_MS: i64 = 12_000;
/// After a pass over one replica the other replicas in sync have theirs within this. Otherwise a record would stay on
/// one replica until another has removed its tombstone, and a leader change would give a reader the record alone.
const CLEANERS_APART_MS_MAX: i64 = 4_000;

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

    /// Compacts a partition, on one replica or on all: at any time, but only records that are old enough.
    pub(super) fn compact(&mut self, partition: u8, replica: u8, tombstones: bool) {
        let partition = self.partition(partition);
        let count = self.log_mut(partition).replicas();
        let chosen = usize::from(replica).checked_sub(1).map(|replica| replica % count);
        let mut gone = Compacted::default();
        for replica in 0..count {
            if chosen.is_none_or(|chosen| chosen == replica) {
                gone.add(self.clean(partition, replica, tombstones));
            } else if !self.history.setup.stale_replicas {
                let delay_ms = self.rng.range(1, CLEANERS_APART_MS_MAX);
                self.after(delay_ms, Event::Clean(partition, replica));
            }
        }
        if gone.records > 0 {
            self.record_hit_on(Fault::Compaction, partition);
        }
        if gone.tombstones > 0 {
            self.record_hit_on(Fault::OldTombstones, partition);
        }
    }

    /// Does a pass over one replica.
    pub(super) fn clean(&mut self, partition: TopicPartition, replica: usize, tombstones: bool) -> Compacted {
        let now = self.now_ms;
        let settled_ms = self.steady.get(&partition).map_or(i64::MIN, |steady| steady.before_ms);
        let before_ms = settled_ms.min(now - MIN_COMPACTION_LAG_MS);
        let how = Compaction { before_ms, retention_ms: self.retention_ms(), tombstones };
        let gone = self.log_mut(partition).clean(replica, now, how);
        self.trace(|| format!("broker {partition:?} is compacted on replica {replica}: {gone:?}"));
        if gone.stamped > 0 && how.retention_ms < DELETE_RETENTION_MS {
            self.record_hit_on(Fault::LowerRetention, partition);
        }
        gone
    }

    fn retention_ms(&self) -> i64 {
        let (until_ms, lower_ms) = self.lower_retention;
        if until_ms > self.now_ms { lower_ms } else { DELETE_RETENTION_MS }
    }

    /// Makes another replica the leader of a partition.
    pub(super) fn change_leader(&mut self, partition: u8) {
        let partition = self.partition(partition);
        if self.log_mut(partition).change_leader() {
            self.record_hit_on(Fault::LeaderChange, partition);
        }
    }

    /// Takes a replica away for a while.
    pub(super) fn take_replica_away(&mut self, partition: u8, replica: u8, for_ms: i64) {
        let partition = self.partition(partition);
        let log = self.log_mut(partition);
        let replica = usize::from(replica) % log.replicas();
        if log.go_away(replica) {
            self.record_hit_on(Fault::ReplicaAway, partition);
            self.after(for_ms, Event::ReplicaBack(partition, replica, self.now_ms));
        }
    }

    /// Lets a replica come back. If it was away for long, an operator has deleted its log: it might have a record whose
    /// tombstone is gone everywhere.
    pub(super) fn bring_replica_back(&mut self, partition: TopicPartition, replica: usize, away_since_ms: i64) {
        let is_stale = self.now_ms - away_since_ms >= MIN_COMPACTION_LAG_MS;
        let is_empty = is_stale && !self.history.setup.stale_replicas;
        self.log_mut(partition).come_back(replica, is_empty);
        self.trace(|| format!("broker {partition:?} has replica {replica} back, without its log: {is_empty}"));
        if !self.history.setup.stale_replicas {
            // It may have missed a pass.
            self.clean(partition, replica, false);
        }
    }

    /// Wraps the number of a partition around.
    pub(super) fn partition(&self, number: u8) -> TopicPartition {
        self.history.partitions[usize::from(number) % self.history.partitions.len()]
    }

    fn log_mut(&mut self, partition: TopicPartition) -> &mut Log {
        self.history.kafka.logs.get_mut(&LogId::Schedules(partition)).expect("it is one of ours")
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
            for replica in 0..self.log_mut(partition).replicas() {
                self.clean(partition, replica, true);
            }
        }
    }
}
