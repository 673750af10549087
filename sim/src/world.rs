//! Several instances, their users and their faults, on one virtual clock.

mod broker;
mod consumer;
mod inject;
mod instance;
mod membership;
mod shell;
mod snapshots;
mod transact;
mod transactors;
mod users;

use std::collections::{BTreeMap, BTreeSet};

use kafka_scheduler::core::io::{Outcome, RequestId, TargetState, TopicPartition};

use crate::faults::{Activity, Fault};
use crate::history::{Entry, History, Holding, Observed};
use crate::kafka::Kafka;
use crate::names::DAY_MS;
use crate::rng::Rng;
use crate::scenario::{Act, Away, Scenario};
use crate::summary::Summary;
use instance::Instance;
use snapshots::{Snapshot, Taking};
use users::{NewRecord, OpenTransaction};

/// Noon of 15 November 2023.
const NOON_MS: i64 = 1_700_049_600_000;

/// An event of the virtual clock.
#[derive(Debug)]
enum Event {
    Act(Act),
    /// A user's record reaches the brokers.
    Arrival(Box<NewRecord>),
    EndTransaction(u64),
    ContinueFlood,
    /// The request of a member that leaves the group reaches the brokers.
    Leave(String),
    /// A commit reaches the brokers after its producer has given it up.
    LateCommit(String, u32),
    /// The cleaner does a pass over a replica.
    Clean(TopicPartition, usize),
    /// A replica comes back that was away since a time.
    ReplicaBack(TopicPartition, usize, i64),
    Start(usize),
    /// A task of an instance, in the run for which it was set.
    Instance(usize, u64, Task),
}

/// Whose step the virtual clock came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Advanced {
    Brokers,
    World,
}

/// A task of an instance's shell.
#[derive(Debug)]
enum Task {
    Beat,
    Fetch,
    Wake,
    Tick,
    Job(u64),
    Settle(u64, Outcome),
    ReadCommitted(TopicPartition, i64),
    Fence(RequestId, Vec<String>, i32),
    FindSince(RequestId, u16, Vec<i32>),
    Target(u32, TargetState),
    Snapshot(Box<Taking>),
    CheckCanary(TopicPartition, i64, Vec<u8>),
}

/// Instances, users and brokers on one virtual clock. It writes the history.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) now_ms: i64,
    pub(crate) history: History,
    pub(crate) summary: Summary,
    /// The next crash is the run's last and takes all instances with it.
    last_crash: bool,
    verbose: bool,
    instances: Vec<Instance>,
    events: BTreeMap<(i64, u64), Event>,
    next_event: u64,
    open: BTreeMap<u64, OpenTransaction>,
    next_open: u64,
    fences_fail_until_ms: i64,
    away: Option<(Away, i64)>,
    large_count: u32,
    slow_markers_until_ms: i64,
    flooded: bool,
    /// Lasting faults that were counted: the fault, the instance, and the fault's end.
    recorded_hits: BTreeSet<(Fault, usize, i64)>,
    steady: BTreeMap<TopicPartition, broker::Steady>,
    /// Until when `delete.retention.ms` is lower, and its value.
    lower_retention: (i64, i64),
    noted_ms: i64,
    /// Owners named by committed metadata that a pending transaction was about to replace.
    named_late: BTreeSet<String>,
    /// The snapshots of each instance.
    disks: BTreeMap<(usize, TopicPartition), Vec<Snapshot>>,
    next_snapshot: u64,
    rng: Rng,
}

