//! An instance: the core and a shell that carries out its outputs against the model.

use std::collections::{BTreeMap, BTreeSet};

use kafka_scheduler::core::io::{Cursor, Header, Input, Millis, Output, Partition, Record, TargetState};
use kafka_scheduler::core::mark::FLOOR_KEY;
use kafka_scheduler::core::owner::Ownership;
use kafka_scheduler::core::payload::Parts;
use kafka_scheduler::core::{Config, Phase, Scheduler, floor::Floor, mark};

use super::transact::Transactors;
use super::{CLUSTER, TOPIC, Todo, World};
use crate::kafka::Place;
use crate::kafka::group::Answer;
use crate::rng::Rng;

const DAY_MS: i64 = 86_400_000;

/// A process and what it remembers.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(super) number: usize,
    /// Counts its starts; what was meant for an earlier life is dropped.
    pub(super) life: u64,
    alive: bool,
    pub(super) paused_until_ms: i64,
    pub(super) core: Scheduler,
    pub(super) member: Option<String>,
    pub(super) generation: i32,
    joins: u64,
    /// Partitions read, with the next offset of each.
    owned: BTreeMap<Partition, i64>,
    releasing: BTreeSet<Partition>,
    pub(super) transactors: Transactors,
    wake_ms: i64,
}

impl Instance {
    pub(super) fn new(number: usize, life: u64, rng: &mut Rng) -> Self {
        let config = Config {
            cluster: CLUSTER.into(),
            topics: vec![TOPIC.into()],
            history: "history".into(),
            group: "g".into(),
            run: format!("{number:x}a{life:x}"),
            grace_s: None,
            horizon_s: None,
            transactors: 1 + rng.index(2),
            batch_items_max: 1 + rng.index(8),
            batch_bytes_max: 1 << 16,
            hash_seed: rng.bits(),
        };
        let core = Scheduler::new(config);
        let transactors = Transactors::new(core.transactional_ids());
        Self {
            number,
            life,
            alive: false,
            paused_until_ms: i64::MIN,
            core,
            member: None,
            generation: -1,
            joins: 0,
            owned: BTreeMap::new(),
            releasing: BTreeSet::new(),
            transactors,
            wake_ms: i64::MAX,
        }
    }

    pub(super) fn is_alive(&self) -> bool {
        self.alive
    }

    pub(super) fn is_busy(&self) -> bool {
        self.transactors.is_busy()
    }

    pub(super) fn kill(&mut self) {
        self.alive = false;
        self.transactors.forget();
    }

    pub(super) fn pending(&self) -> Vec<(Partition, Vec<u8>, i64)> {
        let (listed, _) = self.core.list(Cursor::default(), usize::MAX);
        listed.into_iter().map(|l| (l.partition, Parts::unpack(&l.packed).key.to_vec(), l.offset)).collect()
    }

    pub(super) fn live(&self) -> Vec<Partition> {
        let live = |s: &&kafka_scheduler::core::Status| s.phase == Phase::Live;
        self.core.status().iter().filter(live).map(|s| s.partition).collect()
    }

    pub(super) fn describe(&self) -> String {
        let Self { number, alive, member, generation, core, transactors, .. } = self;
        let status = core.status();
        format!("i{number} alive {alive} {member:?} generation {generation} {status:?} {}", transactors.describe())
    }
}

impl World {
    pub(super) fn start(&mut self, number: usize) {
        self.instances[number].alive = true;
        self.trace(|| format!("i{number}     starts"));
        self.join(number);
        self.later(number, 50, Todo::Beat);
        self.later(number, 20, Todo::Fetch);
    }

    pub(super) fn unreadable(&mut self, number: usize) {
        self.tell(number, Input::Unreadable { why: "the model says so" });
    }

    fn join(&mut self, number: usize) {
        let now = self.now_ms;
        let instance = &mut self.instances[number];
        if instance.transactors.is_renewing() {
            return;
        }
        if instance.member.is_none() {
            instance.joins += 1;
            instance.member = Some(format!("i{number}.{}.{}", instance.life, instance.joins));
        }
        let owned = instance.owned.keys().copied().collect();
        self.kafka.group.join(instance.member.as_ref().expect("just set"), owned, now);
    }

