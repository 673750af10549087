//! The scheduler as a state machine: no I/O, no clock, no randomness, no threads.
//!
//! A shell feeds [`Scheduler::handle`] with what happened and carries out what [`Scheduler::poll`] returns. The same
//! machine runs against Kafka, in the simulator and in the fuzzers.

pub mod batch;
mod batching;
#[cfg(feature = "known-bad")]
pub mod bugs;
#[cfg(not(feature = "known-bad"))]
mod bugs;
mod clock;
mod deferral;
pub mod due;
pub mod fold;
mod handover;
pub mod headers;
mod in_flight;
mod ingest;
pub mod io;
mod key_index;
mod key_table;
pub mod listing;
pub mod origin;
mod outcomes;
pub mod ownership;
mod partition;
pub mod payload;
pub mod reason;
pub mod report;
pub mod schedule;
pub mod start_marker;
mod takeover;
mod targets;
mod throughput;
pub mod types;
mod wait_queues;
mod work;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

pub use listing::{Listed, Phase, Status};

use batch::TopicNames;
use in_flight::Batches;
use io::{Counters, Input, Millis, Output, Report, TopicPartition};
use partition::{PartitionState, Stage};
use payload::{Packed, Payload};
use schedule::AcceptanceRules;
use takeover::Takeovers;
use targets::Targets;

/// Tables of a partition that fires shrink if no more than one place of so many is in use.
const LIVE_SHARE: usize = 16;

/// Transactors at the most: a successor fences this many ids of each former owner.
pub const TRANSACTORS_MAX: usize = 2;

/// The settings of a scheduler.
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

/// Decides what a group member does about its partitions: fires schedules when they are due, and hands partitions over.
///
/// - **Getters** ([`counters`](Self::counters), [`list`](Self::list), [`status`](Self::status)) change nothing.
/// - [`handle`](Self::handle) takes in one event. It never blocks and does no I/O.
/// - [`poll`](Self::poll) returns what to do about it. Call it until it returns `None` before the next `handle`: outputs
///   that are left wait for later calls, in order, but a batch that waits there costs lateness.
/// - [`poll_timeout`](Self::poll_timeout) returns when to send [`Input::Tick`] if nothing else happens.
///
/// Answers that come late, twice, or to no request are ignored. Time may go back.
#[derive(Debug)]
pub struct Scheduler<P: Payload = Packed> {
    config: Config,
    names: Arc<TopicNames>,
    rules: AcceptanceRules,
    now: Millis,
    partitions: BTreeMap<TopicPartition, PartitionState<P>>,
    store: P::Store,
    targets: Targets,
    outputs: VecDeque<Output>,
    counters: Counters,
    batches: Batches,
    takeovers: Takeovers,
    /// The number of the dead-letter topic among the targets, once it has been needed.
    dead_letter_target: Option<u32>,
    /// Other consumer groups that fire the same topics.
    foreign_groups: BTreeSet<String>,
    stopping: bool,
    stopped: bool,
}

impl<P: Payload<Store: Default>> Scheduler<P> {
    /// Makes a scheduler that owns no partition yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self::with_store(config, P::Store::default())
    }
}

impl<P: Payload> Scheduler<P> {
    /// As [`Scheduler::new`], with a store for payloads.
    #[must_use]
    pub fn with_store(config: Config, store: P::Store) -> Self {
        let names = Arc::new(TopicNames {
            cluster: config.cluster.clone(),
            topics: config.topics.clone(),
            history: config.history.clone(),
            dead_letter: config.dead_letter.clone(),
            group: config.group.clone(),
        });
        Self {
            names,
            rules: AcceptanceRules {
                grace_s: config.grace_s,
                horizon_s: config.horizon_s,
                record_bytes_max: config.record_bytes_max.clone(),
            },
            batches: Batches::new(config.batch_items_max, config.batch_bytes_max),
            config,
            now: Millis(i64::MIN),
            partitions: BTreeMap::new(),
            store,
            targets: Targets::default(),
            outputs: VecDeque::new(),
            counters: Counters::default(),
            takeovers: Takeovers::default(),
            dead_letter_target: None,
            foreign_groups: BTreeSet::new(),
            stopping: false,
            stopped: false,
        }
    }

    /// The ids that the shell's transactors start with; [`Output::ReplaceTransactionalIds`] replaces them.
    #[must_use]
    pub fn transactional_ids(&self) -> Vec<String> {
        self.ids_of(&self.owner()).take(self.config.transactors.clamp(1, TRANSACTORS_MAX)).collect()
    }

    /// Takes in what happened at `now`. Drain [`poll`](Self::poll) afterwards.
    pub fn handle(&mut self, now: Millis, input: Input<'_>) {
        self.set_now(now);
        match input {
            Input::Assigned { partitions, leftover_cutoff } => self.assigned(partitions, leftover_cutoff),
            Input::Record(record) => self.record(&record),
            Input::Committed { partition, offset, metadata } => self.committed(partition, offset, metadata),
            Input::Fenced { request } => self.fenced(request),
            Input::Since { request, since, leftover_cutoff } => self.since(request, since, leftover_cutoff),
            Input::Target { target, state } => self.target(target, state),
            Input::BatchEnded { batch, outcome } => self.batch_ended(batch, outcome),
            Input::Revoked { partitions } => self.revoked(partitions),
            Input::Lost { partitions } => self.lost(partitions),
            Input::PositionInvalid { why } => self.rejoin(why),
            Input::Trimmed { partition, start } => self.trimmed(partition, start),
            Input::Generation(generation) => self.batches.set_generation(generation),
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
        for state in self.partitions.values() {
            if let Stage::Releasing { until, .. } = state.stage {
                consider(Some(until), "a release must end");
            }
        }
        consider(self.ahead().next().map(|_| self.now), "the clock is before a start marker");
        consider(self.targets.next_check(), "a target topic is checked again");
        let next_wake = self.partitions.values().filter_map(|state| state.keys.next_retry()).min();
        consider(next_wake, "a parked schedule is tried again");
        if self.may_form()
            && let Some((at, why)) = self.next_work()
        {
            consider(Some(at), why);
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
        format!("{}.{}", self.config.run, self.takeovers.incarnation)
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
        for state in self.partitions.values_mut() {
            state.keys.wake_retries(self.now);
            // Batches that were committed hold slots until they are read, and so do those in flight. One table in a turn.
            let outstanding = !state.unread.is_empty() || self.batches.touch(state.id);
            shrunk = shrunk || (state.is_live() && !outstanding && state.keys.shrink(LIVE_SHARE));
        }
        self.check_clock();
    }
}
