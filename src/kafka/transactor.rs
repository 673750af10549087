//! Runs batches as Kafka transactions, on threads of their own.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use rdkafka::client::ClientContext;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, DeliveryResult, Producer, ProducerContext, PurgeConfig};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientConfig, TopicPartitionList};

use super::native;
use super::turn::Turnstile;
use crate::core::batch::Batch;
use crate::core::io::Partition;
use crate::core::reason::Reason;
use crate::handle::Wake;

/// How long one call may block: between two, a thread sees that it is to end.
const SLICE: Duration = Duration::from_secs(1);
/// How long the batch before may take to settle.
const TURN_MAX: Duration = Duration::from_secs(5);
/// How long `send_offsets_to_transaction` may take.
const OFFSETS_MAX: Duration = Duration::from_secs(5);
/// How long an abort or a commit is tried before its outcome counts as unknown.
const END_MAX: Duration = Duration::from_secs(30);
/// Batches that wait for one transactor.
const WAITING_MAX: usize = 2;

/// A batch to run.
#[derive(Debug)]
pub struct Job {
    /// What to write.
    pub batch: Batch,
    /// The consumer's membership when the batch was formed, if it had any.
    pub membership: Option<Membership>,
}

/// Group metadata and the generation it stands for.
pub struct Membership(pub ConsumerGroupMetadata, pub i32);

impl std::fmt::Debug for Membership {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Membership").field(&self.1).finish()
    }
}

/// A batch that has ended.
#[derive(Debug)]
pub struct Done {
    /// The batch.
    pub batch: Batch,
    /// How.
    pub end: End,
}

/// How a batch ended: [`crate::core::io::Outcome`] with its data owned.
#[derive(Debug)]
pub enum End {
    Committed(Vec<(Partition, i64)>),
    Retry,
    Refused(i32),
    Rejected(Vec<(u32, Reason)>),
    Unknown,
}

/// Where transactors send their answers.
#[derive(Clone)]
pub struct Answers {
    /// To the loop.
    pub done: Sender<Done>,
    /// Wakes it.
    pub wake: Wake,
}

/// The transactors of one incarnation.
pub struct Transactors {
    jobs: Vec<Sender<Job>>,
    turn: Arc<Turnstile>,
    closing: Arc<AtomicBool>,
    ended: Receiver<()>,
}

impl Transactors {
    /// Starts one thread for each transactional id.
    pub fn start(configs: Vec<ClientConfig>, topics: &[String], answers: &Answers) -> std::io::Result<Self> {
        let turn = Arc::new(Turnstile::default());
        let closing = Arc::new(AtomicBool::new(false));
        let (alive, ended) = bounded::<()>(0);
        let mut jobs = Vec::new();
        for (number, config) in configs.into_iter().enumerate() {
            let (sender, receiver) = bounded(WAITING_MAX);
            let worker = Transactor {
                config,
                topics: topics.to_vec(),
                turn: Arc::clone(&turn),
                closing: Arc::clone(&closing),
                answers: answers.clone(),
            };
            let alive = alive.clone();
            std::thread::Builder::new().name(format!("transactor-{number}")).spawn(move || {
                worker.run(&receiver);
                drop(alive);
            })?;
            jobs.push(sender);
        }
        Ok(Self { jobs, turn, closing, ended })
    }

    /// Hands out a batch. Batches come in the order of their ids, without gaps.
    pub fn run(&self, job: Job) {
        let id = job.batch.id;
        self.turn.enter(id);
        // At most two batches are in flight, so that there is room. A transactor that has ended left an unknown
        // outcome, upon which the core renews them all.
        let _ = self.jobs[(id % self.jobs.len() as u64) as usize].try_send(job);
    }

    /// Waits until the threads have ended, at most `limit`. Call it when they have been told to.
    pub fn wait(self, limit: Duration) {
        let ended = self.ended.clone();
        drop(self);
        let _ = ended.recv_timeout(limit);
    }
}

impl Drop for Transactors {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Release);
    }
}

/// Collects what the delivery reports of one batch say.
#[derive(Debug)]
struct Reports {
    topics: Vec<String>,
    batch: Mutex<Delivered>,
}

