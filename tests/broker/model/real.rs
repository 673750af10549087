//! Runs scripts on Apache Kafka, through librdkafka.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rdkafka::bindings as rd;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerGroupMetadata};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};
use rdkafka::types::RDKafkaErrorCode as Code;
use rdkafka::{ClientContext, Message, Offset, TopicPartitionList};

use super::{From, PROXIED, SHORT, Seen, Step, Why};
use crate::kit::broker::{Broker, broker};
use crate::kit::client::{self, Producer, Reader, Scheduled};
use crate::kit::proxy::Proxy;
use crate::kit::wait::{eventually, now_ms};

/// Long enough for every result that arrives at all.
const TIMEOUT: Duration = Duration::from_secs(60);
/// A request without a response within this time hangs.
const HANGS: Duration = Duration::from_secs(2);
/// The assignment is final if the group is quiet for this long.
const QUIET: Duration = Duration::from_secs(1);

/// Delivery reports.
#[derive(Default)]
struct Reports(Mutex<Vec<Result<i64, Code>>>);

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let report = match result {
            Ok(message) => Ok(message.offset()),
            Err((error, _)) => Err(error.rdkafka_error_code().unwrap_or(Code::Fail)),
        };
        self.0.lock().expect("no panic").push(report);
    }
}

struct Transactional {
    id: &'static str,
    producer: BaseProducer<Reports>,
    open: bool,
}

/// Clients of one topic and one group.
pub struct Real {
    broker: &'static Broker,
    topic: String,
    group: String,
    partitions: i32,
    users: Producer,
    producers: BTreeMap<&'static str, Transactional>,
    members: BTreeMap<&'static str, BaseConsumer>,
    kept: BTreeMap<&'static str, ConsumerGroupMetadata>,
    generation: i32,
    /// Consumers that never join: one read_committed, one read_uncommitted.
    non_members: [BaseConsumer; 2],
}

impl Real {
    /// Returns `None` without a broker.
    pub fn new(name: &str, partitions: i32) -> Option<Self> {
        let broker = broker()?;
        let topic = format!("model-{name}-{:x}", now_ms());
        let group = format!("{topic}-group");
        let settings = [
            ("cleanup.policy", "compact"),
            ("segment.ms", "100"),
            ("min.cleanable.dirty.ratio", "0.01"),
            ("delete.retention.ms", "86400000"),
        ];
        let settings = if name == "compaction" { &settings[..] } else { &[] };
        client::create_topic(&broker.bootstrap, &topic, partitions, settings);
        let non_members = ["read_committed", "read_uncommitted"].map(|isolation| {
            let mut config = client::config(&broker.bootstrap);
            config.set("group.id", &group).set("isolation.level", isolation).set("enable.auto.commit", "false");
            config.create().expect("a consumer")
        });
        Some(Self {
            users: Producer::new(&broker.bootstrap, &[]),
            broker,
            topic,
            group,
            partitions,
            producers: BTreeMap::new(),
            members: BTreeMap::new(),
            kept: BTreeMap::new(),
            generation: 0,
            non_members,
        })
    }

    pub fn act(&mut self, step: Step) -> Seen {
        let seen = self.carry_out(step);
        self.settle();
        seen
    }

    /// Waits until the markers of completed transactions are written.
    fn settle(&mut self) {
        self.members.values().for_each(|member| drop(member.poll(Duration::ZERO)));
        if self.producers.values().any(|p| p.open) {
            return;
        }
        for number in 0..self.partitions {
            eventually("markers are written", TIMEOUT, || {
                let [stable, end] = [0, 1].map(|at| self.end_of(&self.non_members[at], number));
                (stable? == end?).then_some(())
            });
        }
    }

    /// Returns the end offset in the client's isolation level.
    fn end_of(&self, client: &BaseConsumer, number: i32) -> Option<i64> {
        Some(client.fetch_watermarks(&self.topic, number, TIMEOUT).ok()?.1)
    }

