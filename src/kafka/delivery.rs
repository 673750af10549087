//! Collects the delivery reports of a batch, and attributes failures to its items.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::Message;
use rdkafka::producer::{DeliveryResult, ProducerContext};

use super::diagnostics::Diagnostics;
use super::statistics;
use crate::core::batch::{Batch, Kind};
use crate::core::io::{BatchTimeout, TopicPartition};
use crate::core::reason::Reason;

/// The longest time between two acknowledgements on a link that is slow but works: with the default time-out of 5 s, if
/// at least two of a partition's requests got through, the last of them came within this time before the end.
const ACKNOWLEDGEMENT_INTERVAL: Duration = Duration::from_millis(2_600);

/// The context of a transactor's producer, which collects delivery reports.
#[derive(Debug)]
pub(super) struct DeliveryContext {
    transactor: String,
    schedules_topics: Vec<String>,
    diagnostics: Arc<Diagnostics>,
    reports: Mutex<DeliveryReports>,
}

/// The delivery reports of a batch.
#[derive(Debug, Default)]
pub(super) struct DeliveryReports {
    /// Schedules partitions, and the highest offset in each.
    pub written: Vec<(TopicPartition, i64)>,
    /// Other partitions that accepted a record.
    accepted: HashMap<String, BTreeSet<i32>>,
    failed: Vec<Failure>,
    /// Acknowledged bytes of keys and values.
    acknowledged_bytes: u64,
    acknowledged_at: Option<Instant>,
    /// A report has no offset, so it would be unknown when the consumer has read past the record.
    pub is_offset_missing: bool,
}

/// A record that was not delivered.
#[derive(Debug)]
struct Failure {
    item: u32,
    code: Code,
    topic: String,
    partition: i32,
}

/// The cause of records that were not delivered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Attribution {
    /// These items, and why.
    Items(Vec<(u32, Reason)>),
    /// The broker rejected a record, and no report says which.
    Unattributed,
    /// The brokers were slow or down.
    Transient,
}

impl ClientContext for DeliveryContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        Diagnostics::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.diagnostics.on_error(&error, reason);
    }

    fn stats_raw(&self, json: &[u8]) {
        if let Some(statistics) = statistics::parse(json) {
            self.diagnostics.board().client(&self.transactor, statistics);
        }
    }
}

impl ProducerContext for DeliveryContext {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, item: usize) {
        let mut reports = self.lock();
        if let Ok(message) = result {
            reports.acknowledged_bytes += (message.key_len() + message.payload_len()) as u64;
            reports.acknowledged_at = Some(Instant::now());
        }
        match result {
            Err((error, message)) => {
                let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
                let (topic, partition) = (message.topic().to_owned(), message.partition());
                reports.failed.push(Failure { item: item as u32, code, topic, partition });
            }
            Ok(message) => match self.schedules_topics.iter().position(|topic| topic == message.topic()) {
                Some(topic) => {
                    let partition = TopicPartition { topic: topic as u16, number: message.partition() };
                    reports.on_written(partition, message.offset());
                }
                None => reports.on_accepted(message.topic(), message.partition()),
            },
        }
    }
}

impl DeliveryReports {
    /// Returns the topics that rejected a record, or a record batch, as too large.
    pub(super) fn topics_with_too_large_records(&self) -> BTreeSet<String> {
        let too_large = self.failed.iter().filter(|failure| reason(failure.code) == Some(Reason::TooLarge));
        too_large.map(|failure| failure.topic.clone()).collect()
    }

    /// Returns how the batch timed out, if records were not acknowledged in time. `sent` counts its bytes.
    pub(super) fn timed_out(&self, sent: impl FnOnce() -> u64) -> Option<BatchTimeout> {
        if !self.failed.iter().any(|failure| failure.code == Code::MessageTimedOut) {
            return None;
        }
        Some(match self.acknowledged_at {
            None => BatchTimeout::Silent,
            Some(at) if at.elapsed() >= ACKNOWLEDGEMENT_INTERVAL => BatchTimeout::Stalled,
            Some(_) => BatchTimeout::Taking { delivered: self.acknowledged_bytes, sent: sent() },
        })
    }

