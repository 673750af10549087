//! Records from the consumer into the core.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::Offset;
use rdkafka::client::ClientContext;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use super::Pump;
use crate::core::io::{Header, Input, Millis, TopicPartition, Record};
use crate::kafka::group::Member;
use crate::kafka::native::inbox::Handful;

/// Records a turn.
const RECORDS_MAX: usize = 5_000;
/// Records that are taken together.
const HANDFUL: usize = 250;
/// Time for records a turn.
const RECORDS_TIME_MAX: Duration = Duration::from_millis(10);

impl Pump {
    /// Serves the consumer's events and feeds the records that have come. True if there may be more.
    pub(super) fn consume(&mut self) -> bool {
        let Some(member) = self.member.clone() else { return false };
        self.serve(&member);
        let begun = Instant::now();
        for _ in 0..RECORDS_MAX / HANDFUL {
            let handful = member.take(HANDFUL);
            if handful.len() == 0 {
                return false;
            }
            self.records(&member, handful);
            if !self.is_current(&member) || begun.elapsed() > RECORDS_TIME_MAX {
                break;
            }
        }
        true
    }

    fn serve(&mut self, member: &Arc<Member>) {
        let mut nothing = 0;
        while self.is_current(member) {
            match member.consumer().poll(Duration::ZERO) {
                Some(Ok(_)) => {
                    self.input(Input::PositionInvalid { why: "a partition's records were not led to their queue" })
                }
                Some(Err(error)) => self.trouble(&error),
                // It may have served an event instead of finding nothing.
                None if nothing < 2 => nothing += 1,
                None => return,
            }
        }
    }

    fn is_current(&self, member: &Arc<Member>) -> bool {
        self.member.as_ref().is_some_and(|current| Arc::ptr_eq(current, member))
    }

    fn records(&mut self, member: &Arc<Member>, handful: Handful<'_>) {
        let mut now = self.clock.now();
        let mut spare = Vec::new();
        self.rewound.clear();
        for message in handful {
            if !self.is_current(member) {
                return;
            }
            if let Some((code, reason)) = message.error() {
                // The wrapper says it where the consumer is polled.
                member.consumer().context().error(KafkaError::Global(code), &reason);
                self.trouble(&KafkaError::MessageConsumption(code));
                now = self.clock.now();
                continue;
            }
            let Some(partition) = self.partition(message.topic(), message.partition()) else { continue };
            // What follows in this handful was taken before its partition was set back.
            if self.rewound.contains(&partition) {
                continue;
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
            self.record(now, record);
            spare = emptied(headers);
        }
    }

    fn record(&mut self, now: Millis, record: Record<'_>) {
        let before = self.core.counters();
        self.input_at(now, Input::Record(record));
        let after = self.core.counters();
        // One more, and not what loading has found: that is counted in sum when the partition goes live.
        if after.planned == before.planned + 1 && record.value.is_some() {
            self.observer.planned(&record, &self.topics);
        } else if after.deleted == before.deleted + 1 {
            self.observer.deleted(&record, &self.topics);
        }
    }

    fn trouble(&mut self, error: &KafkaError) {
        let code = error.rdkafka_error_code();
        let fatal = matches!(error, KafkaError::MessageConsumptionFatal(_));
        if fatal || code == Some(Code::AutoOffsetReset) {
            tracing::warn!(%error, "the consumer cannot go on; the group is joined anew");
            return self.input(Input::PositionInvalid { why: "consumer error" });
        }
        // Its context has said what there is to say.
        tracing::debug!(%error, "consumer error");
    }

    pub(super) fn partition(&self, topic: &[u8], number: i32) -> Option<TopicPartition> {
        let topic = self.topics.iter().position(|name| name.as_bytes() == topic)?;
        Some(TopicPartition { topic: topic as u16, number })
    }

    pub(super) fn seek(&mut self, partition: TopicPartition) {
        let Some(member) = &self.member else { return };
        self.rewound.push(partition);
        let topic = &self.topics[usize::from(partition.topic)];
        if let Err(error) = member.consumer().seek(topic, partition.number, Offset::Beginning, Duration::ZERO) {
            tracing::warn!(%error, topic, partition = partition.number, "the partition cannot be read again");
            self.input(Input::PositionInvalid { why: "seek failed" });
        }
    }
}

/// The same room for headers of another record.
fn emptied<'a>(mut headers: Vec<Header<'_>>) -> Vec<Header<'a>> {
    headers.clear();
    // Nothing is mapped: this only changes what may be borrowed, and the standard library keeps the allocation.
    headers.into_iter().map(|_| Header { name: &[], value: None }).collect()
}
