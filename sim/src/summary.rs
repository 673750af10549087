//! Counts of a run that kept every promise.

use crate::faults::Coverage;

/// Counts of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Operations of the scenario.
    pub ops: u64,
    /// Events of the virtual clock.
    pub events: u64,
    /// User records produced.
    pub produced: u64,
    /// Target records that a read_committed consumer sees.
    pub fired: u64,
    /// Records that were rewritten.
    pub rewritten: u64,
    /// Records that went to the dead-letter topic.
    pub dead_letters: u64,
    /// Schedules that fired although a newer record was acknowledged, which their owner had not read yet.
    pub raced: u64,
    /// The longest time that such a record was readable before the firing was decided, in ms.
    pub raced_ms_max: i64,
    /// Hits of each fault in each phase.
    pub coverage: Coverage,
}

impl Summary {
    /// Adds another run.
    pub fn add(&mut self, other: &Self) {
        self.ops += other.ops;
        self.events += other.events;
        self.produced += other.produced;
        self.fired += other.fired;
        self.dead_letters += other.dead_letters;
        self.rewritten += other.rewritten;
        self.raced += other.raced;
        self.raced_ms_max = self.raced_ms_max.max(other.raced_ms_max);
        self.coverage.add(&other.coverage);
    }
}
