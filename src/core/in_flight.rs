//! Batches that the shell has received and that have not settled, and the back-off of each purpose.

use std::collections::VecDeque;

use super::key_table::Committed;
use super::progress::Repair;
use super::throughput::Throughput;
use super::types::{Millis, TopicPartition};

/// Back-off after the first abort in a row; it doubles up to [`BATCH_BACKOFF_MS_MAX`].
const BATCH_BACKOFF_MS_MIN: i64 = 50;
const BATCH_BACKOFF_MS_MAX: i64 = 3_200;

/// The purpose of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Commits barriers, which make us the owner.
    Barrier,
    /// Commits start markers.
    StartMarker,
    /// Commits canaries.
    Canary,
    /// Commits that partitions are given back clean.
    CleanCommit,
    /// Commits offsets alone: progress while nothing fires, and that we have tried to fence former owners.
    CommitOffsets,
    /// Fires schedules, rewrites overtaken records, or moves records to the dead-letter topic.
    Entries(Lane),
}

impl Purpose {
    pub(super) const COUNT: usize = 5 + Lane::ALL.len();

    fn index(self) -> usize {
        match self {
            Self::Barrier => 0,
            Self::StartMarker => 1,
            Self::CleanCommit => 2,
            Self::CommitOffsets => 3,
            Self::Canary => 4,
            Self::Entries(lane) => 5 + lane as usize,
        }
    }
}

/// A class of entries that share batches. Each lane has batches and a back-off of its own, so it hardly delays the
/// others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// Due schedules that are not isolated, and rewrites.
    Normal,
    /// Schedules with more than 1 KiB of payload, while *throughput is the limit*: brokers take records more slowly
    /// than schedules are due (see `throughput`). Otherwise they are in the normal lane.
    Large,
    /// *Isolated* schedules: rejected for no known cause ([`Reason::Rejected`](super::reason::Reason::Rejected)), or
    /// members of a rejected batch whose rejected record was not found in time.
    Isolated,
    /// Records that move to the dead-letter topic.
    DeadLetters,
}

impl Lane {
    pub(super) const ALL: [Self; 4] = [Self::Normal, Self::Large, Self::Isolated, Self::DeadLetters];

    /// Returns whether it has no isolated entries or dead letters.
    pub(super) fn fires_in_due_order(self) -> bool {
        matches!(self, Self::Normal | Self::Large)
    }
}

/// The back-off of the batches of one purpose.
#[derive(Clone, Copy, Debug)]
struct Backoff {
    until: Millis,
    /// Aborts in a row.
    aborts: u32,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { until: Millis(i64::MIN), aborts: 0 }
    }
}

/// An entry of a key table that a batch writes records for.
#[derive(Clone, Copy, Debug)]
pub(super) struct BatchEntry {
    pub(super) partition: TopicPartition,
    pub(super) slot: u32,
    pub(super) origin_offset: i64,
    /// What the batch means for the key once it is committed.
    pub(super) written: Committed,
    /// Number of the target or dead-letter topic; `None` if the batch writes only to the schedules topic.
    pub(super) target: Option<u32>,
    pub(super) is_dead_letter: bool,
    /// It is too late to fire.
    pub(super) has_expired: bool,
    /// Missed occurrences that the batch skips.
    pub(super) skipped: u64,
    /// Slot of the key's progress record, if it has one, and the repair of it that the batch writes.
    pub(super) progress: Option<(u32, Option<Repair>)>,
}

impl BatchEntry {
    /// The slot of an entry that repairs a progress record alone.
    pub(super) const NO_SLOT: u32 = u32::MAX;

    /// Returns an entry that is no dead letter, is in time, skips nothing, and writes no progress record.
    pub(super) fn new(partition: TopicPartition, slot: u32, origin_offset: i64, written: Committed) -> Self {
        Self {
            partition,
            slot,
            origin_offset,
            written,
            target: None,
            is_dead_letter: false,
            has_expired: false,
            skipped: 0,
            progress: None,
        }
    }

    /// Returns whether it rewrites an overtaken record.
    pub(super) fn is_rewrite(&self) -> bool {
        self.target.is_none() && self.written == Committed::Nothing
    }
}

/// A batch that has not settled.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) id: u64,
    pub(super) purpose: Purpose,
    pub(super) entries: Vec<BatchEntry>,
    pub(super) offsets: Vec<(TopicPartition, i64)>,
    pub(super) missed: u64,
    pub(super) triggered: u64,
    pub(super) payload_bytes: usize,
    pub(super) formed_at: Millis,
}

impl InFlight {
    pub(super) fn concerns(&self, id: TopicPartition) -> bool {
        self.offsets.iter().any(|(partition, _)| *partition == id)
    }
}

/// Returns the id by which entries refer to a batch, in 4 bytes: never 0, and unique among batches that are outstanding
/// together.
pub(super) fn short_batch_id(id: u64) -> u32 {
    (id % u64::from(u32::MAX - 1)) as u32 + 1
}

