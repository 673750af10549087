//! The scheduler as a state machine: no I/O, no clock, no randomness, no threads.
//!
//! A shell feeds [`Scheduler::handle`] with what happened and carries out what [`Scheduler::poll`] returns. The same
//! machine runs against Kafka, in the simulator and in the fuzzers.

pub mod batch;
#[cfg(feature = "known-bad")]
pub mod bugs;
#[cfg(not(feature = "known-bad"))]
mod bugs;
mod clock;
mod firing;
pub mod floor;
mod index;
mod intake;
pub mod io;
mod leaving;
pub mod listing;
pub mod mark;
pub mod owner;
mod partition;
pub mod payload;
mod putting_off;
pub mod reason;
pub mod request;
pub mod schedule;
mod settling;
mod shelves;
mod takeover;
mod targets;
mod throughput;
mod words;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

pub use listing::{Listed, Phase, Status};

use batch::Names;
use io::{Counters, Input, Millis, Output, Partition, Report};
use partition::{Life, Step};
use payload::{Packed, Payload};
use schedule::Limits;
use settling::{InFlight, Lot, Patience, Purpose};
use targets::Targets;
use throughput::Throughput;

/// Tables of a partition that fires shrink if no more than one place of so many is in use.
const LIVE_SHARE: usize = 16;

/// Transactors at the most: a successor fences this many ids of each former owner.
pub const TRANSACTORS_MAX: usize = 2;

/// What a scheduler is told once.
#[derive(Clone, Debug)]
pub struct Config {
    /// The Kafka cluster's id.
    pub cluster: String,
    /// Schedules topics, without repeats.
    pub topics: Vec<String>,
    /// Where history records go.
    pub history: String,
    /// Where records go that cannot fire; without it they stay where they are.
    pub dead_letter: Option<String>,
    /// By schedules topic, the largest record that it and the history topic take, in bytes as it is sent alone.
    pub record_bytes_max: Vec<Option<usize>>,
    /// Consumer group.
    pub group: String,
    /// Unique to this run of the process: 1 to 32 characters of `0-9a-f`. Transactional ids are
    /// `{group}.{run}.{incarnation}.{number}`.
    pub run: String,
    /// How long a schedule may be overdue on arrival, in seconds.
    pub grace_s: Option<u64>,
    /// How far ahead a schedule may be due on arrival, in seconds.
    pub horizon_s: Option<u64>,
    /// Transactors: 1 or 2. That many batches may be in flight.
    pub transactors: usize,
    /// Schedules a batch, at most.
    pub batch_items_max: usize,
    /// Payload bytes a batch; one larger schedule still makes a batch of its own.
    pub batch_bytes_max: usize,
    /// Seeds the index's hash, against keys chosen to collide.
    pub hash_seed: u64,
}

/// Fires schedules when they are due.
///
/// Call its methods in this order, on one thread:
///
/// 1. [`handle`](Self::handle) with one input,
/// 2. [`poll`](Self::poll) until it returns `None`, carrying out each output in order,
/// 3. [`poll_timeout`](Self::poll_timeout), and [`Input::Tick`] at that time if nothing else happens before.
///
/// Getters may be called at any time. Outputs that are not polled stay queued, in order. Answers that are late, or that
/// no output requested, are ignored. Time may go back.
#[derive(Debug)]
pub struct Scheduler<P = Packed> {
    config: Config,
    names: Arc<Names>,
    limits: Limits,
    now: Millis,
    lives: BTreeMap<Partition, Life<P>>,
    targets: Targets,
    outputs: VecDeque<Output>,
    counters: Counters,
    incarnation: u32,
    /// Owners that this process was before and that left batches in flight, newest first: nobody else knows of them.
    formers: Vec<String>,
    next_batch: u64,
    in_flight: VecDeque<InFlight>,
    /// By purpose, whether a batch may be tried again.
    patience: [Patience; Purpose::COUNT],
    /// Batches refused without a name, since batches had their full size last.
    refusals: u32,
    /// By lot, items a batch, while a refused record is looked for.
    items_max: [usize; Lot::ALL.len()],
    generation: Option<i32>,
    /// The broker refused this generation: nothing is sent until there is another.
    refused: Option<i32>,
    throughput: Throughput,
    /// Fence requests that are not answered.
    fencing: BTreeMap<u64, Vec<Partition>>,
    next_take: u64,
    /// By topic, the question about its `since` whose answer is awaited.
    asked: BTreeMap<u16, u64>,
    next_ask: u64,
    /// The dead-letter topic, once it has been needed.
    dead_letter: Option<u32>,
    /// Whose turn it was last.
    last_lot: Lot,
    foreign_groups: BTreeSet<String>,
    stopping: bool,
    stopped: bool,
}

