//! What the delivery reports of a batch say, and whom they blame.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::Message;
use rdkafka::producer::{DeliveryResult, ProducerContext};

use super::voice::Voice;
use crate::core::batch::{Batch, Kind};
use crate::core::io::{Late, TopicPartition};
use crate::core::reason::Reason;

/// Between two acknowledgements on a link that is slow but works: with the default time-out of 5 s, if at least two of a
/// partition's requests got through, the last of them came no longer before the end.
const TAKING_MAX: Duration = Duration::from_millis(2_600);

/// Collects what the delivery reports of one batch say.
#[derive(Debug)]
pub struct Reports {
    name: String,
    topics: Vec<String>,
    voice: Arc<Voice>,
    batch: Mutex<Delivered>,
}

/// What became of a batch's records.
#[derive(Debug, Default)]
pub struct Delivered {
    /// Schedules partitions, and the highest offset in each.
    pub written: Vec<(TopicPartition, i64)>,
    /// Other partitions that have taken a record.
    taken: HashMap<String, BTreeSet<i32>>,
    failed: Vec<Failure>,
    /// Bytes of keys and values that were acknowledged, and when the last of them were.
    bytes: u64,
    last_at: Option<Instant>,
    /// A report without an offset: nobody could tell when the consumer has read past the record.
    pub unplaced: bool,
}

/// A record that was not delivered.
#[derive(Debug)]
struct Failure {
    item: u32,
    code: Code,
    topic: String,
    partition: i32,
}

/// Who is to blame for records that were not delivered.
#[derive(Debug, PartialEq, Eq)]
pub enum Blame {
    /// These items, and why.
    Items(Vec<(u32, Reason)>),
    /// The broker refused a record, and no report says which.
    Somebody,
    /// Nobody: the brokers were slow or away.
    Nobody,
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        Voice::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.voice.error(&error, reason);
    }

    fn stats_raw(&self, json: &[u8]) {
        self.voice.statistics(&self.name, json);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, item: usize) {
        let mut batch = self.batch.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(message) = result {
            batch.bytes += (message.key_len() + message.payload_len()) as u64;
            batch.last_at = Some(Instant::now());
        }
        match result {
            Err((error, message)) => {
                let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
                let (topic, partition) = (message.topic().to_owned(), message.partition());
                batch.failed.push(Failure { item: item as u32, code, topic, partition });
            }
            Ok(message) => match self.topics.iter().position(|topic| topic == message.topic()) {
                Some(topic) => {
                    let partition = TopicPartition { topic: topic as u16, number: message.partition() };
                    batch.written(partition, message.offset());
                }
                None => batch.taken(message.topic(), message.partition()),
            },
        }
    }
}

impl Delivered {
    /// The topics that found a record, or a set of records, too large.
    pub fn too_small(&self) -> BTreeSet<String> {
        let too_large = self.failed.iter().filter(|failure| reason(failure.code) == Some(Reason::TooLarge));
        too_large.map(|failure| failure.topic.clone()).collect()
    }

    /// Whether records were not acknowledged in time, and how that came. `sent` counts the bytes of the batch.
    pub fn late(&self, sent: impl FnOnce() -> u64) -> Option<Late> {
        if !self.failed.iter().any(|failure| failure.code == Code::MessageTimedOut) {
            return None;
        }
        Some(match self.last_at {
            None => Late::Silent,
            Some(at) if at.elapsed() >= TAKING_MAX => Late::Stalled,
            Some(_) => Late::Taking { delivered: self.bytes, sent: sent() },
        })
    }

    /// Topics of which a partition refused at least two records as not valid and none for another cause, each with the item of
    /// one of them. librdkafka gives every one of several refused records the same code, whatever the broker's is: a wrong
    /// clock looks like records that are at fault themselves. A clock is wrong for all of them.
    pub fn unclear(&self) -> Vec<(u32, String)> {
        let mut partitions: BTreeMap<(&str, i32), (u32, usize, bool)> = BTreeMap::new();
        // What was not sent for the sake of others says nothing.
        for failure in self.failed.iter().filter(|failure| !is_passing(failure.code)) {
            let at = (failure.topic.as_str(), failure.partition);
            let (_, count, alike) = partitions.entry(at).or_insert((failure.item, 0, true));
            *count += 1;
            *alike &= failure.code == Code::InvalidRecord;
        }
        let unclear = partitions.into_iter().filter(|(_, (_, count, alike))| *count > 1 && *alike);
        let mut unclear: Vec<(u32, String)> =
            unclear.map(|((topic, _), (item, ..))| (item, topic.to_owned())).collect();
        unclear.dedup_by(|one, other| one.1 == other.1);
        unclear
    }

