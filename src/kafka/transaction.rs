//! One batch as one Kafka transaction: records, acknowledgements, offsets, commit; or an abort.

mod diagnosis;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::types::RDKafkaRespErr;

use super::clients::Clients;
use super::commit_order::CommitOrder;
use super::delivery::{Attribution, DeliveryContext, DeliveryReports};
use super::ffi;
use super::job::{CALL_TIMEOUT, Job, Membership};
use super::record_batches::Fit;
use crate::core::batch::{Batch, OutRecord, Pass};
use crate::core::io::{Abort, Outcome, TopicPartition};
use crate::core::ownership::with_member;
use crate::core::reason::Reason;
pub(super) use diagnosis::DiagnosisLimit;

/// How long a batch waits for the one before to end.
const TURN_TIMEOUT: Duration = Duration::from_secs(5);
/// Time limit of `send_offsets_to_transaction`.
const OFFSETS_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an abort or a commit is tried before its outcome counts as unknown.
const END_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an abort is tried while the engine stops: it only frees readers sooner.
const CLOSING_ABORT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait for further reports after the first failure.
const FAILURE_REPORTS_TIMEOUT: Duration = Duration::from_millis(100);
/// In a batch with at most this many items, triggered records are acknowledged before other records are queued.
const STAGED_ITEMS_MAX: usize = 5_000;
/// How long to wait for that: a slow broker must not delay the rest.
const TARGET_ACKS_TIMEOUT: Duration = Duration::from_millis(100);
/// Between two polls for delivery reports.
const POLL_INTERVAL: Duration = Duration::from_millis(1);
/// How long an abort blocks while records are in flight, whose reports only its own thread can poll.
const ABORT_CALL_TIMEOUT: Duration = Duration::from_millis(100);

/// The outcome of a transaction, and whether its producer can be used again.
pub(super) enum Ended {
    ProducerReusable(Outcome),
    /// The outcome, once a new producer has taken over the transactional id: this one has committed nothing, but cannot
    /// abort. librdkafka gives up a producer whose first partitions were all rejected: for the broker no transaction
    /// has started, so there is nothing to abort.
    ProducerBroken(Outcome),
    Unknown,
}

/// Runs a batch on a producer.
pub(super) struct TransactionRun<'a> {
    pub producer: &'a BaseProducer<DeliveryContext>,
    pub clients: &'a Clients,
    pub commit_order: &'a CommitOrder,
    /// The outcome is no longer wanted.
    pub closing: &'a AtomicBool,
    pub offsets_call: &'a OffsetsCall,
    pub diagnosis_limit: &'a DiagnosisLimit,
    /// Reports that do not show why records were rejected.
    pub ambiguous: Cell<Option<DeliveryReports>>,
}

/// The running call of `send_offsets_to_transaction`, with its batch. After a change of coordinators librdkafka 2.12
/// has been seen not to return from it, whatever its time limit.
#[derive(Debug, Default)]
pub(super) struct OffsetsCall(Mutex<Option<(u64, Instant)>>);

impl OffsetsCall {
    /// Returns the batch of a call that should have returned long ago.
    pub(super) fn stuck(&self) -> Option<u64> {
        let call = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        call.filter(|(_, since)| since.elapsed() > OFFSETS_TIMEOUT * 2).map(|(batch, _)| batch)
    }

    fn set(&self, call: Option<(u64, Instant)>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = call;
    }
}

/// Why a transaction cannot continue.
enum Failed {
    /// It must be aborted.
    Abort(Abort),
    /// The producer cannot be used any more.
    Unknown,
}

impl From<Abort> for Failed {
    fn from(abort: Abort) -> Self {
        Self::Abort(abort)
    }
}

