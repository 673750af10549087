//! What follows from how a batch ended.

use super::batching::COMMIT_INTERVAL_MS;
use super::bugs::{self, Bug};
use super::io::{Abort, Late, Outcome, Report, TargetState};
use super::partition::{Stage, Unread};
use super::payload::Payload;
use super::reason::Reason;
use super::{Millis, Scheduler, TopicPartition};

/// Wait after the first abort in a row; it doubles up to [`RETRY_MS_MAX`].
const RETRY_MS_MIN: i64 = 50;
/// Longest wait after an abort.
const RETRY_MS_MAX: i64 = 3_200;

/// Refusals without a name for which everything due later waits: enough to find two or three records among 10,000.
const UNATTRIBUTED_REJECTIONS_MAX: u32 = 32;

/// What a batch is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Barrier,
    StartMarker,
    Handover,
    CommitOffsets,
    Fire(Lane),
}

/// Words that share batches. Each lot has its own, so that its troubles delay the others little.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// What the broker has not refused, and what has to be written again.
    Normal,
    /// Large ones of these, while throughput is the limit.
    Large,
    /// Schedules that the broker has refused, or among which one is that it has refused.
    Quarantined,
    /// Dead letters.
    DeadLetters,
}

impl Lane {
    pub const ALL: [Self; 4] = [Self::Normal, Self::Large, Self::Quarantined, Self::DeadLetters];

    /// What the broker has not refused.
    fn is_normal(self) -> bool {
        matches!(self, Self::Normal | Self::Large)
    }
}

/// How batches of one purpose are tried again after aborts that were nobody's fault.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// None is formed before this.
    until: Millis,
    /// Aborts in a row.
    aborts: u32,
}

impl Purpose {
    /// How many there are.
    pub const COUNT: usize = 4 + Lane::ALL.len();

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

impl Default for Backoff {
    fn default() -> Self {
        Self { until: Millis(i64::MIN), aborts: 0 }
    }
}

impl Backoff {
    /// The clock was set back.
    pub fn set_back(&mut self, back_ms: i64) {
        self.until = self.until.plus(-back_ms);
    }
}

/// A word that a batch speaks for.
#[derive(Clone, Copy, Debug)]
pub struct BatchEntry {
    pub partition: TopicPartition,
    pub slot: u32,
    pub origin_offset: i64,
    /// The record ends the word: a firing's tombstone, or a cancel's.
    pub ended: bool,
    /// The topic of a firing, or of a dead letter.
    pub target: Option<u32>,
    /// It is a dead letter.
    pub dead_letter: bool,
}

/// A batch that has not settled.
#[derive(Debug)]
pub struct InFlight {
    pub id: u64,
    pub purpose: Purpose,
    pub entries: Vec<BatchEntry>,
    pub offsets: Vec<(TopicPartition, i64)>,
    pub missed: u64,
    pub triggered: u64,
    /// Payload bytes.
    pub bytes: usize,
    pub formed_at: Millis,
}

impl InFlight {
    pub fn touches(&self, id: TopicPartition) -> bool {
        self.offsets.iter().any(|(partition, _)| *partition == id)
    }
}

/// A batch's id as words keep it: never 0, and different for batches that can be outstanding together.
pub fn short_batch_id(id: u64) -> u32 {
    (id % u64::from(u32::MAX - 1)) as u32 + 1
}

impl<P: Payload> Scheduler<P> {
    pub(super) fn settled(&mut self, id: u64, outcome: Outcome<'_>) {
        let Some(at) = self.in_flight.iter().position(|batch| batch.id == id) else {
            // Sent before everything was forgotten.
            return;
        };
        if matches!(outcome, Outcome::Unknown) {
            // In flight still, for all that is known.
            return self.rejoin("a transaction's outcome is not known");
        }
        let Some(batch) = self.in_flight.remove(at) else { return };
        match outcome {
            Outcome::Committed { written } => self.batch_committed(batch, written),
            Outcome::Aborted(abort) => self.batch_aborted(batch, abort),
            Outcome::Unknown => {}
        }
        self.reread_trimmed();
        if self.throughput.is_large_apart() && self.next_due(Lane::Large).is_none_or(|due| due > self.now) {
            self.throughput.none_large_due();
        }
    }

