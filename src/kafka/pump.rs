//! One turn after another: what has happened goes into the core, and what it says is done.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};

use super::group::{self, Member, Rebalance};
use super::settings::Settings;
use super::transactor::{Answers, Done, End, Job, Membership, Transactors};
use super::worker::{Found, Worker};
use super::{Error, EventLoop, clock, native};
use crate::config::Config;
use crate::core::batch::{Batch, Kind};
use crate::core::io::{Abort, Counters, Input, Millis, Outcome, Output, Partition, Record};
use crate::core::{self, Scheduler};
use crate::handle::{Ask, Observer, Page, Wake};

/// The loop looks around at least this often, should a wake-up get lost.
const SLEEP_MAX: Duration = Duration::from_millis(100);
/// Records a turn.
const RECORDS_MAX: usize = 5_000;
/// Time for records a turn.
const RECORDS_TIME_MAX: Duration = Duration::from_millis(10);
/// Between two looks at the clock and the generation.
const TICK: Duration = Duration::from_millis(500);
/// Before a group is joined anew.
const REJOIN: Duration = Duration::from_millis(500);
/// How long the end of the process waits for the broker's goodbye, and for threads.
const GOODBYE_MAX: Duration = Duration::from_millis(400);
/// Schedules a batch: beyond this, larger batches are no faster, and commits only take longer.
const BATCH_ITEMS_MAX: usize = 10_000;
/// Payload bytes a batch.
const BATCH_BYTES_MAX: usize = 16 << 20;

/// A revocation whose partitions are not all released.
struct Revocation {
    list: TopicPartitionList,
    waiting: BTreeSet<Partition>,
}

/// Everything the loop holds.
pub struct Pump {
    config: Config,
    settings: Arc<Settings>,
    topics: Arc<Vec<String>>,
    core: Scheduler,
    observer: Box<dyn Observer>,
    consumer: Option<Arc<Member>>,
    revocation: Option<Revocation>,
    transactors: Option<Transactors>,
    answers: Answers,
    done: Receiver<Done>,
    worker: Worker,
    found: Receiver<Found>,
    targets: Sender<(u32, Arc<str>)>,
    wake: Wake,
    asks: Receiver<Ask>,
    generation: Option<i32>,
    told: Counters,
    next_tick: Instant,
    rejoin_at: Option<Instant>,
    stopped: bool,
}

impl Pump {
    /// Starts the threads.
    pub fn new(
        config: Config,
        settings: Settings,
        cluster: String,
        observer: Box<dyn Observer>,
        wake: Wake,
        asks: Receiver<Ask>,
    ) -> Result<Self, Error> {
        let settings = Arc::new(settings);
        let topics = Arc::new(config.schedules_topics.clone());
        let core = Scheduler::new(core_config(&config, &cluster)?);
        let (done_sender, done) = unbounded();
        let (found_sender, found) = unbounded();
        let answers = Answers { done: done_sender, wake: Arc::clone(&wake) };
        let worker = Worker {
            settings: Arc::clone(&settings),
            topics: Arc::clone(&topics),
            cluster: cluster.into(),
            found: found_sender,
            wake: Arc::clone(&wake),
            rebalances: Arc::new(AtomicU64::new(0)),
            closing: Arc::new(AtomicBool::new(false)),
        };
        let targets = worker.targets();
        let mut pump = Self {
            config,
            settings,
            topics,
            core,
            observer,
            consumer: None,
            revocation: None,
            transactors: None,
            answers,
            done,
            worker,
            found,
            targets,
            wake,
            asks,
            generation: None,
            told: Counters::default(),
            next_tick: Instant::now(),
            rejoin_at: Some(Instant::now()),
            stopped: false,
        };
        pump.renew(pump.core.transactional_ids());
        Ok(pump)
    }

    /// Turns until the core has stopped.
    pub fn run(mut self, events: &mut EventLoop) {
        let mut more = false;
        while !self.stopped {
            events.sleep(if more { Duration::ZERO } else { self.sleep() });
            self.join();
            more = self.consume();
            self.rebalance();
            self.hear();
            self.tick();
            self.answer();
            self.tell();
        }
        self.end();
    }

    fn sleep(&self) -> Duration {
        let Some((at, _)) = self.core.poll_timeout() else { return SLEEP_MAX };
        let wait = at.0.saturating_sub(clock::now().0).max(0);
        SLEEP_MAX.min(Duration::from_millis(wait.unsigned_abs()))
    }

    fn input(&mut self, input: Input<'_>) {
        self.core.handle(clock::now(), input);
        while let Some(output) = self.core.poll() {
            self.act(output);
        }
    }

    fn act(&mut self, output: Output) {
        match output {
            Output::ReadCommitted(partitions) => self.worker.read_committed(partitions),
            Output::Fence { take, transactional_ids } => self.worker.fence(take, transactional_ids),
            Output::FindSince { topic, known } => self.worker.find_since(topic, known),
            // The thread ends with the engine.
            Output::CheckTarget { target, name } => drop(self.targets.send((target, name))),
            Output::Transact(batch) => self.transact(batch),
            Output::Seek(partition) => self.seek(partition),
            Output::Release(partitions) => self.release(&partitions),
            Output::Renew { transactional_ids } => self.renew(transactional_ids),
            Output::Restart(why) => self.restart(why),
            Output::Stopped => self.stopped = true,
            Output::Report(report) => self.observer.report(&report, &self.topics),
        }
    }

