//! One turn after another: what has happened goes into the core, and what it says is done.

mod outdated;
mod reading;
mod rebalancing;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use rebalancing::Revocation;

use super::group::{self, Member, Rebalance};
use super::settings::Settings;
use super::start::Ready;
use super::topics;
use super::transactor::{Answers, Done, End, Job, Membership, Transactors};
use super::watch::watch;
use super::worker::{Found, Worker};
use super::{Clock, Error, EventLoop, native};
use crate::config::Config;
use crate::core::batch::{Batch, Kind};
use crate::core::io::{Abort, Counters, Input, Millis, Outcome, Output, TopicPartition, Report};
use crate::core::{self, Scheduler};
use crate::handle::board::{Board, Snapshot, Stage};
use crate::handle::{Observer, Query, Wake};

/// The loop looks around at least this often, should a wake-up get lost.
const SLEEP_MAX: Duration = Duration::from_millis(100);
/// Between two looks at the clock and the generation.
const TICK: Duration = Duration::from_millis(500);
/// The same while the broker refuses our generation, so that the next one is seen soon.
const TICK_REFUSED: Duration = Duration::from_millis(200);
/// Before a group is joined anew; doubled each time, until a transaction has been committed.
const REJOIN_MIN: Duration = Duration::from_millis(500);
const REJOIN_MAX: Duration = Duration::from_secs(5);
/// Between two words to the observer about counters.
const TELL: Duration = Duration::from_millis(100);
/// Between two looks at all partitions, at least; where one takes long, they are as rare as it takes for a twentieth of
/// the loop's time.
const PUBLISH: Duration = Duration::from_millis(500);
const PUBLISH_SHARE: u32 = 20;
/// How long the end of the process waits for its transactors, and then for the broker's goodbye.
const PARTING_MAX: Duration = Duration::from_millis(250);
const GOODBYE_MAX: Duration = Duration::from_millis(250);
/// Schedules a batch: beyond this, larger batches are no faster, and commits only take longer.
const BATCH_ITEMS_MAX: usize = 10_000;
/// Payload bytes a batch.
const BATCH_BYTES_MAX: usize = 16 << 20;

/// Everything the loop holds.
pub struct Pump {
    config: Config,
    clock: Clock,
    settings: Arc<Settings>,
    topics: Arc<Vec<String>>,
    core: Scheduler,
    observer: Box<dyn Observer>,
    member: Option<Arc<Member>>,
    revocation: Option<Revocation>,
    /// Partitions that were set back since the last records were taken.
    rewound: Vec<TopicPartition>,
    transactors: Option<Transactors>,
    answers: Answers,
    done: Receiver<Done>,
    worker: Worker,
    found: Receiver<Found>,
    targets: Sender<(u32, Arc<str>)>,
    wake: Wake,
    asks: Receiver<Query>,
    /// The number of the read of committed offsets that each partition waits for: answers to others are stale.
    reads: BTreeMap<TopicPartition, u64>,
    next_read: u64,
    generation: Option<i32>,
    refused: bool,
    told: Counters,
    told_at: Instant,
    board: Arc<Board>,
    /// A partition went live since memory was last given back.
    has_loaded: bool,
    publish_at: Instant,
    /// The group has answered since it was last asked to be joined.
    is_member: bool,
    ending: bool,
    /// When to look at the files that settings came from.
    files_at: Instant,
    /// Why the engine ends by itself.
    failure: Option<Error>,
    /// When the batches that have not ended were formed.
    formed: BTreeMap<u64, Instant>,
    next_tick: Instant,
    rejoin_at: Option<Instant>,
    rejoin_after: Duration,
    stopped: bool,
}