impl<P: Payload> Scheduler<P> {
    /// Returns a scheduler that owns no partition. It uses 1 to [`TRANSACTORS_MAX`] transactors, whatever `config` asks
    /// for.
    #[must_use]
    pub fn new(mut config: Config) -> Self {
        config.transactors = config.transactors.clamp(1, TRANSACTORS_MAX);
        let names = Arc::new(Names {
            cluster: config.cluster.clone(),
            topics: config.topics.clone(),
            history: config.history.clone(),
            dead_letter: config.dead_letter.clone(),
            group: config.group.clone(),
        });
        Self {
            names,
            limits: Limits {
                grace_s: config.grace_s,
                horizon_s: config.horizon_s,
                record_bytes_max: config.record_bytes_max.clone(),
            },
            items_max: [config.batch_items_max; Lot::ALL.len()],
            throughput: Throughput::new(config.batch_bytes_max),
            config,
            now: Millis(i64::MIN),
            lives: BTreeMap::new(),
            targets: Targets::default(),
            outputs: VecDeque::new(),
            counters: Counters::default(),
            incarnation: 0,
            formers: Vec::new(),
            next_batch: 1,
            in_flight: VecDeque::new(),
            patience: [Patience::default(); Purpose::COUNT],
            refusals: 0,
            generation: None,
            refused: None,
            fencing: BTreeMap::new(),
            next_take: 0,
            asked: BTreeMap::new(),
            next_ask: 0,
            dead_letter: None,
            last_lot: Lot::Letters,
            foreign_groups: BTreeSet::new(),
            stopping: false,
            stopped: false,
        }
    }

    /// The ids that the shell's transactors start with; [`Output::Renew`] replaces them.
    #[must_use]
    pub fn transactional_ids(&self) -> Vec<String> {
        self.ids_of(&self.owner()).take(self.config.transactors).collect()
    }

    /// Takes in what happened at `now`. Drain [`poll`](Self::poll) afterwards.
    ///
    /// # Panics
    /// If a partition's topic is not an index of [`Config::topics`].
    pub fn handle(&mut self, now: Millis, input: Input<'_>) {
        self.set_now(now);
        match input {
            Input::Assigned { partitions, today } => self.assigned(partitions, today),
            Input::Record(record) => self.record(&record),
            Input::Committed { partition, offset, metadata } => self.committed(partition, offset, metadata),
            Input::Fenced { take } => self.fenced(take),
            Input::Since { ask, since, today } => self.since(ask, since, today),
            Input::Target { target, state } => self.target(target, state),
            Input::Settled { batch, outcome } => self.settled(batch, outcome),
            Input::Revoked { partitions } => self.revoked(partitions),
            Input::Lost { partitions } => self.lost(partitions),
            Input::Unreadable { why: _ } => self.restart("the consumer's position is no longer valid"),
            Input::Trimmed { partition, start } => self.trimmed(partition, start),
            Input::Generation(generation) => self.generation(generation),
            Input::Stop => self.stop(),
            Input::Tick => self.tick(),
        }
        self.form();
    }

    /// The next thing to do, until there is none.
    #[must_use]
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to send [`Input::Tick`] if nothing else happens before, and what for. An earlier moment than the last one
    /// passed in means at once.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Millis, &'static str)> {
        if !self.outputs.is_empty() {
            return Some((self.now, "output waits to be polled"));
        }
        let mut next: Option<(Millis, &'static str)> = None;
        let mut consider = |at: Option<Millis>, why| {
            if let Some(at) = at.filter(|at| next.is_none_or(|(earliest, _)| *at < earliest)) {
                next = Some((at, why));
            }
        };
        for life in self.lives.values() {
            if let Step::Releasing { until, .. } = life.step {
                consider(Some(until), "a release must end");
            }
        }
        consider(self.ahead().next().map(|_| self.now), "the clock is before a floor");
        consider(self.targets.next_check(), "a target topic is checked again");
        let next_wake = self.lives.values().filter_map(|life| life.words.next_wake()).min();
        consider(next_wake, "a parked schedule is tried again");
        if self.may_form() {
            // What could be formed by now has been; what is left waits for a batch to settle.
            let later = |at: Millis, purpose| Some(at.max(self.patient_until(purpose))).filter(|at| *at > self.now);
            for lot in [Lot::Fresh, Lot::Large] {
                consider(self.next_due(lot).and_then(|at| later(at, Purpose::Fire(lot))), "a schedule is due");
            }
            consider(self.next_mark().and_then(|at| later(at, Purpose::Mark)), "progress is committed");
            consider(self.next_try(), "an aborted batch is tried again");
        }
        next
    }

    /// Events so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Names of target topics kept: those that pending schedules use, and at most about as many again.
    #[must_use]
    pub fn targets(&self) -> usize {
        self.targets.len()
    }

    fn owner(&self) -> String {
        format!("{}.{}", self.config.run, self.incarnation)
    }

    fn ids_of(&self, owner: &str) -> impl Iterator<Item = String> + use<P> {
        let stem = format!("{}.{owner}", self.config.group);
        (0..TRANSACTORS_MAX).map(move |number| format!("{stem}.{number}"))
    }

    fn report(&mut self, report: Report) {
        self.outputs.push_back(Output::Report(report));
    }

    fn tick(&mut self) {
        self.check_releases();
        for target in self.targets.take_unchecked(self.now) {
            self.check_target(target);
        }
        let mut shrunk = false;
        for life in self.lives.values_mut() {
            life.words.wake_parked(self.now);
            // Batches that were committed hold slots until they are read, and so do those in flight. One table in a turn.
            let outstanding = !life.unread.is_empty() || self.in_flight.iter().any(|batch| batch.touches(life.id));
            shrunk = shrunk || (life.is_live() && !outstanding && life.words.shrink(LIVE_SHARE));
        }
        self.check_clock();
    }

    fn generation(&mut self, generation: i32) {
        self.generation = Some(generation);
        if self.refused.is_some_and(|refused| refused != generation) {
            self.refused = None;
        }
    }
}
