//! Where the logs of schedules partitions begin. Deleted records end no schedule that was read before: no client is told.

use std::collections::BTreeMap;

use rdkafka::consumer::{BaseConsumer, Consumer};

use super::diagnostics::QueryContext;
use super::ffi;
use super::worker::{REQUEST_MAX, Worker, WorkerResult};

/// What was seen so far: the first offset of each partition.
#[derive(Debug, Default)]
pub struct LogStartOffsets(BTreeMap<(String, i32), i64>);

impl LogStartOffsets {
    /// Tells the loop of every partition, given with its topic, that begins later than at the last look.
    pub fn look(&mut self, worker: &Worker, client: &BaseConsumer<QueryContext>, partitions: &[(&str, i32)]) {
        let found = ffi::log_starts(client.client(), partitions, REQUEST_MAX).unwrap_or_else(|error| {
            tracing::debug!(?error, "where the logs begin is not known");
            Vec::new()
        });
        for (topic, number, start) in found {
            let before = self.0.insert((topic.clone(), number), start);
            if before.is_some_and(|before| before < start) {
                worker.tell(WorkerResult::Trimmed { topic, number, start });
            }
        }
    }
}
