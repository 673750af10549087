//! Transactors: each runs one batch at a time, and commits when its turn has come.

use std::collections::BTreeMap;

use kafka_scheduler::core::batch::{Batch, Kind};
use kafka_scheduler::core::io::Partition;

use super::settle::Ending;
use super::{Todo, World};
use crate::kafka::log::Stored;
use crate::kafka::{Place, Refusal};

/// How long a batch waits for its turn.
const TURN_MS_MAX: i64 = 5_000;

/// A batch on its way.
#[derive(Debug)]
struct Job {
    records: Vec<(Place, Stored)>,
    offsets: Vec<(Partition, i64, String)>,
    /// As it was when the batch was formed.
    member: (String, i32),
    produced: usize,
    written: BTreeMap<Partition, i64>,
    slot: Option<usize>,
    step: Step,
    waiting_since_ms: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Produce,
    Offsets,
    Commit,
    /// The answer is on its way.
    Ended,
}

#[derive(Debug)]
struct Slot {
    id: String,
    epoch: Option<u32>,
    batch: Option<u64>,
}

/// The transactors of a process.
#[derive(Debug)]
pub(super) struct Transactors {
    slots: Vec<Slot>,
    jobs: BTreeMap<u64, Job>,
    /// Old ids that have to be fenced before anything else happens.
    renewing: Vec<String>,
}

impl Transactors {
    pub fn new(ids: Vec<String>) -> Self {
        let slots = ids.into_iter().map(|id| Slot { id, epoch: None, batch: None }).collect();
        Self { slots, jobs: BTreeMap::new(), renewing: Vec::new() }
    }

    pub fn is_busy(&self) -> bool {
        self.jobs.values().any(|job| job.produced > 0 || job.step != Step::Produce)
    }

    pub fn is_renewing(&self) -> bool {
        !self.renewing.is_empty()
    }

    pub fn forget(&mut self) {
        self.jobs.clear();
    }

    pub fn renew(&mut self, ids: Vec<String>) {
        let old = std::mem::take(&mut self.slots);
        self.renewing.extend(old.into_iter().map(|slot| slot.id));
        self.jobs.clear();
        self.slots = ids.into_iter().map(|id| Slot { id, epoch: None, batch: None }).collect();
    }

    /// False if the batch was forgotten.
    pub fn finish(&mut self, batch: u64) -> bool {
        for slot in self.slots.iter_mut().filter(|slot| slot.batch == Some(batch)) {
            slot.batch = None;
        }
        self.jobs.remove(&batch).is_some()
    }

    pub fn describe(&self) -> String {
        let jobs: Vec<_> = self.jobs.iter().map(|(id, job)| (id, job.step, job.slot)).collect();
        format!("jobs {jobs:?} renewing {:?}", self.renewing)
    }
}

impl World {
    pub(super) fn transact(&mut self, number: usize, batch: Batch) {
        if let Err(broken) = check(&batch, self.now_ms) {
            self.broken = Some(format!("i{number}: {broken}: {batch:?}"));
            return;
        }
        let mut records = Vec::new();
        let visited = batch.records(|record| {
            let place = match record.schedules {
                Some(partition) => Place::Schedules(partition),
                None if record.topic == "history" => Place::History,
                None => Place::Target,
            };
            let headers = record.headers.iter().map(|h| (h.name.to_vec(), h.value.map(<[u8]>::to_vec))).collect();
            let (key, value) = (record.key.map(<[u8]>::to_vec), record.value.map(<[u8]>::to_vec));
            records.push((place, Stored { at_ms: 0, key, value, headers, transaction: None }));
            Ok::<(), ()>(())
        });
        assert!(visited.is_ok());
        self.trace(|| {
            let items: Vec<_> = batch.items.iter().map(|i| (i.partition.number, i.identity, kind(&i.kind))).collect();
            format!("i{number}     batch {}: {items:?}, offsets {:?}", batch.id, batch.offsets)
        });
        let instance = &mut self.instances[number];
        let member = (instance.member.clone().unwrap_or_default(), instance.generation);
        let offsets = batch.offsets.into_iter().map(|p| (p.partition, p.offset, p.metadata)).collect();
        let written = BTreeMap::new();
        let step = Step::Produce;
        let job = Job { records, offsets, member, produced: 0, written, slot: None, step, waiting_since_ms: None };
        if instance.transactors.jobs.insert(batch.id, job).is_some() {
            self.broken = Some(format!("i{number}: batch {} is sent twice", batch.id));
        }
        if self.instances[number].transactors.jobs.len() > self.instances[number].transactors.slots.len() {
            self.broken = Some(format!("i{number}: more batches than transactors"));
        }
        self.later(number, 1, Todo::Job(batch.id));
    }