impl World {
    /// Creates the world of a scenario. With `verbose` it prints a trace.
    #[must_use]
    pub(crate) fn new(scenario: &Scenario, verbose: bool) -> Self {
        let setup = &scenario.setup;
        let start_ms = match setup.midnight_s {
            0 => NOON_MS,
            seconds => NOON_MS + DAY_MS / 2 + i64::from(seconds) * 1000,
        };
        let partitions: Vec<TopicPartition> = (0..u16::from(setup.topics))
            .flat_map(|topic| (0..i32::from(setup.partitions)).map(move |number| TopicPartition { topic, number }))
            .collect();
        let mut rng = Rng::new(setup.seed);
        let instances = (0..usize::from(setup.instances)).map(|n| Instance::new(n, setup, rng.split())).collect();
        let kafka = Kafka::new(&partitions, usize::from(setup.replicas), rng.split());
        let mut world = Self {
            now_ms: start_ms,
            history: History::new(scenario, start_ms, kafka, partitions),
            summary: Summary { ops: scenario.ops.len() as u64, ..Summary::default() },
            last_crash: false,
            verbose,
            instances,
            events: BTreeMap::new(),
            next_event: 0,
            open: BTreeMap::new(),
            next_open: 0,
            fences_fail_until_ms: i64::MIN,
            away: None,
            large_count: 0,
            slow_markers_until_ms: i64::MIN,
            flooded: false,
            recorded_hits: BTreeSet::new(),
            steady: BTreeMap::new(),
            lower_retention: (i64::MIN, 0),
            noted_ms: i64::MIN,
            named_late: BTreeSet::new(),
            disks: BTreeMap::new(),
            next_snapshot: 0,
            rng,
        };
        for op in &scenario.ops {
            world.after(i64::from(op.at_ms), Event::Act(op.act));
        }
        for number in 0..world.instances.len() {
            let at_ms = world.rng.range(1, 3_000);
            world.after(at_ms, Event::Start(number));
        }
        world
    }

