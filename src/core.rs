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
mod handover;
pub mod headers;
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
pub mod schedule;
pub mod start_marker;
mod takeover;
mod targets;
mod throughput;
mod wait_queues;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

pub use listing::{Listed, Phase, Status};

use batch::TopicNames;
use io::{Counters, Input, Millis, Output, Report, RequestId, TopicPartition};
use outcomes::{Backoff, InFlight, Lane, Purpose};
use partition::{PartitionState, Stage};
use payload::{Packed, Payload};
use schedule::AcceptanceRules;
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

/// Fires schedules when they are due. See [`handle`](Self::handle).
#[derive(Debug)]
pub struct Scheduler<P = Packed> {
    config: Config,
    names: Arc<TopicNames>,
    limits: AcceptanceRules,
    now: Millis,
    partitions: BTreeMap<TopicPartition, PartitionState<P>>,
    targets: Targets,
    outputs: VecDeque<Output>,
    counters: Counters,
    incarnation: u32,
    /// Owners that this process was before and that left batches in flight, newest first: nobody else knows of them.
    previous_owners: Vec<String>,
    next_batch: u64,
    in_flight: VecDeque<InFlight>,
    /// By purpose, whether a batch may be tried again.
    backoff: [Backoff; Purpose::COUNT],
    /// Batches stale_generation without a name, since batches had their full size last.
    unattributed_rejections: u32,
    /// By lot, items a batch, while a stale_generation record is looked for.
    items_max: [usize; Lane::ALL.len()],
    generation: Option<i32>,
    /// The broker stale_generation this generation: nothing is sent until there is another.
    stale_generation: Option<i32>,
    throughput: Throughput,
    /// Fence requests that are not answered.
    fencing: BTreeMap<RequestId, Vec<TopicPartition>>,
    next_request: RequestId,
    /// By topic, the question about its `since` whose answer is awaited.
    since_requests: BTreeMap<u16, RequestId>,
    /// The dead-letter topic, once it has been needed.
    dead_letter: Option<u32>,
    /// Whose turn it was last.
    last_lane: Lane,
    foreign_groups: BTreeSet<String>,
    stopping: bool,
    stopped: bool,
}

impl<P: Payload> Scheduler<P> {
    /// A scheduler that owns nothing yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let names = Arc::new(TopicNames {
            cluster: config.cluster.clone(),
            topics: config.topics.clone(),
            history: config.history.clone(),
            dead_letter: config.dead_letter.clone(),
            group: config.group.clone(),
        });
        Self {
            names,
            limits: AcceptanceRules {
                grace_s: config.grace_s,
                horizon_s: config.horizon_s,
                record_bytes_max: config.record_bytes_max.clone(),
            },
            items_max: [config.batch_items_max; Lane::ALL.len()],
            throughput: Throughput::new(config.batch_bytes_max),
            config,
            now: Millis(i64::MIN),
            partitions: BTreeMap::new(),
            targets: Targets::default(),
            outputs: VecDeque::new(),
            counters: Counters::default(),
            incarnation: 0,
            previous_owners: Vec::new(),
            next_batch: 1,
            in_flight: VecDeque::new(),
            backoff: [Backoff::default(); Purpose::COUNT],
            unattributed_rejections: 0,
            generation: None,
            stale_generation: None,
            fencing: BTreeMap::new(),
            next_request: RequestId(0),
            since_requests: BTreeMap::new(),
            dead_letter: None,
            last_lane: Lane::DeadLetters,
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
            Input::BatchEnded { batch, outcome } => self.settled(batch, outcome),
            Input::Revoked { partitions } => self.revoked(partitions),
            Input::Lost { partitions } => self.lost(partitions),
            Input::PositionInvalid { why } => self.rejoin(why),
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
        for state in self.partitions.values() {
            if let Stage::Releasing { until, .. } = state.stage {
                consider(Some(until), "a release must end");
            }
        }
        consider(self.ahead().next().map(|_| self.now), "the clock is before a floor");
        consider(self.targets.next_check(), "a target topic is checked again");
        let next_wake = self.partitions.values().filter_map(|state| state.keys.next_wake()).min();
        consider(next_wake, "a parked schedule is tried again");
        if self.may_form() {
            // What could be formed by now has been; what is left waits for a batch to settle.
            let later = |at: Millis, purpose| Some(at.max(self.backoff_until(purpose))).filter(|at| *at > self.now);
            for lane in [Lane::Normal, Lane::Large] {
                consider(self.next_due(lane).and_then(|at| later(at, Purpose::Fire(lane))), "a schedule is due");
            }
            consider(self.next_commit().and_then(|at| later(at, Purpose::CommitOffsets)), "progress is committed");
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

    fn next_request(&mut self) -> RequestId {
        let request = self.next_request;
        self.next_request = RequestId(request.0 + 1);
        request
    }

    fn tick(&mut self) {
        self.check_releases();
        for target in self.targets.take_unchecked(self.now) {
            self.check_target(target);
        }
        let mut shrunk = false;
        for state in self.partitions.values_mut() {
            state.keys.wake_parked(self.now);
            // Batches that were committed hold slots until they are read, and so do those in flight. One table in a turn.
            let outstanding = !state.unread.is_empty() || self.in_flight.iter().any(|batch| batch.touches(state.id));
            shrunk = shrunk || (state.is_live() && !outstanding && state.keys.shrink(LIVE_SHARE));
        }
        self.check_clock();
    }

    fn generation(&mut self, generation: i32) {
        self.generation = Some(generation);
        if self.stale_generation.is_some_and(|stale| stale != generation) {
            self.stale_generation = None;
        }
    }
}
