//! Tells the core how its transactions ended.

use kafka_scheduler::core::io::{Abort, Input, Late, Outcome, TopicPartition};
use kafka_scheduler::core::reason::Reason;

use super::World;
use crate::history::Entry;

#[derive(Clone, Debug)]
pub(super) enum Ending {
    /// Committed, with the highest offset in each schedules partition.
    Committed(Vec<(TopicPartition, i64)>),
    /// Aborted for a transient reason.
    Retry,
    /// Aborted because records were not acknowledged in time, with bytes.
    TimedOut { delivered: u64, sent: u64 },
    /// Aborted because this generation is stale.
    StaleGeneration(i32),
    /// Aborted because brokers rejected these items.
    Rejected(Vec<(u32, Reason)>),
    /// The outcome is unknown.
    Unknown,
}

impl World {
    pub(super) fn settle(&mut self, number: usize, batch: u64, ending: &Ending) {
        let Some(job) = self.instances[number].transactors.finish(batch) else { return };
        self.trace(|| format!("i{number}     batch {batch}: {ending:?}"));
        // Partitions were read again since the batches of a former incarnation.
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
            Ending::StaleGeneration(generation) => Outcome::Aborted(Abort::StaleGeneration { generation: *generation }),
            Ending::Rejected(items) => Outcome::Aborted(Abort::Rejected(items)),
            Ending::Unknown => Outcome::Unknown,
        };
        self.feed(number, Input::BatchEnded { batch, outcome });
        self.wake_jobs(number);
    }
}
