//! Several instances, their users and their faults, on one virtual clock.

mod broker;
mod consumer;
mod ending;
mod inject;
mod instance;
mod membership;
mod shell;
mod transact;
mod transactors;
mod users;

use std::collections::{BTreeMap, BTreeSet};

use kafka_scheduler::core::io::{Partition, TargetState};

use crate::faults::{Doing, Fault};
use crate::history::{Event, History, Holding, Observed};
use crate::kafka::Kafka;
use crate::names::DAY_MS;
use crate::rng::Rng;
use crate::scenario::{Act, Away, Scenario};
use crate::summary::Summary;
use ending::Ending;
use instance::Instance;
use users::{Open, Speech};

/// A noon.
const NOON_MS: i64 = 1_700_049_600_000;

#[derive(Debug)]
enum What {
    /// Something of the scenario.
    Act(Act),
    /// A record that was said arrives.
    Arrive(Box<Speech>),
    /// A user's transaction ends.
    EndTransaction(u64),
    /// The flood goes on.
    Flow,
    /// A member's wish to leave the group arrives.
    Leave(String),
    /// A commit arrives that nobody waits for any more.
    LateCommit(String, u32),
    /// A process starts.
    Start(usize),
    /// For an instance, in one of its lives.
    Instance(usize, u64, Todo),
}

/// Whose step the clock has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Advanced {
    Brokers,
    World,
}

/// What an instance's shell does next.
#[derive(Debug)]
enum Todo {
    Beat,
    Fetch,
    Wake,
    Tick,
    Job(u64),
    Settle(u64, Ending),
    ReadCommitted(Partition, i64),
    Fence(u64, Vec<String>, i32),
    FindSince(u64, u16, Vec<i32>),
    Target(u32, TargetState),
}

/// The world.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) now_ms: i64,
    pub(crate) history: History,
    pub(crate) summary: Summary,
    /// The last crash takes everybody with it.
    last_crash: bool,
    verbose: bool,
    instances: Vec<Instance>,
    events: BTreeMap<(i64, u64), What>,
    next_event: u64,
    open: BTreeMap<u64, Open>,
    next_open: u64,
    fences_fail_until_ms: i64,
    away: Option<(Away, i64)>,
    /// Large values said so far.
    large_count: u32,
    slow_markers_until_ms: i64,
    /// Users write to every partition all the time.
    flooded: bool,
    /// What lasts for a while strikes an instance once.
    bitten: BTreeSet<(Fault, usize, i64)>,
    steady: BTreeMap<Partition, broker::Steady>,
    noted_ms: i64,
    /// Owners that metadata named which a pending transaction was about to replace.
    named_late: BTreeSet<String>,
}

