//! Several instances, their users and their faults, on one virtual clock.

mod broker;
mod consumer;
mod instance;
mod membership;
mod shell;
mod strikes;
mod transact;
mod transactors;
mod users;

use std::collections::{BTreeMap, BTreeSet};

use kafka_scheduler::core::Listed;
use kafka_scheduler::core::io::{Outcome, Partition, TargetState};

use crate::failure::Failure;
use crate::faults::{Coverage, Doing, Fault};
use crate::kafka::Kafka;
use crate::oracle::{self, watch::Watch};
use crate::rng::Rng;
use crate::scenario::{Act, Away, Scenario, Setup};
use instance::Instance;
pub(crate) use instance::config;
use users::Open;
pub use users::{Said, Speech};

/// The schedules topics.
pub const TOPICS: [&str; 2] = ["schedules", "more"];
/// The cluster's id.
pub const CLUSTER: &str = "model";
/// The dead-letter topic.
pub const DEAD_LETTERS: &str = "dead";
/// A noon.
const NOON_MS: i64 = 1_700_049_600_000;
/// A day.
pub const DAY_MS: i64 = 86_400_000;
/// Events at most: a run that has more does not end.
const EVENTS_MAX: u64 = 5_000_000;
/// What instances hold is compared with what they have read this often.
const COMPARED_EVERY_MS: i64 = 500;

/// What happened in a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Operations of the scenario.
    pub ops: u64,
    /// Events of the virtual clock.
    pub events: u64,
    /// User records.
    pub said: u64,
    /// Target records that a read_committed consumer sees.
    pub fired: u64,
    /// Words that were written again.
    pub reasserted: u64,
    /// Records that went to the dead-letter topic.
    pub letters: u64,
    /// Schedules that fired though a newer word was acknowledged, but not yet read by whoever fired them.
    pub raced: u64,
    /// The longest that such a word could have been read before the firing was decided, in ms.
    pub raced_ms_max: i64,
    /// Fault kinds by phase.
    pub coverage: Coverage,
}

impl Summary {
    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        self.ops += other.ops;
        self.events += other.events;
        self.said += other.said;
        self.fired += other.fired;
        self.letters += other.letters;
        self.reasserted += other.reasserted;
        self.raced += other.raced;
        self.raced_ms_max = self.raced_ms_max.max(other.raced_ms_max);
        self.coverage.add(&other.coverage);
    }
}

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

/// What an instance's shell does next.
#[derive(Debug)]
pub(crate) enum Todo {
    Beat,
    Fetch,
    Wake,
    Tick,
    Job(u64),
    Settle(u64, Outcome),
    ReadCommitted(Partition, i64),
    Fence(u64, Vec<String>, i32),
    FindSince(u64, u16, Vec<i32>),
    Target(u32, TargetState),
}

/// The world.
#[derive(Debug)]
pub struct World {
    pub(crate) now_ms: i64,
    pub(crate) start_ms: i64,
    pub(crate) setup: Setup,
    pub(crate) kafka: Kafka,
    pub(crate) said: BTreeMap<(Partition, i64), Said>,
    pub(crate) partitions: Vec<Partition>,
    pub(crate) summary: Summary,
    pub(crate) broken: Option<Failure>,
    pub(crate) watch: Watch,
    /// No fault strikes any more.
    pub(crate) quiet: bool,
    /// Everybody has started anew since faults stopped.
    pub(crate) restarted: bool,
    /// The last crash takes everybody with it.
    pub(crate) last_crash: bool,
    /// The furthest that any clock was ever ahead.
    pub(crate) ahead_ms_max: i64,
    /// The furthest that any clock was ever behind, as a negative number.
    pub(crate) behind_ms_max: i64,
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
    /// The late target could not be produced to at some time.
    pub(crate) was_away: bool,
    slow_markers_until_ms: i64,
    /// Users write to every partition all the time.
    flooded: bool,
    /// What lasts for a while strikes an instance once.
    bitten: BTreeSet<(Fault, usize, i64)>,
    steady: BTreeMap<Partition, broker::Steady>,
    noted_ms: i64,
    compared_ms: i64,
    /// Owners that metadata named which a pending transaction was about to replace.
    named_late: BTreeSet<String>,
    /// When faults stopped.
    pub(crate) calm_ms: i64,
}

