//! Jobs that block, away from the loop: committed metadata, fencing, `since`, target topics.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::Sender;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};

use super::native;
use super::settings::Settings;
use crate::core::floor::Floor;
use crate::core::io::{Millis, Partition, TargetState};
use crate::core::mark::{FLOOR_KEY, place};
use crate::core::owner::Ownership;
use crate::handle::Wake;

/// How long a client waits for offsets while a transaction's may be pending.
const STABLE_MAX: Duration = Duration::from_secs(1);
/// How long any other request to the brokers may take.
const REQUEST_MAX: Duration = Duration::from_secs(5);

/// What a job found out.
#[derive(Debug)]
pub enum Found {
    Committed { partition: Partition, offset: Option<i64>, metadata: Vec<u8> },
    Fenced { take: u64 },
    Since { topic: u16, since: Option<Millis> },
    Target { target: u32, state: TargetState },
}

/// Runs jobs. Rare ones get a thread each.
#[derive(Clone)]
pub struct Worker {
    /// For the clients that jobs make.
    pub settings: Arc<Settings>,
    /// Schedules topics.
    pub topics: Arc<Vec<String>>,
    /// Cluster id.
    pub cluster: Arc<str>,
    /// Takes what jobs find.
    pub found: Sender<Found>,
    /// Wakes the loop.
    pub wake: Wake,
    /// Moves with every rebalance.
    pub rebalances: Arc<AtomicU64>,
    /// The engine ends: jobs stop trying.
    pub closing: Arc<AtomicBool>,
}

impl Worker {
    /// Reads the committed offset and metadata of each partition.
    pub fn read_committed(&self, partitions: Vec<Partition>) {
        self.spawn("read-committed", move |worker| {
            while let Err(error) = worker.committed(&partitions) {
                if worker.is_closing() {
                    return;
                }
                tracing::debug!(%error, "committed offsets could not be read; trying again");
                std::thread::sleep(Duration::from_millis(200));
            }
        });
    }

    fn committed(&self, partitions: &[Partition]) -> rdkafka::error::KafkaResult<()> {
        let list = self.list(partitions);
        let read = self.offsets(&list)?;
        for (element, metadata) in read.elements().iter().zip(native::metadata(&read)) {
            let Some(topic) = self.topics.iter().position(|topic| topic == element.topic()) else { continue };
            let partition = Partition { topic: topic as u16, number: element.partition() };
            let offset = match element.offset() {
                Offset::Offset(offset) => Some(offset),
                _ => None,
            };
            self.tell(Found::Committed { partition, offset, metadata });
        }
        Ok(())
    }

    /// Stable offsets if they come soon; else those before the transaction that is pending.
    fn offsets(&self, list: &TopicPartitionList) -> rdkafka::error::KafkaResult<TopicPartitionList> {
        let stable: BaseConsumer = self.settings.consumer().create()?;
        stable.committed_offsets(list.clone(), STABLE_MAX).and_then(whole).or_else(|_| {
            let any: BaseConsumer = self.settings.uncommitted().create()?;
            any.committed_offsets(list.clone(), REQUEST_MAX).and_then(whole)
        })
    }

    /// Ends the former owners' transactions. Failing costs time only.
    pub fn fence(&self, take: u64, ids: Vec<String>) {
        let begun_in = self.rebalances.load(Ordering::Acquire);
        self.spawn("fence", move |worker| {
            std::thread::scope(|scope| {
                for chunk in ids.chunks(ids.len().div_ceil(4).max(1)) {
                    scope.spawn(|| chunk.iter().for_each(|id| worker.fence_one(id, begun_in)));
                }
            });
            worker.tell(Found::Fenced { take });
        });
    }

    fn fence_one(&self, id: &str, begun_in: u64) {
        if self.rebalances.load(Ordering::Acquire) != begun_in || self.is_closing() {
            return;
        }
        let fenced = self
            .settings
            .producer(id)
            .create()
            .and_then(|producer: BaseProducer| producer.init_transactions(REQUEST_MAX));
        match fenced {
            Ok(()) => tracing::debug!(id, "a former owner is fenced"),
            Err(error) => tracing::info!(id, %error, "a former owner could not be fenced; its transactions time out"),
        }
    }

    /// Finds since when the topic's schedules are owed.
    pub fn find_since(&self, topic: u16, known: Vec<i32>) {
        self.spawn("find-since", move |worker| {
            loop {
                match worker.since(topic, &known) {
                    Ok(since) => return worker.tell(Found::Since { topic, since }),
                    Err(_) if worker.is_closing() => return,
                    Err(error) => tracing::debug!(%error, "the topic's floors could not be read; trying again"),
                }
                std::thread::sleep(Duration::from_millis(500));
            }
        });
    }

