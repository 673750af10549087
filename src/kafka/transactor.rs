//! Runs batches as Kafka transactions, on threads of their own.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use rdkafka::ClientConfig;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::{BaseProducer, Producer};

use super::quiet::Quiet;
use super::reports::Reports;
use super::settings::Settings;
use super::transaction::{Call, Ended, Means};
use super::turn::{Left, Turnstile};
use crate::core::batch::{Batch, Kind};
use crate::core::io::{Late, TopicPartition};
use crate::core::reason::Reason;
use crate::handle::Wake;

/// How long one call may block: between two, a thread sees that it is to end.
pub const SLICE: Duration = Duration::from_secs(1);
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

/// Group metadata, and the generation and the member id it stands for.
pub struct Membership(pub ConsumerGroupMetadata, pub i32, pub Vec<u8>);

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
    Committed(Vec<(TopicPartition, i64)>),
    Retry,
    TimedOut(Late),
    Refused(i32),
    Rejected(Vec<(u32, Reason)>),
    Unknown,
}

impl End {
    /// As metrics name it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Committed(_) => "committed",
            Self::Retry | Self::TimedOut(_) => "aborted",
            Self::Refused(_) => "fenced",
            Self::Rejected(_) => "rejected",
            Self::Unknown => "unknown",
        }
    }
}

/// Where transactors send their answers.
#[derive(Clone)]
pub struct Answers {
    /// To the loop.
    pub done: Sender<Done>,
    /// Wakes it.
    pub wake: Wake,
}

impl Answers {
    /// Gives an answer.
    pub fn tell(&self, done: Done) {
        // The loop is gone only when the engine has ended.
        let _ = self.done.send(done);
        (self.wake)();
    }
}

/// Owes the loop an answer to a job, and gives it whatever happens: a batch without one would hold its partitions for ever.
struct Answer<'a> {
    job: Option<Job>,
    turn: &'a Turnstile,
    answers: &'a Answers,
}

impl<'a> Answer<'a> {
    fn to(job: Job, turn: &'a Turnstile, answers: &'a Answers) -> Self {
        Self { job: Some(job), turn, answers }
    }

    fn give(mut self, end: End) {
        self.tell(end);
    }

    fn tell(&mut self, end: End) {
        if let Some(Job { batch, .. }) = self.job.take() {
            // However it ran late: under a quota, a batch can be without any acknowledgement.
            if matches!(end, End::TimedOut(_)) {
                self.turn.runs_late(batch.id);
            }
            let left = match end {
                End::Committed(_) => Left::Committed,
                End::Unknown => Left::Unknown,
                _ => Left::Aborted,
            };
            self.turn.leave(batch.id, left);
            self.answers.tell(Done { batch, end });
        }
    }
}

impl Drop for Answer<'_> {
    fn drop(&mut self) {
        // Only a panic gets here with the job.
        self.tell(End::Unknown);
    }
}

/// The transactors of one incarnation.
pub struct Transactors {
    jobs: Vec<Sender<Job>>,
    turn: Arc<Turnstile>,
    closing: Arc<AtomicBool>,
    ended: Receiver<()>,
    calls: Vec<Arc<Call>>,
    answers: Answers,
}

impl Transactors {
    /// Starts one thread for each transactional id.
    pub fn start(
        settings: &Arc<Settings>,
        ids: &[String],
        topics: &[String],
        answers: &Answers,
    ) -> std::io::Result<Self> {
        let turn = Arc::new(Turnstile::default());
        let closing = Arc::new(AtomicBool::new(false));
        let (alive, ended) = bounded::<()>(0);
        let (mut jobs, mut calls) = (Vec::new(), Vec::new());
        for (number, id) in ids.iter().enumerate() {
            let (sender, receiver) = bounded(WAITING_MAX);
            let call = Arc::<Call>::default();
            calls.push(Arc::clone(&call));
            let name = format!("transactor-{number}");
            let worker = Transactor {
                name: name.clone(),
                call,
                config: settings.reporting_producer(id),
                settings: Arc::clone(settings),
                topics: topics.to_vec(),
                turn: Arc::clone(&turn),
                closing: Arc::clone(&closing),
                answers: answers.clone(),
            };
            let alive = alive.clone();
            std::thread::Builder::new().name(name).spawn(move || {
                worker.run(&receiver);
                drop(alive);
            })?;
            jobs.push(sender);
        }
        Ok(Self { jobs, turn, closing, ended, calls, answers: answers.clone() })
    }

