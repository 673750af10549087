//! Passes records from the consumer to the core.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::Offset;
use rdkafka::client::ClientContext;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use super::EngineLoop;
use crate::core::io::{Header, Input, Millis, Record, Report, TopicPartition};
use crate::kafka::ffi::queue::FetchedRecords;
use crate::kafka::group::GroupConsumer;

/// Records in one iteration.
const RECORDS_MAX: usize = 5_000;
/// Records in one fetch from the queue.
const POLL_BATCH_MAX: usize = 250;
/// Time limit for records in one iteration.
const RECORDS_TIMEOUT: Duration = Duration::from_millis(10);

impl EngineLoop {
    /// Serves the consumer's events and passes on the records that have arrived. Returns true if there may be more.
    pub(super) fn consume(&mut self) -> bool {
        let Some(consumer) = self.group.consumer.clone() else { return false };
        self.poll_consumer_events(&consumer);
        let started = Instant::now();
        for _ in 0..RECORDS_MAX / POLL_BATCH_MAX {
            let records = consumer.fetched(POLL_BATCH_MAX);
            if records.len() == 0 {
                return false;
            }
            self.on_records(&consumer, records);
            if !self.is_current(&consumer) || started.elapsed() > RECORDS_TIMEOUT {
                break;
            }
        }
        true
    }

    fn poll_consumer_events(&mut self, consumer: &Arc<GroupConsumer>) {
        let mut empty_polls = 0;
        while self.is_current(consumer) {
            match consumer.base().poll(Duration::ZERO) {
                Some(Ok(_)) => self.input(Input::PositionInvalid { why: "a partition was not forwarded to its queue" }),
                Some(Err(error)) => self.on_consumer_error(&error),
                // The poll may have served an event.
                None if empty_polls < 2 => empty_polls += 1,
                None => return,
            }
        }
    }

    fn is_current(&self, consumer: &Arc<GroupConsumer>) -> bool {
        self.group.consumer.as_ref().is_some_and(|current| Arc::ptr_eq(current, consumer))
    }

    fn on_records(&mut self, consumer: &Arc<GroupConsumer>, records: FetchedRecords<'_>) {
        let mut now = self.clock.now();
        let mut spare = Vec::new();
        self.group.rewound.clear();
        for message in records {
            if !self.is_current(consumer) {
                return;
            }
            if let Some((code, reason)) = message.error() {
                // As rust-rdkafka does when the consumer is polled.
                consumer.base().context().error(KafkaError::Global(code), &reason);
                self.on_consumer_error(&KafkaError::MessageConsumption(code));
                now = self.clock.now();
                continue;
            }
            let Some(partition) = self.partition(message.topic(), message.partition()) else { continue };
            // The rest of these records was fetched before their partition was set back.
            if self.group.rewound.contains(&partition) {
                continue;
            }
            if let Some(snapshots) = &mut self.snapshots {
                snapshots.on_record(partition, message.leader_epoch());
            }
            let mut headers: Vec<Header<'_>> = spare;
            message.headers(&mut headers);
            let record = Record {
                partition,
                offset: message.offset(),
                timestamp: message.timestamp(),
                key: message.key(),
                value: message.value(),
                headers: &headers,
            };
            self.on_record(now, record);
            spare = emptied(headers);
        }
    }

    fn on_record(&mut self, now: Millis, record: Record<'_>) {
        self.input_at(now, Input::Record(record));
        // The core reports no key, which would take a copy of it: the record has it.
        match self.record_report.take() {
            Some(Report::Accepted { due, target, .. }) => {
                self.reporter.observer.accepted(&record, due, &target, &self.topics);
            }
            Some(Report::Cancelled { .. }) => self.reporter.observer.cancelled(&record, &self.topics),
            _ => {}
        }
    }

    fn on_consumer_error(&mut self, error: &KafkaError) {
        let code = error.rdkafka_error_code();
        let is_fatal = matches!(error, KafkaError::MessageConsumptionFatal(_));
        if is_fatal || code == Some(Code::AutoOffsetReset) {
            tracing::warn!(%error, "the consumer cannot continue; rejoining the group");
            return self.input(Input::PositionInvalid { why: "consumer error" });
        }
        // The consumer's context has reported it.
        tracing::debug!(%error, "consumer error");
    }

    pub(super) fn seek(&mut self, partition: TopicPartition) {
        let Some(consumer) = &self.group.consumer else { return };
        self.group.rewound.push(partition);
        let topic = &self.topics[usize::from(partition.topic)];
        if let Err(error) = consumer.base().seek(topic, partition.number, Offset::Beginning, Duration::ZERO) {
            tracing::warn!(%error, topic, partition = partition.number, "the partition cannot be read again");
            self.input(Input::PositionInvalid { why: "seek failed" });
        }
    }
}

/// Returns the allocation, for the headers of another record.
fn emptied<'a>(mut headers: Vec<Header<'_>>) -> Vec<Header<'a>> {
    headers.clear();
    // This only changes the lifetime: the standard library keeps the allocation.
    headers.into_iter().map(|_| Header { name: &[], value: None }).collect()
}