impl Pump {
    /// Starts the threads.
    #[expect(clippy::too_many_arguments, reason = "made in one place, from what was made before it")]
    pub fn new(
        config: Config,
        clock: Clock,
        mut settings: Settings,
        ready: &Ready,
        observer: Box<dyn Observer>,
        board: Arc<Board>,
        wake: Wake,
        asks: Receiver<Query>,
    ) -> Result<Self, Error> {
        for (topic, entries) in &ready.settings {
            if let Some(bytes) = topics::set_bytes_max(entries) {
                settings.limits.learn(topic, bytes);
            }
        }
        settings.fit_sets(ready.settings.values().filter_map(topics::set_bytes_max).min());
        let core = Scheduler::new(core_config(&config, ready, &settings)?);
        let settings = Arc::new(settings);
        let topics = Arc::new(config.schedules_topics.clone());
        let (done_sender, done) = unbounded();
        let (found_sender, found) = unbounded();
        let answers = Answers { done: done_sender, wake: Arc::clone(&wake) };
        let worker = Worker {
            settings: Arc::clone(&settings),
            topics: Arc::clone(&topics),
            cluster: ready.cluster.as_str().into(),
            found: found_sender,
            wake: Arc::clone(&wake),
            rebalances: Arc::new(AtomicU64::new(0)),
            closing: Arc::new(AtomicBool::new(false)),
        };
        let targets = worker.targets();
        if settings.describes {
            watch(&worker);
        }
        let mut pump = Self {
            config,
            clock,
            settings,
            topics,
            core,
            observer,
            member: None,
            revocation: None,
            rewound: Vec::new(),
            transactors: None,
            answers,
            done,
            worker,
            found,
            targets,
            wake,
            asks,
            reads: BTreeMap::new(),
            next_read: 0,
            generation: None,
            refused: false,
            told: Counters::default(),
            told_at: Instant::now(),
            board,
            has_loaded: false,
            publish_at: Instant::now(),
            is_member: false,
            ending: false,
            files_at: Instant::now(),
            failure: None,
            formed: BTreeMap::new(),
            next_tick: Instant::now(),
            rejoin_at: Some(Instant::now()),
            rejoin_after: REJOIN_MIN,
            stopped: false,
        };
        pump.renew(&pump.core.transactional_ids());
        Ok(pump)
    }

    /// Turns until the core has stopped.
    pub fn run(mut self, events: &mut EventLoop) -> Result<(), Error> {
        let mut more = false;
        while !self.stopped {
            events.sleep(if more { Duration::ZERO } else { self.sleep() });
            let woken = Instant::now();
            self.join();
            more = self.consume();
            self.rebalance();
            self.hear();
            self.tick();
            self.answer();
            self.tell(TELL);
            self.publish();
            self.observer.turned(woken.elapsed());
        }
        let failure = self.failure.take();
        self.end();
        failure.map_or(Ok(()), Err)
    }

    fn sleep(&self) -> Duration {
        let Some((at, _)) = self.core.poll_timeout() else { return SLEEP_MAX };
        let wait = at.0.saturating_sub(self.clock.now().0).max(0);
        SLEEP_MAX.min(Duration::from_millis(wait.unsigned_abs()))
    }

    fn input(&mut self, input: Input<'_>) {
        self.input_at(self.clock.now(), input);
    }

    fn input_at(&mut self, now: Millis, input: Input<'_>) {
        self.core.handle(now, input);
        while let Some(output) = self.core.poll() {
            self.act(output);
        }
    }

    fn act(&mut self, output: Output) {
        match output {
            Output::ReadCommitted(partitions) => self.read_committed(partitions),
            Output::Fence { request, transactional_ids } => self.worker.fence(request, transactional_ids),
            Output::FindSince { request, topic, known } => self.worker.find_since(request, topic, known),
            // The thread ends with the engine.
            Output::CheckTarget { target, name } => drop(self.targets.send((target, name))),
            Output::Transact(batch) => self.transact(batch),
            Output::Seek(partition) => self.seek(partition),
            Output::Release(partitions) => self.release(&partitions),
            Output::ReplaceTransactionalIds { transactional_ids } => self.renew(&transactional_ids),
            Output::Rejoin(why) => self.restart(why),
            Output::Stopped => self.stopped = true,
            Output::Report(report) => {
                self.has_loaded |= matches!(report, Report::Live { .. });
                if report == Report::ThroughputIsLimit {
                    self.settings.voice.throughput();
                }
                self.observer.report(&report, &self.topics);
            }
        }
    }

    fn read_committed(&mut self, partitions: Vec<TopicPartition>) {
        self.next_read += 1;
        self.reads.extend(partitions.iter().map(|partition| (*partition, self.next_read)));
        self.worker.read_committed(self.next_read, partitions);
    }

    fn join(&mut self) {
        if self.rejoin_at.is_none_or(|at| at > Instant::now()) {
            return;
        }
        self.rejoin_at = None;
        match group::join(&self.settings, &self.topics, &self.worker.rebalances, &self.wake) {
            Ok(member) => self.member = Some(member),
            Err(error) => {
                tracing::error!(%error, "the group cannot be joined; trying again");
                self.rejoin_later();
            }
        }
    }

    fn rejoin_later(&mut self) {
        self.rejoin_at = Some(Instant::now() + self.rejoin_after);
        self.rejoin_after = (self.rejoin_after * 2).min(REJOIN_MAX);
    }

