//! Reads one partition up to an end that was fixed before the first record was read.
//!
//! librdkafka reports the end of a partition only after an empty fetch. A partition that is written to all the time may
//! never give one, so the end is asked for first, and reading stops there.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};

/// How long one poll may take: between two of them the caller can end the scan.
const POLL: Duration = Duration::from_millis(100);
/// After this long without a record a second client goes on, which reports how far it has fetched.
const HANDOVER: Duration = Duration::from_secs(2);
/// Between two of these reports.
const REPORT_MS: &str = "250";
/// A client has reported this often, since the last record was delivered, that it has fetched everything and that nothing
/// waits to be delivered.
const REPORTS_MIN: u32 = 2;

/// What is read.
#[derive(Clone, Copy, Debug)]
pub struct Span<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The partition.
    pub partition: i32,
    /// The first offset that there is.
    pub low: i64,
    /// The first offset that is read, or the beginning.
    pub from: Offset,
    /// The end offset: the first one that is not read.
    pub end: i64,
}

/// How it is read.
#[derive(Clone, Copy)]
pub struct Means<'a, C: ConsumerContext> {
    /// Reads. What it was reading before is forgotten.
    pub consumer: &'a BaseConsumer<C>,
    /// Its settings, for a second one.
    pub settings: &'a ClientConfig,
    /// How long the brokers may go without sending a record.
    pub silence_max: Duration,
    /// Errors after which it is no use to wait.
    pub is_final: fn(Code) -> bool,
    /// True when the result is not wanted any more.
    pub is_closing: &'a dyn Fn() -> bool,
}

/// Why a scan did not reach the end.
#[derive(Debug)]
pub enum Stop<E> {
    /// The visitor returned this error.
    Visitor(E),
    /// A client failed.
    Client(KafkaError),
    /// The brokers sent no record for `silence_max`.
    Silence,
    /// The result is not wanted any more.
    Closing,
}

