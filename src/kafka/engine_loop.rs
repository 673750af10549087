//! The engine's event loop: feeds inputs to the core and executes its outputs.

mod reading;
mod rebalancing;
mod requests;
mod running_batches;
mod snapshots;
mod state_reporter;
mod stopping;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use self::rebalancing::GroupState;
use self::requests::Requests;
use self::running_batches::RunningBatches;
use self::snapshots::Snapshots;
use self::state_reporter::StateReporter;
use self::stopping::Shutdown;
use super::client_config::ClientConfigs;
use super::clients::Clients;
use super::clock::Clock;
use super::cluster_monitor;
use super::error::EngineError;
use super::ffi;
use super::random::random;
use super::restoring::Restoring;
use super::sleeper::Sleeper;
use super::startup::Ready;
use super::topics;
use super::worker::WorkerResult;
use crate::calendar::ZoneCalendar;
use crate::config::Config;
use crate::core::io::{Input, Millis, Output, Report, TopicPartition};
use crate::core::ownership::RunId;
use crate::core::{self, Scheduler};
use crate::handle::status_board::StatusBoard;
use crate::handle::{Observer, Query, Wake};

/// The loop checks everything at least this often, in case a wake-up is lost.
const SLEEP_TIMEOUT: Duration = Duration::from_millis(100);
/// Between two checks of the clock and the generation.
const TICK_INTERVAL: Duration = Duration::from_millis(500);
/// The same while the broker rejects our generation, so the next one is seen soon.
const STALE_GENERATION_TICK_INTERVAL: Duration = Duration::from_millis(200);
/// Schedules in a batch: larger batches are no faster, and their commits take longer.
const BATCH_ITEMS_MAX: usize = 10_000;
/// Payload bytes in a batch.
const BATCH_BYTES_MAX: usize = 16 << 20;

/// The parts that a loop is made of.
pub(super) struct LoopParts {
    pub config: Config,
    pub clock: Clock,
    pub clients: Clients,
    pub observer: Box<dyn Observer>,
    pub board: Arc<StatusBoard>,
    pub wake: Wake,
    pub queries: Receiver<Query>,
}

pub(super) struct EngineLoop {
    config: Config,
    clock: Clock,
    clients: Arc<Clients>,
    topics: Arc<Vec<String>>,
    core: Scheduler,
    group: GroupState,
    running_batches: RunningBatches,
    requests: Requests,
    reporter: StateReporter,
    timers: Timers,
    shutdown: Shutdown,
    /// `None` without `STATE_DIR`.
    snapshots: Option<Snapshots>,
    queries: Receiver<Query>,
    /// The core's report on the record that it was just given.
    record_report: Option<Report>,
}

struct Timers {
    next_tick: Instant,
    check_files_at: Instant,
    /// A partition went live since memory was last returned to the operating system.
    has_loaded: bool,
}

impl Timers {
    fn new() -> Self {
        let now = Instant::now();
        Self { next_tick: now, check_files_at: now, has_loaded: false }
    }
}

impl EngineLoop {
    /// Starts the threads.
    pub(super) fn new(parts: LoopParts, ready: &Ready, restoring: Option<Restoring>) -> Result<Self, EngineError> {
        let LoopParts { config, clock, mut clients, observer, board, wake, queries } = parts;
        for (topic, entries) in &ready.topic_settings {
            if let Some(bytes) = topics::batch_bytes_max(entries) {
                clients.topic_limits.set_batch_bytes_max(topic, bytes);
            }
        }
        clients.configs.limit_batches(ready.topic_settings.values().filter_map(topics::batch_bytes_max).min());
        let mut core_config = core_config(&config, ready, &clients.configs)?;
        if let Some(restoring) = &restoring {
            core_config.hash_seed = restoring.hash_seed;
        }
        let core = Scheduler::new(core_config, Box::new(ZoneCalendar::default()));
        let clients = Arc::new(clients);
        let topics = Arc::new(config.schedules_topics().to_vec());
        let requests = Requests::new(&clients, &topics, &ready.cluster_id, &wake);
        let snapshots = restoring.map(|Restoring { dir, folds, .. }| {
            folds.check(&requests.worker);
            Snapshots::new(dir, folds)
        });
        if clients.can_describe {
            cluster_monitor::start(&requests.worker, snapshots.is_some());
        }
        let mut engine_loop = Self {
            config,
            clock,
            clients,
            topics,
            core,
            group: GroupState::new(),
            running_batches: RunningBatches::new(wake),
            requests,
            reporter: StateReporter::new(observer, board),
            timers: Timers::new(),
            shutdown: Shutdown::default(),
            snapshots,
            queries,
            record_report: None,
        };
        engine_loop.replace_transactors(&engine_loop.core.transactional_ids());
        if engine_loop.snapshots.is_some() {
            for (topic, name) in (0_u16..).zip(engine_loop.topics.clone().iter()) {
                let cleaning = ready.topic_settings.get(name).map(topics::Cleaning::of).unwrap_or_default();
                engine_loop.on_cleaning(topic, cleaning);
            }
        }
        Ok(engine_loop)
    }