impl World {
    /// A world for a scenario; `verbose` prints what happens.
    #[must_use]
    pub fn new(scenario: &Scenario, verbose: bool) -> Self {
        let setup = scenario.setup.clone();
        let start_ms = match setup.midnight_s {
            0 => NOON_MS,
            seconds => NOON_MS + DAY_MS / 2 + i64::from(seconds) * 1000,
        };
        let partitions: Vec<Partition> = (0..u16::from(setup.topics))
            .flat_map(|topic| (0..i32::from(setup.partitions)).map(move |number| Partition { topic, number }))
            .collect();
        let mut noise = Rng::new(setup.noise);
        let instances = (0..usize::from(setup.instances)).map(|n| Instance::new(n, &setup, noise.split())).collect();
        let mut world = Self {
            now_ms: start_ms,
            start_ms,
            kafka: Kafka::new(&partitions, noise.split()),
            setup,
            said: BTreeMap::new(),
            partitions,
            summary: Summary { ops: scenario.ops.len() as u64, ..Summary::default() },
            broken: None,
            watch: Watch::default(),
            quiet: false,
            restarted: false,
            last_crash: false,
            ahead_ms_max: 0,
            behind_ms_max: 0,
            verbose,
            instances,
            events: BTreeMap::new(),
            next_event: 0,
            open: BTreeMap::new(),
            next_open: 0,
            fences_fail_until_ms: i64::MIN,
            away: None,
            large_count: 0,
            was_away: false,
            slow_markers_until_ms: i64::MIN,
            flooded: false,
            bitten: BTreeSet::new(),
            steady: BTreeMap::new(),
            noted_ms: i64::MIN,
            compared_ms: start_ms,
            named_late: BTreeSet::new(),
            calm_ms: i64::MIN,
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

    /// Runs until `end_ms` from the start.
    pub(crate) fn until(&mut self, end_ms: i64) -> Result<(), Failure> {
        let end_ms = self.start_ms + end_ms;
        loop {
            let event = self.events.first_key_value().map(|((at, _), _)| *at);
            let brokers = self.kafka.deadline().filter(|at| event.is_none_or(|event| *at <= event));
            let Some(at) = brokers.or(event).filter(|at| *at <= end_ms) else { break };
            self.now_ms = self.now_ms.max(at);
            self.summary.events += 1;
            if self.summary.events > EVENTS_MAX {
                return Err(Failure::Liveness(format!("the run does not end{}", self.describe())));
            }
            if brokers.is_some() {
                self.kafka.tick(self.now_ms);
            } else if let Some((_, what)) = self.events.pop_first() {
                self.step(what);
            }
            if let Some(broken) = self.broken.take() {
                return Err(broken.at(self.now_ms - self.start_ms));
            }
        }
        self.now_ms = end_ms;
        Ok(())
    }

    fn step(&mut self, what: What) {
        match what {
            What::Act(act) => self.strike(act),
            What::Arrive(speech) => self.arrive(&speech),
            What::EndTransaction(number) => self.end_transaction(number),
            What::Flow => self.flow(),
            What::Leave(member) => self.kafka.group.leave(&member),
            What::LateCommit(id, epoch) => {
                let ended = self.kafka.end((&id, epoch), self.now_ms, true);
                self.trace(|| format!("broker a late commit of {id}: {ended:?}"));
            }
            What::Start(number) => self.start(number),
            What::Instance(number, life, todo) => self.dispatch(number, life, todo),
        }
        self.note_steady();
        if self.now_ms >= self.compared_ms.saturating_add(COMPARED_EVERY_MS) {
            self.compared_ms = self.now_ms;
            if let Err(broken) = oracle::folds(self) {
                self.fail(broken);
            }
        }
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

    pub(crate) fn later(&mut self, number: usize, delay_ms: i64, todo: Todo) {
        let life = self.instances[number].life;
        self.after(delay_ms, What::Instance(number, life, todo));
    }

    /// As [`World::later`], over the network, which may be slow.
    pub(crate) fn answer(&mut self, number: usize, delay_ms: i64, todo: Todo) {
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

    /// Breaks the run, unless it is broken already.
    pub(crate) fn fail(&mut self, failure: Failure) {
        self.broken.get_or_insert(failure);
    }

    pub(crate) fn trace(&self, line: impl FnOnce() -> String) {
        if self.verbose {
            println!("{:>7} {}", self.now_ms - self.start_ms, line());
        }
    }

    /// A fault strikes an instance.
    pub(crate) fn hit(&mut self, fault: Fault, number: usize) {
        let doing = self.instances[number].doing();
        self.summary.coverage.hit(fault, doing);
    }

    /// Something that lasts until `until_ms` makes itself felt by an instance; counts the first time.
    pub(crate) fn bite(&mut self, fault: Fault, number: usize, until_ms: i64) {
        if self.bitten.insert((fault, number, until_ms)) {
            self.hit(fault, number);
        }
    }

    /// Markers of a transaction that an instance has ended may be late.
    pub(super) fn note_markers(&mut self, number: usize) {
        if self.kafka.markers_are_late {
            self.bite(Fault::SlowMarkers, number, self.slow_markers_until_ms);
        }
    }

    /// A fault strikes a partition.
    pub(crate) fn hit_partition(&mut self, fault: Fault, partition: Partition) {
        let owner =
            self.instances.iter().find(|i| i.is_alive() && i.core.status().iter().any(|s| s.partition == partition));
        let doing = owner.map_or(Doing::Nothing, |instance| instance.doing_with(partition));
        self.summary.coverage.hit(fault, doing);
    }

    /// Schedules held, over all instances.
    #[must_use]
    pub fn listed(&self) -> Vec<Listed> {
        self.instances.iter().filter(|i| i.is_alive()).flat_map(Instance::listed).collect()
    }

    /// What each running instance holds of each partition that it fires. One that was thrown out of the group may read
    /// its successor's records, for whose cancels it does not look out, and is not asked: it cannot commit anything.
    pub(crate) fn held(&self) -> Vec<(usize, Partition, BTreeSet<i64>)> {
        let mut held = Vec::new();
        for instance in self.instances.iter().filter(|i| i.is_alive() && i.paused_until_ms <= self.now_ms) {
            let listed = instance.listed();
            let member = instance.member.as_deref().unwrap_or_default();
            for partition in instance.live().into_iter().filter(|p| self.kafka.group.holds(member, *p)) {
                let offsets = listed.iter().filter(|l| l.partition == partition).map(|l| l.offset).collect();
                held.push((instance.number, partition, offsets));
            }
        }
        held
    }

    /// Nothing is on its way.
    #[must_use]
    pub(crate) fn is_still(&self) -> bool {
        self.instances.iter().filter(|i| i.is_alive()).all(|i| i.is_still(&self.kafka))
    }

    /// Partitions that some instance fires.
    #[must_use]
    pub fn live(&self) -> BTreeSet<Partition> {
        self.instances.iter().filter(|i| i.is_alive()).flat_map(Instance::live).collect()
    }

    /// One line for each instance, for a report.
    #[must_use]
    pub fn describe(&self) -> String {
        self.instances.iter().map(|i| format!("\n  {}", i.describe())).collect()
    }

    /// The cluster.
    #[must_use]
    pub fn kafka(&self) -> &Kafka {
        &self.kafka
    }

    /// Every user record that was acknowledged, and no transaction of its user took back.
    #[must_use]
    pub fn said(&self) -> &BTreeMap<(Partition, i64), Said> {
        &self.said
    }

    /// The schedules partitions.
    #[must_use]
    pub fn partitions(&self) -> &[Partition] {
        &self.partitions
    }

    /// A schedules topic's name.
    #[must_use]
    pub fn topic(partition: Partition) -> &'static str {
        TOPICS[usize::from(partition.topic) % TOPICS.len()]
    }
}
