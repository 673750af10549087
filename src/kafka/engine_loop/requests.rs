//! The loop's requests to other threads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::core::io::TopicPartition;
use crate::handle::Wake;
use crate::kafka::clients::Clients;
use crate::kafka::worker::{Worker, WorkerResult};

/// The requests in flight.
pub(super) struct Requests {
    pub worker: Worker,
    pub results: Receiver<WorkerResult>,
    /// To the thread that looks up target topics.
    pub targets: Sender<(u32, Arc<str>)>,
    /// The number of the read of committed offsets that each partition waits for: other results are stale.
    pub reads: BTreeMap<TopicPartition, u64>,
    last_read: u64,
}

impl Requests {
    pub(super) fn new(clients: &Arc<Clients>, topics: &Arc<Vec<String>>, cluster_id: &str, wake: &Wake) -> Self {
        let (sender, results) = unbounded();
        let worker = Worker {
            clients: Arc::clone(clients),
            topics: Arc::clone(topics),
            cluster_id: cluster_id.into(),
            results: sender,
            wake: Arc::clone(wake),
            rebalances: Arc::new(AtomicU64::new(0)),
            closing: Arc::new(AtomicBool::new(false)),
        };
        let targets = worker.start_target_lookup();
        Self { worker, results, targets, reads: BTreeMap::new(), last_read: 0 }
    }

    pub(super) fn read_committed(&mut self, partitions: Vec<TopicPartition>) {
        self.last_read += 1;
        self.reads.extend(partitions.iter().map(|partition| (*partition, self.last_read)));
        self.worker.read_committed(self.last_read, partitions);
    }

    /// Returns whether the partition waits for this read.
    pub(super) fn is_current(&self, read: u64, partition: TopicPartition) -> bool {
        self.reads.get(&partition) == Some(&read)
    }
}
