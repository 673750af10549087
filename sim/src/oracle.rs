//! Checks every promise against a [`History`] alone: the brokers' logs, the users' records, and the records that each
//! instance has read.

mod converged;
mod fenced;
mod journal;
mod leftovers;
mod occurrences;
mod protocol;
mod races;
mod recovery;
mod watch;

pub use converged::{converged, fires_on_time, served};
pub use journal::{Fired, safe};
pub use recovery::recovered;

use kafka_scheduler::core::origin::ORIGIN_HEADER;

use crate::failure::Failure;
use crate::history::{Entry, History, Holding};
use crate::kafka::log::Stored;
use races::Races;
use watch::Watch;

/// How often the instances' pending schedules are compared with the records that they have read.
const COMPARE_INTERVAL_MS: i64 = 500;

/// Judges a run entry by entry.
#[derive(Debug)]
pub struct Oracle {
    watch: Watch,
    races: Races,
    compared_ms: i64,
}

impl Oracle {
    /// Creates the oracle of a run.
    #[must_use]
    pub fn new(history: &History) -> Self {
        Self { watch: Watch::default(), races: Races::default(), compared_ms: history.start_ms }
    }

    /// Judges an entry of the history.
    ///
    /// # Errors
    /// The promise that it breaks.
    pub fn follow(&mut self, history: &History, entry: Entry) -> Result<(), Failure> {
        match entry {
            Entry::Forgot { instance, partition: None } => self.watch.forget(instance),
            Entry::Forgot { instance, partition: Some(partition) } => self.watch.forget_partition(instance, partition),
            Entry::SnapshotBegan { instance, partition, snapshot } => self.watch.save(instance, partition, snapshot),
            Entry::Restored { instance, partition, snapshot } => self.watch.restore(instance, partition, snapshot),
            Entry::Read { instance, partition, offset } => self.watch.read(history, instance, (partition, offset)),
            Entry::Decided(decision) => {
                let broken = |what| Failure::Safety(format!("i{}: {what}", decision.instance));
                protocol::check(history, &decision).map_err(|what| broken(format!("{what}: {:?}", decision.batch)))?;
                self.watch.decide(history, &decision).map_err(broken)?;
                self.races.decide(history, &decision);
            }
            Entry::OffsetsSent { instance, batch, member, partitions } => {
                fenced::owned(history, &member, &partitions)
                    .map_err(|what| Failure::Safety(format!("i{instance} {what} in batch {batch}")))?;
            }
            Entry::Committed { instance, batch } => self.races.commit(instance, batch).map_err(Failure::Safety)?,
            Entry::Aborted { instance, batch } => self.watch.abort(instance, batch),
            Entry::ThroughputIsLimit { instance } => self.watch.limit_throughput(instance),
            // A loaded partition is compared at once, before users write more.
            Entry::WentLive => self.compared_ms = i64::MIN,
            Entry::Violation(what) => return Err(Failure::Safety(what)),
        }
        Ok(())
    }

    /// Returns whether it is time for [`Oracle::folds`] again, and if so, starts the next interval.
    pub fn is_comparison_due(&mut self, now_ms: i64) -> bool {
        let due = now_ms >= self.compared_ms.saturating_add(COMPARE_INTERVAL_MS);
        if due {
            self.compared_ms = now_ms;
        }
        due
    }

    /// Checks that every instance holds what it has read, no more and no less.
    ///
    /// # Errors
    /// The first difference.
    pub fn folds(&self, history: &History, holdings: &[Holding]) -> Result<(), Failure> {
        holdings.iter().try_for_each(|holding| self.watch.folds(history, holding)).map_err(Failure::Safety)
    }

    /// Returns how many firings were raced by a newer record, and the longest time that such a record was readable
    /// before the firing was decided, in ms.
    #[must_use]
    pub fn raced(&self) -> (u64, i64) {
        self.races.total()
    }
}

fn header<'a>(stored: &'a Stored, name: &[u8]) -> Option<&'a [u8]> {
    stored.headers.iter().find(|(n, _)| n == name)?.1.as_deref()
}

/// Returns the offset of the user record that an engine record names.
fn named(stored: &Stored) -> Option<i64> {
    let bytes = header(stored, ORIGIN_HEADER)?.get(9..17)?;
    Some(i64::from_be_bytes(bytes.try_into().ok()?))
}
