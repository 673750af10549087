//! An instance reads records, committed offsets and start markers, and fences former owners.

use kafka_scheduler::core::io::{Header, Input, Millis, Record, RequestId, TopicPartition};
use kafka_scheduler::core::ownership::Ownership;

use super::{Task, World};
use crate::bugs::{self, Bug};
use crate::engine;
use crate::faults::Fault;
use crate::history::Entry;
use crate::kafka::LogId;

/// Longest time between two fetches of a consumer that is not slow.
const FETCH_INTERVAL_MS: i64 = 60;
/// `fetch.max.wait.ms`: how long a broker holds a fetch from the end of a log.
const FETCH_WAIT_TIMEOUT_MS: i64 = 200;

impl World {
    pub(super) fn fetch(&mut self, number: usize) {
        let now = self.now_ms;
        let instance = &mut self.instances[number];
        let slow_until_ms = instance.slow_consumer_until_ms;
        let slow_ms = if slow_until_ms > now { instance.slow_consumer_ms } else { 0 };
        let delay = instance.rng.range(2, FETCH_INTERVAL_MS + slow_ms);
        let partitions: Vec<TopicPartition> = instance.owned.keys().copied().collect();
        if delay > FETCH_INTERVAL_MS && !partitions.is_empty() {
            self.record_hit_once(Fault::SlowConsumer, number, slow_until_ms);
        }
        self.later(number, delay, Task::Fetch);
        for partition in partitions {
            let instance = &mut self.instances[number];
            let count = instance.rng.index(30);
            let Some(from) = instance.owned.get(&partition).copied() else { continue };
            let log = self.history.kafka.log(LogId::Schedules(partition));
            let (found, next) = match bugs::on(Bug::ReadUncommitted) {
                true => log.read_uncommitted(from, count),
                false => log.read(from, count),
            };
            if next == log.last_stable() {
                instance.caught_up_ms.insert(partition, now);
            }
            let found: Vec<_> = found.into_iter().map(|(offset, stored)| (offset, stored.clone())).collect();
            instance.owned.insert(partition, next);
            for (offset, stored) in found {
                let headers: Vec<Header<'_>> =
                    stored.headers.iter().map(|(name, v)| Header { name, value: v.as_deref() }).collect();
                let (key, value) = (stored.key.as_deref(), stored.value.as_deref());
                let timestamp = Millis(stored.at_ms);
                let record = Record { partition, offset, timestamp, key, value, headers: &headers };
                self.history.add(Entry::Read { instance: number, partition, offset });
                self.feed(number, Input::Record(record));
                if self.instances[number].owned.get(&partition) != Some(&next) {
                    // The partition was released, or is read again from its beginning.
                    break;
                }
            }
        }
    }

    pub(super) fn read_committed(&mut self, number: usize, partition: TopicPartition, until_ms: i64) {
        if self.history.kafka.has_pending_offset(partition) && self.now_ms < until_ms {
            return self.later(number, 50, Task::ReadCommitted(partition, until_ms));
        }
        let known = self.history.kafka.committed.get(&partition).cloned();
        if self.history.kafka.has_pending_offset(partition) {
            // The wait has ended, so an earlier transaction's offset counts. The owner that it names may have
            // released the partition since, and is fenced without need.
            let ownership = known.as_ref().and_then(|(_, metadata)| Ownership::decode(metadata.as_bytes()));
            self.named_late.extend(ownership.into_iter().flat_map(|o| o.owners_to_fence.into_iter().chain([o.owner])));
        }
        let (offset, metadata) = known.map_or((None, String::new()), |(offset, metadata)| (Some(offset), metadata));
        self.feed(number, Input::Committed { partition, offset, metadata: metadata.as_bytes() });
    }

    pub(super) fn fence(&mut self, number: usize, request: RequestId, ids: Vec<String>, generation: i32) {
        let now = self.now_ms;
        // A failed fence is not fatal.
        if self.fences_fail_until_ms > now {
            self.record_hit_once(Fault::FencesFail, number, self.fences_fail_until_ms);
        }
        if self.instances[number].generation == generation && self.fences_fail_until_ms <= now {
            let mut waiting = Vec::new();
            for id in ids {
                let named_late = id.rsplit_once('.').is_some_and(|(stem, _)| {
                    self.named_late.iter().any(|owner| stem.strip_suffix(owner.as_str()) == Some("g."))
                });
                if let Some(owner) = self.uses(&id).filter(|owner| *owner != number && !named_late) {
                    let broken = format!("i{number} fences {id}, which i{owner} uses");
                    return self.violation(broken);
                }
                if self.history.kafka.init(&id, now).is_err() {
                    waiting.push(id);
                }
            }
            if !waiting.is_empty() {
                return self.later(number, 20, Task::Fence(request, waiting, generation));
            }
        }
        self.feed(number, Input::Fenced { request });
    }

    /// Returns the instance that writes under this transactional id, if it is in the group.
    fn uses(&self, id: &str) -> Option<usize> {
        let uses = self.instances.iter().find(|instance| instance.is_alive() && instance.transactors.writes_as(id))?;
        let member = uses.member.as_deref().filter(|member| self.history.kafka.group.knows(member));
        member.map(|_| uses.number)
    }

    /// Delivers a partition again from its beginning, as after the log was truncated or the topic created again.
    pub(super) fn rewind(&mut self, number: usize) {
        let instance = &mut self.instances[number];
        let read = instance.owned.iter().find(|(_, position)| **position > 0);
        let Some((partition, _)) = read.filter(|_| instance.is_alive()) else { return };
        let partition = *partition;
        instance.owned.insert(partition, 0);
        self.record_hit(Fault::Rewind, number);
        self.trace(|| format!("i{number}     is given {partition:?} from its beginning again"));
    }

    pub(super) fn find_since(&mut self, number: usize, request: RequestId, topic: u16, known: Vec<i32>) {
        if bugs::on(Bug::WaitsForEmptyFetch) && self.is_written_to(topic, &known) {
            return self.later(number, FETCH_WAIT_TIMEOUT_MS, Task::FindSince(request, topic, known));
        }
        let since = engine::since_of(&self.history.kafka, &self.history.partitions, topic, &known);
        let leftover_cutoff = self.instances[number].leftover_cutoff(self.now_ms, &self.history.setup);
        self.feed(number, Input::Since { request, since, leftover_cutoff });
    }

    /// Whether the search for `since` has to read logs, and a fetch from the end of one of them would not return empty.
    fn is_written_to(&self, topic: u16, known: &[i32]) -> bool {
        let unknown = |p: &&TopicPartition| p.topic == topic && !known.contains(&p.number);
        let is_written = |p: &TopicPartition| {
            let log = self.history.kafka.log(LogId::Schedules(*p));
            let (found, _) = log.read_uncommitted((log.end() - 1).max(0), 1);
            found.first().is_some_and(|(_, stored)| stored.at_ms > self.now_ms - FETCH_WAIT_TIMEOUT_MS)
        };
        engine::committed_since(&self.history.kafka, topic).is_empty()
            && self.history.partitions.iter().filter(unknown).any(is_written)
    }
}