    fn carry_out(&mut self, step: Step) -> Seen {
        match step {
            Step::Init(name, id) => self.init(name, id),
            Step::Send(name, number, key, value) => self.send(name, number, key, value),
            Step::Offsets(name, from, offsets, bytes) => {
                let list = self.offsets(offsets, &"m".repeat(bytes));
                self.begun(name);
                let producer = &self.producers[name].producer;
                let send = |metadata: &_| done(producer.send_offsets_to_transaction(&list, metadata, TIMEOUT));
                match from {
                    From::Kept(kept) => send(&self.kept[kept]),
                    From::Member(member) => send(&metadata(&self.members[member])),
                    From::NonMember => send(&metadata(&self.non_members[0])),
                }
            }
            Step::Commit(name) => self.end(name, |producer| producer.commit_transaction(TIMEOUT)),
            Step::Abort(name) => self.end(name, |producer| producer.abort_transaction(TIMEOUT)),
            Step::End(name) => {
                let proxy = self.proxy();
                proxy.silence();
                let seen = self.end(name, |producer| producer.commit_transaction(HANGS));
                proxy.pass(Duration::ZERO);
                seen
            }
            Step::TimeOut(name) => {
                eventually("the broker aborts it", TIMEOUT, || {
                    let [stable, end] = [0, 1].map(|at| self.end_of(&self.non_members[at], 0));
                    (stable? == end?).then_some(())
                });
                self.producers.get_mut(name).expect("a producer").open = false;
                Seen::Done
            }
            Step::Plain(from, number, offset) => {
                let list = self.offsets(&[(number, offset)], "");
                let consumer = match from {
                    From::Member(name) => &self.members[name],
                    From::NonMember => &self.non_members[0],
                    From::Kept(_) => panic!("a plain commit always uses the consumer's own metadata"),
                };
                done(consumer.commit(&list, CommitMode::Sync))
            }
            Step::Append(number, key, value) => self.append(number, key, value),
            Step::Join(names) => {
                for name in names {
                    let member = self.member();
                    self.members.insert(name, member);
                }
                self.share_out()
            }
            Step::Leave(name) => {
                drop(self.members.remove(name));
                self.share_out()
            }
            Step::Keep(name, member) => {
                let metadata = metadata(&self.members[member]);
                self.kept.insert(name, metadata);
                Seen::Done
            }
            Step::Read(number) => read(Reader::new(&self.broker.bootstrap, &self.topic), number),
            Step::ReadAll(number) => read(Reader::uncommitted(&self.broker.bootstrap, &self.topic), number),
            Step::Committed(number, stable) => self.committed(number, stable),
            Step::Compact(number, gone) => {
                eventually(&format!("{gone:?} are compacted away"), TIMEOUT, || {
                    let mut reader = Reader::new(&self.broker.bootstrap, &self.topic);
                    reader.read_to_end();
                    let there = |r: &client::Record| r.partition == number && gone.contains(&r.offset);
                    (!reader.records.iter().any(there)).then_some(())
                });
                Seen::Done
            }
        }
    }

    fn proxy(&self) -> Proxy {
        let (port, upstream) = self.broker.proxied.expect("a broker of the tests' own");
        Proxy::shared(port, upstream)
    }

    fn init(&mut self, name: &'static str, id: &'static str) -> Seen {
        let bootstrap = match id {
            PROXIED => format!("127.0.0.1:{}", self.proxy().port),
            _ => self.broker.bootstrap.clone(),
        };
        let mut config = client::config(&bootstrap);
        config.set("transactional.id", format!("{}.{id}", self.group)).set("log_level", "0");
        if id == SHORT {
            config.set("transaction.timeout.ms", "2000");
        }
        let producer: BaseProducer<Reports> = config.create_with_context(Reports::default()).expect("a producer");
        let seen = done(producer.init_transactions(TIMEOUT));
        self.producers.values_mut().filter(|p| p.id == id).for_each(|fenced| fenced.open = false);
        self.producers.insert(name, Transactional { id, producer, open: false });
        seen
    }

    fn begun(&mut self, name: &str) -> &BaseProducer<Reports> {
        let Transactional { producer, open, .. } = self.producers.get_mut(name).expect("a producer");
        if !std::mem::replace(open, true) {
            producer.begin_transaction().expect("a transaction begins");
        }
        producer
    }

    fn send(&mut self, name: &str, number: i32, key: &str, value: Option<&str>) -> Seen {
        let topic = self.topic.clone();
        let producer = self.begun(name);
        let mut record: BaseRecord<'_, str, str> = BaseRecord::to(&topic).partition(number).key(key);
        record.payload = value;
        producer.send(record).map_err(|(e, _)| e).expect("handed over");
        let report = eventually("a delivery report", TIMEOUT, || {
            producer.poll(Duration::from_millis(10));
            producer.context().0.lock().expect("no panic").pop()
        });
        match report {
            Ok(offset) => Seen::At(offset),
            Err(code) => Seen::Refused(why(code)),
        }
    }

    fn end(&mut self, name: &str, end: impl FnOnce(&BaseProducer<Reports>) -> Result<(), KafkaError>) -> Seen {
        let transactional = self.producers.get_mut(name).expect("a producer");
        let seen = done(end(&transactional.producer));
        transactional.open &= seen != Seen::Done && seen != Seen::Refused(Why::Fenced);
        seen
    }