impl TransactionRun<'_> {
    /// Runs a batch to its end.
    pub(super) fn run(&self, job: &Job) -> Ended {
        let Some(membership) = &job.membership else {
            return Ended::ProducerReusable(Outcome::Aborted(Abort::StaleGeneration { generation: None }));
        };
        self.producer.client().context().take();
        if let Err(error) = self.producer.begin_transaction() {
            tracing::warn!(%error, "a transaction could not be started");
            return Ended::Unknown;
        }
        let sent = self
            .produce(&job.batch)
            .and_then(|()| self.acknowledged(&job.batch))
            .and_then(|written| self.send_offsets(&job.batch, membership).map(|()| written));
        match sent {
            Ok(written) => self.commit(written),
            Err(Failed::Unknown) => Ended::Unknown,
            Err(Failed::Abort(abort)) => {
                let is_unattributed = matches!(abort, Abort::Retry | Abort::TimedOut(_));
                let ended = self.abort(abort, false);
                if let (Ended::ProducerReusable(_), Some(reports)) = (&ended, self.ambiguous.take()) {
                    return self.probe_ambiguous_topics(&job.batch, reports);
                }
                if is_unattributed {
                    self.diagnose_own_topics(&job.batch);
                }
                ended
            }
        }
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    fn produce(&self, batch: &Batch) -> Result<(), Failed> {
        let mut batches = self.clients.topic_limits.record_batches();
        let compresses = self.clients.configs.compresses();
        let mut too_large: Vec<(u32, Reason)> = Vec::new();
        let mut topics: BTreeSet<String> = BTreeSet::new();
        for pass in Pass::ALL {
            // Queued together, triggered records would be sent among the others: librdkafka sends partitions in an
            // order of its own, and the broker adds each of them to the transaction, one after the other. A large batch
            // is bound by the processor, which a pause would leave idle.
            if pass == Pass::History && batch.items.len() <= STAGED_ITEMS_MAX {
                self.await_target_acks();
            }
            batch.records_of(pass, |record| {
                match batches.add(&record) {
                    // The size of a compressed batch is known only to the broker.
                    Fit::TooLarge if !compresses => {
                        too_large.push((record.item, Reason::TooLarge));
                        if !topics.contains(record.topic) {
                            topics.insert(record.topic.to_owned());
                        }
                    }
                    Fit::NewBatch | Fit::TooLarge => self.await_delivery(batch)?,
                    Fit::Current => {}
                }
                // After the first one, only further ones are searched: this transaction will not commit.
                if too_large.is_empty() { self.queue(batch, &record) } else { Ok(()) }
            })?;
        }
        if too_large.is_empty() {
            return Ok(());
        }
        // An item has up to three records.
        too_large.sort_unstable_by_key(|(item, _)| *item);
        too_large.dedup();
        let abort = if self.refresh_limits(&topics) { Abort::Retry } else { Abort::Rejected(too_large) };
        Err(abort.into())
    }

    fn queue(&self, batch: &Batch, record: &OutRecord<'_>) -> Result<(), Failed> {
        loop {
            match ffi::produce(self.producer, record) {
                Ok(()) => return Ok(()),
                Err(RDKafkaRespErr::RD_KAFKA_RESP_ERR__QUEUE_FULL) if !self.is_closing() => {
                    self.poll_reports();
                    std::thread::sleep(POLL_INTERVAL);
                }
                // The transaction has already failed: the reports say why.
                Err(RDKafkaRespErr::RD_KAFKA_RESP_ERR__STATE) => {
                    self.poll_reports();
                    return self.fail(batch);
                }
                Err(error) => {
                    let context = self.producer.client().context();
                    let reason = context.reason(batch, record.item, record.topic, Code::from(error));
                    return Err(reason.map_or(Abort::Retry, |r| Abort::Rejected(vec![(record.item, r)])).into());
                }
            }
        }
    }

    /// Polls for delivery reports. Returns how many records have none yet.
    fn poll_reports(&self) -> i32 {
        let mut count = self.producer.in_flight_count();
        loop {
            // A poll serves one event, with the reports of one record batch. With a time limit, it would use up all of
            // it.
            self.producer.poll(Duration::ZERO);
            let left = self.producer.in_flight_count();
            if left >= count {
                return left;
            }
            count = left;
        }
    }

    /// Waits for the triggered records, for a limited time. Even after a failure the rest of the batch follows: only
    /// all reports together show the cause.
    fn await_target_acks(&self) {
        let (started, context) = (Instant::now(), self.producer.client().context());
        while self.poll_reports() > 0 && !context.has_failed() && started.elapsed() < TARGET_ACKS_TIMEOUT {
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    /// Waits for every delivery report; after a failure, only a little longer.
    fn await_delivery(&self, batch: &Batch) -> Result<(), Failed> {
        let context = self.producer.client().context();
        let mut failed_at = None;
        while self.poll_reports() > 0 {
            if self.is_closing() {
                return Err(Abort::Retry.into());
            }
            if context.has_failed() && failed_at.get_or_insert_with(Instant::now).elapsed() > FAILURE_REPORTS_TIMEOUT {
                break;
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        if context.has_failed() { self.fail(batch) } else { Ok(()) }
    }

    /// Fails with the cause that the reports show.
    fn fail(&self, batch: &Batch) -> Result<(), Failed> {
        let context = self.producer.client().context();
        let reports = context.take();
        if !reports.ambiguous_topics().is_empty() {
            self.ambiguous.set(Some(reports));
            return Err(Abort::Retry.into());
        }
        let has_changed = self.refresh_limits(&reports.topics_with_too_large_records());
        let abort = match context.attribute(batch, &reports) {
            _ if has_changed => Abort::Retry,
            Attribution::Items(items) => Abort::Rejected(items),
            attribution => {
                let denied = self.find_denied_targets(batch);
                let is_transient = denied.is_empty() && attribution == Attribution::Transient;
                if is_transient { transient(batch, &reports) } else { Abort::rejected(denied) }
            }
        };
        Err(abort.into())
    }

    /// Waits until all records are in the log, before offsets are sent.
    fn acknowledged(&self, batch: &Batch) -> Result<Vec<(TopicPartition, i64)>, Failed> {
        self.await_delivery(batch)?;
        let reports = self.producer.client().context().take();
        if reports.is_offset_missing {
            return Err(Abort::Retry.into());
        }
        Ok(reports.written)
    }

    fn send_offsets(&self, batch: &Batch, membership: &Membership) -> Result<(), Failed> {
        if !self.commit_order.wait_turn(batch.id, TURN_TIMEOUT) {
            return Err(Abort::Retry.into());
        }
        let offsets = offsets(batch, &membership.member).map_err(|_| Abort::Retry)?;
        self.offsets_call.set(Some((batch.id, Instant::now())));
        let sent = self.producer.send_offsets_to_transaction(&offsets, &membership.metadata, OFFSETS_TIMEOUT);
        self.offsets_call.set(None);
        match sent {
            // The call may have taken so long that the loop has given up this batch.
            Ok(()) if self.is_closing() => Err(Abort::Retry.into()),
            Ok(()) => Ok(()),
            Err(KafkaError::Transaction(error)) => {
                let topics: BTreeSet<&str> = batch.offsets.iter().map(|at| batch.topic(at.partition)).collect();
                let topics: Vec<&str> = topics.into_iter().collect();
                self.clients.diagnostics.on_offset_rejection(&topics, &KafkaError::Transaction(error.clone()));
                let is_stale_generation = matches!(
                    error.code(),
                    Code::IllegalGeneration
                        | Code::UnknownMemberId
                        | Code::FencedInstanceId
                        | Code::RebalanceInProgress
                );
                if !is_stale_generation {
                    self.clients.diagnostics.on_failure("offsets are not accepted", &error);
                }
                Err(match (error.is_fatal(), is_stale_generation) {
                    (true, _) => Failed::Unknown,
                    (_, true) => Abort::StaleGeneration { generation: Some(membership.generation) }.into(),
                    _ => Abort::Retry.into(),
                })
            }
            Err(_) => Err(Abort::Retry.into()),
        }
    }

    /// Commits. After a retriable error only commit is called again: the first call may have reached the broker.
    fn commit(&self, written: Vec<(TopicPartition, i64)>) -> Ended {
        match self.retry_end(|| self.producer.commit_transaction(CALL_TIMEOUT)) {
            Ok(()) => Ended::ProducerReusable(Outcome::Committed { last_offsets: written }),
            Err(KafkaError::Transaction(error)) if error.txn_requires_abort() => self.abort(Abort::Retry, true),
            Err(error) => {
                tracing::warn!(%error, "the outcome of a commit is unknown");
                Ended::Unknown
            }
        }
    }

    /// Aborts. The outcome is known only if that succeeds.
    fn abort(&self, abort: Abort, is_committing: bool) -> Ended {
        let started = Instant::now();
        loop {
            // librdkafka drops queued records and waits for records in flight, whose reports only this thread can poll;
            // the call is resumed afterwards. Purging those records here would be wrong: one that arrives after the
            // abort would belong to this producer's next transaction.
            let is_in_flight = self.producer.in_flight_count() > 0;
            let error =
                match self.producer.abort_transaction(if is_in_flight { ABORT_CALL_TIMEOUT } else { CALL_TIMEOUT }) {
                    Ok(()) => return Ended::ProducerReusable(Outcome::Aborted(abort)),
                    Err(error) => error,
                };
            if !is_committing && error.rdkafka_error_code() == Some(Code::InvalidTransactionalState) {
                return Ended::ProducerBroken(Outcome::Aborted(abort));
            }
            let is_retriable = matches!(&error, KafkaError::Transaction(e) if e.is_retriable() && !e.is_fatal());
            let timeout = if self.is_closing() { CLOSING_ABORT_TIMEOUT } else { END_TIMEOUT };
            if !is_retriable || started.elapsed() > timeout {
                tracing::warn!(%error, "a transaction could not be aborted");
                return Ended::Unknown;
            }
            while self.poll_reports() > 0 && started.elapsed() < timeout {
                std::thread::sleep(POLL_INTERVAL);
            }
        }
    }

    fn retry_end(&self, mut call: impl FnMut() -> KafkaResult<()>) -> KafkaResult<()> {
        let started = Instant::now();
        loop {
            let error = match call() {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let is_retriable = match &error {
                KafkaError::Transaction(e) => e.is_retriable() && !e.is_fatal() && !e.txn_requires_abort(),
                KafkaError::Flush(_) => true,
                _ => false,
            };
            if !is_retriable || self.is_closing() || started.elapsed() > END_TIMEOUT {
                return Err(error);
            }
        }
    }
}

/// The abort of a batch that failed without a record being at fault.
fn transient(batch: &Batch, reports: &DeliveryReports) -> Abort {
    let sent_bytes = || {
        let mut bytes = 0;
        let _: Result<(), Infallible> = batch.records(|record| {
            bytes += (record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len)) as u64;
            Ok(())
        });
        bytes
    };
    reports.timed_out(sent_bytes).map_or(Abort::Retry, Abort::TimedOut)
}

/// Returns the offsets to commit. Their metadata names this member, so other instances recognise it.
fn offsets(batch: &Batch, member: &[u8]) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::with_capacity(batch.offsets.len());
    for position in &batch.offsets {
        assert!(position.offset >= 0, "librdkafka drops negative offsets, and the fence with them");
        let mut element = list.add_partition(batch.topic(position.partition), position.partition.number);
        element.set_offset(rdkafka::Offset::Offset(position.offset))?;
        element.set_metadata(with_member(&position.metadata, member));
    }
    Ok(list)
}