    /// Runs until the core has stopped.
    pub(super) fn run(mut self, sleeper: &mut Sleeper) -> Result<(), EngineError> {
        let mut has_more = false;
        while !self.shutdown.has_stopped {
            let timeout = if has_more { Duration::ZERO } else { self.sleep_timeout() };
            sleeper.sleep(&self.reporter.board, timeout);
            let woken_at = Instant::now();
            self.join();
            has_more = self.consume();
            self.rebalance();
            self.drain_results();
            self.tick();
            self.take_snapshots();
            self.answer_queries();
            self.reporter.report_counters(self.core.counters());
            self.publish();
            self.reporter.observer.on_iteration(woken_at.elapsed());
        }
        self.end()
    }

    fn sleep_timeout(&self) -> Duration {
        let Some((at, _)) = self.core.poll_timeout() else { return SLEEP_TIMEOUT };
        let wait = at.0.saturating_sub(self.clock.now().0).max(0);
        let step = self.snapshots.as_ref().and_then(Snapshots::next_step_at);
        let until_step = step.map_or(SLEEP_TIMEOUT, |at| at.saturating_duration_since(Instant::now()));
        SLEEP_TIMEOUT.min(Duration::from_millis(wait.unsigned_abs())).min(until_step)
    }

    fn input(&mut self, input: Input<'_>) {
        self.input_at(self.clock.now(), input);
    }

    /// Returns whether the core had work to do.
    fn input_at(&mut self, now: Millis, input: Input<'_>) -> bool {
        self.core.handle(now, input);
        let mut has_work = false;
        while let Some(output) = self.core.poll() {
            has_work |= !matches!(output, Output::Report(_));
            self.execute(output);
        }
        has_work
    }

    fn execute(&mut self, output: Output) {
        match output {
            Output::ReadCommitted(partitions) => self.requests.read_committed(partitions),
            Output::Fence { request, transactional_ids } => self.requests.worker.fence(request, transactional_ids),
            Output::FindSince { request, topic, known } => self.requests.worker.find_since(request, topic, known),
            // The thread ends with the engine.
            Output::CheckTarget { target, name } => drop(self.requests.targets.send((target, name))),
            Output::CheckCanary { partition, offset, key } => self.requests.worker.check_canary(partition, offset, key),
            Output::Transact(batch) => self.transact(batch),
            Output::Seek(partition) => self.seek(partition),
            Output::Release(partitions) => self.release(&partitions),
            Output::ReplaceTransactionalIds { transactional_ids } => self.replace_transactors(&transactional_ids),
            Output::Rejoin(why) => self.rejoin(why),
            Output::Stopped => self.shutdown.has_stopped = true,
            Output::Report(report @ (Report::Accepted { .. } | Report::Cancelled { .. })) => {
                self.record_report = Some(report);
            }
            Output::Report(report) => {
                self.timers.has_loaded |= matches!(report, Report::Live { .. });
                if let Report::Reread { partition, .. } = report {
                    self.discard_snapshot(partition);
                }
                if report == Report::ThroughputIsLimit {
                    self.clients.diagnostics.on_throughput_limit();
                }
                self.reporter.observer.report(&report, &self.topics);
            }
        }
    }

    /// Passes the results of other threads to the core.
    fn drain_results(&mut self) {
        while let Ok(result) = self.requests.results.try_recv() {
            self.on_worker_result(result);
        }
        while let Ok(done) = self.running_batches.done.try_recv() {
            self.on_batch_done(done);
        }
    }

