//! A plain Kafka client for topics, producing and consuming, without any code of the engine.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientContext, Offset, TopicPartitionList};

/// The time limit of a single request.
const REQUEST: Duration = Duration::from_secs(30);

/// Header name and value.
pub type HeaderPair = (String, Option<Vec<u8>>);

/// A record to produce.
#[derive(Clone, Debug, Default)]
pub struct Scheduled {
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<HeaderPair>,
    pub timestamp: Option<i64>,
    pub partition: Option<i32>,
}

impl Scheduled {
    /// Returns a schedule that is due at `epoch`, in seconds.
    pub fn new(key: impl AsRef<[u8]>, value: impl AsRef<[u8]>, epoch: i64, target: &str) -> Self {
        Self { key: Some(key.as_ref().to_vec()), value: Some(value.as_ref().to_vec()), ..Self::default() }
            .header("scheduler-epoch", epoch.to_string())
            .header("scheduler-target-topic", target)
    }

    /// Returns a cancel.
    pub fn cancel(key: impl AsRef<[u8]>) -> Self {
        Self { key: Some(key.as_ref().to_vec()), ..Self::default() }
    }

    pub fn target_key(self, key: impl AsRef<[u8]>) -> Self {
        self.header("scheduler-target-key", key)
    }

    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.to_owned(), Some(value.as_ref().to_vec())));
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(found, _)| found != name);
        self
    }

    pub fn null_header(mut self, name: &str) -> Self {
        self.headers.push((name.to_owned(), None));
        self
    }

    pub fn timestamp(mut self, ms: i64) -> Self {
        self.timestamp = Some(ms);
        self
    }

    pub fn partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }
}

/// A consumed record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub partition: i32,
    pub offset: i64,
    pub timestamp: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<HeaderPair>,
}

impl Record {
    /// Returns the key as text.
    pub fn key_text(&self) -> String {
        String::from_utf8_lossy(self.key.as_deref().unwrap_or_default()).into_owned()
    }

    /// Returns the value as text.
    pub fn value_text(&self) -> String {
        String::from_utf8_lossy(self.value.as_deref().unwrap_or_default()).into_owned()
    }

    /// Returns the first header of this name.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(n, _)| n == name)?.1.as_deref()
    }
}

/// Returns the settings that all clients share.
pub fn config(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("broker.address.family", "v4").set("log_level", "3");
    config
}

fn admin(bootstrap: &str) -> AdminClient<DefaultClientContext> {
    config(bootstrap).create().expect("an admin client")
}

/// Creates a topic and waits until it is usable.
pub fn create_topic(bootstrap: &str, name: &str, partitions: i32, settings: &[(&str, &str)]) {
    create_replicated_topic(bootstrap, name, partitions, 1, settings);
}

/// Creates a topic with a replication factor.
pub fn create_replicated_topic(bootstrap: &str, name: &str, partitions: i32, replicas: i32, settings: &[(&str, &str)]) {
    let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(replicas));
    for (key, value) in settings {
        topic = topic.set(key, value);
    }
    let options = AdminOptions::new().request_timeout(Some(REQUEST)).operation_timeout(Some(REQUEST));
    let results = block_on(admin(bootstrap).create_topics([&topic], &options)).expect("an answer to create_topics");
    for result in results {
        result.unwrap_or_else(|(topic, e)| panic!("cannot create {topic}: {e}"));
    }
    let client: BaseConsumer = config(bootstrap).create().expect("a client");
    super::wait::eventually(&format!("{name} has leaders"), REQUEST, || {
        let metadata = client.fetch_metadata(Some(name), REQUEST).ok()?;
        let topic = metadata.topics().first()?;
        let led = topic.partitions().iter().filter(|p| p.error().is_none() && p.leader() >= 0).count();
        (topic.error().is_none() && led == usize::try_from(partitions).ok()?).then_some(())
    });
}

/// Deletes a topic, and waits until it is gone.
pub fn delete_topic(bootstrap: &str, name: &str) {
    let options = AdminOptions::new().request_timeout(Some(REQUEST)).operation_timeout(Some(REQUEST));
    let results = block_on(admin(bootstrap).delete_topics(&[name], &options)).expect("an answer to delete_topics");
    results.into_iter().for_each(|result| drop(result.expect("the topic is deleted")));
    super::wait::eventually(&format!("{name} is gone"), REQUEST, || (partitions(bootstrap, name) == 0).then_some(()));
}

/// Deletes the records of a partition before an offset, as retention does.
pub fn delete_records_before(bootstrap: &str, topic: &str, partition: i32, offset: i64) {
    let options = AdminOptions::new().request_timeout(Some(REQUEST)).operation_timeout(Some(REQUEST));
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(offset)).expect("an offset");
    block_on(admin(bootstrap).delete_records(&list, &options)).expect("the records are deleted");
}