    /// What the other threads have found.
    fn hear(&mut self) {
        while let Ok(found) = self.found.try_recv() {
            match found {
                Found::Anew { topic } => {
                    tracing::warn!(
                        topic,
                        "the schedules topic was deleted and made anew; it is read from its beginning"
                    );
                    self.input(Input::PositionInvalid { why: "a topic was made anew" });
                }
                // Read for an assignment that has ended since: another owner may have committed.
                Found::Committed { read, partition, .. } if self.reads.get(&partition) != Some(&read) => {}
                Found::Committed { partition, offset, metadata, .. } => {
                    self.reads.remove(&partition);
                    self.input(Input::Committed { partition, offset, metadata: &metadata });
                }
                Found::Fenced { request } => self.input(Input::Fenced { request }),
                Found::Since { request, since } => {
                    let leftover_cutoff = self.clock.leftover_cutoff(self.config.since_delta_days);
                    self.input(Input::Since { request, since, leftover_cutoff });
                }
                Found::Outdated { path } => self.outdated(path),
                Found::Target { target, state } => self.input(Input::Target { target, state }),
                Found::Trimmed { topic, number, start } => {
                    if let Some(partition) = self.partition(topic.as_bytes(), number) {
                        self.input(Input::Trimmed { partition, start });
                    }
                }
            }
        }
        while let Ok(done) = self.done.try_recv() {
            self.settled(&done);
        }
    }

    fn settled(&mut self, done: &Done) {
        let batch = done.batch.id;
        if let Some(formed) = self.formed.remove(&batch) {
            self.observer.settled(&done.batch, done.end.name(), formed.elapsed());
        }
        let outcome = match &done.end {
            End::Committed(written) => Outcome::Committed { written },
            End::Retry => Outcome::Aborted(Abort::Retry),
            End::TimedOut(late) => Outcome::Aborted(Abort::TimedOut(*late)),
            End::Refused(generation) => Outcome::Aborted(Abort::StaleGeneration { generation: *generation }),
            End::Rejected(guilty) => Outcome::Aborted(Abort::Rejected(guilty)),
            End::Unknown => Outcome::Unknown,
        };
        tracing::debug!(batch, items = done.batch.items.len(), end = ?done.end, "a batch has ended");
        if matches!(outcome, Outcome::Committed { .. }) {
            self.committed(&done.batch);
        }
        self.refused = matches!(outcome, Outcome::Aborted(Abort::StaleGeneration { .. }));
        self.input(Input::BatchEnded { batch, outcome });
        if self.refused {
            // Said again even if it is the one that was known: the core waits for one that was not refused.
            self.generation = None;
            self.next_tick = self.next_tick.min(Instant::now() + TICK_REFUSED);
        }
    }

    fn committed(&mut self, batch: &Batch) {
        self.rejoin_after = REJOIN_MIN;
        self.settings.voice.well();
        if batch.items.iter().any(|item| matches!(item.kind, Kind::Fire { .. })) {
            let config = &self.config;
            self.settings.voice.written(|topic| {
                let is_own = topic == config.history_topic || config.schedules_topics.iter().any(|own| own == topic);
                is_own || batch.items.iter().any(|item| batch.target(item) == Some(topic))
            });
            self.observer.fired(batch, self.clock.now());
        }
    }

    fn transact(&mut self, batch: Batch) {
        // Taken here, while the batch's partitions are owned and before any of them can be given away.
        let membership = self.member.as_ref().and_then(|member| native::membership(member.consumer()));
        let membership = membership.map(|(metadata, generation, member)| Membership(metadata, generation, member));
        self.formed.insert(batch.id, Instant::now());
        match &self.transactors {
            Some(transactors) => transactors.run(Job { batch, membership }),
            // They could not be started: the core has them renewed.
            None => self.answers.tell(Done { batch, end: End::Unknown }),
        }
    }

    fn renew(&mut self, ids: &[String]) {
        self.transactors = Transactors::start(&self.settings, ids, &self.topics, &self.answers)
            .inspect_err(|error| tracing::error!(%error, "no transactor could be started"))
            .ok();
    }

    fn restart(&mut self, why: &str) {
        tracing::warn!(why, "starting anew from the log");
        if let Some(member) = self.member.take() {
            let pending = self.revocation.take().map(|revocation| Rebalance::Revoke(revocation.list));
            drop(group::leave(member, pending));
        }
        self.revocation = None;
        self.is_member = false;
        self.formed.clear();
        self.generation = None;
        self.refused = false;
        self.reads.clear();
        self.rejoin_later();
    }

