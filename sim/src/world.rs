//! Several instances, their users and their faults, on one virtual clock.

mod instance;
mod settle;
mod transact;

use std::collections::{BTreeMap, BTreeSet};

use kafka_scheduler::core::io::{Partition, TargetState};
use kafka_scheduler::core::request;

use crate::kafka::log::{Headers, Stored};
use crate::kafka::{Kafka, Place};
use crate::oracle;
use crate::rng::Rng;
use instance::Instance;

/// The schedules topic.
pub const TOPIC: &str = "schedules";
/// The cluster's id.
pub const CLUSTER: &str = "model";
/// When the clock starts: a noon.
pub const START_MS: i64 = 1_700_049_600_000;
/// Nobody hands over, starts and loads slower than this while compaction may act.
const STEADY_MS: i64 = 20_000;

/// What a user's record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// Fire at this second.
    Schedule(i64),
    /// Do not fire.
    Cancel,
    /// A record that cannot fire.
    Unfit,
}

/// A user's record, acknowledged.
#[derive(Clone, Debug)]
pub struct Said {
    /// Where.
    pub partition: Partition,
    /// On which key.
    pub key: Vec<u8>,
    /// Its offset.
    pub offset: i64,
    /// What.
    pub word: Word,
}

/// What happened in a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Events of the virtual clock.
    pub events: u64,
    /// User records.
    pub said: usize,
    /// Target records that a read_committed consumer sees.
    pub fired: usize,
    /// Faults by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Words that were written again.
    pub reasserted: u64,
}

impl Summary {
    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.said += other.said;
        self.fired += other.fired;
        self.reasserted += other.reasserted;
        for (kind, count) in &other.faults {
            *self.faults.entry(kind).or_default() += count;
        }
    }
}

#[derive(Debug)]
enum What {
    /// Background work of the brokers.
    Brokers,
    /// A user says something.
    User,
    /// Something breaks.
    Fault,
    /// Compaction, if it may.
    Compact,
    /// A crashed instance starts.
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
    Job(u64),
    Settle(u64, settle::Ending),
    Renew,
    ReadCommitted(Partition, i64),
    Fence(u64, Vec<String>, i32),
    FindSince(u16, Vec<i32>),
    Target(u32, TargetState),
}

/// The world.
#[derive(Debug)]
pub struct World {
    pub(crate) now_ms: i64,
    pub(crate) kafka: Kafka,
    pub(crate) said: Vec<Said>,
    pub(crate) partitions: Vec<Partition>,
    pub(crate) rng: Rng,
    pub(crate) summary: Summary,
    pub(crate) broken: Option<String>,
    pub(crate) verbose: bool,
    pub(crate) faulty: bool,
    instances: Vec<Instance>,
    events: BTreeMap<(i64, u64), What>,
    next_event: u64,
    /// Which kinds of fault this seed has, and how many keys.
    kinds: BTreeSet<&'static str>,
    keys: i64,
    pause_ms: i64,
    live_since: BTreeMap<Partition, i64>,
}

/// Every kind of fault; a seed has some of them.
pub const FAULT_KINDS: [&str; 8] = ["fence", "crash", "pause", "abort", "unknown", "delay", "compaction", "restart"];

impl World {
    /// A world from a seed.
    #[must_use]
    pub fn new(seed: u64, verbose: bool) -> Self {
        let mut rng = Rng::new(seed);
        let partitions: Vec<Partition> =
            (0..rng.range(1, 3) as i32).map(|number| Partition { topic: 0, number }).collect();
        let kinds = FAULT_KINDS.into_iter().filter(|_| rng.chance(60)).collect();
        let count = rng.range(1, 3) as usize;
        let instances = (0..count).map(|number| Instance::new(number, 0, &mut rng)).collect();
        let kafka = Kafka::new(&partitions, Rng::new(rng.bits()));
        Self {
            now_ms: START_MS,
            kafka,
            said: Vec::new(),
            partitions,
            summary: Summary::default(),
            broken: None,
            verbose,
            faulty: true,
            instances,
            events: BTreeMap::new(),
            next_event: 0,
            kinds,
            keys: rng.range(1, 12),
            pause_ms: rng.range(1_000, 20_000),
            live_since: BTreeMap::new(),
            rng,
        }
    }

