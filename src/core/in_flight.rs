//! Batches that were handed to the shell and have not settled, and how batches of each purpose are tried again.

use std::collections::VecDeque;

use super::throughput::Throughput;
use super::types::{Millis, TopicPartition};

/// Wait after the first abort in a row; it doubles up to [`RETRY_MS_MAX`].
const RETRY_MS_MIN: i64 = 50;
/// Longest wait after an abort.
const RETRY_MS_MAX: i64 = 3_200;

/// Why a batch is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Begins a takeover.
    Barrier,
    /// Says since when a partition is owed.
    StartMarker,
    /// Commits that a partition is given back with nothing in flight.
    Handover,
    /// Commits offsets alone: progress while nothing fires, and owners that have been fenced.
    CommitOffsets,
    /// Fires, writes again, or writes dead letters.
    Fire(Lane),
}

impl Purpose {
    /// How many there are.
    pub(super) const COUNT: usize = 4 + Lane::ALL.len();

    fn index(self) -> usize {
        match self {
            Self::Barrier => 0,
            Self::StartMarker => 1,
            Self::Handover => 2,
            Self::CommitOffsets => 3,
            Self::Fire(lane) => 4 + lane as usize,
        }
    }
}

/// Entries that share batches. Each lane has batches of its own, so its troubles delay the others little.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// Due schedules that no broker has rejected, and overtaken entries.
    Normal,
    /// Large ones of these, while throughput is the limit.
    Large,
    /// Schedules that a broker has rejected, alone or together with others.
    Quarantined,
    /// Dead letters.
    DeadLetters,
}

impl Lane {
    pub(super) const ALL: [Self; 4] = [Self::Normal, Self::Large, Self::Quarantined, Self::DeadLetters];

    /// Whether no broker has rejected its entries.
    pub(super) fn is_normal(self) -> bool {
        matches!(self, Self::Normal | Self::Large)
    }
}

/// When batches of one purpose may be tried again.
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
    /// The batch's last record for the key ends the entry: the tombstone of a firing, of a dead letter or of a cancel.
    pub(super) ends: bool,
    /// The topic of a firing or of a dead letter.
    pub(super) target: Option<u32>,
    pub(super) is_dead_letter: bool,
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
    pub(super) fn touches(&self, id: TopicPartition) -> bool {
        self.offsets.iter().any(|(partition, _)| *partition == id)
    }
}

/// A batch's id as entries keep it: never 0, and different for batches that can be outstanding together.
pub(super) fn short_batch_id(id: u64) -> u32 {
    (id % u64::from(u32::MAX - 1)) as u32 + 1
}

/// What the core knows of its batches.
#[derive(Debug)]
pub(super) struct Batches {
    pub(super) next_id: u64,
    pub(super) in_flight: VecDeque<InFlight>,
    backoff: [Backoff; Purpose::COUNT],
    /// Batches in a row that were rejected without the name of a record, since batches had their full size last.
    pub(super) unattributed_rejections: u32,
    /// By lane, items a batch, while a rejected record is looked for.
    pub(super) items_max: [usize; Lane::ALL.len()],
    /// The lane of the last batch.
    pub(super) last_lane: Lane,
    /// The consumer group's generation.
    pub(super) generation: Option<i32>,
    /// A broker rejected this generation: nothing is sent until there is another.
    pub(super) stale_generation: Option<i32>,
    pub(super) throughput: Throughput,
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
        }
    }

    /// Whether a batch in flight concerns this partition.
    pub(super) fn touch(&self, id: TopicPartition) -> bool {
        self.in_flight.iter().any(|batch| batch.touches(id))
    }

    /// Takes out the batch that has settled, unless it was sent before everything was forgotten.
    pub(super) fn take(&mut self, id: u64) -> Option<InFlight> {
        let at = self.in_flight.iter().position(|batch| batch.id == id)?;
        self.in_flight.remove(at)
    }

    pub(super) fn forget(&mut self) {
        self.in_flight.clear();
        self.stale_generation = None;
    }

    pub(super) fn set_generation(&mut self, generation: i32) {
        self.generation = Some(generation);
        if self.stale_generation.is_some_and(|stale| stale != generation) {
            self.stale_generation = None;
        }
    }

    /// A broker rejected the generation that a batch was sent with.
    pub(super) fn generation_is_stale(&mut self, generation: i32) {
        if self.generation.is_none_or(|current| current == generation) {
            self.stale_generation = Some(generation);
        }
    }

    /// The earliest time for a batch of this purpose.
    pub(super) fn backoff_until(&self, purpose: Purpose) -> Millis {
        self.backoff[purpose.index()].until
    }

    /// A transient failure: the same records are tried again, after a wait that grows with each abort in a row.
    pub(super) fn back_off(&mut self, purpose: Purpose, now: Millis) {
        let backoff = &mut self.backoff[purpose.index()];
        let delay = RETRY_MS_MIN << backoff.aborts.min(6);
        backoff.until = now.plus(delay.min(RETRY_MS_MAX));
        backoff.aborts = backoff.aborts.saturating_add(1);
    }

    /// The next batch waits a little, but not longer than the one before did.
    pub(super) fn pause(&mut self, purpose: Purpose, now: Millis) {
        self.backoff[purpose.index()].until = now.plus(RETRY_MS_MIN);
    }

    pub(super) fn recovered(&mut self, purpose: Purpose) {
        self.backoff[purpose.index()] = Backoff::default();
    }

    /// The clock was set back.
    pub(super) fn set_back(&mut self, back_ms: i64) {
        for backoff in &mut self.backoff {
            backoff.until = backoff.until.plus(-back_ms);
        }
    }
}