    fn join(&mut self) {
        if self.rejoin_at.is_none_or(|at| at > Instant::now()) {
            return;
        }
        self.rejoin_at = None;
        match group::join(&self.settings, &self.topics, &self.worker.rebalances, &self.wake) {
            Ok(consumer) => self.consumer = Some(consumer),
            Err(error) => {
                tracing::error!(%error, "the group cannot be joined; trying again");
                self.rejoin_at = Some(Instant::now() + REJOIN);
            }
        }
    }

    /// Feeds what the consumer has. True if there may be more.
    fn consume(&mut self) -> bool {
        let Some(consumer) = self.consumer.clone() else { return false };
        let begun = Instant::now();
        let mut nothing = 0;
        for _ in 0..RECORDS_MAX {
            match consumer.poll(Duration::ZERO) {
                Some(Ok(message)) => self.record(&message),
                Some(Err(error)) => self.trouble(&error),
                // It may have served an event instead of finding nothing.
                None if nothing < 2 => nothing += 1,
                None => return false,
            }
            let gone = self.consumer.as_ref().is_none_or(|current| !Arc::ptr_eq(current, &consumer));
            if gone || begun.elapsed() > RECORDS_TIME_MAX {
                break;
            }
        }
        true
    }

    fn record(&mut self, message: &BorrowedMessage<'_>) {
        let Some(partition) = self.partition(message.topic(), message.partition()) else { return };
        let mut headers = Vec::new();
        native::headers(message, &mut headers);
        self.input(Input::Record(Record {
            partition,
            offset: message.offset(),
            timestamp: Millis(message.timestamp().to_millis().unwrap_or(-1)),
            key: message.key(),
            value: message.payload(),
            headers: &headers,
        }));
    }

    fn trouble(&mut self, error: &KafkaError) {
        let code = error.rdkafka_error_code();
        let fatal = matches!(error, KafkaError::MessageConsumptionFatal(_));
        if fatal || code == Some(Code::AutoOffsetReset) {
            tracing::warn!(%error, "the consumer cannot go on; the group is joined anew");
            return self.input(Input::Unreadable { why: "consumer error" });
        }
        match code {
            Some(Code::UnknownTopicOrPartition | Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed) => {
                tracing::warn!(%error, "a schedules topic cannot be read");
            }
            _ => tracing::debug!(%error, "consumer error"),
        }
    }

    fn partition(&self, topic: &str, number: i32) -> Option<Partition> {
        let topic = self.topics.iter().position(|name| name == topic)?;
        Some(Partition { topic: topic as u16, number })
    }

    fn partitions(&self, list: &TopicPartitionList) -> Vec<Partition> {
        list.elements().iter().filter_map(|element| self.partition(element.topic(), element.partition())).collect()
    }

    /// Answers rebalances one after the other: the next waits until the last has its answer.
    fn rebalance(&mut self) {
        while self.revocation.is_none() {
            let Some(consumer) = self.consumer.clone() else { return };
            let Some(event) = consumer.context().next() else { return };
            match event {
                Rebalance::Assign(mut list) => {
                    if let Err(error) = list.set_all_offsets(Offset::Beginning) {
                        tracing::error!(%error, "an assignment cannot be read from its beginning");
                    }
                    let partitions = self.partitions(&list);
                    tracing::info!(partitions = list.count(), "partitions assigned");
                    group::answer(&consumer, &Rebalance::Assign(list));
                    self.check_generation();
                    let today = clock::today(self.config.since_delta_days);
                    self.input(Input::Assigned { partitions: &partitions, today });
                }
                Rebalance::Revoke(list) => {
                    let partitions = self.partitions(&list);
                    tracing::info!(partitions = list.count(), "partitions revoked");
                    self.check_generation();
                    let waiting = partitions.iter().copied().collect();
                    self.revocation = Some(Revocation { list, waiting });
                    self.input(Input::Revoked { partitions: &partitions });
                    self.release(&[]);
                }
                Rebalance::Lost(list) => {
                    let partitions = self.partitions(&list);
                    tracing::warn!(partitions = list.count(), "partitions lost: this instance was away too long");
                    group::answer(&consumer, &Rebalance::Lost(list));
                    self.input(Input::Lost { partitions: &partitions });
                }
            }
        }
    }

    fn release(&mut self, partitions: &[Partition]) {
        let Some(revocation) = &mut self.revocation else { return };
        for partition in partitions {
            revocation.waiting.remove(partition);
        }
        if revocation.waiting.is_empty()
            && let (Some(revocation), Some(consumer)) = (self.revocation.take(), &self.consumer)
        {
            group::answer(consumer, &Rebalance::Revoke(revocation.list));
        }
    }

