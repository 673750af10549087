//! Reads one partition up to an end offset that was fixed before the first read.
//!
//! librdkafka reports the end of a partition only after an empty fetch, which a partition with constant writes may
//! never return. So the end offset is read first, and the scan stops there.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};

/// Time limit of one poll: between two of them the caller can end the scan.
const POLL_TIMEOUT: Duration = Duration::from_millis(100);
/// After this long without a record, a second client continues, which reports how far it has fetched.
const FIRST_CLIENT_TIMEOUT: Duration = Duration::from_secs(2);
const STATISTICS_INTERVAL_MS: &str = "250";
/// The scan is complete after this many reports, since the last record, that everything was fetched and delivered.
const REPORTS_MIN: u32 = 2;

/// The offsets to read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScanRange<'a> {
    pub topic: &'a str,
    pub partition: i32,
    /// The log start offset.
    pub low: i64,
    /// The first offset that is read, or the beginning.
    pub from: Offset,
    /// The end offset, which is not read.
    pub end: i64,
}

/// The clients to read with, and when to stop early.
#[derive(Clone, Copy)]
pub(crate) struct Scanner<'a, C: ConsumerContext> {
    /// Loses its previous assignment.
    pub consumer: &'a BaseConsumer<C>,
    /// Its configuration, for a second one.
    pub config: &'a ClientConfig,
    /// How long the brokers may send no record.
    pub silence_timeout: Duration,
    /// Errors after which waiting is of no use.
    pub is_final: fn(Code) -> bool,
    /// Returns true if the result is no longer wanted.
    pub is_closing: &'a dyn Fn() -> bool,
}

/// Why a scan did not reach the end offset.
#[derive(Debug)]
pub(crate) enum ScanError<E> {
    /// The visitor returned this error.
    Visitor(E),
    /// A client failed.
    Client(KafkaError),
    /// The brokers sent no record for `silence_timeout`.
    Silence,
    /// The result is no longer wanted.
    Closing,
}

/// Returns whether waiting is of no use after this error.
pub(crate) const fn is_final(code: Code) -> bool {
    matches!(code, Code::TopicAuthorizationFailed | Code::UnknownTopicOrPartition | Code::AutoOffsetReset)
}

impl From<ScanError<Infallible>> for KafkaError {
    fn from(error: ScanError<Infallible>) -> Self {
        match error {
            ScanError::Client(error) => error,
            ScanError::Silence | ScanError::Closing => Self::NoMessageReceived,
        }
    }
}

/// Calls `visit` with each record of the range, in order. It must not use the consumer.
///
/// # Errors
/// If the end offset was not reached.
pub(crate) fn scan<C, E>(
    scanner: &Scanner<'_, C>,
    range: ScanRange<'_>,
    visit: &mut dyn FnMut(&BorrowedMessage<'_>) -> Result<(), E>,
) -> Result<(), ScanError<E>>
where
    C: ConsumerContext + Clone,
{
    if range.low >= range.end || matches!(range.from, Offset::Offset(from) if from >= range.end) {
        return Ok(());
    }
    let mut progress = Progress { from: range.from, last_record_at: Instant::now() };
    let first = read(
        scanner,
        scanner.consumer,
        range,
        &mut progress,
        FIRST_CLIENT_TIMEOUT.min(scanner.silence_timeout),
        None,
        visit,
    );
    if !matches!(first, Err(ScanError::Silence)) || scanner.silence_timeout <= FIRST_CLIENT_TIMEOUT {
        return first;
    }
    // Either the brokers are slow, or there is no record left before the end: transaction markers, records of aborted
    // transactions and compacted records have offsets and are never delivered. Statistics tell these two apart. They
    // are a new client's, since the first one's may show the fetch position of an earlier read.
    let mut config = scanner.config.clone();
    config.set("statistics.interval.ms", STATISTICS_INTERVAL_MS);
    let context = FetchReports {
        inner: scanner.consumer.context().as_ref().clone(),
        topic: range.topic.to_owned(),
        partition: range.partition,
        end: range.end,
        reports: AtomicU32::new(0),
    };
    let second: BaseConsumer<FetchReports<C>> = config.create_with_context(context).map_err(ScanError::Client)?;
    progress.last_record_at = Instant::now();
    read(scanner, &second, range, &mut progress, scanner.silence_timeout, Some(&second.context().reports), visit)
}

struct Progress {
    /// The next offset.
    from: Offset,
    last_record_at: Instant,
}

fn read<C, R, E>(
    scanner: &Scanner<'_, C>,
    consumer: &BaseConsumer<R>,
    range: ScanRange<'_>,
    progress: &mut Progress,
    silence_timeout: Duration,
    reports: Option<&AtomicU32>,
    visit: &mut dyn FnMut(&BorrowedMessage<'_>) -> Result<(), E>,
) -> Result<(), ScanError<E>>
where
    C: ConsumerContext,
    R: ConsumerContext,
{
    let mut list = TopicPartitionList::new();
    let assigned =
        list.add_partition_offset(range.topic, range.partition, progress.from).and_then(|()| consumer.assign(&list));
    assigned.map_err(ScanError::Client)?;
    let ended = loop {
        match consumer.poll(POLL_TIMEOUT) {
            Some(Ok(message)) => {
                let next = message.offset() + 1;
                progress.from = Offset::Offset(next);
                if message.offset() < range.end
                    && let Err(error) = visit(&message)
                {
                    break Err(ScanError::Visitor(error));
                }
                // After the visitor, which may be slow.
                progress.last_record_at = Instant::now();
                if let Some(reports) = reports {
                    reports.store(0, Ordering::Relaxed);
                }
                if next >= range.end {
                    break Ok(());
                }
            }
            // The partition has no further record to deliver.
            Some(Err(KafkaError::PartitionEOF(_))) => break Ok(()),
            Some(Err(error)) if error.rdkafka_error_code().is_some_and(scanner.is_final) => {
                break Err(ScanError::Client(error));
            }
            // A broker that is down for a moment. If it stays down, the silence ends the scan.
            Some(Err(error)) => {
                tracing::debug!(%error, topic = range.topic, partition = range.partition, "error while reading");
            }
            None if reports.is_some_and(|reports| reports.load(Ordering::Relaxed) >= REPORTS_MIN) => break Ok(()),
            None => {}
        }
        if (scanner.is_closing)() {
            break Err(ScanError::Closing);
        }
        if progress.last_record_at.elapsed() > silence_timeout {
            break Err(ScanError::Silence);
        }
    };
    // Otherwise it would fetch ahead. An error does not matter: the next read assigns anyway.
    let _ = consumer.unassign();
    ended
}

/// Counts the reports that everything before the end was fetched and delivered.
struct FetchReports<C> {
    inner: C,
    topic: String,
    partition: i32,
    end: i64,
    reports: AtomicU32,
}

impl<C: ConsumerContext> ClientContext for FetchReports<C> {
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

impl<C: ConsumerContext> ConsumerContext for FetchReports<C> {}

/// Returns whether a client has fetched and delivered everything before `end`. `next_offset` is negative before the
/// first fetch.
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
