//! The group's rebalances, answered when the core says so.

use std::collections::BTreeSet;
use std::time::Instant;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer;

use super::Pump;
use crate::core::io::{Input, TopicPartition};
use crate::kafka::group::{self, Rebalance};

/// A revocation whose partitions are not all released.
pub struct Revocation {
    /// As the group gave it.
    pub list: TopicPartitionList,
    waiting: BTreeSet<TopicPartition>,
}

impl Pump {
    /// Answers rebalances one after the other: the next waits until the last has its answer.
    pub(super) fn rebalance(&mut self) {
        while self.revocation.is_none() {
            let Some(member) = self.member.clone() else { return };
            let Some(event) = member.consumer().context().next() else { return };
            self.observer.rebalanced();
            match event {
                Rebalance::Assign(list) => {
                    let partitions = self.partitions(&list);
                    tracing::info!(partitions = list.count(), "partitions assigned");
                    if !group::take(&member, list) {
                        return self.unanswered();
                    }
                    self.is_member = true;
                    self.settings.voice.joined();
                    self.publish_at = Instant::now();
                    self.check_generation();
                    let leftover_cutoff = self.clock.leftover_cutoff(self.config.since_delta_days);
                    self.input(Input::Assigned { partitions: &partitions, leftover_cutoff });
                }
                Rebalance::Revoke(list) => {
                    let partitions = self.partitions(&list);
                    tracing::info!(partitions = list.count(), "partitions revoked");
                    self.check_generation();
                    let waiting = partitions.iter().copied().collect();
                    self.revocation = Some(Revocation { list, waiting });
                    self.input(Input::Revoked { partitions: &partitions });
                    self.release(&[]);
                }
                Rebalance::Lost(list) => {
                    let partitions = self.partitions(&list);
                    tracing::warn!(partitions = list.count(), "partitions lost: this instance was away too long");
                    // The group has thrown this instance out: it waits to be taken in again.
                    self.is_member = false;
                    self.publish_at = Instant::now();
                    let taken = group::answer(member.consumer(), &Rebalance::Lost(list));
                    self.input(Input::Lost { partitions: &partitions });
                    if !taken {
                        return self.unanswered();
                    }
                }
            }
        }
    }

    pub(super) fn release(&mut self, partitions: &[TopicPartition]) {
        let Some(revocation) = &mut self.revocation else { return };
        for partition in partitions {
            revocation.waiting.remove(partition);
        }
        if revocation.waiting.is_empty()
            && let (Some(revocation), Some(member)) = (self.revocation.take(), &self.member)
            && !group::answer(member.consumer(), &Rebalance::Revoke(revocation.list))
        {
            self.unanswered();
        }
    }

    fn unanswered(&mut self) {
        self.input(Input::PositionInvalid { why: "a rebalance could not be answered" });
    }

    fn partitions(&self, list: &TopicPartitionList) -> Vec<TopicPartition> {
        list.elements()
            .iter()
            .filter_map(|element| self.partition(element.topic().as_bytes(), element.partition()))
            .collect()
    }
}
