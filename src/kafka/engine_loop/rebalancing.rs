//! Membership in the consumer group: joining, rebalances, which wait until the core has released their partitions, and
//! rejoining.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer;

use super::EngineLoop;
use crate::core::io::{Input, TopicPartition};
use crate::kafka::ffi;
use crate::kafka::group::{self, GroupConsumer, Rebalance};
use crate::kafka::restoring::Restored;

/// Before the group is rejoined; doubled each time, until a transaction has been committed.
const REJOIN_DELAY_MIN: Duration = Duration::from_millis(500);
const REJOIN_DELAY_MAX: Duration = Duration::from_secs(5);

/// The instance's membership in the group.
pub(super) struct GroupState {
    pub consumer: Option<Arc<GroupConsumer>>,
    revocation: Option<Revocation>,
    /// The group has answered since it was last joined.
    pub is_member: bool,
    /// The generation that the core knows.
    pub generation: Option<i32>,
    /// The broker rejected this generation.
    pub is_generation_stale: bool,
    /// Partitions that were set back since the last records were fetched.
    pub rewound: Vec<TopicPartition>,
    rejoin_at: Option<Instant>,
    rejoin_delay: Duration,
}

/// A revocation whose partitions are not all released.
struct Revocation {
    /// As the group sent it.
    list: TopicPartitionList,
    waiting: BTreeSet<TopicPartition>,
}

impl GroupState {
    pub(super) fn new() -> Self {
        Self {
            consumer: None,
            revocation: None,
            is_member: false,
            generation: None,
            is_generation_stale: false,
            rewound: Vec::new(),
            rejoin_at: Some(Instant::now()),
            rejoin_delay: REJOIN_DELAY_MIN,
        }
    }

    pub(super) fn reset_rejoin_delay(&mut self) {
        self.rejoin_delay = REJOIN_DELAY_MIN;
    }

    fn rejoin_later(&mut self) {
        self.rejoin_at = Some(Instant::now() + self.rejoin_delay);
        self.rejoin_delay = (self.rejoin_delay * 2).min(REJOIN_DELAY_MAX);
    }

    /// Leaves the group. The receiver disconnects when the group has been left.
    pub(super) fn leave(&mut self) -> Option<Receiver<()>> {
        let consumer = self.consumer.take();
        let pending = self.revocation.take().map(|revocation| Rebalance::Revoke(revocation.list));
        consumer.map(|consumer| group::leave(consumer, pending))
    }
}

impl EngineLoop {
    pub(super) fn join(&mut self) {
        if self.group.rejoin_at.is_none_or(|at| at > Instant::now()) {
            return;
        }
        self.group.rejoin_at = None;
        let worker = &self.requests.worker;
        match group::join(&self.clients, &self.topics, &worker.rebalances, &worker.wake) {
            Ok(consumer) => self.group.consumer = Some(consumer),
            Err(error) => {
                tracing::error!(%error, "the group cannot be joined; trying again");
                self.group.rejoin_later();
            }
        }
    }

    pub(super) fn rejoin(&mut self, why: &str) {
        tracing::warn!(why, "rejoining and reloading from the log");
        drop(self.group.leave());
        self.group.is_member = false;
        self.group.generation = None;
        self.group.is_generation_stale = false;
        self.running_batches.formed_at.clear();
        self.requests.reads.clear();
        self.group.rejoin_later();
    }

    pub(super) fn check_generation(&mut self) {
        let generation = self.group.consumer.as_ref().and_then(|consumer| ffi::generation(consumer.base()));
        let Some((generation, _)) = generation else { return };
        if self.group.generation != Some(generation) {
            self.group.generation = Some(generation);
            self.input(Input::Generation(generation));
        }
    }

    /// Answers rebalances one after the other: the next one waits until the last one has its answer.
    pub(super) fn rebalance(&mut self) {
        while self.group.revocation.is_none() {
            let Some(consumer) = self.group.consumer.clone() else { return };
            let Some(event) = consumer.base().context().next() else { return };
            self.reporter.observer.rebalanced();
            match event {
                Rebalance::Assign(list) => {
                    let partitions = self.partitions(&list);
                    tracing::info!(partitions = list.count(), "partitions assigned");
                    let folds = self.take_restored(&partitions);
                    let start = |(partition, restored): &(TopicPartition, Restored)| {
                        let topic = self.topics[usize::from(partition.topic)].as_str();
                        (topic, partition.number, restored.fold.position())
                    };
                    if !group::assign(&consumer, list, &folds.iter().map(start).collect::<Vec<_>>()) {
                        return self.on_unanswered_rebalance();
                    }
                    self.group.is_member = true;
                    self.clients.diagnostics.on_group_joined();
                    self.reporter.publish_soon();
                    self.check_generation();
                    let leftover_cutoff = self.clock.leftover_cutoff(self.config.since_delta_days());
                    self.input(Input::Assigned { partitions: &partitions, leftover_cutoff });
                    self.go_on_from(folds);
                }
                Rebalance::Revoke(list) => {
                    let partitions = self.partitions(&list);
                    tracing::info!(partitions = list.count(), "partitions revoked");
                    self.check_generation();
                    let waiting = partitions.iter().copied().collect();
                    self.group.revocation = Some(Revocation { list, waiting });
                    self.input(Input::Revoked { partitions: &partitions });
                    self.release(&[]);
                }
                Rebalance::Lost(list) => {
                    let partitions = self.partitions(&list);
                    tracing::warn!(partitions = list.count(), "partitions lost: this instance was away too long");
                    // The group has removed this instance, which joins again.
                    self.group.is_member = false;
                    self.reporter.publish_soon();
                    let is_answered = group::answer(consumer.base(), &Rebalance::Lost(list));
                    self.input(Input::Lost { partitions: &partitions });
                    if !is_answered {
                        return self.on_unanswered_rebalance();
                    }
                }
            }
        }
    }

    pub(super) fn release(&mut self, partitions: &[TopicPartition]) {
        let Some(revocation) = &mut self.group.revocation else { return };
        for partition in partitions {
            revocation.waiting.remove(partition);
        }
        if revocation.waiting.is_empty()
            && let (Some(revocation), Some(consumer)) = (self.group.revocation.take(), &self.group.consumer)
            && !group::answer(consumer.base(), &Rebalance::Revoke(revocation.list))
        {
            self.on_unanswered_rebalance();
        }
    }

    fn on_unanswered_rebalance(&mut self) {
        self.input(Input::PositionInvalid { why: "a rebalance could not be answered" });
    }

    fn partitions(&self, list: &TopicPartitionList) -> Vec<TopicPartition> {
        list.elements()
            .iter()
            .filter_map(|element| self.partition(element.topic().as_bytes(), element.partition()))
            .collect()
    }
}
