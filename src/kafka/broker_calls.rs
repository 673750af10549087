//! Single calls to the brokers, for tests that show what a real broker answers.

use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use super::admin::Admin;
use super::clients::{Clients, QueryConsumer, QueryContext};
use super::error::SettingsError;
use super::ffi;
use super::ffi::queue::ForwardedQueue;
use super::record_lookup;
use super::topics::Cleaning;
use crate::config::Config;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Makes the calls.
#[derive(Debug)]
pub struct BrokerCalls(Clients);

impl BrokerCalls {
    /// Connects with the first call.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self(Clients::new(config, std::sync::Arc::default()))
    }

    /// Returns the id of a topic.
    ///
    /// # Errors
    /// If the topic cannot be described.
    pub fn topic_id(&self, topic: &str) -> Result<Option<String>, String> {
        let client = self.0.read_uncommitted_consumer().map_err(said)?;
        let described = ffi::admin::describe_topics(client.client(), &[topic], REQUEST_TIMEOUT);
        let described = described.map_err(|code| format!("{code:?}"))?;
        let topic = described.into_iter().next().ok_or("no topic is described")?;
        topic.error.map_or(Ok(topic.id), |code| Err(format!("{code:?}")))
    }

    /// Returns `delete.retention.ms` and `min.compaction.lag.ms`, as far as the topic sets them, and the limit that
    /// follows from both.
    ///
    /// # Errors
    /// If no broker answers.
    pub fn cleaning_ms(&self, topic: &str) -> Result<[Option<u64>; 3], String> {
        let cleaning = Admin::new(&self.0).and_then(|admin| admin.cleaning(topic)).map_err(said)?;
        let Cleaning { delete_retention_ms, min_compaction_lag_ms } = cleaning;
        Ok([delete_retention_ms, min_compaction_lag_ms, cleaning.limit_ms()])
    }

    /// Returns the key of the record at exactly this offset.
    ///
    /// # Errors
    /// If the brokers do not answer in time.
    pub fn key_at(
        &self,
        topic: &str,
        partition: i32,
        offset: i64,
        timeout: Duration,
    ) -> Result<Option<Vec<u8>>, String> {
        record_lookup::key_at(&self.0, topic, partition, offset, timeout).map_err(said)
    }

    /// Returns a reader of a partition, from its beginning.
    ///
    /// # Errors
    /// If the partition does not exist.
    pub fn reader(&self, topic: &str, partition: i32) -> Result<RecordReader, String> {
        let consumer: QueryConsumer = self.0.read_committed_consumer().map_err(said)?;
        let queue = ForwardedQueue::new(consumer, std::sync::Arc::new(|| {}));
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Beginning).map_err(said)?;
        if !queue.forward_partition(topic, partition) {
            return Err("there is no such partition".into());
        }
        queue.base().assign(&list).map_err(said)?;
        Ok(RecordReader { queue, topic: topic.to_owned(), partition })
    }
}

/// Reads a partition.
pub struct RecordReader {
    queue: ForwardedQueue<QueryContext>,
    topic: String,
    partition: i32,
}

impl RecordReader {
    /// Continues at an offset, once librdkafka has checked it by the leader epoch.
    ///
    /// # Errors
    /// If librdkafka refuses the position at once.
    pub fn seek(&self, offset: i64, leader_epoch: Option<i32>) -> Result<(), String> {
        let place = (self.topic.as_str(), self.partition);
        ffi::seek(self.queue.base(), place, offset, leader_epoch, REQUEST_TIMEOUT).map_err(|code| format!("{code:?}"))
    }

    /// Returns offset and leader epoch of each record that arrives within the timeout, at most `max`.
    ///
    /// # Errors
    /// If the partition fails: with librdkafka's reason.
    pub fn records(&self, max: usize, timeout: Duration) -> Result<Vec<(i64, Option<i32>)>, String> {
        let deadline = Instant::now() + timeout;
        let mut records = Vec::new();
        while records.len() < max && Instant::now() < deadline {
            drop(self.queue.base().poll(Duration::from_millis(10)));
            for message in self.queue.fetched(max - records.len()) {
                if let Some((code, reason)) = message.error() {
                    return Err(format!("{code:?}: {reason}"));
                }
                records.push((message.offset(), message.leader_epoch()));
            }
        }
        Ok(records)
    }
}

fn said(error: KafkaError) -> String {
    SettingsError::new(error).to_string()
}
