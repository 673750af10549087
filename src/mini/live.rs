//! Knowing when an engine has come up.

use std::collections::BTreeSet;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::core::io::{TopicPartition, Report};
use crate::handle::Observer;

/// Says once that all partitions fire.
pub struct Live {
    missing: usize,
    seen: BTreeSet<TopicPartition>,
    up: Sender<()>,
}

impl Live {
    /// Waits for so many partitions.
    pub fn new(partitions: usize) -> (Self, Receiver<()>) {
        let (up, waiting) = bounded(1);
        (Self { missing: partitions, seen: BTreeSet::new(), up }, waiting)
    }
}

impl Observer for Live {
    fn report(&mut self, report: &Report, _: &[String]) {
        let Report::Live { partition, .. } = report else { return };
        if self.seen.insert(*partition) && self.seen.len() == self.missing {
            // Whoever waited may have given up.
            let _ = self.up.try_send(());
        }
    }
}