    fn batch_committed(&mut self, batch: InFlight, written: &[(TopicPartition, i64)]) {
        self.backoff[batch.purpose.index()] = Backoff::default();
        if let Purpose::Fire(lane) = batch.purpose {
            let items_max = &mut self.items_max[lane as usize];
            *items_max = (*items_max * 2).min(self.config.batch_items_max);
            if lane == Lane::Normal && *items_max == self.config.batch_items_max {
                self.unattributed_rejections = 0;
            }
            let took_ms = self.now.0.saturating_sub(batch.formed_at.0);
            if self.throughput.committed(batch.bytes, took_ms) {
                self.report(Report::ThroughputIsLimit);
            }
        }
        for (id, offset) in &batch.offsets {
            if let Some(state) = self.partitions.get_mut(id) {
                state.committed = *offset;
                state.next_commit_at = self.now.plus(COMMIT_INTERVAL_MS);
                state.fence_done &= !state.ownership.fence.is_empty();
            }
        }
        match batch.purpose {
            Purpose::Barrier => {
                let stand: Vec<_> = written.iter().filter(|(id, _)| batch.touches(*id)).copied().collect();
                self.put_back(&batch, |id| !stand.iter().any(|(other, _)| *other == id));
                self.barriers_committed(&stand);
            }
            Purpose::StartMarker => {
                for (id, _) in &batch.offsets {
                    if let Some(Stage::StartMarkerSent(start_marker)) = self.partitions.get(id).map(|state| state.stage)
                    {
                        self.start_marker_committed(*id, start_marker);
                    }
                }
            }
            Purpose::Handover => {
                let ids: Vec<_> = batch.offsets.iter().map(|(id, _)| *id).collect();
                self.released(&ids);
            }
            Purpose::CommitOffsets => {}
            Purpose::Fire(_) => self.fired(&batch, written),
        }
    }

    fn fired(&mut self, batch: &InFlight, written: &[(TopicPartition, i64)]) {
        for target in batch.entries.iter().filter_map(|entry| entry.target) {
            if !self.targets.has_quarantined() {
                break;
            }
            if let Some(name) = self.targets.took(target) {
                self.report(Report::TargetChanged { name, state: TargetState::Exists });
            }
        }
        self.counters.triggered += batch.triggered;
        self.counters.missed += batch.missed;
        self.counters.dead_lettered += batch.entries.iter().filter(|entry| entry.dead_letter).count() as u64;
        self.counters.reasserted += batch.entries.iter().filter(|entry| entry.target.is_none()).count() as u64;
        for (id, _) in &batch.offsets {
            let Some(state) = self.partitions.get_mut(id) else { continue };
            let read = bugs::on(Bug::SettledTakenForRead);
            let of_this = batch.entries.iter().filter(|entry| entry.partition == *id);
            state.unread.push_back(Unread {
                batch: short_batch_id(batch.id),
                offset: match written.iter().find(|(other, _)| other == id) {
                    _ if read => -1,
                    Some((_, offset)) => *offset,
                    None => i64::MAX,
                },
                items: of_this.map(|entry| (entry.slot, entry.origin_offset, entry.ended)).collect(),
            });
            state.settle_read();
        }
    }

