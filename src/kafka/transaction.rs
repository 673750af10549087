//! One batch as one Kafka transaction: records, acknowledgements, offsets, commit; or an abort.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::types::RDKafkaRespErr;

use super::admin::Admin;
use super::limits::Fit;
use super::lookup::TOGETHER_MAX;
use super::native;
use super::reports::{Blame, Delivered, Reports};
use super::settings::Settings;
use super::topics::set_bytes_max;
use super::transactor::{End, Job, Membership, SLICE};
use super::turn::Turnstile;
use crate::core::batch::{Batch, OutRecord, Pass};
use crate::core::io::TopicPartition;
use crate::core::ownership::with_member;
use crate::core::reason::Reason;

/// How long the batch before may take to settle.
const TURN_MAX: Duration = Duration::from_secs(5);
/// How long `send_offsets_to_transaction` may take.
const OFFSETS_MAX: Duration = Duration::from_secs(5);
/// How long an abort or a commit is tried before its outcome counts as unknown.
const END_MAX: Duration = Duration::from_secs(30);
/// How long an abort is tried when nobody waits for it any more: it only frees readers sooner.
const PARTING_MAX: Duration = Duration::from_secs(5);
/// How long further reports are waited for after one has told of a failure.
const FAILURES_MAX: Duration = Duration::from_millis(100);
/// Up to so many items, what is due is acknowledged before the batch's other records are queued.
const AHEAD_MAX: usize = 5_000;
/// How long that is waited for: what a slow broker holds up holds up nothing else.
const AHEAD_TIME_MAX: Duration = Duration::from_millis(100);
/// Between two looks for delivery reports.
const LOOK: Duration = Duration::from_millis(1);
/// How long an abort blocks while records are outstanding, whose reports only its own thread can take.
const ABORT_SLICE: Duration = Duration::from_millis(100);

/// How a transaction ended, and whether its producer can go on.
pub enum Ended {
    /// So, and it can.
    Well(End),
    /// So, if a new producer takes over the transactional id: what this one did was never committed, but it cannot
    /// abort it. librdkafka gives up a producer whose first partitions were all refused: for the broker no transaction
    /// has begun, so that there is nothing to abort.
    Broken(End),
    /// Nobody can say.
    Unknown,
}

/// What a transaction needs beside its batch.
pub struct Means<'a> {
    pub producer: &'a BaseProducer<Reports>,
    pub settings: &'a Settings,
    pub turn: &'a Turnstile,
    /// Nobody waits for the outcome any more.
    pub closing: &'a AtomicBool,
    /// Shows a call that may never return.
    pub call: &'a Call,
    /// Reports that do not say yet why records were refused.
    pub unclear: Cell<Option<Delivered>>,
}

/// The call to `send_offsets_to_transaction` that is under way, with its batch. After a change of coordinators librdkafka
/// 2.12 has been seen not to return from it, whatever its time limit.
#[derive(Debug, Default)]
pub struct Call(Mutex<Option<(u64, Instant)>>);

impl Call {
    /// The batch of a call that should have returned long ago.
    pub fn stuck(&self) -> Option<u64> {
        let call = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        call.filter(|(_, since)| since.elapsed() > OFFSETS_MAX * 2).map(|(batch, _)| batch)
    }

    fn set(&self, call: Option<(u64, Instant)>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = call;
    }
}

/// A transaction that cannot go on: it must be aborted, and then ended so.
struct Abort(End);

