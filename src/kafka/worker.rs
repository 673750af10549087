//! Jobs that block, away from the loop: committed metadata, fencing, `since`, target topics.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::Sender;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::{Offset, TopicPartitionList};

use super::lookup::{self, Lookup};
use super::native;
use super::scan::{Means, Span, Stop, scan};
use super::settings::Settings;
use super::voice::Asking;
use crate::core::start_marker::StartMarker;
use crate::core::io::{Millis, TopicPartition, TargetState};
use crate::core::origin::{START_MARKER_KEY, partition_hash};
use crate::core::ownership::Ownership;
use crate::handle::Wake;

/// How long a client waits for offsets while a transaction's may be pending.
const STABLE_MAX: Duration = Duration::from_secs(1);
/// How long any other request to the brokers may take.
pub const REQUEST_MAX: Duration = Duration::from_secs(5);
/// How long a scan may go without a record before it is begun again.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// What a job found out.
#[derive(Debug)]
pub enum Found {
    Anew { topic: String },
    Committed { read: u64, partition: TopicPartition, offset: Option<i64>, metadata: Vec<u8> },
    Fenced { request: RequestId },
    Outdated { path: String },
    Since { request: RequestId, since: Option<Millis> },
    Target { target: u32, state: TargetState },
    Trimmed { topic: String, number: i32, start: i64 },
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
    pub fn read_committed(&self, read: u64, partitions: Vec<TopicPartition>) {
        self.spawn("read-committed", move |worker| {
            while let Err(error) = worker.committed(read, &partitions) {
                if worker.is_closing() {
                    return;
                }
                worker.settings.voice.failing("committed offsets cannot be read", &error);
                std::thread::sleep(Duration::from_millis(200));
            }
        });
    }

    fn committed(&self, read: u64, partitions: &[TopicPartition]) -> KafkaResult<()> {
        let list = self.list(partitions);
        let found = self.offsets(&list)?;
        for (element, metadata) in found.elements().iter().zip(native::metadata(&found)) {
            let Some(topic) = self.topics.iter().position(|topic| topic == element.topic()) else { continue };
            let partition = TopicPartition { topic: topic as u16, number: element.partition() };
            let offset = match element.offset() {
                Offset::Offset(offset) => Some(offset),
                _ => None,
            };
            self.tell(Found::Committed { read, partition, offset, metadata });
        }
        Ok(())
    }

    /// Stable offsets if they come soon; else those before the transaction that is pending.
    fn offsets(&self, list: &TopicPartitionList) -> KafkaResult<TopicPartitionList> {
        let stable: BaseConsumer<Asking> = self.settings.consumer().create_with_context(self.asking())?;
        stable.committed_offsets(list.clone(), STABLE_MAX).and_then(whole).or_else(|_| {
            let any = self.uncommitted()?;
            any.committed_offsets(list.clone(), REQUEST_MAX).and_then(whole)
        })
    }

    /// Ends the former owners' transactions. Failing costs time only.
    pub fn fence(&self, request: RequestId, ids: Vec<String>) {
        let begun_in = self.rebalances.load(Ordering::Acquire);
        self.spawn("fence", move |worker| {
            std::thread::scope(|scope| {
                for chunk in ids.chunks(ids.len().div_ceil(4).max(1)) {
                    scope.spawn(|| chunk.iter().for_each(|id| worker.fence_one(id, begun_in)));
                }
            });
            worker.tell(Found::Fenced { request });
        });
    }

    fn fence_one(&self, id: &str, begun_in: u64) {
        if self.rebalances.load(Ordering::Acquire) != begun_in || self.is_closing() {
            return;
        }
        let fenced = self
            .settings
            .producer(id)
            .create_with_context(self.asking())
            .and_then(|producer: BaseProducer<Asking>| producer.init_transactions(REQUEST_MAX));
        match fenced {
            Ok(()) => tracing::debug!(id, "a former owner is fenced"),
            Err(error) => tracing::info!(id, %error, "a former owner could not be fenced; its transactions time out"),
        }
    }

    /// Finds since when the topic's schedules are owed.
    pub fn find_since(&self, request: RequestId, topic: u16, known: Vec<i32>) {
        self.spawn("find-since", move |worker| {
            loop {
                match worker.since(topic, &known) {
                    Ok(since) => return worker.tell(Found::Since { request, since }),
                    Err(_) if worker.is_closing() => return,
                    Err(error) => worker.settings.voice.failing("a schedules topic's floors cannot be read", &error),
                }
                std::thread::sleep(Duration::from_millis(500));
            }
        });
    }

