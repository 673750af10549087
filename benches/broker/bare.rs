//! Measures the throughput of the broker and the client library without the engine.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::{Offset, TopicPartitionList};

use crate::kit::Case;
use crate::kit::client;
use crate::kit::wait::now_s;
use crate::records::{Names, Places, Values, number_of, send_fired};

const REQUEST: Duration = Duration::from_secs(30);

/// Schedules per transaction.
const BATCH: u32 = 10_000;

/// If no record arrives for this long, reading has failed.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Writes the three records of each schedule with one transactional producer and nothing else.
pub fn produce(case: &Case, values: &Values, count: u32) -> Result<(), String> {
    let failed = |error: KafkaError| format!("the bare producer: {error}");
    let producer: BaseProducer = client::config(case.bootstrap())
        .set("transactional.id", &case.group)
        .set("partitioner", "murmur2_random")
        .set("compression.type", "lz4")
        .set("linger.ms", "2")
        .set("batch.num.messages", "10000")
        .set("queue.buffering.max.messages", "500000")
        .set("socket.nagle.disable", "true")
        .create()
        .map_err(failed)?;
    producer.init_transactions(REQUEST).map_err(failed)?;
    let to = Places {
        schedules: &case.schedules[0],
        partitions: case.partitions,
        target: &case.target,
        history: &case.history,
    };
    let (mut names, due_s) = (Names::default(), now_s());
    let mut sent = 0;
    while sent < count {
        producer.begin_transaction().map_err(failed)?;
        let end = count.min(sent + BATCH);
        for number in sent..end {
            send_fired(&producer, &to, names.of(number, due_s * 1000), values).map_err(failed)?;
        }
        // A commit that itself waits for delivery polls every 100 ms.
        while producer.in_flight_count() > 0 {
            producer.poll(Duration::from_millis(1));
        }
        producer.commit_transaction(REQUEST).map_err(failed)?;
        sent = end;
    }
    Ok(())
}

/// Creates a read_committed consumer that reads a topic from its beginning.
pub fn consumer(bootstrap: &str, topic: &str) -> Result<(BaseConsumer, usize), String> {
    let failed = |error: KafkaError| format!("reading {topic}: {error}");
    let consumer: BaseConsumer = client::config(bootstrap)
        .set("group.id", "never-joined")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        // Otherwise a consumer that is slower than the broker pauses fetching for a second whenever its queue is full.
        .set("fetch.queue.backoff.ms", "1")
        .create()
        .map_err(failed)?;
    let metadata = consumer.fetch_metadata(Some(topic), REQUEST).map_err(failed)?;
    let partitions = metadata.topics().first().map_or(&[][..], |topic| topic.partitions());
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition_offset(topic, partition.id(), Offset::Beginning).map_err(failed)?;
    }
    consumer.assign(&list).map_err(failed)?;
    Ok((consumer, partitions.len()))
}

/// The number of records that a consumer has read, and how long that took.
pub struct Read {
    pub records: u64,
    /// From the assignment to the last record.
    pub took: Duration,
}

impl Read {
    pub fn per_s(&self) -> f64 {
        self.records as f64 / self.took.as_secs_f64().max(f64::EPSILON)
    }
}

/// Reads a topic to the end of every partition, but at least `least` records: after a commit is acknowledged, the
/// transaction's markers may still be on their way, and until they are written a read_committed consumer ends before
/// them.
pub fn read(
    bootstrap: &str,
    topic: &str,
    least: u32,
    mut visit: impl FnMut(&BorrowedMessage<'_>),
) -> Result<Read, String> {
    let (consumer, partitions) = consumer(bootstrap, topic)?;
    let began = Instant::now();
    let mut read = Read { records: 0, took: Duration::ZERO };
    let mut ends = BTreeSet::new();
    let mut heard = began;
    while ends.len() < partitions || read.records < u64::from(least) {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                visit(&message);
                read.records += 1;
                heard = Instant::now();
                read.took = heard - began;
                if !ends.is_empty() {
                    // More records were appended, so the consumer reports the end again.
                    ends.remove(&message.partition());
                }
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => drop(ends.insert(partition)),
            Some(Err(error)) => return Err(format!("reading {topic}: {error}")),
            None if heard.elapsed() > SILENCE_MAX => {
                let Read { records, .. } = read;
                return Err(format!("{topic}: {records} records instead of at least {least}, and no more arrive"));
            }
            None => {}
        }
    }
    Ok(read)
}

/// The firings in a target topic, one for each schedule.
pub struct Landed {
    pub read: Read,
    /// The number of the schedule, and the time at which the broker appended its record.
    pub each: Vec<(u32, i64)>,
}

impl Landed {
    /// Reads a target topic, and fails unless it has each of `count` schedules once.
    pub fn of(case: &Case, count: u32) -> Result<Self, String> {
        let mut each = Vec::with_capacity(count as usize);
        let topic = &case.target;
        let read = read(case.bootstrap(), topic, count, |message| {
            let number = message.key().and_then(number_of).unwrap_or(u32::MAX);
            each.push((number, message.timestamp().to_millis().unwrap_or(-1)));
        })?;
        let mut seen = vec![false; count as usize];
        for (number, _) in &each {
            match seen.get_mut(*number as usize) {
                Some(seen) if !*seen => *seen = true,
                Some(_) => return Err(format!("{topic}: schedule {number} fired twice")),
                None => return Err(format!("{topic}: a record of another program")),
            }
        }
        Ok(Self { read, each })
    }

    /// Records per second, from the first append to the last.
    pub fn appended_per_s(&self) -> f64 {
        let times = || self.each.iter().map(|(_, at_ms)| *at_ms);
        let span_ms = times().max().unwrap_or(0) - times().min().unwrap_or(0);
        self.each.len() as f64 * 1000.0 / span_ms.max(1) as f64
    }
}