    fn on_worker_result(&mut self, result: WorkerResult) {
        match result {
            WorkerResult::TopicRecreated { topic } => {
                tracing::warn!(topic, "the schedules topic was deleted and recreated; it is read from its beginning");
                if let Some(snapshots) = &self.snapshots {
                    snapshots.forget_restored();
                }
                self.input(Input::PositionInvalid { why: "a topic was recreated" });
            }
            // Read for an assignment that has ended since: another owner may have committed.
            WorkerResult::Committed { read, partition, .. } if !self.requests.is_current(read, partition) => {}
            WorkerResult::Committed { partition, offset, metadata, .. } => {
                self.requests.reads.remove(&partition);
                self.input(Input::Committed { partition, offset, metadata: &metadata });
            }
            WorkerResult::CanaryChecked { partition, found } => self.input(Input::CanaryChecked { partition, found }),
            WorkerResult::Cleaning { topic, cleaning } => {
                if let Some(topic) = self.topics.iter().position(|name| *name == topic) {
                    self.on_cleaning(topic as u16, cleaning);
                }
            }
            WorkerResult::Logs { topic_ids, starts } => {
                if let Some(snapshots) = &mut self.snapshots {
                    snapshots.on_logs(topic_ids, starts);
                }
            }
            WorkerResult::Fenced { request } => self.input(Input::Fenced { request }),
            WorkerResult::Since { request, since } => {
                let leftover_cutoff = self.clock.leftover_cutoff(self.config.since_delta_days());
                self.input(Input::Since { request, since, leftover_cutoff });
            }
            WorkerResult::FileChanged { path } => self.on_file_change(path),
            WorkerResult::Target { target, state } => self.input(Input::Target { target, state }),
            WorkerResult::Trimmed { topic, number, start } => {
                if let Some(partition) = self.partition(topic.as_bytes(), number) {
                    self.input(Input::Trimmed { partition, start });
                }
            }
        }
    }

    /// Tells the core how long folds of a topic stay usable.
    fn on_cleaning(&mut self, topic: u16, cleaning: topics::Cleaning) {
        let limit_ms = cleaning.limit_ms().map_or(0, |limit_ms| i64::try_from(limit_ms).unwrap_or(i64::MAX));
        self.input(Input::CanaryLimit { topic, limit_ms });
    }

    fn tick(&mut self) {
        let is_regular = self.timers.next_tick <= Instant::now();
        if is_regular {
            let is_stale = self.group.is_generation_stale;
            let interval = if is_stale { STALE_GENERATION_TICK_INTERVAL } else { TICK_INTERVAL };
            self.timers.next_tick = Instant::now() + interval;
            self.check_generation();
            self.check_offsets_calls();
            self.check_files();
            if std::mem::take(&mut self.timers.has_loaded) {
                ffi::give_back_memory();
            }
        }
        let now = self.clock.now();
        let is_due = self.core.poll_timeout().is_some_and(|(at, _)| at <= now);
        if is_due || is_regular {
            let has_work = self.input_at(now, Input::Tick);
            if has_work && !is_due {
                // Without the regular tick, this work would have waited for an unrelated event.
                self.reporter.observer.missed_deadline();
            }
        }
    }

    fn answer_queries(&mut self) {
        if self.reporter.board.is_stop_requested() && !self.shutdown.is_stopping {
            self.stop();
        }
        while let Ok(query) = self.queries.try_recv() {
            // The requester may have given up.
            match query {
                Query::Page { cursor, limit, filter, reply } => reply.send(self.core.page(cursor, limit, &filter)),
                Query::Find { topic, key, reply } => reply.send(self.core.find(topic, &key)),
                Query::Upcoming { limit, reply } => reply.send(self.core.upcoming(limit)),
            }
        }
    }

    fn partition(&self, topic: &[u8], number: i32) -> Option<TopicPartition> {
        let topic = self.topics.iter().position(|name| name.as_bytes() == topic)?;
        Some(TopicPartition { topic: topic as u16, number })
    }
}

fn core_config(config: &Config, ready: &Ready, configs: &ClientConfigs) -> Result<core::Config, EngineError> {
    let bytes_max = |topic: &str| ready.topic_settings.get(topic).and_then(topics::batch_bytes_max);
    // The size of a compressed record is known only to the brokers.
    let is_known = !configs.compresses();
    let topic = |name: &String| core::SchedulesTopic {
        name: name.clone(),
        record_bytes_max: bytes_max(name)
            .into_iter()
            .chain(bytes_max(config.history_topic()))
            .min()
            .filter(|_| is_known),
    };
    Ok(core::Config {
        cluster: ready.cluster_id.clone(),
        topics: config.schedules_topics().iter().map(topic).collect(),
        history: config.history_topic().to_owned(),
        dead_letter: config.dead_letter_topic().map(str::to_owned),
        group: config.group_id().to_owned(),
        run: RunId::from_random(random()?),
        grace_s: config.grace_interval().map(|grace| grace.as_secs()),
        horizon_s: config.max_horizon().map(|horizon| horizon.as_secs()),
        transactors: core::TRANSACTORS_MAX,
        batch_items_max: BATCH_ITEMS_MAX,
        batch_bytes_max: BATCH_BYTES_MAX,
        adds_due_header: config.adds_due_header(),
        hash_seed: random()?,
    })
}