    /// Takes the next step. If it is later than `end_ms` after the start, only moves the clock to `end_ms`.
    pub(crate) fn advance(&mut self, end_ms: i64) -> Option<Advanced> {
        let end_ms = self.history.start_ms + end_ms;
        let event = self.events.first_key_value().map(|((at, _), _)| *at);
        let brokers = self.history.kafka.deadline().filter(|at| event.is_none_or(|event| *at <= event));
        let Some(at) = brokers.or(event).filter(|at| *at <= end_ms) else {
            self.now_ms = end_ms;
            return None;
        };
        self.now_ms = self.now_ms.max(at);
        self.summary.events += 1;
        if brokers.is_some() {
            self.history.kafka.tick(self.now_ms);
            return Some(Advanced::Brokers);
        }
        if let Some((_, event)) = self.events.pop_first() {
            self.step(event);
        }
        Some(Advanced::World)
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Act(act) => self.inject(act),
            Event::Arrival(new) => self.arrive(&new),
            Event::EndTransaction(number) => self.end_user_transaction(number),
            Event::ContinueFlood => self.continue_flood(),
            Event::Leave(member) => self.history.kafka.group.leave(&member),
            Event::LateCommit(id, epoch) => {
                let ended = self.history.kafka.end((&id, epoch), self.now_ms, true);
                self.trace(|| format!("broker a late commit of {id}: {ended:?}"));
            }
            Event::Clean(partition, replica) => {
                self.clean(partition, replica, false);
            }
            Event::ReplicaBack(partition, replica, since_ms) => self.bring_replica_back(partition, replica, since_ms),
            Event::Start(number) => self.start(number),
            Event::Instance(number, run, task) => self.dispatch(number, run, task),
        }
        self.note_steady();
    }

    fn dispatch(&mut self, number: usize, run: u64, task: Task) {
        let now = self.now_ms;
        let instance = &mut self.instances[number];
        if instance.run != run || !instance.is_alive() {
            return;
        }
        if instance.paused_until_ms > now {
            let mut delay = instance.paused_until_ms - now;
            if matches!(task, Task::Beat) {
                // After it wakes, it may work for a while before it learns that the group has removed it.
                delay += instance.rng.range(0, 600);
            }
            if matches!(task, Task::Job(_)) && instance.rng.chance(30) {
                // A transactor's thread may wake up long after the loop's.
                delay += instance.rng.range(0, 3_000);
            }
            return self.after(delay, Event::Instance(number, run, task));
        }
        self.act(number, task);
    }

    fn after(&mut self, delay_ms: i64, event: Event) {
        self.next_event += 1;
        self.events.insert((self.now_ms + delay_ms.max(0), self.next_event), event);
    }

    fn later(&mut self, number: usize, delay_ms: i64, task: Task) {
        let run = self.instances[number].run;
        self.after(delay_ms, Event::Instance(number, run, task));
    }

    /// Does the same as [`World::later`] over the network, which may be slow.
    fn answer(&mut self, number: usize, delay_ms: i64, task: Task) {
        let now = self.now_ms;
        let instance = &mut self.instances[number];
        let until_ms = instance.slow_network_until_ms;
        let slow_ms = if until_ms > now { instance.slow_network_ms } else { 0 };
        let more_ms = instance.rng.range(0, slow_ms);
        if more_ms > 0 {
            self.record_hit_once(Fault::SlowNetwork, number, until_ms);
        }
        let delay_ms = delay_ms + more_ms;
        self.later(number, delay_ms, task);
    }

    /// Records that an instance asked its shell for something that it must not ask for.
    fn violation(&mut self, what: String) {
        self.history.add(Entry::Violation(what));
    }

    fn trace(&self, line: impl FnOnce() -> String) {
        if self.verbose {
            println!("{:>7} {}", self.now_ms - self.history.start_ms, line());
        }
    }

    /// Counts a fault that hits an instance, by the instance's activity.
    fn record_hit(&mut self, fault: Fault, number: usize) {
        let activity = self.instances[number].activity();
        self.summary.coverage.record_hit(fault, activity);
    }

    /// Counts a fault that lasts until `until_ms` when an instance first notices it.
    fn record_hit_once(&mut self, fault: Fault, number: usize, until_ms: i64) {
        if self.recorded_hits.insert((fault, number, until_ms)) {
            self.record_hit(fault, number);
        }
    }

    /// Counts late markers of a transaction that an instance has ended.
    fn note_markers(&mut self, number: usize) {
        if self.history.kafka.markers_are_late {
            self.record_hit_once(Fault::SlowMarkers, number, self.slow_markers_until_ms);
        }
    }

    /// Counts a fault that hits a partition, by what its owner is doing with it.
    fn record_hit_on(&mut self, fault: Fault, partition: TopicPartition) {
        let owner =
            self.instances.iter().find(|i| i.is_alive() && i.core.status().iter().any(|s| s.partition == partition));
        let activity = owner.map_or(Activity::Nothing, |instance| instance.activity_on(partition));
        self.summary.coverage.record_hit(fault, activity);
    }

    /// Returns what each running instance holds of each partition that it fires. An instance that the group has removed
    /// is not asked: it may read records of its successor that it does not expect, but it cannot commit anything.
    pub(crate) fn holdings(&self) -> Vec<Holding> {
        let mut holdings = Vec::new();
        for instance in self.running().filter(|i| i.paused_until_ms <= self.now_ms) {
            let listed = instance.listed();
            let member = instance.member.as_deref().unwrap_or_default();
            let live = instance.live().into_iter().filter(|p| self.history.kafka.group.holds(member, *p));
            holdings.extend(live.map(|partition| Holding {
                now_ms: self.now_ms,
                instance: instance.number,
                partition,
                offsets: listed.iter().filter(|l| l.partition == partition).map(|l| l.offset).collect(),
                leftover_cutoff_ms: instance.core_leftover_cutoff(self.now_ms, &self.history.setup).0,
            }));
        }
        holdings
    }

    fn running(&self) -> impl Iterator<Item = &Instance> {
        self.instances.iter().filter(|i| i.is_alive())
    }

    /// Whether no batch is in flight and all logs are read to their ends.
    #[must_use]
    pub(crate) fn is_idle(&self) -> bool {
        self.running().all(|i| i.is_idle(&self.history.kafka))
    }

    /// Asks all instances what they hold and fire.
    pub(crate) fn observe(&self) -> Observed {
        Observed {
            now_ms: self.now_ms,
            listed: self.running().flat_map(Instance::listed).collect(),
            live: self.running().flat_map(Instance::live).collect(),
            is_idle: self.is_idle(),
            description: self.instances.iter().map(|i| format!("\n  {}", i.describe())).collect(),
        }
    }
}
