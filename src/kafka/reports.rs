//! What the delivery reports of a batch say, and whom they blame.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::Message;
use rdkafka::producer::{DeliveryResult, ProducerContext};

use super::voice::Voice;
use crate::core::batch::Batch;
use crate::core::io::Partition;
use crate::core::reason::Reason;

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
    pub written: Vec<(Partition, i64)>,
    /// Other partitions that have taken a record.
    taken: HashMap<String, BTreeSet<i32>>,
    failed: Vec<Failure>,
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
        match result {
            Err((error, message)) => {
                let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
                let (topic, partition) = (message.topic().to_owned(), message.partition());
                batch.failed.push(Failure { item: item as u32, code, topic, partition });
            }
            Ok(message) => match self.topics.iter().position(|topic| topic == message.topic()) {
                Some(topic) => {
                    let partition = Partition { topic: topic as u16, number: message.partition() };
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

    fn written(&mut self, partition: Partition, offset: i64) {
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

    /// Whom the reports blame. The broker refuses a set of records as a whole when it is too large, and the report of
    /// each says so: several of them name nobody.
    pub fn blame(&self, batch: &Batch, delivered: &Delivered) -> Blame {
        let leaderless = leaderless(batch, delivered);
        let blamed = delivered.failed.iter().filter_map(|failure| {
            let Failure { item, code, topic, .. } = failure;
            let no_leader = (leaderless && *code == Code::MessageTimedOut).then_some(Reason::NoLeader);
            Some((*item, self.reason(batch, *item, topic, *code).or(no_leader)?))
        });
        let mut guilty: Vec<(u32, Reason)> = blamed.collect();
        guilty.sort_unstable();
        guilty.dedup_by_key(|(item, _)| *item);
        if guilty.iter().filter(|(_, reason)| *reason == Reason::TooLarge).count() > 1 {
            guilty.retain(|(_, reason)| *reason != Reason::TooLarge);
        }
        let refused = |f: &Failure| match reason(f.code) {
            // Of the engine's own topics, or somebody is guilty.
            Some(Reason::UnknownTarget | Reason::Forbidden) => false,
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

    /// What an item is to blame for. That the engine's own topics cannot be written to is nobody's fault.
    pub fn reason(&self, batch: &Batch, item: u32, topic: &str, code: Code) -> Option<Reason> {
        let reason = reason(code)?;
        if matches!(reason, Reason::UnknownTarget | Reason::Forbidden) && !is_target(batch, item, topic) {
            self.voice.unwritable(topic, code);
            return None;
        }
        Some(reason)
    }
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

    fn delivered(failed: &[(u32, Code)]) -> Delivered {
        let failure =
            |(item, code): &(u32, Code)| Failure { item: *item, code: *code, topic: "target".into(), partition: 0 };
        Delivered { failed: failed.iter().map(failure).collect(), ..Delivered::default() }
    }

    #[test]
    fn an_outage_blames_nobody_and_a_refusal_without_a_name_somebody() {
        let reports = Reports::new("p".into(), vec!["schedules".into()], Arc::default());
        let blame = |failed: &[(u32, Code)]| reports.blame(&a_batch(), &delivered(failed));
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
        assert_eq!(blame(&[(0, Code::TopicAuthorizationFailed)]), Blame::Nobody);
    }
}