    /// Those that wait for their turn look again.
    pub(super) fn wake_jobs(&mut self, number: usize) {
        let waiting = |job: &Job| job.step == Step::Offsets;
        let jobs = &self.instances[number].transactors.jobs;
        for batch in jobs.iter().filter(|(_, job)| waiting(job)).map(|(id, _)| *id).collect::<Vec<_>>() {
            self.later(number, 1, Todo::Job(batch));
        }
    }

    /// Old ids are fenced until the broker says that nothing of them is open.
    pub(super) fn renew(&mut self, number: usize) {
        let now = self.now_ms;
        let mut old = std::mem::take(&mut self.instances[number].transactors.renewing);
        old.retain(|id| self.kafka.init(id, now).is_err());
        if old.is_empty() {
            return;
        }
        self.instances[number].transactors.renewing = old;
        self.later(number, 20, Todo::Renew);
    }

    /// One step of a transaction.
    pub(super) fn job(&mut self, number: usize, batch: u64) {
        let now = self.now_ms;
        if self.strike(number) {
            return;
        }
        if self.instances[number].paused_until_ms > now {
            return self.later(number, 0, Todo::Job(batch));
        }
        let transactors = &mut self.instances[number].transactors;
        let renewing = transactors.is_renewing();
        let Some(job) = transactors.jobs.get_mut(&batch) else { return };
        if job.step == Step::Ended {
            return;
        }
        if renewing {
            return self.later(number, 20, Todo::Job(batch));
        }
        let Some(at) = job.slot.or_else(|| transactors.slots.iter().position(|slot| slot.batch.is_none())) else {
            return self.later(number, 5, Todo::Job(batch));
        };
        job.slot = Some(at);
        let slot = &mut transactors.slots[at];
        slot.batch = Some(batch);
        let id = slot.id.clone();
        let epoch = match slot.epoch {
            Some(epoch) => epoch,
            None => {
                let Ok(epoch) = self.kafka.init(&id, now) else { return self.later(number, 20, Todo::Job(batch)) };
                self.instances[number].transactors.slots[at].epoch = Some(epoch);
                epoch
            }
        };
        let step = self.instances[number].transactors.jobs[&batch].step;
        if step != Step::Produce && self.hits("abort", 4) {
            return self.give_up(number, batch, (&id, epoch), Ending::Retry);
        }
        match step {
            Step::Produce => self.produce(number, batch, (&id, epoch)),
            Step::Offsets => self.offsets(number, batch, (&id, epoch)),
            Step::Commit => self.commit(number, batch, (&id, epoch)),
            Step::Ended => {}
        }
    }

    fn produce(&mut self, number: usize, batch: u64, producer: (&str, u32)) {
        let some = 1 + self.rng.index(6);
        for _ in 0..some {
            let Some(job) = self.instances[number].transactors.jobs.get_mut(&batch) else { return };
            let Some((place, stored)) = job.records.get(job.produced).cloned() else {
                job.step = Step::Offsets;
                break;
            };
            match self.kafka.produce(producer, self.now_ms, place, stored) {
                Ok(offset) => {
                    job.produced += 1;
                    if let Place::Schedules(partition) = place {
                        job.written.insert(partition, offset);
                    }
                }
                Err(Refusal::Concurrent) => return self.later(number, 20, Todo::Job(batch)),
                Err(_) => return self.end(number, batch, Ending::Unknown),
            }
        }
        let delay = self.rng.range(1, 10);
        self.later(number, delay, Todo::Job(batch));
    }

