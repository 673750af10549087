//! The scheduler as a state machine: no I/O, no clock, no randomness, no threads.
//!
//! A shell passes events to [`Scheduler::handle`] and executes what [`Scheduler::poll`] returns. The same machine runs
//! against Kafka, in the simulator and in the fuzzers.
//!
//! # The path of a schedule
//!
//! A *schedule* is a user's record that requests another one, the *triggered record*, in a *target* topic at a due
//! time. Its *request headers* (`scheduler-epoch`, `scheduler-target-topic`, `scheduler-target-key`) say so. To *fire* it is to write, in one transaction, the triggered record, a *history record* and a tombstone for the
//! schedule. The history record is a copy of the triggered record plus the request headers, in the history topic: the
//! log of what fired.
//!
//! 1. `ingest` receives each record of a partition's log. [`schedule`] parses those of users: each is a schedule, a
//!    *cancel* (a tombstone) or *invalid* (it cannot fire, for a [`reason`]), and ends its key's earlier request whichever
//!    it is. *Engine records* are the
//!    records that the engine writes into a schedules topic: tombstones, copies, barriers and start markers. [`origin`]
//!    recognizes the first two by their *origin header*, which names the user record that they were written for.
//! 2. `key_table` folds the log ([`fold`]) into one *entry* per key, the latest user record, in a numbered *slot*, by
//!    which queues and batches refer to it. A schedule is *pending* while it has an entry: waiting, parked, or in a batch
//!    whose records have not been read back. `wait_queues` orders the entries by due time; `deferral` *parks* those that cannot be delivered yet; `targets` checks target topics.
//! 3. `work` lists the batches that each partition needs, and when.
//! 4. `batching` forms them. A [`batch`] becomes one transaction, which a *transactor* runs: a thread of the shell with
//!    one transactional producer. Now the keys' engine records are *outstanding*.
//! 5. `in_flight` holds the batch until it has *settled*: the shell reports its outcome.
//! 6. `outcomes` acts on that. Aborted entries are tried again. Committed records are outstanding until the consumer
//!    has read past them; then their keys are free. If the outcome is unknown, the engine forgets everything and
//!    rejoins the group.
//!
//! A user writes A at offset 10 and, while A fires, B at offset 11 under the same key; the tombstone for A is at offset
//! 12. B is *overtaken*: compaction keeps the last record of a key, so it may remove B. The engine *rewrites* B: it
//! writes a *copy*, whose origin header names offset 11.
//!
//! # Ownership
//!
//! A partition's *owner* is an instance of the engine, by the name `{run}.{incarnation}`: a *run* is one start of the
//! process, and it begins a new *incarnation* whenever it changes its transactional ids. `takeover` reads the
//! committed metadata and then writes a *barrier*, a record committed together with the owner's name; reading up to it
//! is *loading*. A [`start_marker`] record holds an offset and the time, `since`, from which schedules are *owed*: they
//! fire, however late. A *leftover* is below that offset, and due before `since` and before the *leftover cutoff*: local
//! midnight plus the setting `SINCE_DELTA`, 0 or fewer days. It does not fire. `since` is the cutoff at the first start
//! of any instance of the group on the topic. Once a partition is loaded and its start marker is known, it goes *live*:
//! its schedules fire, and those already due at that moment are *missed*. `handover` *releases* a partition: its batches
//! settle, then a *clean commit* declares that nothing of ours is in flight, so the successor need not fence us. To
//! *fence* an owner is to run `init_transactions` with its transactional ids, which only saves time. `partition` holds
//! the state of a partition, and [`ownership`] the metadata of its committed offset.
//!
//! A batch's records are acknowledged before its offsets are sent, and the group coordinator rejects offsets of an
//! older generation (KIP-447). So every record of a former owner that ever commits is before the barrier, and a
//! read_committed consumer cannot pass the barrier while such a transaction is open. Reading up to the barrier
//! therefore sees all that former owners did, even if one of them commits after it.

pub mod batch;
mod batching;
pub mod bugs;
#[cfg(feature = "core")]
pub mod calendar;
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

/// The key table of a live partition shrinks if at most one of this many slots is in use.
const LIVE_SLOTS_PER_ENTRY: usize = 16;

/// Maximum number of transactors of an instance: a successor fences this many transactional ids of each former owner.
pub const TRANSACTORS_MAX: usize = 2;

/// The settings of a scheduler.
#[derive(Clone, Debug)]
pub struct Config {
    /// The Kafka cluster's id.
    pub cluster: String,
    /// Names of the schedules topics, without repeats.
    pub topics: Vec<String>,
    /// The topic of history records.
    pub history: String,
    /// The topic that records which cannot fire are moved to; without it they stay in the schedules topic.
    pub dead_letter: Option<String>,
    /// By index in `topics`: the largest record that both that topic and the history topic take, in bytes of a record
    /// batch with this record alone.
    pub record_bytes_max: Vec<Option<usize>>,
    /// The consumer group's id.
    pub group: String,
    /// Unique to this start of the process: 1 to 32 characters of `0-9a-f`. Transactional ids are
    /// `{group}.{run}.{incarnation}.{number}`.
    pub run: String,
    /// A schedule due more than this many seconds before its own record's timestamp is invalid. `None`: no limit.
    pub grace_s: Option<u64>,
    /// A schedule due more than this many seconds after its own record's timestamp is invalid. `None`: no limit.
    pub horizon_s: Option<u64>,
    /// Number of transactors, 1 or 2: as many batches may be in flight.
    pub transactors: usize,
    /// Maximum number of schedules in one batch.
    pub batch_items_max: usize,
    /// A batch takes no more schedules once it has this many bytes of payloads (key, target key, user headers and value,
    /// packed by [`payload`]); the last one may exceed it.
    pub batch_bytes_max: usize,
    /// Seed of the hash of keys, against keys chosen to collide.
    pub hash_seed: u64,
}

