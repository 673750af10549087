//! Requests that may block, on threads of their own: committed offsets, fencing, start markers, target topics.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::Sender;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::message::Message;
use rdkafka::producer::Producer;
use rdkafka::{Offset, TopicPartitionList};

use super::clients::{Clients, QueryConsumer};
use super::ffi;
use super::partition_scan::{ScanRange, Scanner, scan};
use super::record_lookup;
use super::target_lookup::{TARGETS_MAX, TargetLookup};
use super::topics::Cleaning;
use crate::core::io::{Millis, RequestId, TargetState, TopicPartition};
use crate::core::origin::{START_MARKER_KEY, partition_hash};
use crate::core::ownership::Ownership;
use crate::core::start_marker::StartMarker;
use crate::handle::Wake;

/// How long a client waits while a transaction's offsets are pending.
const STABLE_OFFSETS_TIMEOUT: Duration = Duration::from_secs(1);
/// Time limit of any other request.
pub(super) const JOB_REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a scan may wait for a record before it is started again.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(30);

/// The result of a request.
#[derive(Debug)]
pub(super) enum WorkerResult {
    TopicRecreated { topic: String },
    CanaryChecked { partition: TopicPartition, found: bool },
    Cleaning { topic: String, cleaning: Cleaning },
    Logs { topic_ids: BTreeMap<String, String>, starts: BTreeMap<(String, i32), i64> },
    Committed { read: u64, partition: TopicPartition, offset: Option<i64>, metadata: Vec<u8> },
    Fenced { request: RequestId },
    FileChanged { path: String },
    Since { request: RequestId, since: Option<Millis> },
    Target { target: u32, state: TargetState },
    Trimmed { topic: String, number: i32, start: i64 },
}

/// Runs requests. Rare ones get a thread each.
#[derive(Clone)]
pub(super) struct Worker {
    pub clients: Arc<Clients>,
    /// The schedules topics.
    pub topics: Arc<Vec<String>>,
    pub cluster_id: Arc<str>,
    pub results: Sender<WorkerResult>,
    /// Wakes the loop.
    pub wake: Wake,
    /// Counts rebalances.
    pub rebalances: Arc<AtomicU64>,
    /// The engine is stopping: requests are not retried.
    pub closing: Arc<AtomicBool>,
}

impl Worker {
    /// Reads the committed offset and metadata of each partition, until it succeeds.
    pub(super) fn read_committed(&self, read: u64, partitions: Vec<TopicPartition>) {
        self.spawn("read-committed", move |worker| {
            while let Err(error) = worker.send_committed(read, &partitions) {
                if worker.is_closing() {
                    return;
                }
                worker.clients.diagnostics.on_failure("committed offsets cannot be read", &error);
                std::thread::sleep(Duration::from_millis(200));
            }
        });
    }

    fn send_committed(&self, read: u64, partitions: &[TopicPartition]) -> KafkaResult<()> {
        let list = self.list(partitions);
        let committed = self.committed_offsets(&list)?;
        for (element, metadata) in committed.elements().iter().zip(ffi::metadata(&committed)) {
            let Some(topic) = self.topics.iter().position(|topic| topic == element.topic()) else { continue };
            let partition = TopicPartition { topic: topic as u16, number: element.partition() };
            let offset = match element.offset() {
                Offset::Offset(offset) => Some(offset),
                _ => None,
            };
            self.send(WorkerResult::Committed { read, partition, offset, metadata });
        }
        Ok(())
    }

    /// Reads stable offsets; if a transaction stays pending, those before it.
    fn committed_offsets(&self, list: &TopicPartitionList) -> KafkaResult<TopicPartitionList> {
        let stable = self.clients.read_committed_consumer()?;
        stable.committed_offsets(list.clone(), STABLE_OFFSETS_TIMEOUT).and_then(without_errors).or_else(|_| {
            let any = self.clients.read_uncommitted_consumer()?;
            any.committed_offsets(list.clone(), JOB_REQUEST_TIMEOUT).and_then(without_errors)
        })
    }

    /// Fences former owners, which aborts their transactions. If that fails, the transactions time out.
    pub(super) fn fence(&self, request: RequestId, ids: Vec<String>) {
        let started_in = self.rebalances.load(Ordering::Acquire);
        self.spawn("fence", move |worker| {
            std::thread::scope(|scope| {
                for chunk in ids.chunks(ids.len().div_ceil(4).max(1)) {
                    scope.spawn(|| chunk.iter().for_each(|id| worker.fence_one(id, started_in)));
                }
            });
            worker.send(WorkerResult::Fenced { request });
        });
    }

    fn fence_one(&self, id: &str, started_in: u64) {
        if self.rebalances.load(Ordering::Acquire) != started_in || self.is_closing() {
            return;
        }
        let fenced =
            self.clients.fencing_producer(id).and_then(|producer| producer.init_transactions(JOB_REQUEST_TIMEOUT));
        match fenced {
            Ok(()) => tracing::debug!(id, "a former owner is fenced"),
            Err(error) => tracing::info!(id, %error, "a former owner could not be fenced; its transactions time out"),
        }
    }

    /// Finds out since when the topic's schedules are owed.
    pub(super) fn find_since(&self, request: RequestId, topic: u16, known: Vec<i32>) {
        self.spawn("find-since", move |worker| {
            loop {
                match worker.read_since(topic, &known) {
                    Ok(since) => return worker.send(WorkerResult::Since { request, since }),
                    Err(_) if worker.is_closing() => return,
                    Err(error) => worker
                        .clients
                        .diagnostics
                        .on_failure("start markers of a schedules topic cannot be read", &error),
                }
                std::thread::sleep(Duration::from_millis(500));
            }
        });
    }

