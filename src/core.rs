//! The scheduler as a state machine: no I/O, no clock, no randomness, no threads.
//!
//! A shell feeds [`Scheduler::handle`] with what happened and carries out what [`Scheduler::poll`] returns. The same
//! machine runs against Kafka, in the simulator and in the fuzzers.

pub mod batch;
mod firing;
pub mod floor;
mod index;
mod intake;
pub mod io;
mod leaving;
pub mod mark;
pub mod owner;
mod partition;
pub mod payload;
pub mod reason;
pub mod request;
pub mod schedule;
mod settling;
mod takeover;
mod targets;
mod timeline;
mod words;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use batch::Names;
use io::{Counters, Cursor, Input, Millis, Output, Partition, Report};
use partition::{Life, Step};
use payload::{Packed, Payload};
use schedule::Limits;
use settling::InFlight;
use targets::{Targets, Waiting};
use words::Meaning;

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

/// Fires schedules when they are due. See [`handle`](Self::handle).
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
    next_batch: u64,
    in_flight: VecDeque<InFlight>,
    /// No batch is formed before this: the last one was aborted.
    retry_at: Millis,
    /// Aborts in a row without a guilty record.
    aborts: u32,
    /// Items a batch, while aborts make it smaller.
    items_max: usize,
    generation: Option<i32>,
    /// The broker refused this generation: nothing is sent until there is another.
    refused: Option<i32>,
    /// Fence requests that are not answered.
    fencing: BTreeMap<u64, Vec<Partition>>,
    next_take: u64,
    /// Words that the broker refused, by when they are tried again.
    parked: BTreeMap<(Millis, u64), Waiting>,
    next_parked: u64,
    foreign_groups: BTreeSet<String>,
    stopping: bool,
    stopped: bool,
}

/// A pending schedule, as listings show it.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Where it lies.
    pub partition: Partition,
    /// Offset of the user's record.
    pub offset: i64,
    /// Seconds since 1970.
    pub due: u64,
    /// The user's record's timestamp.
    pub timestamp: Millis,
    /// Topic of the triggered record.
    pub target: Arc<str>,
    /// Key, target key, customer headers and value: read with [`payload::Parts::unpack`].
    pub packed: Vec<u8>,
}

/// How far a partition has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Waiting for its committed metadata or its barrier.
    TakingOver,
    /// Reading up to its barrier.
    Loading,
    /// Firing.
    Live,
    /// Being given back.
    Releasing,
}

/// A partition, as a status shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Which.
    pub partition: Partition,
    /// How far it has come.
    pub phase: Phase,
    /// The next offset to read.
    pub position: i64,
    /// The offset at which loading ends, once it is known.
    pub barrier: Option<i64>,
    /// Schedules held.
    pub pending: usize,
}

impl<P: Payload> Scheduler<P> {
    /// A scheduler that owns nothing yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let names = Arc::new(Names {
            cluster: config.cluster.clone(),
            topics: config.topics.clone(),
            history: config.history.clone(),
            group: config.group.clone(),
        });
        Self {
            names,
            limits: Limits { grace_s: config.grace_s, horizon_s: config.horizon_s },
            items_max: config.batch_items_max,
            config,
            now: Millis(i64::MIN),
            lives: BTreeMap::new(),
            targets: Targets::default(),
            outputs: VecDeque::new(),
            counters: Counters::default(),
            incarnation: 0,
            next_batch: 1,
            in_flight: VecDeque::new(),
            retry_at: Millis(i64::MIN),
            aborts: 0,
            generation: None,
            refused: None,
            fencing: BTreeMap::new(),
            next_take: 0,
            parked: BTreeMap::new(),
            next_parked: 0,
            foreign_groups: BTreeSet::new(),
            stopping: false,
            stopped: false,
        }
    }

    /// The ids that the shell's transactors start with; [`Output::Renew`] replaces them.
    #[must_use]
    pub fn transactional_ids(&self) -> Vec<String> {
        self.ids_of(&self.owner()).take(self.config.transactors.clamp(1, TRANSACTORS_MAX)).collect()
    }

    /// Takes in what happened at `now`. Drain [`poll`](Self::poll) afterwards.
    pub fn handle(&mut self, now: Millis, input: Input<'_>) {
        self.now = now;
        match input {
            Input::Assigned { partitions, today } => self.assigned(partitions, today),
            Input::Record(record) => self.record(&record),
            Input::Committed { partition, offset, metadata } => self.committed(partition, offset, metadata),
            Input::Fenced { take } => self.fenced(take),
            Input::Since { topic, since, today } => self.since(topic, since, today),
            Input::Target { target, state } => self.target(target, state),
            Input::Settled { batch, outcome } => self.settled(batch, outcome),
            Input::Revoked { partitions } => self.revoked(partitions),
            Input::Lost { partitions } => self.lost(partitions),
            Input::Unreadable { why: _ } => self.restart("the consumer's position is no longer valid"),
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
        consider(self.targets.next_check(), "a target topic is checked again");
        consider(self.parked.keys().next().map(|(at, _)| *at), "a parked schedule is tried again");
        if self.may_form() {
            // What could be formed by now has been; what is left waits for a batch to settle.
            let later = |at: Millis| Some(at.max(self.retry_at)).filter(|at| *at > self.now);
            consider(self.next_due().and_then(later), "a schedule is due");
            consider(self.next_mark().and_then(later), "progress is committed");
            consider(
                self.has_waiting_work().then_some(self.retry_at).and_then(later),
                "an aborted batch is tried again",
            );
        }
        next
    }

    /// Events so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Up to `limit` pending schedules from `cursor` on, in no particular order, and where to go on if there are more.
    #[must_use]
    pub fn list(&self, cursor: Cursor, limit: usize) -> (Vec<Listed>, Option<Cursor>) {
        let mut listed = Vec::new();
        let from = cursor.partition.unwrap_or(Partition { topic: 0, number: i32::MIN });
        for (id, life) in self.lives.range(from..) {
            let first = if cursor.partition == Some(*id) { cursor.entry } else { 0 };
            for slot in first..life.words.slots() {
                if listed.len() >= limit {
                    return (listed, Some(Cursor { partition: Some(*id), entry: slot }));
                }
                let Some(word) = life.words.get(slot) else { continue };
                let Meaning::Schedule { due, target } = word.meaning else { continue };
                let mut packed = Vec::with_capacity(word.payload.size());
                word.payload.write(&mut packed);
                listed.push(Listed {
                    partition: *id,
                    offset: word.identity,
                    due,
                    timestamp: word.timestamp,
                    target: self.targets.name(target),
                    packed,
                });
            }
        }
        (listed, None)
    }

    /// Every partition held.
    #[must_use]
    pub fn status(&self) -> Vec<Status> {
        let status = |life: &Life<P>| Status {
            partition: life.id,
            phase: match life.step {
                Step::Metadata | Step::Barrier | Step::BarrierSent => Phase::TakingOver,
                Step::Loading(_) | Step::Since | Step::Siblings | Step::Floor(_) | Step::FloorSent(_) => Phase::Loading,
                Step::Live => Phase::Live,
                Step::Releasing { .. } => Phase::Releasing,
            },
            position: life.position,
            barrier: life.barrier,
            pending: life.words.pending(),
        };
        self.lives.values().map(status).collect()
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
        self.wake_parked();
        self.check_clock();
    }

    fn generation(&mut self, generation: i32) {
        self.generation = Some(generation);
        if self.refused.is_some_and(|refused| refused != generation) {
            self.refused = None;
        }
    }
}
