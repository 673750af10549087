//! The transactors of a process. Each has a transactional id and runs one batch at a time.

use std::collections::BTreeMap;

use kafka_scheduler::core::io::TopicPartition;
use kafka_scheduler::core::reason::Reason;

use crate::bugs::{self, Bug};
use crate::kafka::LogId;
use crate::kafka::log::Stored;

/// A process without a batch for this long replaces its producers. The engine replaces them if they know topics that
/// are gone.
const IDLE_TIMEOUT_MS: i64 = 3_000;

/// A record to produce.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    pub log_id: LogId,
    pub stored: Stored,
    /// Index of its item in the batch.
    pub item: u32,
    pub topic: String,
}

/// A batch in flight.
#[derive(Debug)]
pub(super) struct Job {
    pub records: Vec<Outgoing>,
    pub offsets: Vec<(TopicPartition, i64, String)>,
    /// The group's membership when the batch was formed.
    pub member: (String, i32),
    /// The incarnation of its transactor. Transactors of former ones end after their batch.
    pub incarnation: u32,
    /// The transactional id that runs it, with its epoch.
    pub producer: Option<(String, u32)>,
    pub produced: usize,
    pub written: BTreeMap<TopicPartition, i64>,
    pub step: Step,
    pub waiting_since_ms: Option<i64>,
    pub stalled_until_ms: i64,
    /// Items that delivery reports name, with reasons.
    pub rejected_items: Vec<(u32, Reason)>,
    /// A record failed.
    pub failed: bool,
    /// A record failed because the brokers rejected it, without a reason.
    pub rejected: bool,
    pub begun_ms: Option<i64>,
    /// Bytes that were sent in time, if the batch ran out of time.
    pub late_bytes: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Produce,
    Offsets,
    Commit,
    /// The outcome is on its way to the core.
    Ended,
}

#[derive(Debug)]
struct Slot {
    id: String,
    epoch: Option<u32>,
    batch: Option<u64>,
}

impl Slot {
    fn forget(&mut self) -> String {
        self.epoch = None;
        self.id.clone()
    }
}

#[derive(Debug)]
pub(super) struct Transactors {
    slots: Vec<Slot>,
    /// Batches of former incarnations run on until they end, as threads do that are not joined.
    pub jobs: BTreeMap<u64, Job>,
    pub incarnation: u32,
    /// When there was last a batch.
    busy_ms: i64,
}

impl Transactors {
    pub(super) fn new(ids: Vec<String>) -> Self {
        Self { slots: slots(ids), jobs: BTreeMap::new(), incarnation: 0, busy_ms: 0 }
    }

    /// Returns the ids of the producers to replace now. Each keeps its id and gets a new epoch.
    pub(super) fn outdated(&mut self, now_ms: i64) -> Vec<String> {
        let is_quiet = self.jobs.is_empty() && now_ms - self.busy_ms >= IDLE_TIMEOUT_MS;
        if !self.jobs.is_empty() || is_quiet {
            self.busy_ms = now_ms;
        }
        if bugs::on(Bug::ReplacesOpenProducers) {
            let open = |slot: &&mut Slot| {
                let job = slot.batch.and_then(|batch| self.jobs.get_mut(&batch));
                job.filter(|job| job.produced > 0).is_some_and(|job| job.producer.take().is_some())
            };
            return self.slots.iter_mut().filter(open).map(Slot::forget).collect();
        }
        let known = self.slots.iter_mut().filter(|slot| is_quiet && slot.epoch.is_some());
        known.map(Slot::forget).collect()
    }

    /// Sets the epoch of a producer that was replaced.
    pub(super) fn replaced(&mut self, id: &str, epoch: u32) {
        self.slots.iter_mut().filter(|slot| slot.id == id).for_each(|slot| slot.epoch = Some(epoch));
    }

    pub(super) fn is_busy(&self) -> bool {
        self.current().any(|(_, job)| job.step != Step::Ended)
    }

    fn current(&self) -> impl Iterator<Item = (&u64, &Job)> {
        self.jobs.iter().filter(|(_, job)| job.incarnation == self.incarnation)
    }

    /// Whether every batch before this one has settled.
    pub(super) fn is_first(&self, batch: u64) -> bool {
        let incarnation = self.jobs.get(&batch).map(|job| job.incarnation);
        !self.jobs.range(..batch).any(|(_, job)| Some(job.incarnation) == incarnation)
    }

    pub(super) fn is_over_full(&self) -> bool {
        self.current().count() > self.slots.len()
    }

    pub(super) fn writes_as(&self, id: &str) -> bool {
        self.slots.iter().any(|slot| slot.id == id)
    }

    pub(super) fn forget(&mut self) {
        self.jobs.clear();
    }

    /// Returns every id in use, and drops all batches.
    pub(super) fn take_all_ids(&mut self) -> Vec<String> {
        let parting = std::mem::take(&mut self.jobs).into_values().filter_map(|job| Some(job.producer?.0));
        let current = std::mem::take(&mut self.slots).into_iter().map(|slot| slot.id);
        parting.chain(current).collect()
    }

    /// Takes new ids. Batches that have begun under the old ones run on until they end.
    pub(super) fn replace_ids(&mut self, ids: Vec<String>) {
        let old: Vec<String> = std::mem::take(&mut self.slots).into_iter().map(|slot| slot.id).collect();
        self.incarnation += 1;
        self.jobs.retain(|_, job| job.producer.is_some() && job.step != Step::Ended);
        self.slots = slots(if bugs::on(Bug::KeepsIds) { old } else { ids });
    }

    /// Returns the id of a batch's transactor, with its epoch if it has one. Returns `None` while it is busy.
    pub(super) fn take_slot(&mut self, batch: u64) -> Option<(String, Option<u32>)> {
        let job = self.jobs.get(&batch)?;
        if let Some((id, epoch)) = job.producer.clone() {
            return Some((id, Some(epoch)));
        }
        let at = (batch % self.slots.len().max(1) as u64) as usize;
        let slot = self.slots.get_mut(at).filter(|slot| slot.batch.is_none_or(|busy| busy == batch))?;
        slot.batch = Some(batch);
        Some((slot.id.clone(), slot.epoch))
    }

    pub(super) fn begin(&mut self, batch: u64, producer: (String, u32)) {
        self.set_epoch(batch, Some(producer.1));
        if let Some(job) = self.jobs.get_mut(&batch) {
            job.producer = Some(producer);
        }
    }

    pub(super) fn set_epoch(&mut self, batch: u64, epoch: Option<u32>) {
        for slot in self.slots.iter_mut().filter(|slot| slot.batch == Some(batch)) {
            slot.epoch = epoch;
        }
    }

    /// Removes a batch. Returns `None` if it was dropped before.
    pub(super) fn finish(&mut self, batch: u64) -> Option<Job> {
        for slot in self.slots.iter_mut().filter(|slot| slot.batch == Some(batch)) {
            slot.batch = None;
        }
        self.jobs.remove(&batch)
    }

    pub(super) fn describe(&self) -> String {
        let jobs: Vec<_> = self.jobs.iter().map(|(id, job)| (id, job.step)).collect();
        format!("jobs {jobs:?}")
    }
}

fn slots(ids: Vec<String>) -> Vec<Slot> {
    ids.into_iter().map(|id| Slot { id, epoch: None, batch: None }).collect()
}
