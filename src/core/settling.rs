//! What follows from how a batch ended.

use super::bugs::{self, Bug};
use super::firing::MARK_MS;
use super::io::{Abort, Late, Outcome, Report, TargetState};
use super::partition::{Step, Unread};
use super::payload::Payload;
use super::reason::Reason;
use super::{Millis, Partition, Scheduler};

/// Wait after the first abort in a row; it doubles up to [`RETRY_MS_MAX`].
const RETRY_MS_MIN: i64 = 50;
/// Longest wait after an abort.
const RETRY_MS_MAX: i64 = 3_200;

/// Refusals without a name for which everything due later waits: enough to find two or three records among 10,000.
const REFUSALS_MAX: u32 = 32;

/// What a batch is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Barrier,
    Floor,
    Clean,
    Mark,
    Fire(Lot),
}

/// Words that share batches. Each lot has its own, so that its troubles delay the others little.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lot {
    /// What the broker has not refused, and what has to be written again.
    Fresh,
    /// Large ones of these, while throughput is the limit.
    Large,
    /// Schedules that the broker has refused, or among which one is that it has refused.
    Suspects,
    /// Dead letters.
    Letters,
}

impl Lot {
    pub const ALL: [Self; 4] = [Self::Fresh, Self::Large, Self::Suspects, Self::Letters];

    /// What the broker has not refused.
    fn is_fresh(self) -> bool {
        matches!(self, Self::Fresh | Self::Large)
    }
}

/// How batches of one purpose are tried again after aborts that were nobody's fault.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// None is formed before this.
    until: Millis,
    /// Aborts in a row.
    aborts: u32,
}

impl Purpose {
    /// How many there are.
    pub const COUNT: usize = 4 + Lot::ALL.len();

    fn index(self) -> usize {
        match self {
            Self::Barrier => 0,
            Self::Floor => 1,
            Self::Clean => 2,
            Self::Mark => 3,
            Self::Fire(lot) => 4 + lot as usize,
        }
    }
}

impl Default for Patience {
    fn default() -> Self {
        Self { until: Millis(i64::MIN), aborts: 0 }
    }
}

impl Patience {
    /// The clock was set back.
    pub fn set_back(&mut self, back_ms: i64) {
        self.until = self.until.plus(-back_ms);
    }
}

/// A word that a batch speaks for.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub partition: Partition,
    pub slot: u32,
    pub identity: i64,
    /// The record ends the word: a firing's tombstone, or a cancel's.
    pub ended: bool,
    /// The topic of a firing, or of a dead letter.
    pub target: Option<u32>,
    /// It is a dead letter.
    pub letter: bool,
}

/// A batch that has not settled.
#[derive(Debug)]
pub struct InFlight {
    pub id: u64,
    pub purpose: Purpose,
    pub entries: Vec<Entry>,
    pub offsets: Vec<(Partition, i64)>,
    pub missed: u64,
    pub triggered: u64,
    /// Payload bytes.
    pub bytes: usize,
    pub formed_at: Millis,
}

impl InFlight {
    pub fn touches(&self, id: Partition) -> bool {
        self.offsets.iter().any(|(partition, _)| *partition == id)
    }
}

/// A batch's id as words keep it: never 0, and different for batches that can be outstanding together.
pub fn tag(id: u64) -> u32 {
    (id % u64::from(u32::MAX - 1)) as u32 + 1
}

impl<P: Payload> Scheduler<P> {
    pub(super) fn settled(&mut self, id: u64, outcome: Outcome) {
        let Some(at) = self.in_flight.iter().position(|batch| batch.id == id) else {
            // Sent before everything was forgotten.
            return;
        };
        if matches!(outcome, Outcome::Unknown) {
            // In flight still, for all that is known.
            return self.restart("a transaction's outcome is not known");
        }
        let Some(batch) = self.in_flight.remove(at) else { return };
        match outcome {
            Outcome::Committed { written } => self.batch_committed(batch, &written),
            Outcome::Aborted(abort) => self.batch_aborted(batch, abort),
            Outcome::Unknown => {}
        }
        self.reread_trimmed();
        if self.throughput.is_large_apart() && self.next_due(Lot::Large).is_none_or(|due| due > self.now) {
            self.throughput.none_large_due();
        }
    }

    fn batch_committed(&mut self, batch: InFlight, written: &[(Partition, i64)]) {
        self.patience[batch.purpose.index()] = Patience::default();
        if let Purpose::Fire(lot) = batch.purpose {
            let items_max = &mut self.items_max[lot as usize];
            *items_max = (*items_max * 2).min(self.config.batch_items_max);
            if lot == Lot::Fresh && *items_max == self.config.batch_items_max {
                self.refusals = 0;
            }
            let took_ms = self.now.0.saturating_sub(batch.formed_at.0);
            if self.throughput.committed(batch.bytes, took_ms) {
                self.report(Report::ThroughputIsLimit);
            }
        }
        for (id, offset) in &batch.offsets {
            if let Some(life) = self.lives.get_mut(id) {
                life.committed = *offset;
                life.mark_at = self.now.plus(MARK_MS);
                life.fence_done &= !life.ownership.fence.is_empty();
            }
        }
        match batch.purpose {
            Purpose::Barrier => {
                let stand: Vec<_> = written.iter().filter(|(id, _)| batch.touches(*id)).copied().collect();
                self.put_back(&batch, |id| !stand.iter().any(|(other, _)| *other == id));
                self.barriers_stand(&stand);
            }
            Purpose::Floor => {
                for (id, _) in &batch.offsets {
                    if let Some(Step::FloorSent(floor)) = self.lives.get(id).map(|life| life.step) {
                        self.floor_stands(*id, floor);
                    }
                }
            }
            Purpose::Clean => {
                let ids: Vec<_> = batch.offsets.iter().map(|(id, _)| *id).collect();
                self.released(&ids);
            }
            Purpose::Mark => {}
            Purpose::Fire(_) => self.fired(&batch, written),
        }
    }