    /// Records of this topic that were refused as not valid were refused for their timestamps.
    pub fn blame_timestamps(&mut self, topic: &str) {
        let of_topic = |failure: &&mut Failure| failure.code == Code::InvalidRecord && failure.topic == topic;
        self.failed.iter_mut().filter(of_topic).for_each(|failure| failure.code = Code::InvalidTimestamp);
    }

    /// What became of the one record of a topic. `None` if no report says whether the topic would take it.
    pub fn verdict(&self, topic: &str) -> Option<Code> {
        let refused = self.failed.iter().find(|failure| failure.topic == topic).map(|failure| failure.code);
        let taken = self.taken.contains_key(topic) || !self.written.is_empty();
        refused.filter(|code| !is_passing(*code)).or(taken.then_some(Code::NoError))
    }

    fn written(&mut self, partition: TopicPartition, offset: i64) {
        self.unplaced |= offset < 0;
        match self.written.iter_mut().find(|(other, _)| *other == partition) {
            Some((_, highest)) => *highest = offset.max(*highest),
            None => self.written.push((partition, offset)),
        }
    }

    fn taken(&mut self, topic: &str, partition: i32) {
        // Most records go to a topic that is known by now, and need no copy of its name.
        match self.taken.get_mut(topic) {
            Some(partitions) => drop(partitions.insert(partition)),
            None => drop(self.taken.insert(topic.to_owned(), BTreeSet::from([partition]))),
        }
    }
}

impl Reports {
    /// Nothing yet. `name` is the transactor's, `topics` are the schedules topics.
    pub fn new(name: String, topics: Vec<String>, voice: Arc<Voice>) -> Self {
        Self { name, topics, voice, batch: Mutex::default() }
    }

    /// Whether a record is known not to be delivered.
    pub fn have_failed(&self) -> bool {
        !self.batch.lock().unwrap_or_else(PoisonError::into_inner).failed.is_empty()
    }