    /// Plays it: faults, then quiet until everything must have converged, then all anew.
    ///
    /// # Errors
    /// The first broken promise.
    pub fn run(mut self) -> Result<Summary, String> {
        for number in 0..self.instances.len() {
            let at = self.rng.range(0, 3_000);
            self.after(at, What::Start(number));
        }
        self.after(0, What::Brokers);
        self.after(10, What::User);
        self.after(2_000, What::Fault);
        self.after(1_000, What::Compact);
        self.until(START_MS + 90_000)?;
        self.faulty = false;
        self.until(START_MS + 90_000 + 75_000)?;
        oracle::converged(&self)?;
        let pending = self.pending();
        let (now, all) = (self.now_ms, i64::MIN);
        for log in self.kafka.logs.iter_mut().filter(|(p, _)| matches!(p, Place::Schedules(_))).map(|(_, log)| log) {
            log.compact(now - STEADY_MS, all);
        }
        for number in 0..self.instances.len() {
            self.crash(number, 10);
        }
        self.until(now + 40_000)?;
        oracle::converged(&self)?;
        if self.pending() != pending {
            return Err(format!("a fresh recovery differs: {:?}, not {pending:?}", self.pending()));
        }
        self.summary.said = self.said.len();
        self.summary.reasserted = self.kafka.journal().map(|(_, records)| oracle::written_again(records)).sum();
        Ok(self.summary)
    }

    /// What is pending, over all instances: partition, key, offset.
    #[must_use]
    pub fn pending(&self) -> BTreeSet<(Partition, Vec<u8>, i64)> {
        self.instances.iter().filter(|i| i.is_alive()).flat_map(Instance::pending).collect()
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

    /// Every user record.
    #[must_use]
    pub fn said(&self) -> &[Said] {
        &self.said
    }

    /// The cluster.
    #[must_use]
    pub fn kafka(&self) -> &Kafka {
        &self.kafka
    }

    /// The schedules partitions.
    #[must_use]
    pub fn partitions(&self) -> &[Partition] {
        &self.partitions
    }

    /// Now.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        self.now_ms
    }

    fn until(&mut self, end_ms: i64) -> Result<(), String> {
        while let Some(entry) = self.events.first_entry().filter(|e| e.key().0 <= end_ms) {
            let ((at, _), what) = entry.remove_entry();
            self.now_ms = self.now_ms.max(at);
            self.summary.events += 1;
            if self.summary.events > 5_000_000 {
                return Err("the run does not end".to_owned());
            }
            self.step(what);
            if let Some(broken) = self.broken.take() {
                return Err(format!("at {} ms: {broken}", self.now_ms - START_MS));
            }
        }
        self.now_ms = end_ms;
        self.summary.fired = oracle::safe(self)?;
        Ok(())
    }

    fn after(&mut self, delay_ms: i64, what: What) {
        self.next_event += 1;
        self.events.insert((self.now_ms + delay_ms, self.next_event), what);
    }

    fn step(&mut self, what: What) {
        match what {
            What::Brokers => {
                self.kafka.tick(self.now_ms);
                self.after(5, What::Brokers);
            }
            What::User if self.faulty => {
                self.speak();
                let delay = self.rng.range(5, 900);
                self.after(delay, What::User);
            }
            What::Fault if self.faulty => {
                self.fault();
                let delay = self.rng.range(500, 8_000);
                self.after(delay, What::Fault);
            }
            What::Compact if self.faulty => {
                self.note_live();
                if self.rng.chance(5) {
                    self.compact();
                }
                let delay = 200;
                self.after(delay, What::Compact);
            }
            What::User | What::Fault | What::Compact => {}
            What::Start(number) => {
                let life = self.instances[number].life;
                self.instances[number] = Instance::new(number, life + 1, &mut self.rng);
                self.start(number);
            }
            What::Instance(number, life, todo) => self.dispatch(number, life, todo),
        }
    }

    fn dispatch(&mut self, number: usize, life: u64, todo: Todo) {
        let instance = &self.instances[number];
        if instance.life != life || !instance.is_alive() {
            return;
        }
        if instance.paused_until_ms > self.now_ms {
            let mut delay = instance.paused_until_ms - self.now_ms;
            if matches!(todo, Todo::Beat) {
                // Whoever wakes may go on for a while before it learns that it was thrown out.
                delay += self.rng.range(0, 600);
            }
            return self.after(delay, What::Instance(number, life, todo));
        }
        self.act(number, todo);
    }

    pub(crate) fn later(&mut self, number: usize, delay_ms: i64, todo: Todo) {
        let mut delay_ms = delay_ms;
        if self.hits("delay", 3) {
            delay_ms += self.rng.range(0, 3_000);
        }
        let life = self.instances[number].life;
        self.after(delay_ms, What::Instance(number, life, todo));
    }