    fn fired(&mut self, batch: &InFlight, written: &[(Partition, i64)]) {
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
        self.counters.dead_lettered += batch.entries.iter().filter(|entry| entry.letter).count() as u64;
        self.counters.reasserted += batch.entries.iter().filter(|entry| entry.target.is_none()).count() as u64;
        for (id, _) in &batch.offsets {
            let Some(life) = self.lives.get_mut(id) else { continue };
            let read = bugs::on(Bug::SettledTakenForRead);
            let of_this = batch.entries.iter().filter(|entry| entry.partition == *id);
            life.unread.push_back(Unread {
                batch: tag(batch.id),
                offset: match written.iter().find(|(other, _)| other == id) {
                    _ if read => -1,
                    Some((_, offset)) => *offset,
                    None => i64::MAX,
                },
                items: of_this.map(|entry| (entry.slot, entry.identity, entry.ended)).collect(),
            });
            life.settle_read();
        }
    }

    fn batch_aborted(&mut self, batch: InFlight, abort: Abort) {
        if bugs::on(Bug::AbortedForgotten) && matches!(batch.purpose, Purpose::Fire(_)) {
            return;
        }
        for entry in &batch.entries {
            if let Some(life) = self.lives.get_mut(&entry.partition) {
                life.words.aborted(entry.slot, tag(batch.id));
            }
        }
        if batch.purpose == Purpose::Clean {
            return self.restart("a partition could not be marked clean");
        }
        self.put_back(&batch, |_| true);
        match abort {
            Abort::Rejected(guilty) if guilty.is_empty() => self.narrow_down(&batch),
            Abort::Rejected(guilty) => {
                if guilty.iter().any(|(_, reason)| *reason == Reason::NoLeader) {
                    // Or it was too slow: the metadata may show a leader, and then a smaller batch gets through.
                    self.ran_late(&batch, Late::Stalled);
                }
                for (item, reason) in guilty {
                    if let Some(entry) = batch.entries.get(item as usize) {
                        self.rejected(entry, reason);
                    }
                }
            }
            Abort::Retry => self.back_off(batch.purpose),
            Abort::TimedOut(late) => {
                self.ran_late(&batch, late);
                self.back_off(batch.purpose);
            }
            Abort::Refused { generation } => {
                self.patience[batch.purpose.index()].until = self.now.plus(RETRY_MS_MIN);
                if self.generation.is_none_or(|current| current == generation) {
                    self.refused = Some(generation);
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
    fn put_back(&mut self, batch: &InFlight, wanted: impl Fn(Partition) -> bool) {
        for (id, _) in batch.offsets.iter().filter(|(id, _)| wanted(*id)) {
            let Some(life) = self.lives.get_mut(id) else { continue };
            match life.step {
                Step::BarrierSent if batch.purpose == Purpose::Barrier => life.step = Step::Barrier,
                Step::FloorSent(floor) if batch.purpose == Purpose::Floor => life.step = Step::Floor(floor),
                _ => {}
            }
        }
    }

    /// From when on a batch for this may be formed.
    pub(super) fn patient_until(&self, purpose: Purpose) -> Millis {
        self.patience[purpose.index()].until
    }

    /// Nobody is to blame: the same records are tried again, after a wait that grows while that does not help.
    fn back_off(&mut self, purpose: Purpose) {
        let patience = &mut self.patience[purpose.index()];
        let delay = RETRY_MS_MIN << patience.aborts.min(6);
        patience.until = self.now.plus(delay.min(RETRY_MS_MAX));
        patience.aborts = patience.aborts.saturating_add(1);
    }

    /// The broker refused a record and nobody says which: batches are halved until it stands alone. That keeps all others
    /// in due order, but waiting; where it goes on for long, the batch's schedules go on apart instead.
    fn narrow_down(&mut self, batch: &InFlight) {
        let Purpose::Fire(lot) = batch.purpose else { return self.back_off(batch.purpose) };
        if let [alone] = batch.entries.as_slice() {
            self.rejected(alone, Reason::Refused);
        }
        let mut stay = batch.entries.len();
        if lot.is_fresh() {
            self.refusals = self.refusals.saturating_add(1);
            for entry in batch.entries.iter().filter(|entry| entry.target.is_some() && self.refusals > REFUSALS_MAX) {
                stay -= 1;
                if let Some(life) = self.lives.get_mut(&entry.partition) {
                    life.words.suspect(entry.slot, entry.identity);
                }
            }
        }
        if stay > 0 {
            self.items_max[lot as usize] = (stay / 2).max(1);
        }
    }
}
