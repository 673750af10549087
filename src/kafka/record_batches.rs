//! Keeps record batches within `max.message.bytes` of their topics.
//!
//! A broker rejects a record batch as a whole, valid records included, and librdkafka does not split it. After such a
//! rejection librdkafka has skipped sequence numbers, which makes the next transaction fail as well. So a record that
//! is too large is found before it is sent.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::core::batch::OutRecord;

/// librdkafka's default of `batch.size`.
pub(super) const BATCH_BYTES_DEFAULT: usize = 1_000_000;

/// Bytes that a record batch and a record take besides keys, values and headers, by Kafka's message format 2.
const BATCH_OVERHEAD_BYTES: usize = 61;
const RECORD_OVERHEAD_BYTES: std::ops::RangeInclusive<usize> = 7..=36;
const HEADER_OVERHEAD_BYTES: std::ops::RangeInclusive<usize> = 2..=10;

/// Minimum interval between two reads of a topic's limit because of records that are too large.
const REFRESH_INTERVAL: Duration = Duration::from_secs(10);

/// How long a topic's answer about this machine's clock counts.
const CLOCK_ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// What topics accept, shared between the threads.
#[derive(Debug, Default)]
pub(crate) struct TopicLimits {
    batch_bytes_max: Mutex<Arc<HashMap<String, usize>>>,
    /// When a topic's limit was last read because of a record that was too large.
    refreshed_at: Mutex<HashMap<String, Instant>>,
    /// Whether a topic rejected this machine's timestamps, and when that was found.
    rejects_clock: Mutex<HashMap<String, (Instant, bool)>>,
}

impl TopicLimits {
    /// Stores a topic's `max.message.bytes`. Returns true if it has changed.
    pub(crate) fn set_batch_bytes_max(&self, topic: &str, bytes_max: usize) -> bool {
        let mut limits = self.lock();
        let changed = limits.get(topic) != Some(&bytes_max);
        if changed {
            Arc::make_mut(&mut limits).insert(topic.to_owned(), bytes_max);
        }
        changed
    }

    /// Returns whether to read a topic's limit again, which may have been changed. The caller then reads it.
    pub(crate) fn may_refresh(&self, topic: &str) -> bool {
        let mut refreshed_at = self.refreshed_at.lock().unwrap_or_else(PoisonError::into_inner);
        let may = refreshed_at.get(topic).is_none_or(|at| at.elapsed() >= REFRESH_INTERVAL);
        if may {
            refreshed_at.insert(topic.to_owned(), Instant::now());
        }
        may
    }

    /// Returns whether a topic rejects the timestamps of this machine's clock, if that was found a moment ago.
    pub(crate) fn rejects_clock(&self, topic: &str) -> Option<bool> {
        let answers = self.rejects_clock.lock().unwrap_or_else(PoisonError::into_inner);
        answers.get(topic).filter(|(at, _)| at.elapsed() < CLOCK_ANSWER_TIMEOUT).map(|(_, rejects)| *rejects)
    }

    pub(crate) fn set_rejects_clock(&self, topic: &str, rejects: bool) {
        let mut answers = self.rejects_clock.lock().unwrap_or_else(PoisonError::into_inner);
        answers.retain(|_, (at, _)| at.elapsed() < CLOCK_ANSWER_TIMEOUT);
        answers.insert(topic.to_owned(), (Instant::now(), rejects));
    }

    /// Starts the record batches of one transaction.
    pub(crate) fn record_batches(&self) -> RecordBatches {
        RecordBatches { bytes_max: Arc::clone(&self.lock()), bytes: HashMap::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Arc<HashMap<String, usize>>> {
        self.batch_bytes_max.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The record batch that a record fits into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    /// The batch that is being filled, or the first one.
    Current,
    /// A new batch: produced records must be delivered first.
    NewBatch,
    /// None, unless it is compressed.
    TooLarge,
}

/// The record batches that are being filled, by topic.
#[derive(Debug)]
pub(crate) struct RecordBatches {
    bytes_max: Arc<HashMap<String, usize>>,
    bytes: HashMap<String, usize>,
}

impl RecordBatches {
    pub(crate) fn add(&mut self, record: &OutRecord<'_>) -> Fit {
        let Some(bytes_max) = self.bytes_max.get(record.topic) else { return Fit::Current };
        let length = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
        let headers: usize = record.headers.iter().map(|h| h.name.len() + length(h.value)).sum();
        let payload = length(record.key) + length(record.value) + headers;
        let size =
            |record_bytes: usize, header_bytes: usize| payload + record_bytes + header_bytes * record.headers.len();
        if BATCH_OVERHEAD_BYTES + size(*RECORD_OVERHEAD_BYTES.start(), *HEADER_OVERHEAD_BYTES.start()) > *bytes_max {
            // If it is sent all the same, no other record joins it.
            self.bytes.insert(record.topic.to_owned(), *bytes_max);
            return Fit::TooLarge;
        }
        if *bytes_max >= BATCH_BYTES_DEFAULT {
            return Fit::Current;
        }
        let size_max = size(*RECORD_OVERHEAD_BYTES.end(), *HEADER_OVERHEAD_BYTES.end());
        match self.bytes.get_mut(record.topic) {
            Some(bytes) if *bytes + size_max <= *bytes_max => {
                *bytes += size_max;
                Fit::Current
            }
            started => {
                let fit = if started.is_some() { Fit::NewBatch } else { Fit::Current };
                if started.is_some() {
                    self.bytes.clear();
                }
                self.bytes.insert(record.topic.to_owned(), BATCH_OVERHEAD_BYTES + size_max);
                fit
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_for_a_small_topic_stay_small() {
        let limits = TopicLimits::default();
        limits.set_batch_bytes_max("small", 1_000);
        limits.set_batch_bytes_max("large", 10_000_000);
        let mut batches = limits.record_batches();
        let mut add = |topic: &str, bytes: usize| {
            let value = vec![0; bytes];
            batches.add(&OutRecord { item: 0, topic, partition: None, key: None, value: Some(&value), headers: &[] })
        };
        assert_eq!((add("small", 300), add("small", 300)), (Fit::Current, Fit::Current));
        assert_eq!((add("large", 900_000), add("large", 900_000)), (Fit::Current, Fit::Current));
        assert_eq!(add("small", 300), Fit::NewBatch, "a third would not fit");
        assert_eq!(add("small", 300), Fit::Current, "into the batch that it started");
        assert_eq!(add("small", 932), Fit::NewBatch, "the largest that may fit");
        assert_eq!(add("small", 933), Fit::TooLarge);
        assert_eq!(
            add("small", 1),
            Fit::NewBatch,
            "not into the batch of one that is too large unless it is compressed"
        );
        assert_eq!(add("large", 10_000_000), Fit::TooLarge);
        assert_eq!(add("unknown", 10_000_000), Fit::Current, "the broker decides");
    }

    #[test]
    fn a_limit_is_refreshed_once_in_an_interval() {
        let limits = TopicLimits::default();
        assert!(
            limits.set_batch_bytes_max("t", 1_000)
                && !limits.set_batch_bytes_max("t", 1_000)
                && limits.set_batch_bytes_max("t", 500)
        );
        assert!(limits.may_refresh("t") && !limits.may_refresh("t") && limits.may_refresh("u"));
    }
}