/// Why a batch could not be fenced by the group's generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StaleGeneration {
    /// A broker rejected this one.
    Rejected(i32),
    /// The consumer had none.
    Missing,
}

/// The batches in flight, and everything that decides whether and how large the next may be.
#[derive(Debug)]
pub(super) struct Batches {
    pub(super) next_id: u64,
    pub(super) in_flight: VecDeque<InFlight>,
    backoff: [Backoff; Purpose::COUNT],
    /// Batches in a row that were rejected without a report that names the record, since batches last had their full
    /// size.
    pub(super) unattributed_rejections: u32,
    /// By lane, the maximum number of items of a batch: fewer during the search for a rejected record.
    pub(super) items_max: [usize; Lane::ALL.len()],
    pub(super) last_lane: Lane,
    pub(super) generation: Option<i32>,
    /// No batch is formed until there is another generation, or until the next rebalance event.
    pub(super) stale_generation: Option<StaleGeneration>,
    pub(super) throughput: Throughput,
    /// The last batch in flight when one was aborted without fault of a record.
    drain_to: Option<u64>,
}

impl Batches {
    pub(super) fn new(items_max: usize, bytes_max: usize) -> Self {
        Self {
            next_id: 1,
            in_flight: VecDeque::new(),
            backoff: [Backoff::default(); Purpose::COUNT],
            unattributed_rejections: 0,
            items_max: [items_max; Lane::ALL.len()],
            last_lane: Lane::DeadLetters,
            generation: None,
            stale_generation: None,
            throughput: Throughput::new(bytes_max),
            drain_to: None,
        }
    }

    /// Returns whether a batch in flight concerns this partition.
    pub(super) fn any_concerns(&self, id: TopicPartition) -> bool {
        self.in_flight.iter().any(|batch| batch.concerns(id))
    }

    /// Removes and returns the batch that has settled; `None` if it was sent before everything was forgotten.
    pub(super) fn take(&mut self, id: u64) -> Option<InFlight> {
        let at = self.in_flight.iter().position(|batch| batch.id == id)?;
        self.in_flight.remove(at)
    }

    /// Holds new batches back after one was aborted without fault of a record. Its entries wait again. Batches in
    /// flight may hold entries that are due after them and before others: no schedule fires until they have settled
    /// too, so schedules stay in due order.
    pub(super) fn drain(&mut self) {
        self.drain_to = self.in_flight.back().map(|batch| batch.id);
    }

    /// Returns whether no batch may be formed in a lane that fires in due order, until batches in flight have settled.
    pub(super) fn keeps_back(&self, lane: Lane) -> bool {
        let first = self.in_flight.front().map(|batch| batch.id);
        let is_draining = first.zip(self.drain_to).is_some_and(|(first, last)| first <= last);
        let of_lane = |batch: &InFlight| batch.purpose == Purpose::Entries(lane);
        is_draining || (self.throughput.is_one_at_a_time() && self.in_flight.iter().any(of_lane))
    }

    pub(super) fn clear_in_flight(&mut self) {
        self.in_flight.clear();
        self.stale_generation = None;
    }

    pub(super) fn set_generation(&mut self, generation: i32) {
        self.generation = Some(generation);
        if self.stale_generation != Some(StaleGeneration::Rejected(generation)) {
            self.stale_generation = None;
        }
    }

    /// Stops new batches, unless the rejected generation has been replaced meanwhile. `None` if the consumer had none.
    pub(super) fn generation_is_stale(&mut self, generation: Option<i32>) {
        if self.generation.is_none() || self.generation == generation {
            let stale = generation.map_or(StaleGeneration::Missing, StaleGeneration::Rejected);
            self.stale_generation = Some(stale);
        }
    }

    /// Returns the earliest time for a batch of this purpose.
    pub(super) fn backoff_until(&self, purpose: Purpose) -> Millis {
        self.backoff[purpose.index()].until
    }

    /// Delays the next batch of this purpose after a transient failure, exponentially with each abort in a row.
    pub(super) fn back_off(&mut self, purpose: Purpose, now: Millis) {
        let backoff = &mut self.backoff[purpose.index()];
        let delay = BATCH_BACKOFF_MS_MIN << backoff.aborts.min(6);
        backoff.until = now.plus(delay.min(BATCH_BACKOFF_MS_MAX));
        backoff.aborts = backoff.aborts.saturating_add(1);
    }

    /// Delays the next batch of this purpose by the shortest back-off, however many were aborted.
    pub(super) fn pause(&mut self, purpose: Purpose, now: Millis) {
        self.backoff[purpose.index()].until = now.plus(BATCH_BACKOFF_MS_MIN);
    }

    pub(super) fn recovered(&mut self, purpose: Purpose) {
        self.backoff[purpose.index()] = Backoff::default();
    }

    pub(super) fn set_back(&mut self, back_ms: i64) {
        for backoff in &mut self.backoff {
            backoff.until = backoff.until.plus(-back_ms);
        }
    }
}