/// Returns the end offset of a partition.
pub fn end(bootstrap: &str, topic: &str, partition: i32) -> i64 {
    let client: BaseConsumer = config(bootstrap).create().expect("a client");
    client.fetch_watermarks(topic, partition, REQUEST).expect("an answer").1
}

/// Adds partitions to a topic, and waits until they exist.
pub fn add_partitions(bootstrap: &str, name: &str, count: usize) {
    let options = AdminOptions::new().request_timeout(Some(REQUEST)).operation_timeout(Some(REQUEST));
    let new = NewPartitions::new(name, count);
    let results = block_on(admin(bootstrap).create_partitions([&new], &options)).expect("an answer");
    results.into_iter().for_each(|result| drop(result.expect("partitions are added")));
    super::wait::eventually(&format!("{name} has grown"), REQUEST, || {
        (partitions(bootstrap, name) == count).then_some(())
    });
}

/// Returns the number of partitions of a topic; 0 if it does not exist.
pub fn partitions(bootstrap: &str, name: &str) -> usize {
    let client: BaseConsumer = config(bootstrap).create().expect("a client");
    let metadata = client.fetch_metadata(Some(name), REQUEST).expect("metadata");
    metadata.topics().first().filter(|topic| topic.error().is_none()).map_or(0, |topic| topic.partitions().len())
}

/// Returns the owner of a partition, from the metadata of the group's committed offset.
pub fn owner(bootstrap: &str, group: &str, topic: &str, partition: i32) -> Option<String> {
    let (_, metadata) = committed(&observer(bootstrap, group), topic, partition)?;
    metadata.split(' ').find_map(|part| part.strip_prefix("owner=")).map(str::to_owned)
}

/// Commits a partition's offset again, with more metadata. The group must be empty.
pub fn extend_metadata(bootstrap: &str, group: &str, topic: &str, partition: i32, more: &str) {
    let client = observer(bootstrap, group);
    let (offset, metadata) = committed(&client, topic, partition).expect("a committed offset");
    let mut list = TopicPartitionList::new();
    let mut element = list.add_partition(topic, partition);
    element.set_offset(offset).expect("an offset");
    element.set_metadata(format!("{metadata}{more}"));
    client.commit(&list, CommitMode::Sync).expect("a commit");
}

/// Returns the cluster's id.
pub fn cluster_id(bootstrap: &str) -> String {
    let client: BaseConsumer = config(bootstrap).create().expect("a consumer");
    client.client().fetch_cluster_id(REQUEST).expect("the cluster's id")
}

/// Returns a client that reads and commits a group's offsets without being a member.
fn observer(bootstrap: &str, group: &str) -> BaseConsumer {
    config(bootstrap)
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_uncommitted")
        .create()
        .expect("a consumer")
}

fn committed(client: &BaseConsumer, topic: &str, partition: i32) -> Option<(Offset, String)> {
    let mut list = TopicPartitionList::new();
    list.add_partition(topic, partition);
    let committed = client.committed_offsets(list, Duration::from_secs(5)).ok()?;
    let element = committed.find_partition(topic, partition)?;
    Some((element.offset(), element.metadata().to_owned()))
}

/// Deletes an empty consumer group with its offsets.
pub fn delete_group(bootstrap: &str, group: &str) {
    let options = AdminOptions::new().request_timeout(Some(REQUEST));
    super::wait::eventually(&format!("group {group} can be deleted"), REQUEST, || {
        let results = block_on(admin(bootstrap).delete_groups(&[group], &options)).ok()?;
        results.into_iter().all(|r| r.is_ok()).then_some(())
    });
}

#[derive(Default)]
struct Failures(AtomicUsize);

impl ClientContext for Failures {}

impl ProducerContext for Failures {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((e, _)) = result {
            eprintln!("not delivered: {e}");
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Produces to one topic at a time, in order.
pub struct Producer(BaseProducer<Failures>);

impl Producer {
    /// Creates a producer with additional librdkafka settings. Like Java's, it is idempotent and uses murmur2.
    pub fn new(bootstrap: &str, settings: &[(&str, &str)]) -> Self {
        let mut config = config(bootstrap);
        config.set("enable.idempotence", "true").set("partitioner", "murmur2_random").set("linger.ms", "2");
        for (key, value) in settings {
            config.set(*key, *value);
        }
        Self(config.create_with_context(Failures::default()).expect("a producer"))
    }