    fn offsets(&mut self, number: usize, batch: u64, producer: (&str, u32)) {
        let now = self.now_ms;
        let jobs = &mut self.instances[number].transactors.jobs;
        let first = jobs.keys().next() == Some(&batch);
        let Some(job) = jobs.get_mut(&batch) else { return };
        if !first {
            let since = *job.waiting_since_ms.get_or_insert(now);
            if since + TURN_MS_MAX <= now {
                return self.give_up(number, batch, producer, Ending::Retry);
            }
            return self.later(number, 50, Todo::Job(batch));
        }
        let (offsets, (member, generation)) = (job.offsets.clone(), job.member.clone());
        if member.is_empty() || generation < 0 {
            return self.give_up(number, batch, producer, Ending::Refused(generation));
        }
        match self.kafka.send_offsets(producer, now, (&member, generation), offsets) {
            Ok(()) => {
                if let Some(job) = self.instances[number].transactors.jobs.get_mut(&batch) {
                    job.step = Step::Commit;
                }
                let delay = self.rng.range(1, 10);
                self.later(number, delay, Todo::Job(batch));
            }
            Err(Refusal::Concurrent) => self.later(number, 20, Todo::Job(batch)),
            Err(Refusal::Generation) => self.give_up(number, batch, producer, Ending::Refused(generation)),
            Err(Refusal::Fenced) => self.end(number, batch, Ending::Unknown),
        }
    }

    fn commit(&mut self, number: usize, batch: u64, producer: (&str, u32)) {
        if self.hits("unknown", 4) {
            // The request or its answer is lost.
            if self.rng.chance(50) {
                let _ = self.kafka.end(producer, self.now_ms, true);
            }
            return self.end(number, batch, Ending::Unknown);
        }
        let ending = match self.kafka.end(producer, self.now_ms, true) {
            Ok(()) => {
                let job = &self.instances[number].transactors.jobs[&batch];
                Ending::Committed(job.written.iter().map(|(p, offset)| (*p, *offset)).collect())
            }
            Err(_) => Ending::Unknown,
        };
        self.end(number, batch, ending);
    }

    fn give_up(&mut self, number: usize, batch: u64, producer: (&str, u32), ending: Ending) {
        match self.kafka.end(producer, self.now_ms, false) {
            Ok(()) => self.end(number, batch, ending),
            Err(_) => self.end(number, batch, Ending::Unknown),
        }
    }

    /// The answer takes a while, in which the process may crash.
    fn end(&mut self, number: usize, batch: u64, ending: Ending) {
        if let Some(job) = self.instances[number].transactors.jobs.get_mut(&batch) {
            job.step = Step::Ended;
        }
        let delay = self.rng.range(1, 40);
        self.later(number, delay, Todo::Settle(batch, ending));
    }
}

fn kind(kind: &Kind) -> String {
    match kind {
        Kind::Fire { due, missed, .. } => format!("fire due {due} missed {missed}"),
        Kind::Schedule { .. } => "schedule again".to_owned(),
        Kind::Unfit { .. } => "unfit again".to_owned(),
        Kind::Cancel { .. } => "cancel again".to_owned(),
        Kind::Barrier { owner } => format!("barrier {owner}"),
        Kind::Floor { value } => format!("floor {value}"),
    }
}

/// What holds for every batch, whatever becomes of it.
fn check(batch: &Batch, now_ms: i64) -> Result<(), &'static str> {
    if batch.offsets.is_empty() || batch.offsets.iter().any(|o| o.offset < 0 || o.metadata.is_empty()) {
        return Err("a batch without its fence");
    }
    if batch.items.iter().any(|item| !batch.offsets.iter().any(|o| o.partition == item.partition)) {
        return Err("a partition without its offset");
    }
    let mut last: BTreeMap<Partition, u64> = BTreeMap::new();
    for item in &batch.items {
        let Kind::Fire { due, .. } = item.kind else { continue };
        if due as i64 * 1000 > now_ms {
            return Err("decided early");
        }
        if last.insert(item.partition, due).is_some_and(|before| before > due) {
            return Err("not in due order");
        }
    }
    Ok(())
}