    fn since(&self, topic: u16, known: &[i32]) -> KafkaResult<Option<Millis>> {
        let name = &self.topics[usize::from(topic)];
        let numbers = numbers(&self.uncommitted()?, name)?;
        let all: Vec<TopicPartition> = numbers.iter().map(|number| TopicPartition { topic, number: *number }).collect();
        let offsets = self.offsets(&self.list(&all))?;
        let since = native::metadata(&offsets).iter().filter_map(|bytes| Ownership::decode(bytes)?.since).min();
        if since.is_some() {
            return Ok(since);
        }
        let mut since = None;
        for number in numbers.into_iter().filter(|number| !known.contains(number)) {
            let start_marker = self.start_marker(name, number)?;
            since = start_marker.map(|start_marker| start_marker.since).into_iter().chain(since).min();
        }
        Ok(since)
    }

    /// Reads another instance's partition for its floor, up to where it ends now. A floor that is missed would leave owed
    /// schedules unfired, so silence does not count as the end.
    fn start_marker(&self, topic: &str, number: i32) -> KafkaResult<Option<StartMarker>> {
        let here = partition_hash(&self.cluster, topic, number);
        let mut config = self.settings.uncommitted();
        config.set("enable.partition.eof", "true");
        let reader: BaseConsumer<Asking> = config.create_with_context(self.asking())?;
        let (low, end) = reader.fetch_watermarks(topic, number, REQUEST_MAX)?;
        let means = Means {
            consumer: &reader,
            settings: &config,
            silence_max: SILENCE_MAX,
            is_final: |_| false,
            is_closing: &|| self.is_closing(),
        };
        let mut start_marker = None;
        let scanned =
            scan(&means, Span { topic, partition: number, low, from: Offset::Beginning, end }, &mut |message| {
                if message.key() == Some(START_MARKER_KEY) {
                    start_marker = message.payload().and_then(|value| StartMarker::decode(value, here)).or(start_marker);
                }
                Ok::<(), Infallible>(())
            });
        match scanned {
            Ok(()) => Ok(start_marker),
            Err(Stop::Client(error)) => Err(error),
            Err(Stop::Silence | Stop::Closing) => Err(KafkaError::NoMessageReceived),
        }
    }

    /// Looks whether files that settings came from were rewritten: a file system may be slow.
    pub fn look_at_files(&self) {
        self.spawn("files", |worker| {
            if let Some(path) = worker.settings.outdated() {
                worker.tell(Found::Outdated { path });
            }
        });
    }

    /// A thread that answers whether topics exist.
    pub fn targets(&self) -> Sender<(u32, Arc<str>)> {
        let (ask, asked) = crossbeam_channel::unbounded::<(u32, Arc<str>)>();
        self.spawn("targets", move |worker| {
            let mut lookup = Lookup::new(Arc::clone(&worker.settings));
            while let Ok(first) = asked.recv() {
                // One that was asked for twice needs one answer.
                let some: BTreeMap<u32, Arc<str>> =
                    std::iter::once(first).chain(asked.try_iter().take(lookup::TOGETHER_MAX)).collect();
                if worker.is_closing() {
                    return;
                }
                let names: Vec<&str> = some.values().map(|name| &**name).collect();
                for (target, state) in some.keys().zip(lookup.states(&names)) {
                    worker.tell(Found::Target { target: *target, state });
                }
            }
        });
        ask
    }

    /// A client of the group's name that never joins it.
    pub fn uncommitted(&self) -> KafkaResult<BaseConsumer<Asking>> {
        self.settings.uncommitted().create_with_context(self.asking())
    }

    fn asking(&self) -> Asking {
        Asking(Arc::clone(&self.settings.voice))
    }

    fn list(&self, partitions: &[TopicPartition]) -> TopicPartitionList {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            list.add_partition(&self.topics[usize::from(partition.topic)], partition.number);
        }
        list
    }

    /// The engine ends.
    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Gives the loop an answer.
    pub fn tell(&self, found: Found) {
        // The loop is gone only when the engine has ended.
        let _ = self.found.send(found);
        (self.wake)();
    }

    /// Runs a job on a thread of its own.
    pub fn spawn(&self, name: &str, job: impl FnOnce(Self) + Send + 'static) {
        let worker = self.clone();
        let spawned = std::thread::Builder::new().name(name.into()).spawn(move || job(worker));
        if let Err(error) = spawned {
            tracing::error!(name, %error, "no thread could be started");
        }
    }
}

/// The topic's partitions. That the cluster names none, as it may for a moment, is no answer.
fn numbers(client: &BaseConsumer<Asking>, name: &str) -> KafkaResult<Vec<i32>> {
    let metadata = client.fetch_metadata(Some(name), REQUEST_MAX)?;
    let topic = metadata.topics().iter().find(|topic| topic.name() == name);
    let error = topic.and_then(|topic| topic.error()).map(Code::from);
    let numbers: Vec<i32> = topic.map(|t| t.partitions().iter().map(|p| p.id()).collect()).unwrap_or_default();
    if error.is_some() || numbers.is_empty() {
        return Err(KafkaError::MetadataFetch(error.unwrap_or(Code::UnknownTopicOrPartition)));
    }
    Ok(numbers)
}

fn whole(list: TopicPartitionList) -> KafkaResult<TopicPartitionList> {
    for element in list.elements() {
        element.error()?;
    }
    Ok(list)
}