    /// Whether a fault of this kind strikes now.
    pub(crate) fn hits(&mut self, kind: &'static str, percent: i64) -> bool {
        let hit = self.faulty && self.kinds.contains(kind) && self.rng.chance(percent);
        if hit {
            *self.summary.faults.entry(kind).or_default() += 1;
        }
        hit
    }

    pub(crate) fn trace(&self, line: impl FnOnce() -> String) {
        if self.verbose {
            println!("{:>7} {}", self.now_ms - START_MS, line());
        }
    }

    fn speak(&mut self) {
        let key = self.rng.range(0, self.keys - 1);
        let partition = self.partitions[key as usize % self.partitions.len()];
        let second = self.now_ms / 1000;
        let word = match self.rng.range(0, 99) {
            0..60 => Word::Schedule(second + self.rng.range(-2, 12)),
            60..75 => Word::Schedule(second + 100_000),
            75..92 => Word::Cancel,
            _ => Word::Unfit,
        };
        let text = |s: &[u8]| Some(s.to_vec());
        let target = (request::TARGET_TOPIC.to_vec(), text(b"target"));
        let (value, headers): (_, Headers) = match word {
            Word::Schedule(due) => {
                let due = due.to_string();
                (text(b"v"), vec![(request::EPOCH.to_vec(), text(due.as_bytes())), target])
            }
            Word::Cancel => (None, Vec::new()),
            Word::Unfit => (text(b"v"), vec![target]),
        };
        let key = format!("k{key}").into_bytes();
        let stored = Stored { at_ms: self.now_ms, key: Some(key.clone()), value, headers, transaction: None };
        let log = self.kafka.logs.get_mut(&Place::Schedules(partition)).expect("it is one of ours");
        let offset = log.append(stored);
        self.trace(|| format!("user   p{} {offset}: {} {word:?}", partition.number, String::from_utf8_lossy(&key)));
        self.said.push(Said { partition, key, offset, word });
    }

    fn fault(&mut self) {
        let number = self.rng.index(self.instances.len());
        if !self.instances[number].is_alive() {
            return;
        }
        // Most crashes and pauses hit work in flight: an instance with a transaction is preferred.
        let busy = self.instances.iter().position(|i| i.is_alive() && i.is_busy());
        let number = busy.unwrap_or(number);
        if self.hits("crash", 40) {
            let delay = self.rng.range(10, 8_000);
            self.trace(|| format!("i{number}     crashes"));
            self.crash(number, delay);
        } else if self.hits("pause", 50) {
            let pause = self.rng.range(100, self.pause_ms);
            self.trace(|| format!("i{number}     pauses for {pause} ms"));
            self.instances[number].paused_until_ms = self.now_ms + pause;
        } else if self.hits("restart", 30) {
            self.trace(|| format!("i{number}     cannot read on"));
            self.unreadable(number);
        }
    }

    /// In the middle of a transaction: a crash, or a pause that may outlast the session.
    fn strike(&mut self, number: usize) -> bool {
        if self.hits("crash", 1) {
            let delay = self.rng.range(10, 8_000);
            self.trace(|| format!("i{number}     crashes in a transaction"));
            self.crash(number, delay);
            return true;
        }
        if self.hits("pause", 2) {
            let pause = self.rng.range(4_000, 14_000);
            self.trace(|| format!("i{number}     pauses in a transaction for {pause} ms"));
            self.instances[number].paused_until_ms = self.now_ms + pause;
        }
        false
    }

    fn crash(&mut self, number: usize, down_ms: i64) {
        self.instances[number].kill();
        self.after(down_ms, What::Start(number));
    }

    fn note_live(&mut self) {
        let live = self.live();
        let now = self.now_ms;
        self.live_since.retain(|p, _| live.contains(p));
        for partition in live {
            self.live_since.entry(partition).or_insert(now);
        }
    }

    /// What is older than outage, loading and delay together may go; tombstones stay, as they do for a day.
    fn compact(&mut self) {
        for partition in self.partitions.clone() {
            let steady = self.live_since.get(&partition).is_some_and(|since| since + STEADY_MS <= self.now_ms);
            if steady && self.hits("compaction", 70) {
                let before = self.now_ms - STEADY_MS;
                let log = self.kafka.logs.get_mut(&Place::Schedules(partition)).expect("it is one of ours");
                let gone = log.compact(before, i64::MIN);
                self.trace(|| format!("broker p{} compacts {gone}", partition.number));
            }
        }
    }
}
