//! Runs batches as Kafka transactions, on threads of their own.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::{BaseProducer, Producer};

use super::clients::Clients;
use super::commit_order::CommitOrder;
use super::delivery::DeliveryContext;
use super::job::{CALL_TIMEOUT, Done, Job, Results};
use super::producer_topics::ProducerTopics;
use super::transaction::{DiagnosisLimit, Ended, OffsetsCall, TransactionRun};
use crate::core::batch::Kind;
use crate::core::io::Outcome;

/// Batches that wait for one transactor.
const WAITING_MAX: usize = 2;

/// Guarantees exactly one result for each job, even if the thread panics: a batch without one would hold its partitions
/// for ever.
struct PendingResult<'a> {
    job: Option<Job>,
    commit_order: &'a CommitOrder,
    results: &'a Results,
}

impl<'a> PendingResult<'a> {
    fn new(job: Job, commit_order: &'a CommitOrder, results: &'a Results) -> Self {
        Self { job: Some(job), commit_order, results }
    }

    fn send(mut self, outcome: Outcome) {
        self.end(outcome);
    }

    fn end(&mut self, outcome: Outcome) {
        if let Some(Job { batch, .. }) = self.job.take() {
            self.commit_order.end(batch.id, &outcome);
            self.results.send(Done { batch, outcome });
        }
    }
}

impl Drop for PendingResult<'_> {
    fn drop(&mut self) {
        // Only a panic gets here with the job.
        self.end(Outcome::Unknown);
    }
}

/// The transactors of one incarnation.
pub(super) struct Transactors {
    jobs: Vec<Sender<Job>>,
    commit_order: Arc<CommitOrder>,
    closing: Arc<AtomicBool>,
    ended: Receiver<()>,
    offsets_calls: Vec<Arc<OffsetsCall>>,
    results: Results,
}

impl Transactors {
    /// Starts one thread for each transactional id.
    pub(super) fn start(
        clients: &Arc<Clients>,
        ids: &[String],
        schedules_topics: &[String],
        results: &Results,
    ) -> std::io::Result<Self> {
        let commit_order = Arc::new(CommitOrder::default());
        let closing = Arc::new(AtomicBool::new(false));
        let diagnosis_limit = Arc::<DiagnosisLimit>::default();
        let (alive, ended) = bounded::<()>(0);
        let (mut jobs, mut offsets_calls) = (Vec::new(), Vec::new());
        for (number, id) in ids.iter().enumerate() {
            let (sender, receiver) = bounded(WAITING_MAX);
            let offsets_call = Arc::<OffsetsCall>::default();
            offsets_calls.push(Arc::clone(&offsets_call));
            let name = format!("transactor-{number}");
            let transactor = Transactor {
                name: name.clone(),
                offsets_call,
                config: clients.configs.transactor_producer(id),
                clients: Arc::clone(clients),
                schedules_topics: schedules_topics.to_vec(),
                commit_order: Arc::clone(&commit_order),
                diagnosis_limit: Arc::clone(&diagnosis_limit),
                closing: Arc::clone(&closing),
                results: results.clone(),
            };
            let alive = alive.clone();
            std::thread::Builder::new().name(name).spawn(move || {
                transactor.run(&receiver);
                drop(alive);
            })?;
            jobs.push(sender);
        }
        Ok(Self { jobs, commit_order, closing, ended, offsets_calls, results: results.clone() })
    }

    /// Hands out a batch. Batches come in the order of their ids, without gaps.
    pub(super) fn run(&self, job: Job) {
        let id = job.batch.id;
        let fires = job.batch.items.iter().any(|item| matches!(item.kind, Kind::Fire { .. }));
        self.commit_order.register(id, fires);
        // At most two batches are in flight, so there is room, unless the transactor has ended.
        if let Err(unsent) = self.jobs[(id % self.jobs.len() as u64) as usize].try_send(job) {
            PendingResult::new(unsent.into_inner(), &self.commit_order, &self.results).send(Outcome::Unknown);
        }
    }

    /// Returns a batch whose outcome stays unknown, because a call does not return.
    pub(super) fn stuck(&self) -> Option<u64> {
        self.offsets_calls.iter().find_map(|call| call.stuck())
    }

    /// Stops the threads and waits until they have ended, at most `timeout`.
    pub(super) fn stop(self, timeout: Duration) {
        let ended = self.ended.clone();
        drop(self);
        let _ = ended.recv_timeout(timeout);
    }
}

impl Drop for Transactors {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Release);
    }
}

