//! An instance's membership of the group: joining, heartbeats, rebalances, leaving.

use std::collections::BTreeSet;

use kafka_scheduler::core::io::{Input, TopicPartition};

use super::{Event, Task, World};
use crate::bugs::{self, Bug};
use crate::faults::Fault;
use crate::kafka::group::Answer;

impl World {
    pub(super) fn join(&mut self, number: usize) {
        let now = self.now_ms;
        let instance = &mut self.instances[number];
        if instance.rejoin_ms > now || instance.stopping_down_ms.is_some() {
            return;
        }
        if instance.member.is_none() {
            instance.joins += 1;
            instance.member = Some(format!("i{number}.{}.{}", instance.run, instance.joins));
        }
        let owned = instance.owned.keys().copied().collect();
        self.history.kafka.group.join(instance.member.as_ref().expect("just set"), owned, now);
    }

    pub(super) fn leave(&mut self, number: usize) {
        self.forget(number);
        let instance = &mut self.instances[number];
        instance.owned.clear();
        instance.releasing.clear();
        instance.generation = -1;
        let slow_ms = if instance.slow_network_until_ms > self.now_ms { instance.slow_network_ms } else { 50 };
        let delay = instance.rng.range(1, slow_ms.max(1));
        if let Some(member) = instance.member.take() {
            self.after(delay, Event::Leave(member));
        }
    }

    /// Leaves the group and joins it again a little later.
    pub(super) fn rejoin(&mut self, number: usize) {
        if bugs::on(Bug::NoSelfFence) {
            // It stays a member, so the generation does not fence its own former transactions.
            self.forget(number);
            let owned: Vec<TopicPartition> = self.instances[number].owned.keys().copied().collect();
            self.instances[number].owned.values_mut().for_each(|position| *position = 0);
            let leftover_cutoff = self.instances[number].leftover_cutoff(self.now_ms, &self.history.setup);
            return self.feed(number, Input::Assigned { partitions: &owned, leftover_cutoff });
        }
        self.leave(number);
        let instance = &mut self.instances[number];
        instance.rejoin_ms = self.now_ms + instance.rng.range(500, 1_000);
    }

    pub(super) fn release(&mut self, number: usize, partitions: &[TopicPartition]) {
        let instance = &mut self.instances[number];
        if bugs::on(Bug::ReleaseBeforeSettle) {
            return;
        }
        for partition in partitions {
            if !instance.releasing.remove(partition) {
                let broken = format!("i{number} releases {partition:?}, which is not being revoked");
                return self.violation(broken);
            }
        }
        self.give_back(number, partitions);
    }

    fn give_back(&mut self, number: usize, partitions: &[TopicPartition]) {
        let now = self.now_ms;
        for partition in partitions {
            if self.instances[number].core.retired().any(|retired| retired == *partition) {
                self.take_last_snapshot(number, *partition);
            }
            self.instances[number].owned.remove(partition);
            self.forget_partition(number, *partition);
        }
        let done = self.instances[number].releasing.is_empty();
        self.trace(|| format!("i{number}     releases {partitions:?}"));
        // A member that the group has removed learns that from its next heartbeat.
        let member = self.instances[number].member.clone().filter(|member| self.history.kafka.group.knows(member));
        if done && let Some(member) = member {
            let owned = self.instances[number].owned.keys().copied().collect();
            self.history.kafka.group.join(&member, owned, now);
        }
    }

    pub(super) fn beat(&mut self, number: usize) {
        let delay = self.instances[number].rng.range(100, 600);
        self.later(number, delay, Task::Beat);
        self.replace_producers(number);
        let Some(member) = self.instances[number].member.clone() else { return self.join(number) };
        if let Some(until_ms) = self.history.kafka.group.is_held(self.now_ms) {
            self.record_hit_once(Fault::SlowRebalance, number, until_ms);
        }
        if bugs::on(Bug::PlainCommits) {
            self.commit_plain(number, &member);
        }
        match self.history.kafka.group.beat(&member, self.now_ms) {
            Answer::Stable => {}
            // It releases revoked partitions before it joins again.
            Answer::Rebalance if !self.instances[number].releasing.is_empty() => {}
            Answer::Rebalance => self.join(number),
            Answer::Synced(generation, assigned) => self.synced(number, generation, &assigned),
            Answer::Unknown => {
                let instance = &mut self.instances[number];
                let lost: Vec<TopicPartition> = instance.owned.keys().copied().collect();
                self.leave(number);
                self.trace(|| format!("i{number}     loses {lost:?}"));
                if !lost.is_empty() {
                    self.feed(number, Input::Lost { partitions: &lost });
                }
                self.join(number);
            }
        }
    }

    fn synced(&mut self, number: usize, generation: i32, assigned: &BTreeSet<TopicPartition>) {
        let leftover_cutoff = self.instances[number].leftover_cutoff(self.now_ms, &self.history.setup);
        let instance = &mut self.instances[number];
        instance.generation = generation;
        let taken: Vec<TopicPartition> = instance.owned.keys().filter(|p| !assigned.contains(p)).copied().collect();
        let given: Vec<TopicPartition> = assigned.iter().filter(|p| !instance.owned.contains_key(p)).copied().collect();
        let folds: Vec<_> = given
            .iter()
            .filter_map(|partition| {
                let (snapshot, fold) = self.stored_fold(number, *partition)?;
                Some((*partition, snapshot, fold))
            })
            .collect();
        let instance = &mut self.instances[number];
        for partition in &given {
            let from = match self.history.kafka.committed.get(partition) {
                Some((offset, _)) if bugs::on(Bug::StartsAtCommittedOffset) => *offset,
                _ => 0,
            };
            instance.owned.insert(*partition, from);
            instance.caught_up_ms.remove(partition);
        }
        instance.releasing = taken.iter().copied().collect();
        for partition in &given {
            self.forget_partition(number, *partition);
        }
        self.trace(|| format!("i{number}     generation {generation}, given {given:?}, to release {taken:?}"));
        self.feed(number, Input::Generation(generation));
        if !taken.is_empty() {
            if bugs::on(Bug::ReleaseBeforeSettle) {
                self.instances[number].releasing.clear();
                self.give_back(number, &taken);
            }
            self.feed(number, Input::Revoked { partitions: &taken });
        }
        if !given.is_empty() {
            self.feed(number, Input::Assigned { partitions: &given, leftover_cutoff });
            self.restore(number, folds);
        }
    }

    /// Commits positions as a consumer with `enable.auto.commit` does.
    fn commit_plain(&mut self, number: usize, member: &str) {
        let instance = &self.instances[number];
        let offsets = instance.owned.iter().map(|(p, offset)| (*p, *offset, String::new())).collect();
        let _ = self.history.kafka.commit_plain((member, instance.generation), offsets);
    }
}