    pub(super) fn act(&mut self, number: usize, todo: Todo) {
        match todo {
            Todo::Beat => self.beat(number),
            Todo::Fetch => self.fetch(number),
            Todo::Wake => {
                self.instances[number].wake_ms = i64::MAX;
                self.tell(number, Input::Tick);
            }
            Todo::Job(batch) => self.job(number, batch),
            Todo::Settle(batch, ending) => self.settle(number, batch, ending),
            Todo::Renew => self.renew(number),
            Todo::ReadCommitted(partition, until) => self.read_committed(number, partition, until),
            Todo::Fence(take, ids, generation) => self.fence(number, take, ids, generation),
            Todo::FindSince(topic, known) => self.find_since(number, topic, &known),
            Todo::Target(target, state) => self.tell(number, Input::Target { target, state }),
        }
    }

    /// Feeds the core and carries out what it wants.
    pub(super) fn tell(&mut self, number: usize, input: Input<'_>) {
        let now = Millis(self.now_ms);
        self.instances[number].core.handle(now, input);
        while let Some(output) = self.instances[number].core.poll() {
            self.carry_out(number, output);
        }
        let Some((at, _)) = self.instances[number].core.poll_timeout() else { return };
        if at.0 < self.instances[number].wake_ms {
            self.instances[number].wake_ms = at.0;
            let delay = (at.0 - self.now_ms).max(0);
            self.later(number, delay, Todo::Wake);
        }
    }

    fn carry_out(&mut self, number: usize, output: Output) {
        let delay = self.rng.range(1, 30);
        let until = self.now_ms + 1_000;
        match output {
            Output::ReadCommitted(partitions) => {
                for partition in partitions {
                    self.later(number, delay, Todo::ReadCommitted(partition, until));
                }
            }
            Output::Fence { take, transactional_ids } => {
                self.trace(|| format!("i{number}     fences {transactional_ids:?}"));
                let generation = self.instances[number].generation;
                self.later(number, delay, Todo::Fence(take, transactional_ids, generation));
            }
            Output::FindSince { topic, known } => self.later(number, delay, Todo::FindSince(topic, known)),
            Output::CheckTarget { target, .. } => self.later(number, delay, Todo::Target(target, TargetState::Exists)),
            Output::Transact(batch) => self.transact(number, batch),
            Output::Seek(partition) => {
                if let Some(position) = self.instances[number].owned.get_mut(&partition) {
                    *position = 0;
                }
            }
            Output::Release(partitions) => self.release(number, &partitions),
            Output::Renew { transactional_ids } => {
                self.trace(|| format!("i{number}     renews: {transactional_ids:?}"));
                self.instances[number].transactors.renew(transactional_ids);
                self.later(number, delay, Todo::Renew);
            }
            Output::Restart(why) => {
                self.trace(|| format!("i{number}     restarts: {why}"));
                self.leave(number);
            }
            Output::Stopped => self.broken = Some("nobody asked it to stop".to_owned()),
            Output::Report(report) => self.trace(|| format!("i{number}     {report:?}")),
        }
    }

    fn leave(&mut self, number: usize) {
        let instance = &mut self.instances[number];
        if let Some(member) = instance.member.take() {
            self.kafka.group.leave(&member);
        }
        instance.owned.clear();
        instance.releasing.clear();
        instance.generation = -1;
        // It joins again when the new transactional ids are ready.
    }

    fn release(&mut self, number: usize, partitions: &[Partition]) {
        let instance = &mut self.instances[number];
        let now = self.now_ms;
        for partition in partitions {
            if !instance.releasing.remove(partition) {
                self.broken = Some(format!("i{number} releases {partition:?}, which nobody wants back"));
                return;
            }
            instance.owned.remove(partition);
        }
        let done = instance.releasing.is_empty();
        self.trace(|| format!("i{number}     releases {partitions:?}"));
        // A member that was thrown out meanwhile is told so by its next heartbeat.
        let member = self.instances[number].member.clone().filter(|member| self.kafka.group.knows(member));
        if done && let Some(member) = member {
            let owned = self.instances[number].owned.keys().copied().collect();
            self.kafka.group.join(&member, owned, now);
        }
    }

    fn beat(&mut self, number: usize) {
        let delay = self.rng.range(100, 600);
        self.later(number, delay, Todo::Beat);
        let Some(member) = self.instances[number].member.clone() else { return self.join(number) };
        match self.kafka.group.beat(&member, self.now_ms) {
            Answer::Stable => {}
            // A revocation is answered first.
            Answer::Rebalance if !self.instances[number].releasing.is_empty() => {}
            Answer::Rebalance => self.join(number),
            Answer::Synced(generation, assigned) => self.synced(number, generation, &assigned),
            Answer::Unknown => {
                let instance = &mut self.instances[number];
                let lost: Vec<Partition> = instance.owned.keys().copied().collect();
                self.leave(number);
                self.trace(|| format!("i{number}     loses {lost:?}"));
                if !lost.is_empty() {
                    self.tell(number, Input::Lost { partitions: &lost });
                }
                self.join(number);
            }
        }
    }

