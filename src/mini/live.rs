//! Signals when all partitions are live.

use std::collections::BTreeSet;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::core::io::{Report, TopicPartition};
use crate::handle::Observer;

/// Sends once, when all partitions fire.
pub(super) struct AllLive {
    missing: usize,
    seen: BTreeSet<TopicPartition>,
    up: Sender<()>,
}

impl AllLive {
    /// Waits for this number of partitions.
    pub(super) fn new(partitions: usize) -> (Self, Receiver<()>) {
        let (up, waiting) = bounded(1);
        (Self { missing: partitions, seen: BTreeSet::new(), up }, waiting)
    }
}

impl Observer for AllLive {
    fn report(&mut self, report: &Report, _: &[String]) {
        let Report::Live { partition, .. } = report else { return };
        if self.seen.insert(*partition) && self.seen.len() == self.missing {
            // The receiver may have timed out.
            let _ = self.up.try_send(());
        }
    }
}