struct Transactor {
    offsets_call: Arc<OffsetsCall>,
    name: String,
    config: ClientConfig,
    clients: Arc<Clients>,
    schedules_topics: Vec<String>,
    commit_order: Arc<CommitOrder>,
    diagnosis_limit: Arc<DiagnosisLimit>,
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
                    // Serves the producer's statistics and errors, which would pile up.
                    producer.poll(Duration::ZERO);
                    let has_work = || !jobs.is_empty() || self.is_closing();
                    if topics.has_deleted_topics(&producer, &self.clients, has_work) {
                        // No transaction is open. The new producer has the same transactional id, so its epoch fences
                        // the old one.
                        let Some(new) = self.producer() else { return };
                        (producer, topics) = (new, ProducerTopics::new());
                    }
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let result = PendingResult::new(job, &self.commit_order, &self.results);
            let outcome = result.job.as_ref().map_or(Outcome::Unknown, |job| self.transact(&mut producer, job));
            result.job.iter().for_each(|job| topics.add(&job.batch));
            let is_known = !matches!(outcome, Outcome::Unknown);
            result.send(outcome);
            if !is_known {
                return;
            }
        }
    }

    fn transact(&self, producer: &mut BaseProducer<DeliveryContext>, job: &Job) -> Outcome {
        let run = TransactionRun {
            producer,
            clients: &self.clients,
            commit_order: &self.commit_order,
            closing: &self.closing,
            offsets_call: &self.offsets_call,
            diagnosis_limit: &self.diagnosis_limit,
            ambiguous: Cell::default(),
        };
        match run.run(job) {
            Ended::ProducerReusable(outcome) => outcome,
            Ended::Unknown => Outcome::Unknown,
            Ended::ProducerBroken(outcome) => {
                tracing::debug!("a producer that cannot abort is replaced");
                // The new one takes over the transactional id, which aborts any transaction that is open under it.
                self.producer().map_or(Outcome::Unknown, |new| {
                    *producer = new;
                    outcome
                })
            }
        }
    }

    /// Makes a producer. Tries until it succeeds: without one there is nothing else to do.
    fn producer(&self) -> Option<BaseProducer<DeliveryContext>> {
        let diagnostics = &self.clients.diagnostics;
        let mut is_logged = false;
        loop {
            let topics = self.schedules_topics.clone();
            let context = DeliveryContext::new(self.name.clone(), topics, Arc::clone(diagnostics));
            let created =
                self.config.create_with_context(context).and_then(|producer: BaseProducer<DeliveryContext>| {
                    while let Err(error) = producer.init_transactions(CALL_TIMEOUT) {
                        let is_retriable =
                            matches!(&error, KafkaError::Transaction(e) if e.is_retriable() && !e.is_fatal());
                        if !is_retriable || self.is_closing() {
                            return Err(error);
                        }
                    }
                    Ok(producer)
                });
            match created {
                Ok(producer) => return Some(producer),
                Err(_) if self.is_closing() => return None,
                Err(error) => {
                    if error.rdkafka_error_code() == Some(Code::TransactionalIdAuthorizationFailed) {
                        diagnostics.on_error(&error, "init_transactions");
                    } else {
                        if !std::mem::replace(&mut is_logged, true) {
                            tracing::warn!(%error, "the transactional producer cannot start; trying again");
                        }
                        diagnostics.show("a transactional producer cannot start; trying again", &error);
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
    use super::super::fixtures::a_batch;
    use super::*;
    use crate::core::io::Abort;

    fn outcomes(act: impl FnOnce(Job, &CommitOrder, &Results)) -> Vec<Outcome> {
        let (sender, receiver) = crossbeam_channel::unbounded();
        let results = Results { sender, wake: Arc::new(|| {}) };
        let commit_order = CommitOrder::default();
        act(Job { batch: a_batch(), membership: None }, &commit_order, &results);
        receiver.try_iter().map(|done| done.outcome).collect()
    }

    #[test]
    fn a_job_has_one_result_even_after_a_panic() {
        let sent = outcomes(|job, commit_order, results| {
            PendingResult::new(job, commit_order, results).send(Outcome::Aborted(Abort::Retry));
        });
        assert!(matches!(sent[..], [Outcome::Aborted(Abort::Retry)]), "{sent:?}");
        let panicked = outcomes(|job, commit_order, results| drop(PendingResult::new(job, commit_order, results)));
        assert!(matches!(panicked[..], [Outcome::Unknown]), "{panicked:?}");
        let ended = outcomes(|job, _, results| {
            let (sender, receiver) = bounded(1);
            drop(receiver);
            let transactors = Transactors {
                jobs: vec![sender],
                commit_order: Arc::default(),
                closing: Arc::default(),
                ended: bounded(0).1,
                offsets_calls: Vec::new(),
                results: results.clone(),
            };
            transactors.run(job);
        });
        assert!(matches!(ended[..], [Outcome::Unknown]), "{ended:?}");
    }
}
