//! How transactions end, as the core is told.

use kafka_scheduler::core::io::{Abort, Input, Late, Outcome, Partition};
use kafka_scheduler::core::reason::Reason;

use super::World;
use crate::history::Entry;

/// A transaction's end.
#[derive(Clone, Debug)]
pub(super) enum Ending {
    /// Committed, with the highest offset in each schedules partition.
    Committed(Vec<(Partition, i64)>),
    /// Aborted, nobody's fault.
    Retry,
    /// Aborted, because records were not acknowledged in time.
    TimedOut { delivered: u64, sent: u64 },
    /// The group refused this generation.
    Refused(i32),
    /// Delivery reports name these items.
    Rejected(Vec<(u32, Reason)>),
    /// Nobody can say.
    Unknown,
}

impl World {
    pub(super) fn settle(&mut self, number: usize, batch: u64, ending: &Ending) {
        let Some(job) = self.instances[number].transactors.finish(batch) else { return };
        self.trace(|| format!("i{number}     batch {batch}: {ending:?}"));
        // A batch of a former incarnation holds nothing that is read now.
        let current = job.incarnation == self.instances[number].transactors.incarnation;
        if current && !matches!(ending, Ending::Committed(_)) {
            self.history.add(Entry::Aborted { instance: number, batch });
        }
        let outcome = match ending {
            Ending::Committed(written) => Outcome::Committed { written },
            Ending::Retry => Outcome::Aborted(Abort::Retry),
            Ending::TimedOut { delivered: 0, .. } => Outcome::Aborted(Abort::TimedOut(Late::Silent)),
            Ending::TimedOut { delivered, sent } => {
                Outcome::Aborted(Abort::TimedOut(Late::Taking { delivered: *delivered, sent: *sent }))
            }
            Ending::Refused(generation) => Outcome::Aborted(Abort::Refused { generation: *generation }),
            Ending::Rejected(items) => Outcome::Aborted(Abort::Rejected(items)),
            Ending::Unknown => Outcome::Unknown,
        };
        self.tell(number, Input::Settled { batch, outcome });
        self.wake_jobs(number);
    }
}