impl World {
    /// A world for a scenario; `verbose` prints what happens.
    #[must_use]
    pub(crate) fn new(scenario: &Scenario, verbose: bool) -> Self {
        let setup = &scenario.setup;
        let start_ms = match setup.midnight_s {
            0 => NOON_MS,
            seconds => NOON_MS + DAY_MS / 2 + i64::from(seconds) * 1000,
        };
        let partitions: Vec<Partition> = (0..u16::from(setup.topics))
            .flat_map(|topic| (0..i32::from(setup.partitions)).map(move |number| Partition { topic, number }))
            .collect();
        let mut noise = Rng::new(setup.noise);
        let instances = (0..usize::from(setup.instances)).map(|n| Instance::new(n, setup, noise.split())).collect();
        let kafka = Kafka::new(&partitions, noise.split());
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
            bitten: BTreeSet::new(),
            steady: BTreeMap::new(),
            noted_ms: i64::MIN,
            named_late: BTreeSet::new(),
        };
        for op in &scenario.ops {
            world.after(i64::from(op.at_ms), What::Act(op.act));
        }
        for number in 0..world.instances.len() {
            let at_ms = noise.range(1, 3_000);
            world.after(at_ms, What::Start(number));
        }
        world
    }

    /// Takes the next step, if it is not after `end_ms` from the start; otherwise moves the clock there.
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
        if let Some((_, what)) = self.events.pop_first() {
            self.step(what);
        }
        Some(Advanced::World)
    }

    fn step(&mut self, what: What) {
        match what {
            What::Act(act) => self.strike(act),
            What::Arrive(speech) => self.arrive(&speech),
            What::EndTransaction(number) => self.end_transaction(number),
            What::Flow => self.flow(),
            What::Leave(member) => self.history.kafka.group.leave(&member),
            What::LateCommit(id, epoch) => {
                let ended = self.history.kafka.end((&id, epoch), self.now_ms, true);
                self.trace(|| format!("broker a late commit of {id}: {ended:?}"));
            }
            What::Start(number) => self.start(number),
            What::Instance(number, life, todo) => self.dispatch(number, life, todo),
        }
        self.note_steady();
    }

    fn dispatch(&mut self, number: usize, life: u64, todo: Todo) {
        let now = self.now_ms;
        let instance = &mut self.instances[number];
        if instance.life != life || !instance.is_alive() {
            return;
        }
        if instance.paused_until_ms > now {
            let mut delay = instance.paused_until_ms - now;
            if matches!(todo, Todo::Beat) {
                // Whoever wakes may go on for a while before it learns that it was thrown out.
                delay += instance.rng.range(0, 600);
            }
            if matches!(todo, Todo::Job(_)) && instance.rng.chance(30) {
                // A transactor is a thread of its own, and may wake up long after the loop has.
                delay += instance.rng.range(0, 3_000);
            }
            return self.after(delay, What::Instance(number, life, todo));
        }
        self.act(number, todo);
    }

    fn after(&mut self, delay_ms: i64, what: What) {
        self.next_event += 1;
        self.events.insert((self.now_ms + delay_ms.max(0), self.next_event), what);
    }

    fn later(&mut self, number: usize, delay_ms: i64, todo: Todo) {
        let life = self.instances[number].life;
        self.after(delay_ms, What::Instance(number, life, todo));
    }

    /// As [`World::later`], over the network, which may be slow.
    fn answer(&mut self, number: usize, delay_ms: i64, todo: Todo) {
        let now = self.now_ms;
        let instance = &mut self.instances[number];
        let until_ms = instance.slow_network_until_ms;
        let slow_ms = if until_ms > now { instance.slow_network_ms } else { 0 };
        let more_ms = instance.rng.range(0, slow_ms);
        if more_ms > 0 {
            self.bite(Fault::SlowNetwork, number, until_ms);
        }
        let delay_ms = delay_ms + more_ms;
        self.later(number, delay_ms, todo);
    }

    /// An instance asks its shell for what it must not ask for.
    fn violation(&mut self, what: String) {
        self.history.add(Event::Violation(what));
    }

    fn trace(&self, line: impl FnOnce() -> String) {
        if self.verbose {
            println!("{:>7} {}", self.now_ms - self.history.start_ms, line());
        }
    }

    /// A fault strikes an instance.
    fn hit(&mut self, fault: Fault, number: usize) {
        let doing = self.instances[number].doing();
        self.summary.coverage.hit(fault, doing);
    }

    /// Something that lasts until `until_ms` makes itself felt by an instance; counts the first time.
    fn bite(&mut self, fault: Fault, number: usize, until_ms: i64) {
        if self.bitten.insert((fault, number, until_ms)) {
            self.hit(fault, number);
        }
    }

    /// Markers of a transaction that an instance has ended may be late.
    fn note_markers(&mut self, number: usize) {
        if self.history.kafka.markers_are_late {
            self.bite(Fault::SlowMarkers, number, self.slow_markers_until_ms);
        }
    }

    /// A fault strikes a partition.
    fn hit_partition(&mut self, fault: Fault, partition: Partition) {
        let owner =
            self.instances.iter().find(|i| i.is_alive() && i.core.status().iter().any(|s| s.partition == partition));
        let doing = owner.map_or(Doing::Nothing, |instance| instance.doing_with(partition));
        self.summary.coverage.hit(fault, doing);
    }

    /// Returns what each running instance holds of each partition that it fires. An instance that the group has removed
    /// is not asked: it does not see the cancels that its successor reads, but it cannot commit anything either.
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
                today_ms: instance.today_as_told(self.now_ms, &self.history.setup).0,
            }));
        }
        holdings
    }

    fn running(&self) -> impl Iterator<Item = &Instance> {
        self.instances.iter().filter(|i| i.is_alive())
    }

    /// Nothing is on its way.
    #[must_use]
    pub(crate) fn is_still(&self) -> bool {
        self.running().all(|i| i.is_still(&self.history.kafka))
    }

    /// Asks all instances what they hold and fire.
    pub(crate) fn observe(&self) -> Observed {
        Observed {
            now_ms: self.now_ms,
            listed: self.running().flat_map(Instance::listed).collect(),
            live: self.running().flat_map(Instance::live).collect(),
            is_still: self.is_still(),
            description: self.instances.iter().map(|i| format!("\n  {}", i.describe())).collect(),
        }
    }
}
