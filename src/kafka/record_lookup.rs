//! Reads single records, outside of the group.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use rdkafka::Offset;
use rdkafka::error::{KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::message::Message;

use super::clients::{Clients, QueryConsumer};
use super::partition_scan::{ScanError, ScanRange, Scanner, is_final, scan};

/// Returns the key of the record at an offset; `None` if there is no record at exactly this offset, or it has no key.
///
/// # Errors
/// If the brokers reject the request, or do not answer in time. Then it is unknown whether the record is there.
pub(crate) fn key_at(
    clients: &Clients,
    topic: &str,
    partition: i32,
    offset: i64,
    timeout: Duration,
) -> KafkaResult<Option<Vec<u8>>> {
    if offset < 0 {
        return Ok(None);
    }
    let deadline = Instant::now() + timeout;
    let config = clients.configs.record_consumer();
    let reader: QueryConsumer = config.create_with_context(clients.query_context())?;
    let scanner = Scanner {
        consumer: &reader,
        config: &config,
        silence_timeout: timeout,
        is_final,
        is_closing: &|| Instant::now() >= deadline,
    };
    // If the record is missing, the scan ends with the one after it, or at the end of the partition.
    let range = ScanRange { topic, partition, low: offset, from: Offset::Offset(offset), end: offset + 1 };
    let mut key = None;
    let scanned = scan(&scanner, range, &mut |message| {
        key = message.key().map(<[u8]>::to_vec);
        Ok::<(), Infallible>(())
    });
    match scanned {
        Ok(()) => Ok(key),
        // The offset is before the log start offset, or after the end.
        Err(ScanError::Client(error)) if error.rdkafka_error_code() == Some(Code::AutoOffsetReset) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