    /// Hands out a batch. Batches come in the order of their ids, without gaps.
    pub fn run(&self, job: Job) {
        let id = job.batch.id;
        let fires = job.batch.items.iter().any(|item| matches!(item.kind, Kind::Fire { .. }));
        self.turn.enter(id, fires);
        // At most two batches are in flight, so that there is room, unless the transactor has ended.
        if let Err(unsent) = self.jobs[(id % self.jobs.len() as u64) as usize].try_send(job) {
            Answer::to(unsent.into_inner(), &self.turn, &self.answers).give(End::Unknown);
        }
    }

    /// A batch whose outcome will not be known, because a call does not return.
    pub fn stuck(&self) -> Option<u64> {
        self.calls.iter().find_map(|call| call.stuck())
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

struct Transactor {
    call: Arc<Call>,
    name: String,
    config: ClientConfig,
    settings: Arc<Settings>,
    topics: Vec<String>,
    turn: Arc<Turnstile>,
    closing: Arc<AtomicBool>,
    answers: Answers,
}

impl Transactor {
    fn run(self, jobs: &Receiver<Job>) {
        let Some(mut producer) = self.producer() else { return };
        let mut quiet = Quiet::new();
        loop {
            let job = match jobs.recv_timeout(SLICE) {
                Ok(job) => job,
                Err(RecvTimeoutError::Timeout) => {
                    // Takes what the producer reports on itself, which would pile up.
                    producer.poll(Duration::ZERO);
                    let hurry = || !jobs.is_empty() || self.is_closing();
                    if quiet.knows_too_much(&producer, &self.settings, hurry) {
                        // No transaction is open. The new one has the same id: its epoch ends the old one's, as for any
                        // producer that is replaced.
                        let Some(new) = self.producer() else { return };
                        (producer, quiet) = (new, Quiet::new());
                    }
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let answer = Answer::to(job, &self.turn, &self.answers);
            let end = answer.job.as_ref().map_or(End::Unknown, |job| self.transact(&mut producer, job));
            answer.job.iter().for_each(|job| quiet.ran(&job.batch));
            let known = !matches!(end, End::Unknown);
            answer.give(end);
            if !known {
                return;
            }
        }
    }

    fn transact(&self, producer: &mut BaseProducer<Reports>, job: &Job) -> End {
        let means = Means {
            producer,
            settings: &self.settings,
            turn: &self.turn,
            closing: &self.closing,
            call: &self.call,
            unclear: Cell::default(),
        };
        match means.run(job) {
            Ended::Well(end) => end,
            Ended::Unknown => End::Unknown,
            Ended::Broken(end) => {
                tracing::debug!("a producer that cannot abort is replaced");
                // The new one takes the transactional id over, which aborts whatever might be open under it.
                self.producer().map_or(End::Unknown, |new| {
                    *producer = new;
                    end
                })
            }
        }
    }

    /// Tries until there is one: without brokers there is nothing else to do.
    fn producer(&self) -> Option<BaseProducer<Reports>> {
        let mut said = false;
        loop {
            let context = Reports::new(self.name.clone(), self.topics.clone(), Arc::clone(&self.settings.voice));
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
                    if error.rdkafka_error_code() == Some(Code::TransactionalIdAuthorizationFailed) {
                        self.settings.voice.error(&error, "init_transactions");
                    } else {
                        if !std::mem::replace(&mut said, true) {
                            tracing::warn!(%error, "the transactional producer cannot start; trying again");
                        }
                        self.settings.voice.show("a transactional producer cannot start; trying again", &error);
                    }
                    std::thread::sleep(SLICE);
                }
            }
        }
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::super::a_batch;
    use super::*;

    fn told(act: impl FnOnce(Job, &Turnstile, &Answers)) -> Vec<End> {
        let (done, heard) = crossbeam_channel::unbounded();
        let answers = Answers { done, wake: Arc::new(|| {}) };
        let turn = Turnstile::default();
        act(Job { batch: a_batch(), membership: None }, &turn, &answers);
        heard.try_iter().map(|done| done.end).collect()
    }

    #[test]
    fn a_job_has_one_result_even_after_a_panic() {
        let given = told(|job, turn, answers| Answer::to(job, turn, answers).give(End::Retry));
        assert!(matches!(given[..], [End::Retry]), "{given:?}");
        let panicked = told(|job, turn, answers| drop(Answer::to(job, turn, answers)));
        assert!(matches!(panicked[..], [End::Unknown]), "{panicked:?}");
        let ended = told(|job, _, answers| {
            let (sender, receiver) = bounded(1);
            drop(receiver);
            let transactors = Transactors {
                jobs: vec![sender],
                turn: Arc::default(),
                closing: Arc::default(),
                ended: bounded(0).1,
                calls: Vec::new(),
                answers: answers.clone(),
            };
            transactors.run(job);
        });
        assert!(matches!(ended[..], [End::Unknown]), "{ended:?}");
    }
}