    /// What has been reported since the last call.
    pub fn take(&self) -> Delivered {
        std::mem::take(&mut *self.batch.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whom the reports blame. A topic of the engine's own that refuses timestamps shows a wrong clock: every record of
    /// every batch carries one. The broker refuses a set of records as a whole when it is too large, and the report of
    /// each says so: several of them name nobody.
    pub fn blame(&self, batch: &Batch, delivered: &Delivered) -> Blame {
        let leaderless = leaderless(batch, delivered);
        let wrong_clock = delivered.failed.iter().any(|f| is_timestamp(f.code) && !is_firing(batch, f.item, &f.topic));
        let blamed = delivered.failed.iter().filter_map(|failure| {
            let Failure { item, code, topic, .. } = failure;
            let no_leader = (leaderless && *code == Code::MessageTimedOut).then_some(Reason::NoLeader);
            Some((*item, self.reason(batch, *item, topic, *code).or(no_leader)?))
        });
        let mut guilty: Vec<(u32, Reason)> = blamed.collect();
        guilty.sort_unstable();
        guilty.dedup_by_key(|(item, _)| *item);
        guilty.retain(|(_, reason)| !(wrong_clock && *reason == Reason::Timestamp));
        if guilty.iter().filter(|(_, reason)| *reason == Reason::TooLarge).count() > 1 {
            guilty.retain(|(_, reason)| *reason != Reason::TooLarge);
        }
        let refused = |f: &Failure| match reason(f.code) {
            // Of the engine's own topics, or somebody is guilty.
            Some(Reason::UnknownTarget | Reason::Forbidden | Reason::Timestamp) => false,
            Some(_) => true,
            None => !is_passing(f.code),
        };
        if !guilty.is_empty() {
            Blame::Items(guilty)
        } else if delivered.failed.iter().any(refused) {
            Blame::Somebody
        } else {
            Blame::Nobody
        }
    }

    /// Why a record of an item was refused. If a topic of the engine's own refuses it for any cause but its size, that is
    /// the fault of the topic.
    pub fn reason(&self, batch: &Batch, item: u32, topic: &str, code: Code) -> Option<Reason> {
        let reason = reason(code);
        if reason == Some(Reason::Timestamp) {
            self.voice.wrong_clock(topic);
        }
        if is_firing(batch, item, topic) {
            return reason;
        }
        match reason {
            Some(Reason::Timestamp) => None,
            Some(Reason::UnknownTarget | Reason::Forbidden) => {
                self.voice.unwritable(topic, code);
                // The dead-letter topic is looked at like a target.
                reason.filter(|_| is_target(batch, item, topic))
            }
            Some(Reason::TooLarge) => reason,
            None if is_passing(code) || code == Code::InvalidDifferentRecord => None,
            None | Some(_) => {
                self.voice.unwritable(topic, code);
                Some(Reason::OwnTopic)
            }
        }
    }
}

/// Whether the record of an item is the one that fires.
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

/// Whether the records that timed out did so for want of a leader: target partitions that took nothing at all, while
/// the rest of the batch was taken. Anything else is a slow or absent broker, and nobody's fault.
fn leaderless(batch: &Batch, delivered: &Delivered) -> bool {
    let taken = |f: &Failure| delivered.taken.get(&f.topic).is_some_and(|all| all.contains(&f.partition));
    let mut late = delivered.failed.iter().filter(|f| f.code == Code::MessageTimedOut);
    !delivered.written.is_empty() && late.all(|f| is_target(batch, f.item, &f.topic) && !taken(f))
}

/// What a record is to blame for.
fn reason(code: Code) -> Option<Reason> {
    match code {
        Code::MessageSizeTooLarge | Code::InvalidMessageSize => Some(Reason::TooLarge),
        Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition | Code::InvalidTopic => {
            Some(Reason::UnknownTarget)
        }
        Code::TopicAuthorizationFailed => Some(Reason::Forbidden),
        Code::InvalidTimestamp => Some(Reason::Timestamp),
        Code::InvalidRecord | Code::InvalidMessage | Code::PolicyViolation => Some(Reason::Refused),
        _ => None,
    }
}

/// Whether a failure says nothing of the record, but only that the brokers or the producer could not take it then.
fn is_passing(code: Code) -> bool {
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
    use super::super::a_batch;
    use super::*;
    use crate::core::batch::AfterFiring;
    use crate::core::due::Due;
    use crate::core::io::Millis;
    use crate::handle::board::Board;

    /// A batch that fires so many schedules.
    fn firing(count: usize) -> Batch {
        let fire = || Kind::Fire {
            target: "target".into(),
            due: Due::from_epoch_s(1).expect("a second"),
            timestamp: Millis(0),
            missed: false,
            after: AfterFiring::End,
        };
        a_batch().with_kinds(std::iter::repeat_with(fire).take(count))
    }

    fn delivered(failed: &[(u32, Code)]) -> Delivered {
        let failure =
            |(item, code): &(u32, Code)| Failure { item: *item, code: *code, topic: "target".into(), partition: 0 };
        Delivered { failed: failed.iter().map(failure).collect(), ..Delivered::default() }
    }

    #[test]
    fn an_outage_is_transient_and_an_unnamed_rejection_unattributed() {
        let reports = Reports::new("p".into(), vec!["schedules".into()], Arc::default());
        let batch = firing(3);
        let blame = |failed: &[(u32, Code)]| reports.blame(&batch, &delivered(failed));
        assert_eq!(blame(&[]), Blame::Nobody);
        for code in [
            Code::MessageTimedOut,
            Code::PurgeQueue,
            Code::PurgeInflight,
            Code::BrokerTransportFailure,
            Code::NotEnoughReplicas,
            Code::OutOfOrderSequenceNumber,
        ] {
            assert_eq!(blame(&[(0, code), (1, code)]), Blame::Nobody, "{code:?}");
        }
        assert_eq!(blame(&[(0, Code::PurgeInflight), (1, Code::Unknown)]), Blame::Somebody);
        assert_eq!(
            blame(&[(0, Code::PurgeInflight), (1, Code::InvalidRecord)]),
            Blame::Items(vec![(1, Reason::Refused)])
        );
        let two = [(0, Code::MessageSizeTooLarge), (1, Code::MessageSizeTooLarge)];
        assert_eq!(blame(&two), Blame::Somebody, "perhaps only together");
        let three = [two[0], two[1], (2, Code::InvalidRecord)];
        assert_eq!(blame(&three), Blame::Items(vec![(2, Reason::Refused)]), "who is named is named");
        assert_eq!(blame(&two[..1]), Blame::Items(vec![(0, Reason::TooLarge)]));
        // The engine's own topic, which is nobody's fault.
        let own = reports.blame(&a_batch(), &delivered(&[(0, Code::TopicAuthorizationFailed)]));
        assert_eq!(own, Blame::Nobody);
    }

    #[test]
    fn a_topic_of_our_own_is_to_blame_for_what_it_refuses() {
        let (board, batch) = (Arc::<Board>::default(), firing(2));
        let voice = Voice::new(Arc::clone(&board), "g".into(), 6_000);
        let reports = Reports::new("p".into(), vec!["schedules".into()], Arc::new(voice));
        let own = |topic: &str, code| Delivered {
            failed: vec![Failure { item: 1, code, topic: topic.into(), partition: 0 }],
            ..Delivered::default()
        };
        for code in [Code::InvalidRecord, Code::PolicyViolation, Code::UnsupportedCompressionType, Code::Unknown] {
            for topic in ["history", "schedules"] {
                assert_eq!(reports.blame(&batch, &own(topic, code)), Blame::Items(vec![(1, Reason::OwnTopic)]));
            }
        }
        assert_eq!(reports.blame(&batch, &own("history", Code::MessageTimedOut)), Blame::Nobody, "an outage");
        assert_eq!(board.warnings().len(), 2, "{:?}", board.warnings());
        // The brokers refuse the others of a set with a record that they name.
        let both = [(0, Code::InvalidRecord), (1, Code::InvalidDifferentRecord)];
        let failure = |(item, code): (u32, Code)| Failure { item, code, topic: "history".into(), partition: 0 };
        let delivered = Delivered { failed: both.map(failure).into(), ..Delivered::default() };
        assert_eq!(reports.blame(&batch, &delivered), Blame::Items(vec![(0, Reason::OwnTopic)]));
    }

    #[test]
    fn only_a_topic_that_refused_all_of_its_records_is_unclear() {
        let failed = |failed: &[(&str, i32, Code)]| {
            let failure = |(n, (topic, partition, code)): (u32, &(&str, i32, Code))| Failure {
                item: n,
                code: *code,
                topic: (*topic).into(),
                partition: *partition,
            };
            Delivered { failed: (0..).zip(failed).map(failure).collect(), ..Delivered::default() }
        };
        let invalid = |partition| ("t", partition, Code::InvalidRecord);
        let unclear = |all: &[(&str, i32, Code)]| failed(all).unclear();
        assert_eq!(unclear(&[invalid(0), invalid(0)]), [(0, "t".into())]);
        assert_eq!(unclear(&[invalid(0), invalid(1)]), [], "of a single record the code is the broker's");
        let other = ("t", 0, Code::InvalidDifferentRecord);
        assert_eq!(unclear(&[invalid(0), invalid(0), other]), [], "the clock was right for that one");
        // What follows a refused set is purged, or out of sequence.
        let purged = [("t", 0, Code::PurgeQueue), ("t", 0, Code::OutOfOrderSequenceNumber), ("u", 0, Code::PurgeQueue)];
        assert_eq!(unclear(&[&[invalid(0), invalid(0)][..], &purged].concat()), [(0, "t".into())]);
        let two = [
            invalid(3),
            invalid(3),
            invalid(4),
            invalid(4),
            ("u", 0, Code::InvalidRecord),
            ("u", 0, Code::InvalidRecord),
        ];
        assert_eq!(unclear(&two), [(0, "t".into()), (4, "u".into())], "each topic once");
        let mut both = failed(&two);
        both.blame_timestamps("u");
        let codes: Vec<Code> = both.failed.iter().map(|failure| failure.code).collect();
        assert_eq!(codes[..4], [Code::InvalidRecord; 4]);
        assert_eq!(codes[4..], [Code::InvalidTimestamp; 2]);
        assert_eq!(failed(&[("t", 0, Code::InvalidTimestamp)]).verdict("t"), Some(Code::InvalidTimestamp));
        assert_eq!(failed(&[("t", 0, Code::MessageTimedOut)]).verdict("t"), None, "it has not answered");
    }

    #[test]
    fn a_wrong_clock_blames_no_schedule() {
        let (board, batch) = (Arc::<Board>::default(), firing(2));
        let voice = Voice::new(Arc::clone(&board), "g".into(), 6_000);
        let reports = Reports::new("p".into(), vec!["schedules".into()], Arc::new(voice));
        // A target that alone refuses timestamps holds up its own schedules.
        let mut failed = delivered(&[(0, Code::InvalidTimestamp), (1, Code::InvalidTimestamp)]);
        let both = vec![(0, Reason::Timestamp), (1, Reason::Timestamp)];
        assert_eq!(reports.blame(&batch, &failed), Blame::Items(both));
        assert!(board.warnings()[0].starts_with("topic \"target\": the brokers refuse the timestamps"));
        // If the history refuses them as well, it is the clock.
        let history = Failure { item: 0, code: Code::InvalidTimestamp, topic: "history".into(), partition: 0 };
        failed.failed.push(history);
        assert_eq!(reports.blame(&batch, &failed), Blame::Nobody);
        assert_eq!(board.warnings().len(), 1);
    }
}
