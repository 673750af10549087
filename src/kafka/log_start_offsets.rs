//! Watches the log start offsets of schedules partitions: clients do not notice when records are deleted.

use std::collections::BTreeMap;

use rdkafka::consumer::Consumer;

use super::clients::QueryConsumer;
use super::ffi;
use super::worker::{JOB_REQUEST_TIMEOUT, Worker, WorkerResult};

/// The last known log start offset of each partition.
#[derive(Debug, Default)]
pub(super) struct LogStartOffsets(BTreeMap<(String, i32), i64>);

impl LogStartOffsets {
    pub(super) fn known(&self) -> &BTreeMap<(String, i32), i64> {
        &self.0
    }

    /// Reports each of these partitions whose log starts later than at the last check to the loop.
    pub(super) fn check(&mut self, worker: &Worker, client: &QueryConsumer, partitions: &[(&str, i32)]) {
        let found =
            ffi::admin::log_start_offsets(client.client(), partitions, JOB_REQUEST_TIMEOUT).unwrap_or_else(|error| {
                tracing::debug!(?error, "log start offsets cannot be listed");
                Vec::new()
            });
        for (topic, number, start) in found {
            let before = self.0.insert((topic.clone(), number), start);
            if before.is_some_and(|before| before < start) {
                worker.send(WorkerResult::Trimmed { topic, number, start });
            }
        }
    }
}