    fn read_since(&self, topic: u16, known: &[i32]) -> KafkaResult<Option<Millis>> {
        let name = &self.topics[usize::from(topic)];
        let numbers = partition_numbers(&self.clients.read_uncommitted_consumer()?, name)?;
        let all: Vec<TopicPartition> = numbers.iter().map(|number| TopicPartition { topic, number: *number }).collect();
        let offsets = self.committed_offsets(&self.list(&all))?;
        let since = ffi::metadata(&offsets).iter().filter_map(|bytes| Ownership::decode(bytes)?.since).min();
        if since.is_some() {
            return Ok(since);
        }
        let mut since = None;
        for number in numbers.into_iter().filter(|number| !known.contains(number)) {
            let start_marker = self.read_start_marker(name, number)?;
            since = start_marker.map(|start_marker| start_marker.since).into_iter().chain(since).min();
        }
        Ok(since)
    }

    /// Reads another instance's partition for its start marker, up to its present end. A missed start marker would
    /// leave owed schedules unfired, so silence does not count as the end.
    fn read_start_marker(&self, topic: &str, number: i32) -> KafkaResult<Option<StartMarker>> {
        let here = partition_hash(&self.cluster_id, topic, number);
        let mut config = self.clients.configs.read_uncommitted_consumer();
        config.set("enable.partition.eof", "true");
        let reader: QueryConsumer = config.create_with_context(self.clients.query_context())?;
        let (low, end) = reader.fetch_watermarks(topic, number, JOB_REQUEST_TIMEOUT)?;
        let scanner = Scanner {
            consumer: &reader,
            config: &config,
            silence_timeout: SILENCE_TIMEOUT,
            is_final: |_| false,
            is_closing: &|| self.is_closing(),
        };
        let mut start_marker = None;
        scan(&scanner, ScanRange { topic, partition: number, low, from: Offset::Beginning, end }, &mut |message| {
            if message.key() == Some(START_MARKER_KEY) {
                start_marker = message.payload().and_then(|value| StartMarker::decode(value, here)).or(start_marker);
            }
            Ok::<(), Infallible>(())
        })?;
        Ok(start_marker)
    }

    /// Looks whether a partition still has its canary. If the brokers do not answer, it counts as missing.
    pub(super) fn check_canary(&self, partition: TopicPartition, offset: i64, key: Vec<u8>) {
        self.spawn("canary", move |worker| {
            let topic = &worker.topics[usize::from(partition.topic)];
            let found = record_lookup::key_at(&worker.clients, topic, partition.number, offset, JOB_REQUEST_TIMEOUT);
            if let Err(error) = &found {
                tracing::warn!(%error, topic, partition = partition.number, offset, "a canary cannot be read");
            }
            let found = found.is_ok_and(|found| found == Some(key));
            worker.send(WorkerResult::CanaryChecked { partition, found });
        });
    }

    /// Checks whether configuration files have changed: a file system may be slow.
    pub(super) fn check_files(&self) {
        self.spawn("files", |worker| {
            if let Some(path) = worker.clients.changed_file_if_locked_out() {
                worker.send(WorkerResult::FileChanged { path });
            }
        });
    }

    /// Starts the thread that looks up target topics.
    pub(super) fn start_target_lookup(&self) -> Sender<(u32, Arc<str>)> {
        let (sender, requests) = crossbeam_channel::unbounded::<(u32, Arc<str>)>();
        self.spawn("targets", move |worker| {
            let mut lookup = TargetLookup::new(Arc::clone(&worker.clients));
            while let Ok(first) = requests.recv() {
                // A target that was requested twice needs one answer.
                let targets: BTreeMap<u32, Arc<str>> =
                    std::iter::once(first).chain(requests.try_iter().take(TARGETS_MAX)).collect();
                if worker.is_closing() {
                    return;
                }
                let names: Vec<&str> = targets.values().map(|name| &**name).collect();
                for (target, state) in targets.keys().zip(lookup.states(&names)) {
                    worker.send(WorkerResult::Target { target: *target, state });
                }
            }
        });
        sender
    }

    fn list(&self, partitions: &[TopicPartition]) -> TopicPartitionList {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            list.add_partition(&self.topics[usize::from(partition.topic)], partition.number);
        }
        list
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Sends a result to the loop.
    pub(super) fn send(&self, result: WorkerResult) {
        // The loop is gone only when the engine has ended.
        let _ = self.results.send(result);
        (self.wake)();
    }

    /// Runs a request on a thread of its own.
    pub(super) fn spawn(&self, name: &str, request: impl FnOnce(Self) + Send + 'static) {
        let worker = self.clone();
        let spawned = std::thread::Builder::new().name(name.into()).spawn(move || request(worker));
        if let Err(error) = spawned {
            tracing::error!(name, %error, "no thread could be started");
        }
    }
}

/// Returns the topic's partitions. An empty list, which the cluster may return for a moment, is an error.
fn partition_numbers(client: &QueryConsumer, name: &str) -> KafkaResult<Vec<i32>> {
    let metadata = client.fetch_metadata(Some(name), JOB_REQUEST_TIMEOUT)?;
    let topic = metadata.topics().iter().find(|topic| topic.name() == name);
    let error = topic.and_then(|topic| topic.error()).map(Code::from);
    let numbers: Vec<i32> = topic.map(|t| t.partitions().iter().map(|p| p.id()).collect()).unwrap_or_default();
    if error.is_some() || numbers.is_empty() {
        return Err(KafkaError::MetadataFetch(error.unwrap_or(Code::UnknownTopicOrPartition)));
    }
    Ok(numbers)
}

fn without_errors(list: TopicPartitionList) -> KafkaResult<TopicPartitionList> {
    for element in list.elements() {
        element.error()?;
    }
    Ok(list)
}
