//! Runs batches as Kafka transactions, on threads of their own.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::{BaseProducer, Producer};

use super::client_config::Settings;
use super::commit_order::{CommitOrder, Left};
use super::delivery::Reports;
use super::job::{CALL_TIMEOUT, Done, Job, Results};
use super::producer_topics::ProducerTopics;
use super::transaction::{Call, Ended, Means};
use crate::core::batch::Kind;
use crate::core::io::{Abort, Outcome};

/// Batches that wait for one transactor.
const WAITING_MAX: usize = 2;

/// Owes the loop an answer to a job, and gives it whatever happens: a batch without one would hold its partitions for ever.
struct Answer<'a> {
    job: Option<Job>,
    turn: &'a CommitOrder,
    results: &'a Results,
}

impl<'a> Answer<'a> {
    fn to(job: Job, turn: &'a CommitOrder, results: &'a Results) -> Self {
        Self { job: Some(job), turn, results }
    }

    fn give(mut self, outcome: Outcome) {
        self.tell(outcome);
    }

    fn tell(&mut self, outcome: Outcome) {
        if let Some(Job { batch, .. }) = self.job.take() {
            // However it ran late: under a quota, a batch can be without any acknowledgement.
            if matches!(outcome, Outcome::Aborted(Abort::TimedOut(_))) {
                self.turn.runs_late(batch.id);
            }
            let left = match outcome {
                Outcome::Committed { .. } => Left::Committed,
                Outcome::Unknown => Left::Unknown,
                Outcome::Aborted(_) => Left::Aborted,
            };
            self.turn.leave(batch.id, left);
            self.results.send(Done { batch, outcome });
        }
    }
}

impl Drop for Answer<'_> {
    fn drop(&mut self) {
        // Only a panic gets here with the job.
        self.tell(Outcome::Unknown);
    }
}

/// The transactors of one incarnation.
pub struct Transactors {
    jobs: Vec<Sender<Job>>,
    turn: Arc<CommitOrder>,
    closing: Arc<AtomicBool>,
    ended: Receiver<()>,
    calls: Vec<Arc<Call>>,
    results: Results,
}

impl Transactors {
    /// Starts one thread for each transactional id.
    pub fn start(
        settings: &Arc<Settings>,
        ids: &[String],
        topics: &[String],
        results: &Results,
    ) -> std::io::Result<Self> {
        let turn = Arc::new(CommitOrder::default());
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
                results: results.clone(),
            };
            let alive = alive.clone();
            std::thread::Builder::new().name(name).spawn(move || {
                worker.run(&receiver);
                drop(alive);
            })?;
            jobs.push(sender);
        }
        Ok(Self { jobs, turn, closing, ended, calls, results: results.clone() })
    }

    /// Hands out a batch. Batches come in the order of their ids, without gaps.
    pub fn run(&self, job: Job) {
        let id = job.batch.id;
        let fires = job.batch.items.iter().any(|item| matches!(item.kind, Kind::Fire { .. }));
        self.turn.enter(id, fires);
        // At most two batches are in flight, so that there is room, unless the transactor has ended.
        if let Err(unsent) = self.jobs[(id % self.jobs.len() as u64) as usize].try_send(job) {
            Answer::to(unsent.into_inner(), &self.turn, &self.results).give(Outcome::Unknown);
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
    turn: Arc<CommitOrder>,
    closing: Arc<AtomicBool>,
    results: Results,
}

impl Transactor {
    fn run(self, jobs: &Receiver<Job>) {
        let Some(mut producer) = self.producer() else { return };
        let mut topics = ProducerTopics::new();
        loop {
            let job = match jobs.recv_timeout(CALL_TIMEOUT) {
                Ok(job) => job,
                Err(RecvTimeoutError::Timeout) => {
                    // Takes what the producer reports on itself, which would pile up.
                    producer.poll(Duration::ZERO);
                    let hurry = || !jobs.is_empty() || self.is_closing();
                    if topics.has_deleted_topics(&producer, &self.settings, hurry) {
                        // No transaction is open. The new one has the same id: its epoch ends the old one's, as for any
                        // producer that is replaced.
                        let Some(new) = self.producer() else { return };
                        (producer, topics) = (new, ProducerTopics::new());
                    }
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let answer = Answer::to(job, &self.turn, &self.results);
            let outcome = answer.job.as_ref().map_or(Outcome::Unknown, |job| self.transact(&mut producer, job));
            answer.job.iter().for_each(|job| topics.ran(&job.batch));
            let known = !matches!(outcome, Outcome::Unknown);
            answer.give(outcome);
            if !known {
                return;
            }
        }
    }

    fn transact(&self, producer: &mut BaseProducer<Reports>, job: &Job) -> Outcome {
        let means = Means {
            producer,
            settings: &self.settings,
            turn: &self.turn,
            closing: &self.closing,
            call: &self.call,
            unclear: Cell::default(),
        };
        match means.run(job) {
            Ended::Reusable(outcome) => outcome,
            Ended::Unknown => Outcome::Unknown,
            Ended::Broken(outcome) => {
                tracing::debug!("a producer that cannot abort is replaced");
                // The new one takes the transactional id over, which aborts whatever might be open under it.
                self.producer().map_or(Outcome::Unknown, |new| {
                    *producer = new;
                    outcome
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
                while let Err(error) = producer.init_transactions(CALL_TIMEOUT) {
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
                    std::thread::sleep(CALL_TIMEOUT);
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

    fn told(act: impl FnOnce(Job, &CommitOrder, &Results)) -> Vec<Outcome> {
        let (done, heard) = crossbeam_channel::unbounded();
        let results = Results { sender: done, wake: Arc::new(|| {}) };
        let turn = CommitOrder::default();
        act(Job { batch: a_batch(), membership: None }, &turn, &results);
        heard.try_iter().map(|done| done.outcome).collect()
    }

    #[test]
    fn a_batch_is_answered_once_also_when_its_transactor_panics_or_has_ended() {
        let given = told(|job, turn, results| Answer::to(job, turn, results).give(Outcome::Aborted(Abort::Retry)));
        assert!(matches!(given[..], [Outcome::Aborted(Abort::Retry)]), "{given:?}");
        let panicked = told(|job, turn, results| drop(Answer::to(job, turn, results)));
        assert!(matches!(panicked[..], [Outcome::Unknown]), "{panicked:?}");
        let ended = told(|job, _, results| {
            let (sender, receiver) = bounded(1);
            drop(receiver);
            let transactors = Transactors {
                jobs: vec![sender],
                turn: Arc::default(),
                closing: Arc::default(),
                ended: bounded(0).1,
                calls: Vec::new(),
                results: results.clone(),
            };
            transactors.run(job);
        });
        assert!(matches!(ended[..], [Outcome::Unknown]), "{ended:?}");
    }
}