/// Decides for one group member: fires schedules when they are due, takes partitions over and gives them back.
///
/// - **Getters** ([`counters`](Self::counters), [`list`](Self::list), [`status`](Self::status)) change nothing.
/// - [`handle`](Self::handle) processes one event. It never blocks and does no I/O.
/// - [`poll`](Self::poll) returns the next action. Call it until it returns `None` before the next `handle`: remaining
///   outputs stay queued, in order, but a batch that waits there makes its schedules late.
/// - [`poll_timeout`](Self::poll_timeout) returns when to send [`Input::Tick`] if nothing else happens.
///
/// Late, repeated or unrequested answers to fences, `since` requests and batches are ignored. The shell delivers
/// [`Input::Committed`] only for the present assignment, and [`Input::Target`] once for each [`Output::CheckTarget`]. Time
/// may go back.
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
    /// The dead-letter topic's number in `targets`, once a batch has needed it.
    dead_letter_target: Option<u32>,
    /// Other consumer groups that fire the same topics.
    foreign_groups: BTreeSet<String>,
    stopping: bool,
    stopped: bool,
}

impl<P: Payload<Store: Default>> Scheduler<P> {
    /// Returns a scheduler that owns no partition yet. It uses 1 to [`TRANSACTORS_MAX`] transactors, whatever `config`
    /// asks for.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self::with_store(config, P::Store::default())
    }
}

impl<P: Payload> Scheduler<P> {
    /// Returns a scheduler whose payloads are kept in `store`.
    #[must_use]
    pub fn with_store(mut config: Config, store: P::Store) -> Self {
        config.transactors = config.transactors.clamp(1, TRANSACTORS_MAX);
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

    /// Returns the ids that the shell's transactors start with; [`Output::ReplaceTransactionalIds`] replaces them.
    #[must_use]
    pub fn transactional_ids(&self) -> Vec<String> {
        self.transactional_ids_of(&self.owner()).take(self.config.transactors).collect()
    }

    /// Processes an event of the time `now`. Drain [`poll`](Self::poll) afterwards.
    ///
    /// # Panics
    /// If a partition's topic is not an index of [`Config::topics`].
    pub fn handle(&mut self, now: Millis, input: Input<'_>) {
        self.set_now(now);
        match input {
            Input::Assigned { partitions, leftover_cutoff } => self.on_assigned(partitions, leftover_cutoff),
            Input::Record(record) => self.on_record(&record),
            Input::Committed { partition, offset, metadata } => self.on_committed(partition, offset, metadata),
            Input::Fenced { request } => self.on_fenced(request),
            Input::Since { request, since, leftover_cutoff } => self.on_since(request, since, leftover_cutoff),
            Input::Target { target, state } => self.on_target(target, state),
            Input::BatchEnded { batch, outcome } => self.on_batch_ended(batch, outcome),
            Input::Revoked { partitions } => self.on_revoked(partitions),
            Input::Lost { partitions } => self.on_lost(partitions),
            Input::PositionInvalid { why } => self.rejoin(why),
            Input::Trimmed { partition, start } => self.on_trimmed(partition, start),
            Input::Generation(generation) => self.batches.set_generation(generation),
            Input::Stop => self.stop(),
            Input::Tick => self.tick(),
        }
        self.form();
    }

    /// Returns the next action, or `None` if there is none left.
    #[must_use]
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Returns when to send [`Input::Tick`] if nothing happens before, and the reason. A time at or before the last
    /// `now` means at once.
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
        consider(self.ahead_of_clock().next().map(|_| self.now), "the clock is before a start marker");
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

    /// Returns the numbers of events since the scheduler was made.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Returns the number of target names in memory: those of pending schedules, and unused ones, which are swept now and
    /// then.
    #[must_use]
    pub fn targets(&self) -> usize {
        self.targets.len()
    }

    fn owner(&self) -> String {
        format!("{}.{}", self.config.run, self.takeovers.incarnation)
    }

    fn transactional_ids_of(&self, owner: &str) -> impl Iterator<Item = String> + use<P> {
        let stem = format!("{}.{owner}", self.config.group);
        (0..TRANSACTORS_MAX).map(move |number| format!("{stem}.{number}"))
    }

    fn report(&mut self, report: Report) {
        self.outputs.push_back(Output::Report(report));
    }

    fn tick(&mut self) {
        self.check_releases();
        for target in self.targets.take_due_lookups(self.now) {
            self.check_target(target);
        }
        let mut shrunk = false;
        for state in self.partitions.values_mut() {
            state.keys.wake_retries(self.now);
            // Batches refer to slots until they are read past. One table a tick, to bound the tick's time.
            let outstanding = !state.unread_batches.is_empty() || self.batches.any_concerns(state.id);
            shrunk = shrunk || (state.is_live() && !outstanding && state.keys.shrink(LIVE_SLOTS_PER_ENTRY));
        }
        self.check_clock();
    }
}
