//! Remembers how far earlier runs of a command read a topic, as committed offsets of a consumer group of its own.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use super::failure::Failure;
use crate::kafka::broker_client::{BrokerClient, BrokerError};

/// How long the group's coordinator may take to answer.
const COMMITTED_OFFSETS_TIMEOUT: Duration = Duration::from_secs(8);

/// The offsets of one topic.
pub(super) struct ProgressOffsets {
    client: BaseConsumer,
    group: String,
    topic: String,
    partitions: TopicPartitionList,
}

impl ProgressOffsets {
    /// Prepares a client of the group.
    ///
    /// # Errors
    /// If the topic's partitions cannot be read.
    pub(super) fn new(broker: &BrokerClient, group: String, topic: &str) -> Result<Self, Failure> {
        let mut config = broker.clients().configs.consumer();
        config.set("group.id", &group);
        let client = config.create().map_err(BrokerError::settings)?;
        let mut partitions = TopicPartitionList::new();
        for partition in broker.partitions(topic)? {
            partitions.add_partition(topic, partition);
        }
        Ok(Self { client, group, topic: topic.to_owned(), partitions })
    }

    /// Returns the offset of each partition that has one.
    ///
    /// # Errors
    /// If the brokers do not return them.
    pub(super) fn read(&self) -> Result<BTreeMap<i32, i64>, Failure> {
        let committed = self.client.committed_offsets(self.partitions.clone(), COMMITTED_OFFSETS_TIMEOUT);
        let committed = committed.map_err(|e| self.failed("read", &e))?;
        let offset = |element: rdkafka::topic_partition_list::TopicPartitionListElem<'_>| match element.offset() {
            Offset::Offset(offset) => Some((element.partition(), offset)),
            _ => None,
        };
        Ok(committed.elements().into_iter().filter_map(offset).collect())
    }

    /// Commits these offsets.
    ///
    /// # Errors
    /// If the brokers reject the commit.
    pub(super) fn commit(&self, offsets: &BTreeMap<i32, i64>) -> Result<(), Failure> {
        if offsets.is_empty() {
            return Ok(());
        }
        let mut list = TopicPartitionList::new();
        for (partition, offset) in offsets {
            let added = list.add_partition_offset(&self.topic, *partition, Offset::Offset(*offset));
            added.map_err(|e| self.failed("committed", &e))?;
        }
        self.client.commit(&list, CommitMode::Sync).map_err(|e| self.failed("committed", &e))
    }

    fn failed(&self, verb: &str, error: &KafkaError) -> Failure {
        Failure::new(format!(
            "the progress of earlier runs on {:?} cannot be {verb}: {error}; grant Read on the group {}, or use --all",
            self.topic, self.group
        ))
    }
}