    fn since(&self, topic: u16, known: &[i32]) -> rdkafka::error::KafkaResult<Option<Millis>> {
        let name = &self.topics[usize::from(topic)];
        let mut config = self.settings.uncommitted();
        config.remove("group.id");
        let reader: BaseConsumer = config.set("group.id", "unused").create()?;
        let metadata = reader.fetch_metadata(Some(name), REQUEST_MAX)?;
        let numbers: Vec<i32> =
            metadata.topics().iter().flat_map(|topic| topic.partitions().iter().map(|p| p.id())).collect();
        let all: Vec<Partition> = numbers.iter().map(|number| Partition { topic, number: *number }).collect();
        let offsets = self.offsets(&self.list(&all))?;
        let since = native::metadata(&offsets).iter().filter_map(|bytes| Ownership::decode(bytes)?.since).min();
        if since.is_some() {
            return Ok(since);
        }
        let mut floors = Vec::new();
        for number in numbers.into_iter().filter(|number| !known.contains(number)) {
            floors.extend(self.floor(&reader, name, number)?);
        }
        Ok(floors.into_iter().map(|floor| floor.since).min())
    }

    /// Reads another instance's partition for its floor.
    fn floor(&self, reader: &BaseConsumer, topic: &str, number: i32) -> rdkafka::error::KafkaResult<Option<Floor>> {
        let here = place(&self.cluster, topic, number);
        let (low, high) = reader.fetch_watermarks(topic, number, REQUEST_MAX)?;
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, number, Offset::Offset(low))?;
        reader.assign(&list)?;
        let mut floor = None;
        let mut quiet = 0;
        let mut next = low;
        // Markers at the end are never delivered: after 2 s without a record there are no more.
        while next < high && quiet < 20 && !self.is_closing() {
            match reader.poll(Duration::from_millis(100)) {
                Some(message) => {
                    let message = message?;
                    quiet = 0;
                    next = message.offset() + 1;
                    if message.key() == Some(FLOOR_KEY) {
                        floor = message.payload().and_then(|value| Floor::decode(value, here)).or(floor);
                    }
                }
                None => quiet += 1,
            }
        }
        reader.unassign()?;
        Ok(floor)
    }

    /// A thread that answers whether topics exist.
    pub fn targets(&self) -> Sender<(u32, Arc<str>)> {
        let (ask, asked) = crossbeam_channel::unbounded::<(u32, Arc<str>)>();
        self.spawn("targets", move |worker| {
            let mut config = worker.settings.uncommitted();
            let Ok(client) = config.set("group.id", "unused").create::<BaseConsumer>() else { return };
            for (target, name) in asked {
                if worker.is_closing() {
                    return;
                }
                let state = exists(&client, &name);
                worker.tell(Found::Target { target, state });
            }
        });
        ask
    }

    fn list(&self, partitions: &[Partition]) -> TopicPartitionList {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            list.add_partition(&self.topics[usize::from(partition.topic)], partition.number);
        }
        list
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    fn tell(&self, found: Found) {
        // The loop is gone only when the engine has ended.
        let _ = self.found.send(found);
        (self.wake)();
    }

    fn spawn(&self, name: &str, job: impl FnOnce(Self) + Send + 'static) {
        let worker = self.clone();
        let spawned = std::thread::Builder::new().name(name.into()).spawn(move || job(worker));
        if let Err(error) = spawned {
            tracing::error!(name, %error, "no thread could be started");
        }
    }
}

fn whole(list: TopicPartitionList) -> rdkafka::error::KafkaResult<TopicPartitionList> {
    for element in list.elements() {
        element.error()?;
    }
    Ok(list)
}

/// What the metadata says of a topic.
pub fn exists(client: &BaseConsumer, name: &str) -> TargetState {
    let Ok(metadata) = client.fetch_metadata(Some(name), Duration::from_secs(2)) else {
        return TargetState::NoAnswer;
    };
    let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == name) else {
        return TargetState::Missing;
    };
    match topic.error() {
        None if topic.partitions().is_empty() => TargetState::NoAnswer,
        None => TargetState::Exists,
        Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED) => TargetState::Forbidden,
        Some(error) => match Code::from(error) {
            Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::InvalidTopic => TargetState::Missing,
            _ => TargetState::NoAnswer,
        },
    }
}