    /// Returns the topics of which a partition rejected at least two records as invalid and none for another reason,
    /// each with the item of one such record. librdkafka gives all records of a rejected batch the same code, whatever
    /// the broker's is, so a wrong clock looks like invalid records. A clock is wrong for all records of a partition.
    pub(super) fn ambiguous_topics(&self) -> Vec<(u32, String)> {
        let mut partitions: BTreeMap<(&str, i32), (u32, usize, bool)> = BTreeMap::new();
        // Records that were not sent because others failed say nothing.
        for failure in self.failed.iter().filter(|failure| !is_transient(failure.code)) {
            let at = (failure.topic.as_str(), failure.partition);
            let (_, count, alike) = partitions.entry(at).or_insert((failure.item, 0, true));
            *count += 1;
            *alike &= failure.code == Code::InvalidRecord;
        }
        let ambiguous = partitions.into_iter().filter(|(_, (_, count, alike))| *count > 1 && *alike);
        let mut ambiguous: Vec<(u32, String)> =
            ambiguous.map(|((topic, _), (item, ..))| (item, topic.to_owned())).collect();
        ambiguous.dedup_by(|one, other| one.1 == other.1);
        ambiguous
    }

    /// Notes that this topic rejected invalid records because of their timestamps.
    pub(super) fn attribute_to_timestamps(&mut self, topic: &str) {
        let of_topic = |failure: &&mut Failure| failure.code == Code::InvalidRecord && failure.topic == topic;
        self.failed.iter_mut().filter(of_topic).for_each(|failure| failure.code = Code::InvalidTimestamp);
    }

    /// Returns the code of the only record of a topic. `None` if no report says whether the topic accepts it.
    pub(super) fn single_code(&self, topic: &str) -> Option<Code> {
        let rejected = self.failed.iter().find(|failure| failure.topic == topic).map(|failure| failure.code);
        let is_accepted = self.accepted.contains_key(topic) || !self.written.is_empty();
        rejected.filter(|code| !is_transient(*code)).or(is_accepted.then_some(Code::NoError))
    }

    fn on_written(&mut self, partition: TopicPartition, offset: i64) {
        self.is_offset_missing |= offset < 0;
        match self.written.iter_mut().find(|(other, _)| *other == partition) {
            Some((_, highest)) => *highest = offset.max(*highest),
            None => self.written.push((partition, offset)),
        }
    }

    fn on_accepted(&mut self, topic: &str, partition: i32) {
        // Most records go to a known topic, and need no copy of its name.
        match self.accepted.get_mut(topic) {
            Some(partitions) => drop(partitions.insert(partition)),
            None => drop(self.accepted.insert(topic.to_owned(), BTreeSet::from([partition]))),
        }
    }
}

impl DeliveryContext {
    pub(super) fn new(transactor: String, schedules_topics: Vec<String>, diagnostics: Arc<Diagnostics>) -> Self {
        Self { transactor, schedules_topics, diagnostics, reports: Mutex::default() }
    }

    /// Returns whether a record is known not to be delivered.
    pub(super) fn has_failed(&self) -> bool {
        !self.lock().failed.is_empty()
    }

    /// Takes the reports since the last call.
    pub(super) fn take(&self) -> DeliveryReports {
        std::mem::take(&mut *self.lock())
    }

    /// Attributes failures to the items of the batch. If one of the engine's own topics rejects timestamps, the clock
    /// is wrong: every record of every batch carries one. The broker rejects a record batch that is too large as a
    /// whole, and every report of it says so: several such reports name no item.
    pub(super) fn attribute(&self, batch: &Batch, reports: &DeliveryReports) -> Attribution {
        let leaderless = are_leaderless(batch, reports);
        let wrong_clock = reports.failed.iter().any(|f| is_timestamp(f.code) && !is_firing(batch, f.item, &f.topic));
        let items = reports.failed.iter().filter_map(|failure| {
            let Failure { item, code, topic, .. } = failure;
            let no_leader = (leaderless && *code == Code::MessageTimedOut).then_some(Reason::NoLeader);
            Some((*item, self.reason(batch, *item, topic, *code).or(no_leader)?))
        });
        let mut items: Vec<(u32, Reason)> = items.collect();
        items.sort_unstable();
        items.dedup_by_key(|(item, _)| *item);
        items.retain(|(_, reason)| !(wrong_clock && *reason == Reason::Timestamp));
        if items.iter().filter(|(_, reason)| *reason == Reason::TooLarge).count() > 1 {
            items.retain(|(_, reason)| *reason != Reason::TooLarge);
        }
        let is_rejected = |f: &Failure| match reason(f.code) {
            // One of the engine's own topics: a target's rejection would have named the item.
            Some(Reason::UnknownTarget | Reason::Forbidden | Reason::Timestamp) => false,
            Some(_) => true,
            None => !is_transient(f.code),
        };
        if !items.is_empty() {
            Attribution::Items(items)
        } else if reports.failed.iter().any(is_rejected) {
            Attribution::Unattributed
        } else {
            Attribution::Transient
        }
    }