#[derive(Debug, Default)]
struct Delivered {
    written: Vec<(Partition, i64)>,
    failed: Vec<(u32, Code)>,
    /// A report without an offset: nobody could tell when the consumer has read past the record.
    unplaced: bool,
}

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, item: usize) {
        let mut batch = self.batch.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Err((error, _)) => {
                let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
                batch.failed.push((item as u32, code));
            }
            Ok(message) => {
                let Some(topic) = self.topics.iter().position(|topic| topic == message.topic()) else { return };
                let partition = Partition { topic: topic as u16, number: message.partition() };
                batch.unplaced |= message.offset() < 0;
                match batch.written.iter_mut().find(|(other, _)| *other == partition) {
                    Some((_, offset)) => *offset = message.offset().max(*offset),
                    None => batch.written.push((partition, message.offset())),
                }
            }
        }
    }
}

impl Reports {
    fn take(&self) -> Delivered {
        std::mem::take(&mut *self.batch.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

struct Transactor {
    config: ClientConfig,
    topics: Vec<String>,
    turn: Arc<Turnstile>,
    closing: Arc<AtomicBool>,
    answers: Answers,
}

/// A batch that cannot go on: it must be aborted, and then ended so.
struct Abort(End);

impl Transactor {
    fn run(self, jobs: &Receiver<Job>) {
        let Some(producer) = self.producer() else { return };
        for job in jobs {
            let id = job.batch.id;
            let end = self.transact(&producer, &job);
            let known = !matches!(end, End::Unknown);
            self.turn.leave(id, known);
            let _ = self.answers.done.send(Done { batch: job.batch, end });
            (self.answers.wake)();
            if !known {
                return;
            }
        }
    }

    /// Tries until there is one: without brokers there is nothing else to do.
    fn producer(&self) -> Option<BaseProducer<Reports>> {
        let mut said = false;
        loop {
            let context = Reports { topics: self.topics.clone(), batch: Mutex::default() };
            let tried = self.config.create_with_context(context).and_then(|producer: BaseProducer<Reports>| {
                while let Err(error) = producer.init_transactions(SLICE) {
                    let again = matches!(&error, KafkaError::Transaction(e) if e.is_retriable() && !e.is_fatal());
                    if !again || self.is_closing() {
                        return Err(error);
                    }
                }
                Ok(producer)
            });
            match tried {
                Ok(producer) => return Some(producer),
                Err(_) if self.is_closing() => return None,
                Err(error) => {
                    if !std::mem::replace(&mut said, true) {
                        tracing::warn!(%error, "the transactional producer cannot start; trying again");
                    }
                    std::thread::sleep(SLICE);
                }
            }
        }
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    fn transact(&self, producer: &BaseProducer<Reports>, job: &Job) -> End {
        let Some(membership) = &job.membership else { return End::Refused(-1) };
        let context = producer.client().context();
        context.take();
        if let Err(error) = producer.begin_transaction() {
            tracing::warn!(%error, "no transaction could be begun");
            return End::Unknown;
        }
        let ended = self
            .produce(producer, &job.batch)
            .and_then(|()| self.acknowledged(producer))
            .and_then(|written| self.fence(producer, &job.batch, membership).map(|()| written))
            .and_then(|written| self.commit(producer).map(|()| written));
        match ended {
            Ok(written) => End::Committed(written),
            Err(Abort(End::Unknown)) => End::Unknown,
            Err(Abort(end)) => {
                if self.abort(producer) {
                    end
                } else {
                    End::Unknown
                }
            }
        }
    }

    fn produce(&self, producer: &BaseProducer<Reports>, batch: &Batch) -> Result<(), Abort> {
        batch.records(|record| {
            loop {
                match native::produce(producer, &record) {
                    Ok(()) => return Ok(()),
                    Err(RDKafkaRespErr::RD_KAFKA_RESP_ERR__QUEUE_FULL) if !self.is_closing() => {
                        producer.poll(Duration::from_millis(1));
                    }
                    Err(error) => {
                        let code = Code::from(error);
                        return Err(Abort(reason(code).map_or(End::Retry, |r| End::Rejected(vec![(record.item, r)]))));
                    }
                }
            }
        })
    }

    /// Waits for every delivery report: offsets are sent only when all records lie in the log.
    fn acknowledged(&self, producer: &BaseProducer<Reports>) -> Result<Vec<(Partition, i64)>, Abort> {
        producer.poll(Duration::ZERO);
        while producer.in_flight_count() > 0 {
            if self.is_closing() {
                return Err(Abort(End::Retry));
            }
            producer.poll(Duration::from_millis(1));
        }
        let delivered = producer.client().context().take();
        if !delivered.failed.is_empty() {
            return Err(Abort(blame(&delivered.failed)));
        }
        if delivered.unplaced {
            return Err(Abort(End::Retry));
        }
        Ok(delivered.written)
    }

    fn fence(
        &self,
        producer: &BaseProducer<Reports>,
        batch: &Batch,
        Membership(metadata, generation): &Membership,
    ) -> Result<(), Abort> {
        if !self.turn.wait(batch.id, TURN_MAX) {
            return Err(Abort(End::Retry));
        }
        let offsets = offsets(batch).map_err(|_| Abort(End::Retry))?;
        match producer.send_offsets_to_transaction(&offsets, metadata, OFFSETS_MAX) {
            Ok(()) => Ok(()),
            Err(KafkaError::Transaction(error)) => {
                let refused = matches!(
                    error.code(),
                    Code::IllegalGeneration
                        | Code::UnknownMemberId
                        | Code::FencedInstanceId
                        | Code::RebalanceInProgress
                );
                tracing::debug!(%error, "offsets were not accepted");
                Err(Abort(match (error.is_fatal(), refused) {
                    (true, _) => End::Unknown,
                    (_, true) => End::Refused(*generation),
                    _ => End::Retry,
                }))
            }
            Err(_) => Err(Abort(End::Retry)),
        }
    }

    /// After a retriable error only commit is called again: the first one may have reached the broker.
    fn commit(&self, producer: &BaseProducer<Reports>) -> Result<(), Abort> {
        match self.until_ended(|| producer.commit_transaction(SLICE)) {
            Ok(()) => Ok(()),
            Err(KafkaError::Transaction(error)) if error.txn_requires_abort() => Err(Abort(End::Retry)),
            Err(error) => {
                tracing::warn!(%error, "the outcome of a commit is not known");
                Err(Abort(End::Unknown))
            }
        }
    }

    /// Whether the transaction is known to be aborted.
    fn abort(&self, producer: &BaseProducer<Reports>) -> bool {
        // librdkafka waits for reports that nobody but this thread can take.
        producer.purge(PurgeConfig::default().queue().inflight());
        while producer.in_flight_count() > 0 && !self.is_closing() {
            producer.poll(Duration::from_millis(1));
        }
        let ended = self.until_ended(|| producer.abort_transaction(SLICE));
        if let Err(error) = &ended {
            tracing::warn!(%error, "a transaction could not be aborted");
        }
        ended.is_ok()
    }

    fn until_ended(&self, mut call: impl FnMut() -> KafkaResult<()>) -> KafkaResult<()> {
        let begun = Instant::now();
        loop {
            let error = match call() {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let again = match &error {
                KafkaError::Transaction(e) => e.is_retriable() && !e.is_fatal() && !e.txn_requires_abort(),
                KafkaError::Flush(_) => true,
                _ => false,
            };
            if !again || self.is_closing() || begun.elapsed() > END_MAX {
                return Err(error);
            }
        }
    }
}

fn offsets(batch: &Batch) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::with_capacity(batch.offsets.len());
    for position in &batch.offsets {
        assert!(position.offset >= 0, "librdkafka drops negative offsets, and the fence with them");
        let mut element = list.add_partition(batch.topic(position.partition), position.partition.number);
        element.set_offset(rdkafka::Offset::Offset(position.offset))?;
        element.set_metadata(&position.metadata);
    }
    Ok(list)
}

/// Which items the reports name. Where a whole batch timed out, or the broker refused a set of records as too large
/// together, they name nobody.
fn blame(failed: &[(u32, Code)]) -> End {
    let mut guilty: Vec<(u32, Reason)> =
        failed.iter().filter_map(|(item, code)| reason(*code).map(|reason| (*item, reason))).collect();
    guilty.sort_unstable();
    guilty.dedup_by_key(|(item, _)| *item);
    let together = guilty.len() > 1 && guilty.iter().any(|(_, reason)| *reason == Reason::TooLarge);
    if guilty.is_empty() || together { End::Retry } else { End::Rejected(guilty) }
}

/// What a record is to blame for.
fn reason(code: Code) -> Option<Reason> {
    match code {
        Code::MessageSizeTooLarge | Code::InvalidMessageSize => Some(Reason::TooLarge),
        Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition | Code::InvalidTopic => {
            Some(Reason::UnknownTarget)
        }
        Code::TopicAuthorizationFailed => Some(Reason::Forbidden),
        Code::InvalidRecord | Code::InvalidMessage | Code::PolicyViolation => Some(Reason::Refused),
        _ => None,
    }
}
