//! The scheduler as a state machine: no I/O, no clock, no randomness, no threads.
//!
//! A shell passes events to [`Scheduler::handle`] and executes what [`Scheduler::poll`] returns. The same machine runs
//! against Kafka, in the simulator and in the fuzzers. `docs/glossary.md` defines the terms.
//!
//! # The path of a schedule
//!
//! 1. `ingest` receives each record of a partition's log. [`origin`] recognizes *engine records*, which the engine
//!    wrote; [`schedule`] parses users' records: a schedule, a *cancel* (a tombstone), or an *invalid* record, which
//!    cannot fire for a [`reason`].
//! 2. `key_table` folds the log ([`fold`]) into one *entry* per key, for its latest user record. `wait_queues` orders
//!    the entries by due time. `targets` checks target topics, and `deferral` *parks* entries that cannot be delivered
//!    yet. A schedule that has neither fired, ended nor been replaced is *pending*, parked or not.
//! 3. `work` lists the batches that each partition needs, and when.
//! 4. `batching` forms them. A [`batch`] becomes one transaction. To *fire* a schedule is to write the *triggered
//!    record* (the user's value, to the target topic), a history record and a tombstone in it. From now on the key's
//!    engine record is *outstanding*.
//! 5. `in_flight` holds the batch until it has *settled*, that is, until the shell reports its outcome.
//! 6. `outcomes` acts on that. Aborted entries are tried again. Committed records stay outstanding until the consumer
//!    has read past them; then their keys are free. If the outcome is unknown, the engine forgets everything and
//!    rejoins the group.
//!
//! A user's record is *overtaken* if an engine record for an older record of its key comes after it in the log: B is
//! at offset 11, and the tombstone for A at offset 12. Compaction may now remove B, so the engine writes a *copy* of B.
//!
//! # Ownership
//!
//! A partition's *owner* is the instance that its committed metadata names ([`ownership`]). `partition` holds the
//! state, which passes through these steps:
//!
//! 1. `takeover` reads the committed metadata, and commits a *barrier* record together with the new owner's name. Then
//!    it *fences* former owners: `init_transactions` aborts their open transactions, which only saves time.
//! 2. The partition is *loading* until the consumer has read up to the barrier.
//! 3. The partition goes *live* once its [`start_marker`] is known, which separates *owed* schedules from *leftovers*
//!    of the time before the first start. Owed schedules fire, however late.
//! 4. `handover` *releases* the partition: its batches settle, and a *clean commit* declares that none is in flight, so
//!    the successor need not fence this owner.
//!
//! The barrier is safe for this reason. A batch's records are acknowledged before its offsets are sent, and the group
//! coordinator rejects offsets of an older generation (KIP-447). So every record of a former owner that ever commits is
//! before the barrier, and a read_committed consumer cannot pass the barrier while such a transaction is open. Reading
//! up to the barrier therefore sees all that former owners did, even if one of them commits after it.

pub mod batch;
mod batching;
pub mod bugs;
pub mod calendar;
pub mod canary;
mod clock;
mod dead_letters;
mod deferral;
pub mod due;
pub mod fold;
mod freshness;
mod handover;
pub mod headers;
mod in_flight;
mod ingest;
pub mod io;
mod key_index;
mod key_table;
pub mod listing;
mod occurrences;
pub mod origin;
mod outcomes;
pub mod ownership;
mod partition;
pub mod payload;
pub mod progress;
pub mod reason;
pub mod recurrence;
pub mod report;
pub mod schedule;
pub mod snapshot;
pub mod start_marker;
mod takeover;
mod targets;
mod throughput;
pub mod types;
mod wait_queues;
mod warm;
pub mod when;
mod work;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

pub use listing::{Listed, PartitionState, Status};

use batch::RecordNames;
use calendar::Calendar;
use in_flight::Batches;
use io::{Counters, Input, Millis, Output, Report, TopicPartition};
use ownership::RunId;
use partition::{OwnedPartition, Stage};
use payload::{Packed, Payload};
use schedule::AcceptanceRules;
use takeover::Takeovers;
use targets::Targets;

/// The key table of a live partition shrinks if at most one of this many slots is in use.
const LIVE_SLOTS_PER_ENTRY: usize = 16;

/// Maximum number of an instance's transactors (a transactor is a transactional producer that runs one batch at a
/// time): a successor fences this many transactional ids of each former owner.
pub const TRANSACTORS_MAX: usize = 2;

/// A topic that the scheduler reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchedulesTopic {
    /// The topic's name.
    pub name: String,
    /// The largest record that both this topic and the history topic take, in bytes of a record batch with this record
    /// alone. `None` if it is not known: then brokers reject what is larger.
    pub record_bytes_max: Option<usize>,
}

impl SchedulesTopic {
    /// Returns a topic whose largest record is not known.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), record_bytes_max: None }
    }
}