    /// What the other threads have found.
    fn hear(&mut self) {
        while let Ok(found) = self.found.try_recv() {
            match found {
                Found::Committed { partition, offset, metadata } => {
                    self.input(Input::Committed { partition, offset, metadata: &metadata });
                }
                Found::Fenced { take } => self.input(Input::Fenced { take }),
                Found::Since { topic, since } => {
                    let today = clock::today(self.config.since_delta_days);
                    self.input(Input::Since { topic, since, today });
                }
                Found::Target { target, state } => self.input(Input::Target { target, state }),
            }
        }
        while let Ok(done) = self.done.try_recv() {
            self.settled(&done);
        }
    }

    fn settled(&mut self, done: &Done) {
        let batch = done.batch.id;
        let outcome = match &done.end {
            End::Committed(written) => Outcome::Committed { written },
            End::Retry => Outcome::Aborted(Abort::Retry),
            End::Refused(generation) => Outcome::Aborted(Abort::Refused { generation: *generation }),
            End::Rejected(guilty) => Outcome::Aborted(Abort::Rejected(guilty)),
            End::Unknown => Outcome::Unknown,
        };
        if matches!(outcome, Outcome::Committed { .. })
            && done.batch.items.iter().any(|item| matches!(item.kind, Kind::Fire { .. }))
        {
            self.observer.fired(&done.batch, clock::now());
        }
        self.input(Input::Settled { batch, outcome });
    }

    fn transact(&mut self, batch: Batch) {
        // Taken here, while the batch's partitions are owned and before any of them can be given away.
        let membership = self.consumer.as_ref().and_then(|consumer| native::membership(consumer));
        let membership = membership.map(|(metadata, generation)| Membership(metadata, generation));
        if let Some(transactors) = &self.transactors {
            transactors.run(Job { batch, membership });
        }
    }

    fn seek(&self, partition: Partition) {
        let Some(consumer) = &self.consumer else { return };
        let topic = &self.topics[usize::from(partition.topic)];
        if let Err(error) = consumer.seek(topic, partition.number, Offset::Beginning, Duration::ZERO) {
            tracing::warn!(%error, topic, partition = partition.number, "the partition cannot be read again");
        }
    }

    fn renew(&mut self, ids: Vec<String>) {
        let configs = ids.iter().map(|id| self.settings.producer(id)).collect();
        self.transactors = Transactors::start(configs, &self.topics, &self.answers)
            .inspect_err(|error| tracing::error!(%error, "no transactor could be started"))
            .ok();
    }

    fn restart(&mut self, why: &str) {
        tracing::warn!(why, "starting anew from the log");
        if let Some(consumer) = self.consumer.take() {
            let pending = self.revocation.take().map(|revocation| Rebalance::Revoke(revocation.list));
            drop(group::leave(consumer, pending));
        }
        self.revocation = None;
        self.generation = None;
        self.rejoin_at = Some(Instant::now() + REJOIN);
    }

    fn tick(&mut self) {
        let due = self.core.poll_timeout().is_some_and(|(at, _)| at <= clock::now());
        let regular = self.next_tick <= Instant::now();
        if regular {
            self.next_tick = Instant::now() + TICK;
            self.check_generation();
        }
        if due || regular {
            self.input(Input::Tick);
        }
    }

    fn check_generation(&mut self) {
        let Some((generation, _)) = self.consumer.as_ref().and_then(|consumer| native::generation(consumer)) else {
            return;
        };
        if self.generation != Some(generation) {
            self.generation = Some(generation);
            self.input(Input::Generation(generation));
        }
    }

    fn answer(&mut self) {
        while let Ok(ask) = self.asks.try_recv() {
            // Whoever asked may have given up.
            match ask {
                Ask::Page { cursor, limit, reply } => {
                    let (entries, next) = self.core.list(cursor, limit);
                    drop(reply.try_send(Page { entries, next }));
                }
                Ask::Status { reply } => drop(reply.try_send(self.core.status())),
                Ask::Stop => self.input(Input::Stop),
            }
        }
    }

    fn tell(&mut self) {
        let counters = self.core.counters();
        if counters != self.told {
            self.told = counters;
            self.observer.counters(&counters);
        }
    }

    fn end(mut self) {
        self.tell();
        self.worker.closing.store(true, Ordering::Release);
        if let Some(transactors) = self.transactors.take() {
            transactors.wait(GOODBYE_MAX);
        }
        if let Some(consumer) = self.consumer.take() {
            let pending = self.revocation.take().map(|revocation| Rebalance::Revoke(revocation.list));
            let _ = group::leave(consumer, pending).recv_timeout(GOODBYE_MAX);
        }
        tracing::info!("stopped");
    }
}

fn core_config(config: &Config, cluster: &str) -> Result<core::Config, Error> {
    let mut random = [0u8; 16];
    getrandom::fill(&mut random).map_err(|error| Error::System(std::io::Error::other(error.to_string())))?;
    let (run, seed) = random.split_at(8);
    Ok(core::Config {
        cluster: cluster.to_owned(),
        topics: config.schedules_topics.clone(),
        history: config.history_topic.clone(),
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
