//! The messages between the loop and its transactors.

use std::time::Duration;

use crossbeam_channel::Sender;
use rdkafka::consumer::ConsumerGroupMetadata;

use crate::core::batch::Batch;
use crate::core::io::Outcome;
use crate::handle::Wake;

/// Time limit of one blocking call: between two of them a thread notices that it is to end.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(1);

/// A batch to run as a transaction.
#[derive(Debug)]
pub(super) struct Job {
    pub batch: Batch,
    /// The consumer's membership when the batch was formed, if it had any.
    pub membership: Option<Membership>,
}

/// The group metadata, and the generation and member id that it carries.
pub(super) struct Membership {
    pub metadata: ConsumerGroupMetadata,
    pub generation: i32,
    pub member: Vec<u8>,
}

impl std::fmt::Debug for Membership {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Membership").field("generation", &self.generation).finish_non_exhaustive()
    }
}

/// A batch that has ended.
#[derive(Debug)]
pub(super) struct Done {
    pub batch: Batch,
    pub outcome: Outcome,
}

/// Sends ended batches to the loop.
#[derive(Clone)]
pub(super) struct Results {
    pub sender: Sender<Done>,
    /// Wakes the loop.
    pub wake: Wake,
}

impl Results {
    pub(super) fn send(&self, done: Done) {
        // The loop is gone only when the engine has ended.
        let _ = self.sender.send(done);
        (self.wake)();
    }
}