    fn synced(&mut self, number: usize, generation: i32, assigned: &BTreeSet<Partition>) {
        let instance = &mut self.instances[number];
        instance.generation = generation;
        let taken: Vec<Partition> = instance.owned.keys().filter(|p| !assigned.contains(p)).copied().collect();
        let given: Vec<Partition> = assigned.iter().filter(|p| !instance.owned.contains_key(p)).copied().collect();
        instance.owned.extend(given.iter().map(|p| (*p, 0)));
        instance.releasing = taken.iter().copied().collect();
        self.trace(|| format!("i{number}     generation {generation}, given {given:?}, to release {taken:?}"));
        self.tell(number, Input::Generation(generation));
        if !taken.is_empty() {
            self.tell(number, Input::Revoked { partitions: &taken });
        }
        if !given.is_empty() {
            let today = Millis(self.now_ms.div_euclid(DAY_MS) * DAY_MS);
            self.tell(number, Input::Assigned { partitions: &given, today });
        }
    }

    fn fetch(&mut self, number: usize) {
        let delay = self.rng.range(2, 60);
        self.later(number, delay, Todo::Fetch);
        let partitions: Vec<Partition> = self.instances[number].owned.keys().copied().collect();
        for partition in partitions {
            let count = self.rng.index(30);
            let from = self.instances[number].owned.get(&partition).copied().unwrap_or(0);
            let (found, next) = self.kafka.log(Place::Schedules(partition)).read(from, count);
            let found: Vec<_> = found.into_iter().map(|(offset, stored)| (offset, stored.clone())).collect();
            let Some(position) = self.instances[number].owned.get_mut(&partition) else { continue };
            *position = next;
            for (offset, stored) in found {
                let headers: Vec<Header<'_>> =
                    stored.headers.iter().map(|(name, v)| Header { name, value: v.as_deref() }).collect();
                let (key, value) = (stored.key.as_deref(), stored.value.as_deref());
                let timestamp = Millis(stored.at_ms);
                let record = Record { partition, offset, timestamp, key, value, headers: &headers };
                self.tell(number, Input::Record(record));
                if self.instances[number].owned.get(&partition) != Some(&next) {
                    // Released, or read again from the beginning.
                    break;
                }
            }
        }
    }

    fn read_committed(&mut self, number: usize, partition: Partition, until_ms: i64) {
        if self.kafka.has_pending_offset(partition) && self.now_ms < until_ms {
            return self.later(number, 50, Todo::ReadCommitted(partition, until_ms));
        }
        let known = self.kafka.committed.get(&partition).cloned();
        let (offset, metadata) = known.map_or((None, String::new()), |(offset, metadata)| (Some(offset), metadata));
        self.tell(number, Input::Committed { partition, offset, metadata: metadata.as_bytes() });
    }

    fn fence(&mut self, number: usize, take: u64, ids: Vec<String>, generation: i32) {
        let now = self.now_ms;
        // A fence that fails is not fatal.
        if self.instances[number].generation == generation && !self.hits("fence", 50) {
            let waiting: Vec<String> = ids.into_iter().filter(|id| self.kafka.init(id, now).is_err()).collect();
            if !waiting.is_empty() {
                return self.later(number, 20, Todo::Fence(take, waiting, generation));
            }
        }
        self.tell(number, Input::Fenced { take });
    }

    fn find_since(&mut self, number: usize, topic: u16, known: &[i32]) {
        let committed = self.kafka.committed.values();
        let mut since: Vec<Millis> =
            committed.filter_map(|(_, metadata)| Ownership::decode(metadata.as_bytes())?.since).collect();
        if since.is_empty() {
            for partition in self.partitions.iter().filter(|p| !known.contains(&p.number)) {
                let place = mark::place(CLUSTER, TOPIC, partition.number);
                let (found, _) = self.kafka.log(Place::Schedules(*partition)).read(0, usize::MAX);
                let floors = found.into_iter().filter(|(_, s)| s.key.as_deref() == Some(FLOOR_KEY));
                since.extend(floors.filter_map(|(_, s)| Some(Floor::decode(s.value.as_deref()?, place)?.since)));
            }
        }
        let today = Millis(self.now_ms.div_euclid(DAY_MS) * DAY_MS);
        self.tell(number, Input::Since { topic, since: since.into_iter().min(), today });
    }
}