/// The settings of a scheduler.
#[derive(Clone, Debug)]
pub struct Config {
    /// The Kafka cluster's id.
    pub cluster: String,
    /// The schedules topics, without repeats. [`TopicPartition::topic`] is an index into them.
    pub topics: Vec<SchedulesTopic>,
    /// The topic of history records.
    pub history: String,
    /// The topic that records which cannot fire are moved to; without it they stay in the schedules topic.
    pub dead_letter: Option<String>,
    /// The consumer group's id.
    pub group: String,
    /// Unique to this start of the process. Transactional ids are `{group}.{run}.{incarnation}.{number}`; the
    /// incarnation counts how often this run has changed its ids.
    pub run: RunId,
    /// A schedule due more than this many seconds before its own record's timestamp is invalid. `None`: no limit.
    pub grace_s: Option<u64>,
    /// A schedule due more than this many seconds after its own record's timestamp is invalid. `None`: no limit.
    pub horizon_s: Option<u64>,
    /// Number of transactors, 1 or 2: as many batches may be in flight.
    pub transactors: usize,
    /// Maximum number of schedules in one batch.
    pub batch_items_max: usize,
    /// A batch takes no more schedules once it has this many bytes of payloads (key, target key, user headers and
    /// value, packed by [`payload`]); the last one may exceed it.
    pub batch_bytes_max: usize,
    /// Triggered records of the old form have the header `scheduler-due` too.
    pub adds_due_header: bool,
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
/// [`Input::Committed`] only for the present assignment, and [`Input::Target`] once for each [`Output::CheckTarget`].
/// Time may go back.
#[derive(Debug)]
pub struct Scheduler<P: Payload = Packed> {
    config: Config,
    names: Arc<RecordNames>,
    rules: AcceptanceRules,
    now: Millis,
    partitions: BTreeMap<TopicPartition, OwnedPartition<P>>,
    store: P::Store,
    calendar: Box<dyn Calendar>,
    targets: Targets,
    outputs: VecDeque<Output>,
    counters: Counters,
    batches: Batches,
    takeovers: Takeovers,
    /// The dead-letter topic's number in `targets`, once a batch has needed it.
    dead_letter_target: Option<u32>,
    /// Other consumer groups that fire the same topics.
    foreign_groups: BTreeSet<String>,
    /// By topic, the limit of [`Input::CanaryLimit`].
    canary_limits_ms: BTreeMap<u16, i64>,
    /// The partitions that were given back clean when the engine stopped, for their last snapshots.
    retired: BTreeMap<TopicPartition, OwnedPartition<P>>,
    stopping: bool,
    stopped: bool,
}

impl<P: Payload<Store: Default>> Scheduler<P> {
    /// Returns a scheduler that owns no partition yet. It uses 1 to [`TRANSACTORS_MAX`] transactors, whatever `config`
    /// asks for.
    #[must_use]
    pub fn new(config: Config, calendar: Box<dyn Calendar>) -> Self {
        Self::with_store(config, calendar, P::Store::default())
    }
}

impl<P: Payload> Scheduler<P> {
    /// Returns a scheduler whose payloads are kept in `store`.
    #[must_use]
    pub fn with_store(mut config: Config, calendar: Box<dyn Calendar>, store: P::Store) -> Self {
        config.transactors = config.transactors.clamp(1, TRANSACTORS_MAX);
        let names = Arc::new(RecordNames {
            cluster: config.cluster.clone(),
            topics: config.topics.iter().map(|topic| topic.name.clone()).collect(),
            history: config.history.clone(),
            dead_letter: config.dead_letter.clone(),
            group: config.group.clone(),
            adds_due_header: config.adds_due_header,
        });
        Self {
            names,
            rules: AcceptanceRules {
                grace_s: config.grace_s,
                horizon_s: config.horizon_s,
                record_bytes_max: config.topics.iter().map(|topic| topic.record_bytes_max).collect(),
            },
            batches: Batches::new(config.batch_items_max, config.batch_bytes_max),
            config,
            now: Millis(i64::MIN),
            partitions: BTreeMap::new(),
            store,
            calendar,
            targets: Targets::default(),
            outputs: VecDeque::new(),
            counters: Counters::default(),
            takeovers: Takeovers::default(),
            dead_letter_target: None,
            foreign_groups: BTreeSet::new(),
            canary_limits_ms: BTreeMap::new(),
            retired: BTreeMap::new(),
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
            Input::CanaryLimit { topic, limit_ms } => self.on_canary_limit(topic, limit_ms),
            Input::CanaryChecked { partition, found } => self.on_canary_checked(partition, found),
            Input::Generation(generation) => self.batches.set_generation(generation),
            Input::Stop => self.stop(),
            Input::Tick => self.tick(),
        }
        self.compute_dates();
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
        for owned in self.partitions.values() {
            if let Stage::Releasing { until, .. } = owned.stage {
                consider(Some(until), "a release must end");
            }
        }
        consider(self.has_dates_to_compute().then_some(self.now), "dates are computed");
        consider(self.ahead_of_clock().next().map(|_| self.now), "the clock is before a start marker");
        consider(self.targets.next_check(), "a target topic is checked again");
        let next_wake = self.partitions.values().filter_map(|owned| owned.keys.next_retry()).min();
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

    /// Returns the number of target names in memory: those of pending schedules, and unused ones, which are swept now
    /// and then.
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
        for owned in self.partitions.values_mut() {
            owned.keys.wake_retries(self.now);
            // Batches refer to slots until they are read past. One table a tick, to bound the tick's time.
            let outstanding = !owned.unread_batches.is_empty() || self.batches.any_concerns(owned.id);
            shrunk = shrunk || (owned.is_live() && !outstanding && owned.keys.shrink(LIVE_SLOTS_PER_ENTRY));
        }
        self.check_clock();
    }
}