impl Means<'_> {
    /// Runs a batch to its end.
    pub fn run(&self, job: &Job) -> Ended {
        let Some(membership) = &job.membership else { return Ended::Well(End::Refused(-1)) };
        self.producer.client().context().take();
        if let Err(error) = self.producer.begin_transaction() {
            tracing::warn!(%error, "no transaction could be begun");
            return Ended::Unknown;
        }
        let sent = self
            .produce(&job.batch)
            .and_then(|()| self.acknowledged(&job.batch))
            .and_then(|written| self.fence(&job.batch, membership).map(|()| written));
        match sent {
            Ok(written) => self.commit(written),
            Err(Abort(End::Unknown)) => Ended::Unknown,
            Err(Abort(end)) => {
                let blames_nobody = matches!(end, End::Retry | End::TimedOut(_));
                let ended = self.abort(end, false);
                if let (Ended::Well(_), Some(delivered)) = (&ended, self.unclear.take()) {
                    return self.clear_up(&job.batch, delivered);
                }
                if blames_nobody {
                    self.explain(&job.batch);
                }
                ended
            }
        }
    }

    /// Finds out why topics refused all of their records, by giving each of them one in a transaction of its own, which is
    /// aborted: of a single record librdkafka tells the broker's own code.
    fn clear_up(&self, batch: &Batch, mut delivered: Delivered) -> Ended {
        for (item, topic) in delivered.unclear() {
            let refuses_timestamps = match self.settings.limits.clock_verdict(&topic) {
                Some(known) => known,
                None => {
                    if let Err(error) = self.producer.begin_transaction() {
                        tracing::warn!(%error, "no transaction could be begun");
                        return Ended::Unknown;
                    }
                    let code = self.code_of_one(batch, item, &topic);
                    let ended = self.abort(End::Retry, false);
                    let (Ended::Well(_), Some(code)) = (&ended, code) else { return ended };
                    self.settings.limits.learn_clock(&topic, code == Code::InvalidTimestamp);
                    code == Code::InvalidTimestamp
                }
            };
            if refuses_timestamps {
                delivered.blame_timestamps(&topic);
            }
        }
        Ended::Well(match self.producer.client().context().blame(batch, &delivered) {
            Blame::Items(guilty) => End::Rejected(guilty),
            Blame::Somebody => End::Rejected(Vec::new()),
            Blame::Nobody => End::Retry,
        })
    }

    /// The code with which a topic answers the record of one item. `None` if it does not answer within a second.
    fn code_of_one(&self, batch: &Batch, item: u32, topic: &str) -> Option<Code> {
        let reports = self.producer.client().context();
        // Of the batch that has failed.
        reports.take();
        let mut queued = false;
        let _: Result<(), ()> = batch.records(|record| {
            if record.item != item || record.topic != topic || queued {
                return Ok(());
            }
            queued = true;
            native::produce(self.producer, &record).map_err(|_| ())
        });
        let begun = Instant::now();
        while self.outstanding() > 0 && !self.is_closing() && begun.elapsed() < SLICE {
            std::thread::sleep(LOOK);
        }
        reports.take().verdict(topic)
    }

    /// Where the broker lets us write to one of a transaction's partitions only, it takes none, and names none: so the
    /// engine's own topics are asked about, when nobody else is to blame.
    fn explain(&self, batch: &Batch) {
        let mut own: BTreeSet<String> = BTreeSet::new();
        let _: Result<(), std::convert::Infallible> = batch.records(|record| {
            let target = batch.items.get(record.item as usize).and_then(|item| batch.target(item));
            if target != Some(record.topic) && !own.contains(record.topic) {
                own.insert(record.topic.to_owned());
            }
            Ok(())
        });
        let own: Vec<&str> = own.iter().map(String::as_str).collect();
        if self.is_closing() || own.is_empty() || !self.settings.describes || !self.settings.voice.may_ask() {
            return;
        }
        let described = native::describe(self.producer.client(), &own, SLICE).unwrap_or_default();
        for topic in described.into_iter().filter(|topic| topic.is_denied) {
            self.settings.voice.unwritable(&topic.name, Code::TopicAuthorizationFailed);
        }
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    fn produce(&self, batch: &Batch) -> Result<(), Abort> {
        let mut sets = self.settings.limits.sets();
        let judged = !self.settings.compresses();
        let mut too_large: Vec<(u32, Reason)> = Vec::new();
        let mut too_small: BTreeSet<String> = BTreeSet::new();
        for pass in Pass::ALL {
            // Queued together, what is due would be sent among the others: librdkafka takes partitions in an order of its
            // own, and the broker looks each of them up in the transaction, one after the other. A large batch is bound
            // by the processor, which a pause would leave idle.
            if pass == Pass::History && batch.items.len() <= AHEAD_MAX {
                self.go_ahead();
            }
            batch.records_of(pass, |record| {
                match sets.add(&record) {
                    // What the set becomes when it is compressed, the broker sees.
                    Fit::Nowhere if judged => {
                        too_large.push((record.item, Reason::TooLarge));
                        if !too_small.contains(record.topic) {
                            too_small.insert(record.topic.to_owned());
                        }
                    }
                    Fit::Alone | Fit::Nowhere => self.deliver(batch)?,
                    Fit::Fits => {}
                }
                // From the first one on, it is only looked for others: nothing of this will be committed.
                if too_large.is_empty() { self.queue(batch, &record) } else { Ok(()) }
            })?;
        }
        if too_large.is_empty() {
            return Ok(());
        }
        // An item has up to three records.
        too_large.sort_unstable_by_key(|(item, _)| *item);
        too_large.dedup();
        Err(Abort(if self.relearn(&too_small) { End::Retry } else { End::Rejected(too_large) }))
    }

    /// Asks once more how large sets may be for these topics: that can be changed at any time. True if it has been.
    fn relearn(&self, topics: &BTreeSet<String>) -> bool {
        let limits = &self.settings.limits;
        let topics =
            topics.iter().map(String::as_str).filter(|topic| self.settings.describes && limits.ask_again(topic));
        let topics: Vec<&str> = topics.collect();
        if topics.is_empty() {
            return false;
        }
        let found = Admin::new(self.settings).and_then(|admin| admin.settings(&topics)).unwrap_or_default();
        let mut changed = false;
        for (topic, entries) in &found {
            changed |= set_bytes_max(entries).is_some_and(|bytes| limits.learn(topic, bytes));
        }
        changed
    }

    fn queue(&self, batch: &Batch, record: &OutRecord<'_>) -> Result<(), Abort> {
        loop {
            match native::produce(self.producer, record) {
                Ok(()) => return Ok(()),
                Err(RDKafkaRespErr::RD_KAFKA_RESP_ERR__QUEUE_FULL) if !self.is_closing() => {
                    self.outstanding();
                    std::thread::sleep(LOOK);
                }
                // The transaction has failed already: the reports say why.
                Err(RDKafkaRespErr::RD_KAFKA_RESP_ERR__STATE) => {
                    self.outstanding();
                    return self.failed(batch);
                }
                Err(error) => {
                    let reports = self.producer.client().context();
                    let reason = reports.reason(batch, record.item, record.topic, Code::from(error));
                    return Err(Abort(reason.map_or(End::Retry, |r| End::Rejected(vec![(record.item, r)]))));
                }
            }
        }
    }

    /// Takes the delivery reports that have come. Returns how many records are without.
    fn outstanding(&self) -> i32 {
        let mut count = self.producer.in_flight_count();
        loop {
            // A poll takes one event, with the reports of one set of records. Given time, it would spend all of that
            // looking again and again.
            self.producer.poll(Duration::ZERO);
            let left = self.producer.in_flight_count();
            if left >= count {
                return left;
            }
            count = left;
        }
    }

    /// Gives what is due a start. Whatever becomes of it, the rest of the batch follows: only together do the reports say
    /// who is to blame.
    fn go_ahead(&self) {
        let (begun, reports) = (Instant::now(), self.producer.client().context());
        while self.outstanding() > 0 && !reports.have_failed() && begun.elapsed() < AHEAD_TIME_MAX {
            std::thread::sleep(LOOK);
        }
    }

    /// Waits for every delivery report; once one tells of a failure, only a little longer.
    fn deliver(&self, batch: &Batch) -> Result<(), Abort> {
        let reports = self.producer.client().context();
        let mut failed = None;
        while self.outstanding() > 0 {
            if self.is_closing() {
                return Err(Abort(End::Retry));
            }
            if reports.have_failed() && failed.get_or_insert_with(Instant::now).elapsed() > FAILURES_MAX {
                break;
            }
            std::thread::sleep(LOOK);
        }
        if reports.have_failed() { self.failed(batch) } else { Ok(()) }
    }

    /// Whom the reports blame for a transaction that cannot go on.
    fn failed(&self, batch: &Batch) -> Result<(), Abort> {
        let reports = self.producer.client().context();
        let delivered = reports.take();
        if !delivered.unclear().is_empty() {
            self.unclear.set(Some(delivered));
            return Err(Abort(End::Retry));
        }
        let changed = self.relearn(&delivered.too_small());
        Err(Abort(match reports.blame(batch, &delivered) {
            _ if changed => End::Retry,
            Blame::Items(guilty) => End::Rejected(guilty),
            blame => {
                let denied = self.denied(batch);
                let nobody = denied.is_empty() && blame == Blame::Nobody;
                if nobody { self.late(batch, &delivered) } else { End::Rejected(denied) }
            }
        }))
    }

    /// The batch failed, and no record of it is to blame.
    fn late(&self, batch: &Batch, delivered: &Delivered) -> End {
        delivered
            .late(|| {
                let mut sent = 0;
                let _: Result<(), std::convert::Infallible> = batch.records(|record| {
                    sent += (record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len)) as u64;
                    Ok(())
                });
                sent
            })
            .map_or(End::Retry, End::TimedOut)
    }

    /// What the delivery reports say: offsets are sent only when all records lie in the log.
    fn acknowledged(&self, batch: &Batch) -> Result<Vec<(TopicPartition, i64)>, Abort> {
        self.deliver(batch)?;
        let delivered = self.producer.client().context().take();
        if delivered.unplaced {
            return Err(Abort(End::Retry));
        }
        Ok(delivered.written)
    }

    /// No report names anybody. The broker refuses all partitions of a request together where one may not be written to,
    /// and says which in none of them: so the targets are asked about.
    fn denied(&self, batch: &Batch) -> Vec<(u32, Reason)> {
        let targets: BTreeSet<&str> = batch.items.iter().filter_map(|item| batch.target(item)).collect();
        let targets: Vec<&str> = targets.into_iter().collect();
        let ask = self.settings.describes && !targets.is_empty();
        let mut denied: BTreeSet<String> = BTreeSet::new();
        for some in targets.chunks(TOGETHER_MAX).take_while(|_| ask && !self.is_closing()) {
            let described = native::describe(self.producer.client(), some, SLICE).unwrap_or_default();
            denied.extend(described.into_iter().filter(|topic| topic.is_denied).map(|topic| topic.name));
        }
        let items = (0u32..).zip(&batch.items);
        let is_denied = |name: &str| denied.contains(name);
        let guilty = items.filter(|(_, item)| batch.target(item).is_some_and(is_denied));
        guilty.map(|(number, _)| (number, Reason::Forbidden)).collect()
    }

    fn fence(&self, batch: &Batch, Membership(metadata, generation, member): &Membership) -> Result<(), Abort> {
        if !self.turn.wait(batch.id, TURN_MAX) {
            return Err(Abort(End::Retry));
        }
        let offsets = offsets(batch, member).map_err(|_| Abort(End::Retry))?;
        self.call.set(Some((batch.id, Instant::now())));
        let sent = self.producer.send_offsets_to_transaction(&offsets, metadata, OFFSETS_MAX);
        self.call.set(None);
        match sent {
            // It may have taken so long that nobody counts on this batch any more.
            Ok(()) if self.is_closing() => Err(Abort(End::Retry)),
            Ok(()) => Ok(()),
            Err(KafkaError::Transaction(error)) => {
                let topics: BTreeSet<&str> = batch.offsets.iter().map(|at| batch.topic(at.partition)).collect();
                let topics: Vec<&str> = topics.into_iter().collect();
                self.settings.voice.unfenced(&topics, &KafkaError::Transaction(error.clone()));
                let refused = matches!(
                    error.code(),
                    Code::IllegalGeneration
                        | Code::UnknownMemberId
                        | Code::FencedInstanceId
                        | Code::RebalanceInProgress
                );
                if !refused {
                    self.settings.voice.failing("offsets are not accepted", &error);
                }
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
    fn commit(&self, written: Vec<(TopicPartition, i64)>) -> Ended {
        match self.until_ended(|| self.producer.commit_transaction(SLICE)) {
            Ok(()) => Ended::Well(End::Committed(written)),
            Err(KafkaError::Transaction(error)) if error.txn_requires_abort() => self.abort(End::Retry, true),
            Err(error) => {
                tracing::warn!(%error, "the outcome of a commit is not known");
                Ended::Unknown
            }
        }
    }

    /// Aborts, and ends so if that is known to have worked.
    fn abort(&self, end: End, committing: bool) -> Ended {
        let begun = Instant::now();
        loop {
            // librdkafka drops what is queued and waits for what is on its way, whose reports nobody but this thread
            // can take; the call is resumed afterwards. Purging those records here would be wrong: one that arrives
            // after the abort would belong to this producer's next transaction.
            let outstanding = self.producer.in_flight_count() > 0;
            let error = match self.producer.abort_transaction(if outstanding { ABORT_SLICE } else { SLICE }) {
                Ok(()) => return Ended::Well(end),
                Err(error) => error,
            };
            if !committing && error.rdkafka_error_code() == Some(Code::InvalidTransactionalState) {
                return Ended::Broken(end);
            }
            let again = matches!(&error, KafkaError::Transaction(e) if e.is_retriable() && !e.is_fatal());
            let limit = if self.is_closing() { PARTING_MAX } else { END_MAX };
            if !again || begun.elapsed() > limit {
                tracing::warn!(%error, "a transaction could not be aborted");
                return Ended::Unknown;
            }
            while self.outstanding() > 0 && begun.elapsed() < limit {
                std::thread::sleep(LOOK);
            }
        }
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

/// The offsets to commit. Their metadata names this member, by which the other instances know it for one of them.
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