/// Shows each record of the span, in order. The visitor must not use the consumer.
///
/// # Errors
/// When the end was not reached.
pub fn scan<C, E>(
    means: &Means<'_, C>,
    span: Span<'_>,
    visit: &mut dyn FnMut(&BorrowedMessage<'_>) -> Result<(), E>,
) -> Result<(), Stop<E>>
where
    C: ConsumerContext + Clone,
{
    if span.low >= span.end || matches!(span.from, Offset::Offset(from) if from >= span.end) {
        return Ok(());
    }
    let mut at = At { from: span.from, heard: Instant::now() };
    let first = read(means, means.consumer, span, &mut at, HANDOVER.min(means.silence_max), None, visit);
    if !matches!(first, Err(Stop::Silence)) || means.silence_max <= HANDOVER {
        return first;
    }
    // Either the brokers are slow, or there is no record left before the end: transaction markers, records of aborted
    // transactions and compacted records take offsets and are never delivered. Statistics tell these two apart. A new
    // client has no fetch position of an earlier read that they could show.
    let mut settings = means.settings.clone();
    settings.set("statistics.interval.ms", REPORT_MS);
    let context = Reporting {
        inner: means.consumer.context().as_ref().clone(),
        topic: span.topic.to_owned(),
        partition: span.partition,
        end: span.end,
        reports: AtomicU32::new(0),
    };
    let second: BaseConsumer<Reporting<C>> = settings.create_with_context(context).map_err(Stop::Client)?;
    at.heard = Instant::now();
    read(means, &second, span, &mut at, means.silence_max, Some(&second.context().reports), visit)
}

/// How far a scan has come.
struct At {
    /// The next offset.
    from: Offset,
    /// When the last record came.
    heard: Instant,
}

fn read<C, R, E>(
    means: &Means<'_, C>,
    consumer: &BaseConsumer<R>,
    span: Span<'_>,
    at: &mut At,
    silence_max: Duration,
    reports: Option<&AtomicU32>,
    visit: &mut dyn FnMut(&BorrowedMessage<'_>) -> Result<(), E>,
) -> Result<(), Stop<E>>
where
    C: ConsumerContext,
    R: ConsumerContext,
{
    let mut list = TopicPartitionList::new();
    let assigned = list.add_partition_offset(span.topic, span.partition, at.from).and_then(|()| consumer.assign(&list));
    assigned.map_err(Stop::Client)?;
    let ended = loop {
        match consumer.poll(POLL) {
            Some(Ok(message)) => {
                let next = message.offset() + 1;
                at.from = Offset::Offset(next);
                if message.offset() < span.end
                    && let Err(error) = visit(&message)
                {
                    break Err(Stop::Visitor(error));
                }
                // After the visitor, which may take its time.
                at.heard = Instant::now();
                if let Some(reports) = reports {
                    reports.store(0, Ordering::Relaxed);
                }
                if next >= span.end {
                    break Ok(());
                }
            }
            // The partition holds nothing more that could be delivered.
            Some(Err(KafkaError::PartitionEOF(_))) => break Ok(()),
            Some(Err(error)) if error.rdkafka_error_code().is_some_and(means.is_final) => {
                break Err(Stop::Client(error));
            }
            // A broker that is away for a moment: silence ends the scan if it stays away.
            Some(Err(error)) => {
                tracing::debug!(%error, topic = span.topic, partition = span.partition, "while reading")
            }
            None if reports.is_some_and(|reports| reports.load(Ordering::Relaxed) >= REPORTS_MIN) => break Ok(()),
            None => {}
        }
        if (means.is_closing)() {
            break Err(Stop::Closing);
        }
        if at.heard.elapsed() > silence_max {
            break Err(Stop::Silence);
        }
    };
    // It fetches ahead otherwise. An error leaves it as it is: the next read assigns anyway.
    let _ = consumer.unassign();
    ended
}

/// Counts the reports in which everything before the end has been fetched.
struct Reporting<C> {
    inner: C,
    topic: String,
    partition: i32,
    end: i64,
    reports: AtomicU32,
}

impl<C: ConsumerContext> ClientContext for Reporting<C> {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.inner.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.inner.error(error, reason);
    }

    fn stats_raw(&self, json: &[u8]) {
        if has_fetched(json, &self.topic, self.partition, self.end).unwrap_or(false) {
            self.reports.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl<C: ConsumerContext> ConsumerContext for Reporting<C> {}

/// Whether a client has fetched everything before `end`, and has delivered it. `next_offset` is negative before the first
/// fetch.
fn has_fetched(json: &[u8], topic: &str, partition: i32, end: i64) -> Option<bool> {
    let statistics: serde_json::Value = serde_json::from_slice(json).ok()?;
    let partition = statistics.get("topics")?.get(topic)?.get("partitions")?.get(partition.to_string())?;
    let number = |name: &str| partition.get(name)?.as_i64();
    Some(number("next_offset")? >= end && number("fetchq_cnt")? == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_tell_how_far_a_client_has_fetched() {
        let json = br#"{"topics":{"a.b":{"partitions":{"-1":{"next_offset":9},
            "3":{"next_offset":-1001,"fetchq_cnt":0},"5":{"next_offset":9,"fetchq_cnt":0},
            "6":{"next_offset":9,"fetchq_cnt":2}}}}}"#;
        assert_eq!(has_fetched(json, "a.b", 3, 9), Some(false), "nothing was fetched yet");
        assert_eq!((has_fetched(json, "a.b", 5, 9), has_fetched(json, "a.b", 5, 10)), (Some(true), Some(false)));
        assert_eq!(has_fetched(json, "a.b", 6, 9), Some(false), "records wait to be delivered");
        assert_eq!(has_fetched(json, "a.b", 4, 9), None);
        assert_eq!(has_fetched(json, "c", 3, 9), None);
        assert_eq!(has_fetched(b"{", "a.b", 3, 9), None);
    }
}