    fn batch_aborted(&mut self, batch: InFlight, abort: Abort<'_>) {
        if bugs::on(Bug::AbortedForgotten) && matches!(batch.purpose, Purpose::Fire(_)) {
            return;
        }
        for entry in &batch.entries {
            if let Some(state) = self.partitions.get_mut(&entry.partition) {
                state.keys.aborted(entry.slot, short_batch_id(batch.id));
            }
        }
        if batch.purpose == Purpose::Handover {
            return self.rejoin("a partition could not be marked clean");
        }
        self.put_back(&batch, |_| true);
        match abort {
            Abort::Rejected([]) => self.bisect(&batch),
            Abort::Rejected(guilty) => {
                if guilty.iter().any(|(_, reason)| *reason == Reason::NoLeader) {
                    // Or it was too slow: the metadata may show a leader, and then a smaller batch gets through.
                    self.ran_late(&batch, Late::Stalled);
                }
                for (item, reason) in guilty {
                    if let Some(entry) = batch.entries.get(*item as usize) {
                        self.rejected(entry, *reason);
                    }
                }
            }
            Abort::Retry => self.back_off(batch.purpose),
            Abort::TimedOut(late) => {
                self.ran_late(&batch, late);
                self.back_off(batch.purpose);
            }
            Abort::StaleGeneration { generation } => {
                self.backoff[batch.purpose.index()].until = self.now.plus(RETRY_MS_MIN);
                if self.generation.is_none_or(|current| current == generation) {
                    self.stale_generation = Some(generation);
                }
            }
        }
    }

    fn ran_late(&mut self, batch: &InFlight, late: Late) {
        let fires = matches!(batch.purpose, Purpose::Fire(_)) && !bugs::on(Bug::BatchesKeepTheirSize);
        if fires && self.throughput.ran_late(batch.bytes, late) {
            self.report(Report::ThroughputIsLimit);
        }
    }

    /// Barriers and floors of an aborted batch wait for another.
    fn put_back(&mut self, batch: &InFlight, wanted: impl Fn(TopicPartition) -> bool) {
        for (id, _) in batch.offsets.iter().filter(|(id, _)| wanted(*id)) {
            let Some(state) = self.partitions.get_mut(id) else { continue };
            match state.stage {
                Stage::BarrierSent if batch.purpose == Purpose::Barrier => state.stage = Stage::Barrier,
                Stage::StartMarkerSent(start_marker) if batch.purpose == Purpose::StartMarker => {
                    state.stage = Stage::StartMarker(start_marker)
                }
                _ => {}
            }
        }
    }

    /// From when on a batch for this may be formed.
    pub(super) fn backoff_until(&self, purpose: Purpose) -> Millis {
        self.backoff[purpose.index()].until
    }

    /// Nobody is to blame: the same records are tried again, after a wait that grows while that does not help.
    fn back_off(&mut self, purpose: Purpose) {
        let backoff = &mut self.backoff[purpose.index()];
        let delay = RETRY_MS_MIN << backoff.aborts.min(6);
        backoff.until = self.now.plus(delay.min(RETRY_MS_MAX));
        backoff.aborts = backoff.aborts.saturating_add(1);
    }

    /// The broker refused a record and nobody says which: batches are halved until it stands alone. That keeps all others
    /// in due order, but waiting; where it goes on for long, the batch's schedules go on apart instead.
    fn bisect(&mut self, batch: &InFlight) {
        let Purpose::Fire(lane) = batch.purpose else { return self.back_off(batch.purpose) };
        if let [alone] = batch.entries.as_slice() {
            self.rejected(alone, Reason::Refused);
        }
        let mut stay = batch.entries.len();
        if lane.is_normal() {
            self.unattributed_rejections = self.unattributed_rejections.saturating_add(1);
            for entry in batch
                .entries
                .iter()
                .filter(|entry| entry.target.is_some() && self.unattributed_rejections > UNATTRIBUTED_REJECTIONS_MAX)
            {
                stay -= 1;
                if let Some(state) = self.partitions.get_mut(&entry.partition) {
                    state.keys.quarantine(entry.slot, entry.origin_offset);
                }
            }
        }
        if stay > 0 {
            self.items_max[lane as usize] = (stay / 2).max(1);
        }
    }
}