    fn tick(&mut self) {
        let due = self.core.poll_timeout().is_some_and(|(at, _)| at <= self.clock.now());
        let regular = self.next_tick <= Instant::now();
        if regular {
            self.next_tick = Instant::now() + if self.refused { TICK_REFUSED } else { TICK };
            self.check_generation();
            self.check_calls();
            self.check_files();
            if std::mem::take(&mut self.has_loaded) {
                native::give_back_memory();
            }
        }
        if due || regular {
            self.input(Input::Tick);
        }
    }

    /// A transactor that never answers is given up with its transaction, which the takeover that follows fences.
    fn check_calls(&mut self) {
        if let Some(batch) = self.transactors.as_ref().and_then(Transactors::stuck) {
            tracing::warn!(batch, "a call to librdkafka does not return");
            self.input(Input::BatchEnded { batch, outcome: Outcome::Unknown });
        }
    }

    fn check_generation(&mut self) {
        let Some((generation, _)) = self.member.as_ref().and_then(|member| native::generation(member.consumer()))
        else {
            return;
        };
        if self.generation != Some(generation) {
            self.generation = Some(generation);
            self.input(Input::Generation(generation));
        }
    }

    fn answer(&mut self) {
        while let Ok(query) = self.asks.try_recv() {
            match query {
                Query::Page { cursor, limit, filter, reply } => reply.send(self.core.page(cursor, limit, &filter)),
                Query::Find { topic, key, reply } => reply.send(self.core.find(topic, &key)),
                Query::Upcoming { limit, reply } => reply.send(self.core.upcoming(limit)),
                Query::Stop => self.stop(),
            }
        }
    }

    fn stop(&mut self) {
        self.ending = true;
        self.publish_at = Instant::now();
        self.input(Input::Stop);
    }

    /// Tells the counters if they have moved, at most once in `interval`.
    fn tell(&mut self, interval: Duration) {
        let counters = self.core.counters();
        if counters != self.told && self.told_at.elapsed() >= interval {
            self.told = counters;
            self.told_at = Instant::now();
            self.observer.counters(&counters);
        }
    }

    /// Puts up what is held.
    fn publish(&mut self) {
        let begun = Instant::now();
        if self.publish_at > begun {
            return;
        }
        let stage = match (self.ending, self.is_member) {
            (true, _) => Stage::Ending,
            (false, true) => Stage::Member,
            (false, false) => Stage::Joining,
        };
        let memory_warn_bytes = self.config.memory_warn_bytes;
        let snapshot = Snapshot { at: self.clock.now(), stage, partitions: self.core.status(), memory_warn_bytes };
        self.observer.held(&snapshot);
        self.board.publish(snapshot);
        self.publish_at = begun + PUBLISH.max(begun.elapsed() * PUBLISH_SHARE);
    }

    fn end(mut self) {
        self.tell(Duration::ZERO);
        self.worker.closing.store(true, Ordering::Release);
        if let Some(transactors) = self.transactors.take() {
            transactors.wait(PARTING_MAX);
        }
        if let Some(member) = self.member.take() {
            let pending = self.revocation.take().map(|revocation| Rebalance::Revoke(revocation.list));
            let _ = group::leave(member, pending).recv_timeout(GOODBYE_MAX);
        }
        tracing::info!("stopped");
    }
}

fn core_config(config: &Config, ready: &Ready, settings: &Settings) -> Result<core::Config, Error> {
    let mut random = [0u8; 16];
    getrandom::fill(&mut random).map_err(|error| Error::System(std::io::Error::other(error.to_string())))?;
    let (run, seed) = random.split_at(8);
    let bytes_max = |topic: &String| ready.settings.get(topic).and_then(topics::set_bytes_max);
    let record_bytes_max = |topic: &String| {
        // What a record is when compressed is known only afterwards: the brokers judge it then.
        let judged = !settings.compresses();
        bytes_max(topic).into_iter().chain(bytes_max(&config.history_topic)).min().filter(|_| judged)
    };
    Ok(core::Config {
        cluster: ready.cluster.clone(),
        topics: config.schedules_topics.clone(),
        history: config.history_topic.clone(),
        dead_letter: config.dead_letter_topic.clone(),
        record_bytes_max: config.schedules_topics.iter().map(record_bytes_max).collect(),
        group: config.group_id.clone(),
        run: run.iter().map(|byte| format!("{byte:02x}")).collect(),
        grace_s: config.grace_s,
        horizon_s: config.horizon_s,
        transactors: core::TRANSACTORS_MAX,
        batch_items_max: BATCH_ITEMS_MAX,
        batch_bytes_max: BATCH_BYTES_MAX,
        hash_seed: seed.iter().fold(0, |seed, byte| seed << 8 | u64::from(*byte)),
    })
}