    /// Returns why a record of an item was rejected. If one of the engine's own topics rejects it for any reason but
    /// its size, the topic is at fault.
    pub(super) fn reason(&self, batch: &Batch, item: u32, topic: &str, code: Code) -> Option<Reason> {
        let reason = reason(code);
        if reason == Some(Reason::Timestamp) {
            self.diagnostics.on_timestamp_rejection(topic);
        }
        if is_firing(batch, item, topic) {
            return reason;
        }
        match reason {
            Some(Reason::Timestamp) => None,
            Some(Reason::UnknownTarget | Reason::Forbidden) => {
                self.diagnostics.on_topic_rejection(topic, code);
                // The dead-letter topic is treated like a target.
                reason.filter(|_| is_target(batch, item, topic))
            }
            Some(Reason::TooLarge) => reason,
            None if is_transient(code) || code == Code::InvalidDifferentRecord => None,
            None | Some(_) => {
                self.diagnostics.on_topic_rejection(topic, code);
                Some(Reason::OwnTopic)
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, DeliveryReports> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns whether the record of an item is the triggered record.
fn is_firing(batch: &Batch, item: u32, topic: &str) -> bool {
    let item = batch.items.get(item as usize);
    item.is_some_and(|item| matches!(&item.kind, Kind::Fire { target, .. } if **target == *topic))
}

fn is_timestamp(code: Code) -> bool {
    reason(code) == Some(Reason::Timestamp)
}

fn is_target(batch: &Batch, item: u32, topic: &str) -> bool {
    batch.items.get(item as usize).is_some_and(|item| batch.target(item) == Some(topic))
}

/// Returns whether records timed out because target partitions have no leader: these accepted no record, while the rest
/// of the batch was accepted. Otherwise a broker is slow or down, which is transient.
fn are_leaderless(batch: &Batch, reports: &DeliveryReports) -> bool {
    let is_accepted = |f: &Failure| reports.accepted.get(&f.topic).is_some_and(|all| all.contains(&f.partition));
    let mut timed_out = reports.failed.iter().filter(|f| f.code == Code::MessageTimedOut);
    !reports.written.is_empty() && timed_out.all(|f| is_target(batch, f.item, &f.topic) && !is_accepted(f))
}

/// Returns the reason for which a record is at fault.
fn reason(code: Code) -> Option<Reason> {
    match code {
        Code::MessageSizeTooLarge | Code::InvalidMessageSize => Some(Reason::TooLarge),
        Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition | Code::InvalidTopic => {
            Some(Reason::UnknownTarget)
        }
        Code::TopicAuthorizationFailed => Some(Reason::Forbidden),
        Code::InvalidTimestamp => Some(Reason::Timestamp),
        Code::InvalidRecord | Code::InvalidMessage | Code::PolicyViolation => Some(Reason::Rejected),
        _ => None,
    }
}

/// Returns whether a failure says nothing about the record: the brokers or the producer could not accept it at the
/// time.
fn is_transient(code: Code) -> bool {
    matches!(
        code,
        Code::MessageTimedOut
            | Code::TimedOutQueue
            | Code::RequestTimedOut
            | Code::OperationTimedOut
            | Code::PurgeQueue
            | Code::PurgeInflight
            | Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::Authentication
            | Code::SSL
            | Code::Resolve
            | Code::BrokerNotAvailable
            | Code::NetworkException
            | Code::LeaderNotAvailable
            | Code::NotLeaderForPartition
            | Code::ReplicaNotAvailable
            | Code::NotEnoughReplicas
            | Code::NotEnoughReplicasAfterAppend
            | Code::KafkaStorageError
            | Code::FencedLeaderEpoch
            | Code::UnknownLeaderEpoch
            | Code::CoordinatorLoadInProgress
            | Code::CoordinatorNotAvailable
            | Code::NotCoordinator
            | Code::ThrottlingQuotaExceeded
            | Code::State
            | Code::Fatal
            | Code::Fenced
            | Code::Inconsistent
            | Code::GaplessGuarantee
            | Code::OutOfOrderSequenceNumber
            | Code::DuplicateSequenceNumber
            | Code::InvalidProducerEpoch
            | Code::ProducerFenced
            | Code::UnknownProducerId
            | Code::InvalidProducerIdMapping
            | Code::InvalidTransactionalState
            | Code::ConcurrentTransactions
            | Code::TransactionCoordinatorFenced
            | Code::TransactionalIdAuthorizationFailed
            | Code::ClusterAuthorizationFailed
    )
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::a_batch;
    use super::*;
    use crate::core::batch::{AfterFiring, Fired};
    use crate::core::due::Due;
    use crate::core::io::Millis;
    use crate::handle::status_board::StatusBoard;

    /// A batch that fires this many schedules.
    fn firing(count: usize) -> Batch {
        let fire = || Kind::Fire {
            target: "target".into(),
            due: Due::from_epoch_s(1).expect("a second"),
            timestamp: Millis(0),
            missed: false,
            after: AfterFiring::End { ends_progress: false },
            fired: Fired::OLD,
        };
        a_batch().with_kinds(std::iter::repeat_with(fire).take(count))
    }

    fn delivered(failed: &[(u32, Code)]) -> DeliveryReports {
        let failure =
            |(item, code): &(u32, Code)| Failure { item: *item, code: *code, topic: "target".into(), partition: 0 };
        DeliveryReports { failed: failed.iter().map(failure).collect(), ..DeliveryReports::default() }
    }

    #[test]
    fn an_outage_is_transient_and_an_unnamed_rejection_unattributed() {
        let context = DeliveryContext::new("p".into(), vec!["schedules".into()], Arc::default());
        let batch = firing(3);
        let attribute = |failed: &[(u32, Code)]| context.attribute(&batch, &delivered(failed));
        assert_eq!(attribute(&[]), Attribution::Transient);
        for code in [
            Code::MessageTimedOut,
            Code::PurgeQueue,
            Code::PurgeInflight,
            Code::BrokerTransportFailure,
            Code::NotEnoughReplicas,
            Code::OutOfOrderSequenceNumber,
        ] {
            assert_eq!(attribute(&[(0, code), (1, code)]), Attribution::Transient, "{code:?}");
        }
        assert_eq!(attribute(&[(0, Code::PurgeInflight), (1, Code::Unknown)]), Attribution::Unattributed);
        assert_eq!(
            attribute(&[(0, Code::PurgeInflight), (1, Code::InvalidRecord)]),
            Attribution::Items(vec![(1, Reason::Rejected)])
        );
        let two = [(0, Code::MessageSizeTooLarge), (1, Code::MessageSizeTooLarge)];
        assert_eq!(attribute(&two), Attribution::Unattributed, "perhaps only together");
        let three = [two[0], two[1], (2, Code::InvalidRecord)];
        assert_eq!(attribute(&three), Attribution::Items(vec![(2, Reason::Rejected)]), "a named item stays named");
        assert_eq!(attribute(&two[..1]), Attribution::Items(vec![(0, Reason::TooLarge)]));
        // One of the engine's own topics: no item is at fault.
        let own = context.attribute(&a_batch(), &delivered(&[(0, Code::TopicAuthorizationFailed)]));
        assert_eq!(own, Attribution::Transient);
    }

    #[test]
    fn a_rejection_by_an_own_topic_is_its_fault() {
        let (board, batch) = (Arc::<StatusBoard>::default(), firing(2));
        let diagnostics = Diagnostics::new(Arc::clone(&board), "g".into(), Duration::from_secs(6));
        let context = DeliveryContext::new("p".into(), vec!["schedules".into()], Arc::new(diagnostics));
        let own = |topic: &str, code| DeliveryReports {
            failed: vec![Failure { item: 1, code, topic: topic.into(), partition: 0 }],
            ..DeliveryReports::default()
        };
        for code in [Code::InvalidRecord, Code::PolicyViolation, Code::UnsupportedCompressionType, Code::Unknown] {
            for topic in ["history", "schedules"] {
                assert_eq!(
                    context.attribute(&batch, &own(topic, code)),
                    Attribution::Items(vec![(1, Reason::OwnTopic)])
                );
            }
        }
        assert_eq!(
            context.attribute(&batch, &own("history", Code::MessageTimedOut)),
            Attribution::Transient,
            "an outage"
        );
        assert_eq!(board.warnings().len(), 2, "{:?}", board.warnings());
        // The brokers reject the other records of a batch together with one that they name.
        let both = [(0, Code::InvalidRecord), (1, Code::InvalidDifferentRecord)];
        let failure = |(item, code): (u32, Code)| Failure { item, code, topic: "history".into(), partition: 0 };
        let delivered = DeliveryReports { failed: both.map(failure).into(), ..DeliveryReports::default() };
        assert_eq!(context.attribute(&batch, &delivered), Attribution::Items(vec![(0, Reason::OwnTopic)]));
    }

    #[test]
    fn a_topic_that_rejected_all_of_its_records_is_ambiguous() {
        let failed = |failed: &[(&str, i32, Code)]| {
            let failure = |(n, (topic, partition, code)): (u32, &(&str, i32, Code))| Failure {
                item: n,
                code: *code,
                topic: (*topic).into(),
                partition: *partition,
            };
            DeliveryReports { failed: (0..).zip(failed).map(failure).collect(), ..DeliveryReports::default() }
        };
        let invalid = |partition| ("t", partition, Code::InvalidRecord);
        let ambiguous = |all: &[(&str, i32, Code)]| failed(all).ambiguous_topics();
        assert_eq!(ambiguous(&[invalid(0), invalid(0)]), [(0, "t".into())]);
        assert_eq!(ambiguous(&[invalid(0), invalid(1)]), [], "of a single record the code is the broker's");
        let other = ("t", 0, Code::InvalidDifferentRecord);
        assert_eq!(ambiguous(&[invalid(0), invalid(0), other]), [], "the clock was right for that one");
        // The records after a rejected batch are purged, or out of sequence.
        let purged = [("t", 0, Code::PurgeQueue), ("t", 0, Code::OutOfOrderSequenceNumber), ("u", 0, Code::PurgeQueue)];
        assert_eq!(ambiguous(&[&[invalid(0), invalid(0)][..], &purged].concat()), [(0, "t".into())]);
        let two = [
            invalid(3),
            invalid(3),
            invalid(4),
            invalid(4),
            ("u", 0, Code::InvalidRecord),
            ("u", 0, Code::InvalidRecord),
        ];
        assert_eq!(ambiguous(&two), [(0, "t".into()), (4, "u".into())], "each topic once");
        let mut both = failed(&two);
        both.attribute_to_timestamps("u");
        let codes: Vec<Code> = both.failed.iter().map(|failure| failure.code).collect();
        assert_eq!(codes[..4], [Code::InvalidRecord; 4]);
        assert_eq!(codes[4..], [Code::InvalidTimestamp; 2]);
        assert_eq!(failed(&[("t", 0, Code::InvalidTimestamp)]).single_code("t"), Some(Code::InvalidTimestamp));
        assert_eq!(failed(&[("t", 0, Code::MessageTimedOut)]).single_code("t"), None, "it has not answered");
    }

    #[test]
    fn a_wrong_clock_is_no_schedules_fault() {
        let (board, batch) = (Arc::<StatusBoard>::default(), firing(2));
        let diagnostics = Diagnostics::new(Arc::clone(&board), "g".into(), Duration::from_secs(6));
        let context = DeliveryContext::new("p".into(), vec!["schedules".into()], Arc::new(diagnostics));
        // If only a target rejects timestamps, its own schedules wait.
        let mut failed = delivered(&[(0, Code::InvalidTimestamp), (1, Code::InvalidTimestamp)]);
        let both = vec![(0, Reason::Timestamp), (1, Reason::Timestamp)];
        assert_eq!(context.attribute(&batch, &failed), Attribution::Items(both));
        assert!(board.warnings()[0].starts_with("topic \"target\": the brokers reject the timestamps"));
        // If the history rejects them as well, the clock is wrong.
        let history = Failure { item: 0, code: Code::InvalidTimestamp, topic: "history".into(), partition: 0 };
        failed.failed.push(history);
        assert_eq!(context.attribute(&batch, &failed), Attribution::Transient);
        assert_eq!(board.warnings().len(), 1);
    }
}