    /// Produces a record without waiting for its delivery.
    pub fn send(&self, topic: &str, record: &Scheduled) {
        loop {
            let mut out: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic);
            out.key = record.key.as_deref();
            out.payload = record.value.as_deref();
            out.partition = record.partition;
            out.timestamp = record.timestamp;
            if !record.headers.is_empty() {
                let headers = record.headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
                    headers.insert(Header { key, value: value.as_deref() })
                });
                out.headers = Some(headers);
            }
            match self.0.send(out) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                    self.0.poll(Duration::from_millis(10));
                }
                Err((e, _)) => panic!("cannot produce to {topic}: {e}"),
            }
        }
        self.0.poll(Duration::ZERO);
    }

    /// Waits until all records are delivered.
    pub fn flush(&self) {
        self.0.flush(REQUEST).expect("everything is delivered");
        assert_eq!(self.0.context().0.load(Ordering::Relaxed), 0, "records were not delivered");
    }
}

/// Reads a topic from its beginning.
pub struct Reader {
    consumer: BaseConsumer,
    topic: String,
    ends: Vec<i32>,
    partitions: usize,
    /// All records that were read.
    pub records: Vec<Record>,
}

impl Reader {
    /// Creates a read_committed consumer.
    pub fn new(bootstrap: &str, topic: &str) -> Self {
        Self::isolated(bootstrap, topic, "read_committed")
    }

    /// Creates a read_uncommitted consumer.
    pub fn uncommitted(bootstrap: &str, topic: &str) -> Self {
        Self::isolated(bootstrap, topic, "read_uncommitted")
    }

    fn isolated(bootstrap: &str, topic: &str, isolation: &str) -> Self {
        let consumer: BaseConsumer = config(bootstrap)
            .set("group.id", "never-joined")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("isolation.level", isolation)
            .set("fetch.wait.max.ms", "50")
            .create()
            .expect("a consumer");
        let metadata = consumer.fetch_metadata(Some(topic), REQUEST).expect("metadata");
        let mut list = TopicPartitionList::new();
        let partitions = metadata.topics().first().expect("the topic").partitions();
        for partition in partitions {
            list.add_partition_offset(topic, partition.id(), Offset::Beginning).expect("an offset");
        }
        consumer.assign(&list).expect("an assignment");
        Self { consumer, topic: topic.to_owned(), ends: Vec::new(), partitions: partitions.len(), records: Vec::new() }
    }

    /// Waits up to `limit` for records, and returns as soon as some have arrived.
    pub fn poll(&mut self, limit: Duration) {
        let mut limit = limit;
        while let Some(next) = self.consumer.poll(limit) {
            match next {
                Ok(message) => {
                    let headers = message.headers().map_or_else(Vec::new, |headers| {
                        headers.iter().map(|h| (h.key.to_owned(), h.value.map(<[u8]>::to_vec))).collect()
                    });
                    self.records.push(Record {
                        partition: message.partition(),
                        offset: message.offset(),
                        timestamp: message.timestamp().to_millis().unwrap_or(-1),
                        key: message.key().map(<[u8]>::to_vec),
                        value: message.payload().map(<[u8]>::to_vec),
                        headers,
                    });
                    limit = Duration::ZERO;
                }
                Err(KafkaError::PartitionEOF(partition)) => {
                    if !self.ends.contains(&partition) {
                        self.ends.push(partition);
                    }
                    if self.ends.len() == self.partitions {
                        return;
                    }
                }
                Err(e) => eprintln!("reading {}: {e}", self.topic),
            }
        }
    }

    /// Reads until the end of each partition was reached once.
    pub fn read_to_end(&mut self) {
        let began = Instant::now();
        while self.ends.len() < self.partitions {
            assert!(began.elapsed() < REQUEST * 2, "no end of {} was reached", self.topic);
            self.poll(Duration::from_millis(100));
        }
    }

    /// Reads until the end of each partition was reached once, and drops the records.
    pub fn drain(&mut self, mut visit: impl FnMut(Record)) {
        let mut heard = Instant::now();
        while self.ends.len() < self.partitions {
            assert!(heard.elapsed() < REQUEST * 2, "no end of {} was reached", self.topic);
            self.poll(Duration::from_millis(100));
            if !self.records.is_empty() {
                heard = Instant::now();
            }
            self.records.drain(..).for_each(&mut visit);
        }
    }

    /// Reads until the condition is true.
    pub fn wait(&mut self, what: &str, limit: Duration, enough: impl Fn(&[Record]) -> bool) -> &[Record] {
        let began = Instant::now();
        while !enough(&self.records) {
            assert!(
                began.elapsed() < limit,
                "timed out after {limit:?} in {}: {what}; there are {} records, the last {:?}",
                self.topic,
                self.records.len(),
                self.records.last()
            );
            self.poll(Duration::from_millis(100));
        }
        &self.records
    }
}

/// Returns all records of a topic, up to the end of each partition.
pub fn read_all(bootstrap: &str, topic: &str) -> Vec<Record> {
    let mut reader = Reader::new(bootstrap, topic);
    reader.read_to_end();
    reader.records
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        thread::park();
    }
}
