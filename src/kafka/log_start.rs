//! Where the logs of schedules partitions begin. Deleted records end no schedule that was read before: no client is told.

use std::collections::BTreeMap;

use rdkafka::consumer::{BaseConsumer, Consumer};

use super::native;
use super::voice::Asking;
use super::worker::{Found, REQUEST_MAX, Worker};

/// What was seen so far: the first offset of each partition.
#[derive(Debug, Default)]
pub struct LogStarts(BTreeMap<(String, i32), i64>);

impl LogStarts {
    /// Tells the loop of every partition, given with its topic, that begins later than at the last look.
    pub fn look(&mut self, worker: &Worker, client: &BaseConsumer<Asking>, partitions: &[(&str, i32)]) {
        let found = native::log_starts(client.client(), partitions, REQUEST_MAX).unwrap_or_else(|error| {
            tracing::debug!(?error, "where the logs begin is not known");
            Vec::new()
        });
        for (topic, number, start) in found {
            let before = self.0.insert((topic.clone(), number), start);
            if before.is_some_and(|before| before < start) {
                worker.tell(Found::Trimmed { topic, number, start });
            }
        }
    }
}