    fn append(&self, number: i32, key: &str, value: Option<&str>) -> Seen {
        if key == "roll" {
            // More than segment.ms later than all earlier records, so it begins a new segment.
            std::thread::sleep(Duration::from_millis(300));
        }
        let value = value.map(|value| value.as_bytes().to_vec());
        let record = Scheduled { key: Some(key.as_bytes().to_vec()), value, ..Scheduled::default() };
        self.users.send(&self.topic, &record.partition(number));
        self.users.flush();
        // No other client appends meanwhile.
        Seen::At(self.end_of(&self.non_members[1], number).expect("an end") - 1)
    }

    fn offsets(&self, offsets: &[(i32, i64)], metadata: &str) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for (number, offset) in offsets {
            let offset = if *offset < 0 { Offset::Invalid } else { Offset::Offset(*offset) };
            let mut element = list.add_partition(&self.topic, *number);
            element.set_offset(offset).expect("an offset");
            if !metadata.is_empty() {
                element.set_metadata(metadata);
            }
        }
        list
    }

    fn member(&self) -> BaseConsumer {
        let mut config = client::config(&self.broker.bootstrap);
        config
            .set("group.id", &self.group)
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", "30000")
            .set("heartbeat.interval.ms", "300")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest");
        let member: BaseConsumer = config.create().expect("a consumer");
        member.subscribe(&[&self.topic]).expect("subscribed");
        member
    }

    fn share_out(&mut self) -> Seen {
        let began = Instant::now();
        let mut quiet = Instant::now();
        let mut last = (BTreeSet::new(), Vec::new());
        let count = self.members.len() as i32;
        loop {
            self.members.values().for_each(|member| drop(member.poll(Duration::from_millis(20))));
            let generations: BTreeSet<i32> = self.members.values().map(generation).collect();
            let shares: Vec<usize> =
                self.members.values().map(|member| member.assignment().expect("known").count()).collect();
            let even = shares.iter().all(|share| *share as i32 >= self.partitions / count.max(1));
            let now = (generations, shares);
            if now != last || !even || now.0.len() > 1 {
                quiet = Instant::now();
                last = now;
            } else if quiet.elapsed() >= QUIET || count == 0 {
                break;
            }
            assert!(began.elapsed() < TIMEOUT, "the group does not settle: {last:?}");
        }
        let before = self.generation;
        self.generation = last.0.first().copied().unwrap_or(before);
        Seen::Shares(self.generation - before, last.1)
    }

    fn committed(&self, number: i32, stable: bool) -> Seen {
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.topic, number);
        let pending = self.producers.values().any(|p| p.open);
        let limit = if pending { HANGS } else { TIMEOUT };
        match self.non_members[usize::from(!stable)].committed_offsets(list, limit) {
            Ok(list) => {
                let element = list.find_partition(&self.topic, number).expect("what was asked for");
                match element.offset() {
                    Offset::Offset(offset) => Seen::Offset(Some((offset, element.metadata().len()))),
                    _ => Seen::Offset(None),
                }
            }
            Err(e) if e.rdkafka_error_code() == Some(Code::OperationTimedOut) => Seen::Hangs,
            Err(e) => panic!("the committed offset: {e}"),
        }
    }
}

fn metadata(consumer: &BaseConsumer) -> ConsumerGroupMetadata {
    consumer.group_metadata().expect("a consumer with a group has metadata")
}

fn read(mut reader: Reader, number: i32) -> Seen {
    reader.read_to_end();
    let records = reader.records.iter().filter(|r| r.partition == number);
    Seen::Records(records.map(|r| (r.offset, r.value.as_ref().map(|_| r.value_text()))).collect())
}

fn done(answer: Result<(), KafkaError>) -> Seen {
    let Err(error) = answer else { return Seen::Done };
    let code = match &error {
        KafkaError::Transaction(error) if error.is_fatal() => return Seen::Refused(Why::Fenced),
        KafkaError::Transaction(error) => error.code(),
        other => other.rdkafka_error_code().unwrap_or_else(|| panic!("{error}")),
    };
    if code == Code::OperationTimedOut { Seen::Unanswered } else { Seen::Refused(why(code)) }
}

fn why(code: Code) -> Why {
    match code {
        Code::IllegalGeneration | Code::UnknownMemberId => Why::Generation,
        Code::OffsetMetadataTooLarge => Why::Metadata,
        Code::Conflict | Code::State => Why::State,
        Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch => Why::Fenced,
        other => panic!("the scripts have no name for this error: {other:?}"),
    }
}

/// Returns the member's generation, which rdkafka does not expose.
fn generation(member: &BaseConsumer) -> i32 {
    // SAFETY: the client outlives the call, and the metadata is ours until it is destroyed.
    unsafe {
        let metadata = rd::rd_kafka_consumer_group_metadata(member.client().native_ptr());
        assert!(!metadata.is_null(), "a consumer with a group has metadata");
        let generation = rd::rd_kafka_consumer_group_metadata_generation_id(metadata);
        rd::rd_kafka_consumer_group_metadata_destroy(metadata);
        generation
    }
}
