//! Runs transactions step by step: records, offsets, commit.

use std::collections::BTreeMap;

use kafka_scheduler::core::batch::{Batch, Kind, OutRecord};
use kafka_scheduler::core::io::{Abort, BatchTimeout, Input, Outcome};
use kafka_scheduler::core::reason::Reason;

use super::transactors::{Job, Outgoing, Step};
use super::{Event, Task, World};
use crate::bugs::{self, Bug};
use crate::faults::Fault;
use crate::history::{Decision, Entry};
use crate::kafka::log::Stored;
use crate::kafka::{LogId, Refusal, sent_by_librdkafka};
use crate::names::{DEAD_LETTERS, HISTORY};
use crate::scenario::{Away, Point, RequestError, Target, Timestamps};

/// Longest delay of a commit that arrives late.
const LATE_COMMIT_MS: i64 = 8_000;
/// How long a batch waits until the batches before it have settled.
const TURN_TIMEOUT_MS: i64 = 5_000;
/// `message.timeout.ms`.
const MESSAGE_TIMEOUT_MS: i64 = 5_000;
/// `message.timestamp.after.max.ms` of topics that check timestamps.
const TIMESTAMP_AHEAD_LIMIT_MS: i64 = 3_600_000;

impl World {
    pub(super) fn transact(&mut self, number: usize, batch: Batch) {
        let clock = self.instances[number].clock(self.now_ms);
        let mut records = Vec::new();
        let shown = batch.records(|record| {
            records.push(self.outgoing(&record));
            Ok::<(), ()>(())
        });
        assert!(shown.is_ok(), "the visitor never fails");
        self.trace(|| {
            let items: Vec<_> = batch.items.iter().map(|i| (i.partition, i.origin_offset, kind(&i.kind))).collect();
            format!("i{number}     batch {}: {items:?}, offsets {:?}", batch.id, batch.offsets)
        });
        let instance = &mut self.instances[number];
        let job = Job {
            records,
            offsets: batch.offsets.iter().map(|p| (p.partition, p.offset, p.metadata.clone())).collect(),
            member: (instance.member.clone().unwrap_or_default(), instance.generation),
            incarnation: instance.transactors.incarnation,
            producer: None,
            produced: 0,
            written: BTreeMap::new(),
            step: if bugs::on(Bug::OffsetsBeforeRecords) { Step::Offsets } else { Step::Produce },
            waiting_since_ms: None,
            stalled_until_ms: i64::MIN,
            rejected_items: Vec::new(),
            failed: false,
            rejected: false,
            begun_ms: None,
            late_bytes: None,
        };
        let id = batch.id;
        self.history.add(Entry::Decided(Decision {
            instance: number,
            at_ms: self.now_ms,
            clock,
            batch,
            caught_up_ms: instance.caught_up_ms.clone(),
            slow_consumer_until_ms: instance.slow_consumer_until_ms,
        }));
        let sent_before = instance.transactors.jobs.insert(id, job).is_some();
        if sent_before || instance.transactors.is_over_full() {
            let broken = format!("i{number}: batch {id} is sent twice, or is one too many");
            return self.violation(broken);
        }
        self.answer(number, 1, Task::Job(id));
    }

    fn outgoing(&self, record: &OutRecord<'_>) -> Outgoing {
        let log_id = match record.partition {
            Some(partition) if bugs::on(Bug::PartitionerTombstones) && record.value.is_none() => {
                let sum: usize = record.key.unwrap_or_default().iter().map(|byte| usize::from(*byte)).sum();
                let number = (sum % usize::from(self.history.setup.partitions)) as i32;
                LogId::Schedules(kafka_scheduler::core::io::TopicPartition { number, ..partition })
            }
            Some(partition) => LogId::Schedules(partition),
            None if record.topic == HISTORY => LogId::History,
            None if record.topic == DEAD_LETTERS => LogId::DeadLetter,
            None => {
                LogId::Target(Target::ALL.map(Target::name).into_iter().find(|n| *n == record.topic).unwrap_or("?"))
            }
        };
        let headers = record.headers.iter().map(|h| (h.name.to_vec(), h.value.map(<[u8]>::to_vec))).collect();
        let (key, value) = (record.key.map(<[u8]>::to_vec), record.value.map(<[u8]>::to_vec));
        let stored = Stored { at_ms: 0, key, value, headers, transaction: None };
        Outgoing { log_id, stored, item: record.item, topic: record.topic.to_owned() }
    }

    /// Wakes the batches that wait for their turn.
    pub(super) fn wake_jobs(&mut self, number: usize) {
        let jobs = &self.instances[number].transactors.jobs;
        let waiting = jobs.iter().filter(|(_, job)| job.step == Step::Offsets).map(|(id, _)| *id);
        for batch in waiting.collect::<Vec<_>>() {
            self.later(number, 1, Task::Job(batch));
        }
    }

    /// Replaces producers that have been idle for long.
    pub(super) fn replace_producers(&mut self, number: usize) {
        let now = self.now_ms;
        for id in self.instances[number].transactors.outdated(now) {
            self.trace(|| format!("i{number}     replaces the producer of {id}"));
            // If the brokers are not ready, the next batch tries again.
            if let Ok(epoch) = self.history.kafka.init(&id, now) {
                self.instances[number].transactors.replaced(&id, epoch);
            }
        }
    }

    /// Takes one step of a transaction.
    pub(super) fn job(&mut self, number: usize, batch: u64) {
        let transactors = &mut self.instances[number].transactors;
        let Some(step) = transactors.jobs.get(&batch).map(|job| job.step).filter(|step| *step != Step::Ended) else {
            return;
        };
        if transactors.jobs[&batch].stalled_until_ms > self.now_ms {
            // The stall has set a task of its own.
            return;
        }
        let Some((id, epoch)) = transactors.take_slot(batch) else {
            return self.later(number, 5, Task::Job(batch));
        };
        let Some(epoch) = epoch.or_else(|| self.history.kafka.init(&id, self.now_ms).ok()) else {
            return self.later(number, 20, Task::Job(batch));
        };
        self.instances[number].transactors.begin(batch, (id.clone(), epoch));
        match step {
            Step::Produce => self.produce(number, batch, (&id, epoch)),
            Step::Offsets => self.offsets(number, batch, (&id, epoch)),
            Step::Commit => self.commit(number, batch, (&id, epoch)),
            Step::Ended => {}
        }
    }

    fn produce(&mut self, number: usize, batch: u64, producer: (&str, u32)) {
        let begins = self.instances[number].transactors.jobs[&batch].produced == 0;
        if begins && self.inject_at(number, batch, producer, Point::BeforeSend) {
            return;
        }
        let some = 1 + self.instances[number].rng.index(6);
        for _ in 0..some {
            if self.runs_late(number, batch) || self.instances[number].link_free_us > self.now_ms * 1_000 {
                break;
            }
            let Some(job) = self.instances[number].transactors.jobs.get_mut(&batch) else { return };
            let Some(outgoing) = job.records.get(job.produced).cloned() else {
                job.step =
                    if bugs::on(Bug::OffsetsBeforeRecords) && !job.failed { Step::Commit } else { Step::Offsets };
                break;
            };
            if let Err(reason) = self.rejection(number, &outgoing) {
                let job = self.instances[number].transactors.jobs.get_mut(&batch).expect("looked up above");
                job.produced += 1;
                job.failed = true;
                job.rejected |= outgoing.topic == Target::Silent.name();
                job.rejected_items.extend(reason.map(|reason| (outgoing.item, reason)));
                continue;
            }
            self.send_over_link(number, &outgoing);
            match self.history.kafka.produce(producer, self.now_ms, outgoing.log_id, outgoing.stored) {
                Ok(offset) => {
                    let job = self.instances[number].transactors.jobs.get_mut(&batch).expect("looked up above");
                    job.produced += 1;
                    if let LogId::Schedules(partition) = outgoing.log_id {
                        job.written.insert(partition, offset);
                    }
                }
                Err(Refusal::Concurrent) => return self.later(number, 20, Task::Job(batch)),
                Err(_) => return self.end(number, batch, Outcome::Unknown),
            }
        }
        let link_ms = self.instances[number].link_free_us.saturating_sub(self.now_ms * 1_000).div_euclid(1_000) + 1;
        let delay = link_ms.max(0) + self.instances[number].rng.range(1, 10);
        self.answer(number, delay, Task::Job(batch));
    }

    /// Occupies the instance's link for as long as a record takes at its bandwidth.
    fn send_over_link(&mut self, number: usize, outgoing: &Outgoing) {
        let bandwidth_kbps = i64::from(self.history.setup.bandwidth_kbps);
        if bandwidth_kbps > 0 {
            let link_free_us = &mut self.instances[number].link_free_us;
            // Small records are free, so any number of them takes no time.
            let large_bytes = outgoing.stored.value.as_ref().map_or(0, Vec::len).saturating_sub(1_000) as i64;
            *link_free_us = (*link_free_us).max(self.now_ms * 1_000) + large_bytes * 1_000 / bandwidth_kbps;
        }
    }

    /// Fails the records of a batch that were not sent in time.
    fn runs_late(&mut self, number: usize, batch: u64) -> bool {
        let now = self.now_ms;
        let Some(job) = self.instances[number].transactors.jobs.get_mut(&batch) else { return false };
        let begun_ms = *job.begun_ms.get_or_insert(now);
        let late = self.history.setup.bandwidth_kbps > 0
            && now - begun_ms > MESSAGE_TIMEOUT_MS
            && job.produced < job.records.len();
        if late {
            job.late_bytes = Some(job.records[..job.produced].iter().map(bytes).sum());
            (job.failed, job.produced, job.step) = (true, job.records.len(), Step::Offsets);
            // Records that wait for the link are purged.
            self.instances[number].link_free_us = i64::MIN;
            self.record_hit(Fault::Bandwidth, number);
        }
        late
    }

    /// Returns an error if the brokers reject a record, with the reason if the delivery report has one.
    fn rejection(&mut self, number: usize, outgoing: &Outgoing) -> Result<(), Option<Reason>> {
        let is_target = matches!(outgoing.log_id, LogId::Target(_));
        let refuses = match self.history.setup.timestamps {
            Timestamps::Any => false,
            Timestamps::Bounded => true,
            Timestamps::BoundedInTargets => is_target,
        };
        if refuses && self.instances[number].skew_ms > TIMESTAMP_AHEAD_LIMIT_MS {
            self.record_hit(Fault::WrongClock, number);
            if bugs::on(Bug::ClockBlamesRecords) {
                return Err(Some(Reason::Rejected));
            }
            // If the engine's own topics reject its timestamps, no record is to blame.
            return Err((self.history.setup.timestamps == Timestamps::BoundedInTargets).then_some(Reason::Timestamp));
        }
        if !is_target {
            return Ok(());
        }
        let now = self.now_ms;
        let is = |target: Target| outgoing.topic == target.name();
        let away = self.away.filter(|(_, until)| is(Target::Late) && *until > now);
        if let Some((_, until_ms)) = away {
            self.record_hit_once(Fault::TargetAway, number, until_ms);
        }
        let away = away.map(|(away, _)| away);
        match away {
            _ if is(Target::Missing) => Err(Some(Reason::UnknownTarget)),
            _ if is(Target::Small) => Err(Some(Reason::TooLarge)),
            _ if is(Target::Silent) => Err(None),
            _ if is(Target::Forbidden) || away == Some(Away::Forbidden) => {
                self.forbid(number, &outgoing.topic);
                Err(Some(Reason::Forbidden))
            }
            Some(Away::Missing) => Err(Some(Reason::UnknownTarget)),
            // Sometimes the report names a transient error instead.
            Some(Away::Leaderless) if self.instances[number].rng.chance(50) => Err(Some(Reason::Rejected)),
            Some(Away::Leaderless) => Err(Some(Reason::NoLeader)),
            Some(_) => Err(None),
            None => Ok(()),
        }
    }

    fn offsets(&mut self, number: usize, batch: u64, producer: (&str, u32)) {
        let now = self.now_ms;
        let transactors = &mut self.instances[number].transactors;
        let first = transactors.is_first(batch) || bugs::on(Bug::OutOfTurn);
        let parting = transactors.incarnation;
        let Some(job) = transactors.jobs.get_mut(&batch) else { return };
        let parting = job.incarnation != parting;
        if job.failed {
            let rejected_items = std::mem::take(&mut job.rejected_items);
            let is_rejected = job.rejected || !rejected_items.is_empty();
            let sent = job.records.iter().map(bytes).sum();
            let outcome = match job.late_bytes {
                _ if is_rejected => Abort::rejected(rejected_items),
                Some(0) => Abort::TimedOut(BatchTimeout::Silent),
                Some(delivered) => Abort::TimedOut(BatchTimeout::Taking { delivered, sent }),
                None => Abort::Retry,
            };
            return self.give_up(number, batch, producer, outcome);
        }
        // A transactor of a former incarnation may have noticed that by now.
        if parting && self.instances[number].rng.chance(50) {
            return self.give_up(number, batch, producer, Abort::Retry);
        }
        if self.inject_at(number, batch, producer, Point::AfterProduce) {
            return;
        }
        let Some(job) = self.instances[number].transactors.jobs.get_mut(&batch) else { return };
        if !first {
            let since = *job.waiting_since_ms.get_or_insert(now);
            if since + TURN_TIMEOUT_MS <= now {
                return self.give_up(number, batch, producer, Abort::Retry);
            }
            return self.later(number, 50, Task::Job(batch));
        }
        match self.send_offsets(number, batch, producer) {
            Ok(()) => {
                let delay = self.instances[number].rng.range(1, 10);
                if let Some(job) = self.instances[number].transactors.jobs.get_mut(&batch) {
                    job.step = if bugs::on(Bug::OffsetsBeforeRecords) { Step::Produce } else { Step::Commit };
                }
                self.answer(number, delay, Task::Job(batch));
            }
            Err(Refusal::Concurrent) => self.later(number, 20, Task::Job(batch)),
            Err(Refusal::Generation) => {
                let generation = self.instances[number].transactors.jobs[&batch].member.1;
                self.give_up(
                    number,
                    batch,
                    producer,
                    Abort::StaleGeneration { generation: Some(generation).filter(|generation| *generation >= 0) },
                );
            }
            Err(Refusal::Metadata) => self.give_up(number, batch, producer, Abort::Retry),
            Err(Refusal::Fenced | Refusal::State) => self.end(number, batch, Outcome::Unknown),
        }
    }

    fn send_offsets(&mut self, number: usize, batch: u64, producer: (&str, u32)) -> Result<(), Refusal> {
        let instance = &self.instances[number];
        let job = &instance.transactors.jobs[&batch];
        let offsets = job.offsets.clone();
        let (mut member, mut generation) = job.member.clone();
        if bugs::on(Bug::MetadataLate) {
            (member, generation) = (instance.member.clone().unwrap_or_default(), instance.generation);
        }
        if bugs::on(Bug::MetadataBlank) {
            (member, generation) = (String::new(), -1);
        } else if member.is_empty() || generation < 0 {
            return Err(Refusal::Generation);
        }
        let sent = sent_by_librdkafka(offsets).filter(|_| !bugs::on(Bug::NoOffsets));
        let Some(offsets) = sent else { return Ok(()) };
        let partitions: Vec<_> = offsets.iter().map(|(partition, ..)| *partition).collect();
        self.history.kafka.send_offsets(producer, self.now_ms, (&member, generation), offsets)?;
        self.history.add(Entry::OffsetsSent { instance: number, batch, member, partitions });
        Ok(())
    }

    fn commit(&mut self, number: usize, batch: u64, producer: (&str, u32)) {
        if self.inject_at(number, batch, producer, Point::AfterOffsets) {
            return;
        }
        let outcome = match self.history.kafka.end(producer, self.now_ms, true) {
            Ok(()) => {
                self.note_markers(number);
                self.committed(number, batch)
            }
            Err(_) => Outcome::Unknown,
        };
        if matches!(outcome, Outcome::Committed { .. }) && self.inject_at(number, batch, producer, Point::AfterCommit) {
            return;
        }
        self.end(number, batch, outcome);
    }

    fn committed(&mut self, number: usize, batch: u64) -> Outcome {
        self.in_turn(number, batch);
        self.history.add(Entry::Committed { instance: number, batch });
        let job = &self.instances[number].transactors.jobs[&batch];
        let barrier =
            job.records.iter().any(|r| r.stored.key.as_deref() == Some(kafka_scheduler::core::origin::BARRIER_KEY));
        let offset = |(partition, offset): (&kafka_scheduler::core::io::TopicPartition, &i64)| {
            let stable = self.history.kafka.log(LogId::Schedules(*partition)).last_stable() - 1;
            let end = if barrier && bugs::on(Bug::LoadsToLastStable) { stable.max(0) } else { *offset };
            (*partition, end)
        };
        Outcome::Committed { last_offsets: job.written.iter().map(offset).collect() }
    }

    /// Checks that batches commit in the order in which they were formed. Otherwise schedules fire out of order and
    /// offsets go back.
    fn in_turn(&mut self, number: usize, batch: u64) {
        let instance = &mut self.instances[number];
        let transactors = &instance.transactors;
        if transactors.jobs[&batch].incarnation != transactors.incarnation {
            // It belongs to a former incarnation: its offsets precede the next barrier.
            return;
        }
        if instance.last_committed > batch {
            let broken = format!("i{number} commits batch {batch} after batch {}", instance.last_committed);
            return self.violation(broken);
        }
        instance.last_committed = batch;
    }

    fn give_up(&mut self, number: usize, batch: u64, producer: (&str, u32), abort: Abort) {
        match self.history.kafka.end(producer, self.now_ms, false) {
            Ok(()) => {
                self.note_markers(number);
                self.end(number, batch, Outcome::Aborted(abort));
            }
            Err(_) => self.end(number, batch, Outcome::Unknown),
        }
    }

    /// Sends the outcome to the core. It takes a while, in which the process may crash.
    pub(super) fn settle(&mut self, number: usize, batch: u64, outcome: Outcome) {
        let Some(job) = self.instances[number].transactors.finish(batch) else { return };
        self.trace(|| format!("i{number}     batch {batch}: {outcome:?}"));
        // Partitions were read again since the batches of a former incarnation.
        let current = job.incarnation == self.instances[number].transactors.incarnation;
        if current && !matches!(outcome, Outcome::Committed { .. }) {
            self.history.add(Entry::Aborted { instance: number, batch });
        }
        self.feed(number, Input::BatchEnded { batch, outcome });
        self.wake_jobs(number);
    }

    pub(super) fn end(&mut self, number: usize, batch: u64, outcome: Outcome) {
        let outcome = match outcome {
            Outcome::Unknown if bugs::on(Bug::UnknownTakenForAborted) => {
                self.instances[number].transactors.set_epoch(batch, None);
                Outcome::Aborted(Abort::Retry)
            }
            Outcome::Unknown if bugs::on(Bug::UnknownTakenForCommitted) => {
                self.instances[number].transactors.set_epoch(batch, None);
                self.committed(number, batch)
            }
            other => other,
        };
        if let Some(job) = self.instances[number].transactors.jobs.get_mut(&batch) {
            job.step = Step::Ended;
        }
        let delay = self.instances[number].rng.range(1, 40);
        self.answer(number, delay, Task::Settle(batch, outcome));
    }

    /// Answers a request with an error, or not at all. Returns that the step ends here.
    pub(super) fn fault_answer(
        &mut self,
        number: usize,
        batch: u64,
        producer: (&str, u32),
        error: RequestError,
    ) -> bool {
        match error {
            RequestError::Retriable => self.later(number, 500, Task::Job(batch)),
            RequestError::Abortable => self.give_up(number, batch, producer, Abort::Retry),
            RequestError::Fatal | RequestError::RequestLost => self.end(number, batch, Outcome::Unknown),
            RequestError::Late => {
                // Only a late commit does harm: the transaction is still undecided.
                if self.instances[number].transactors.jobs[&batch].step == Step::Commit {
                    let delay = self.instances[number].rng.range(1, LATE_COMMIT_MS);
                    self.after(delay, Event::LateCommit(producer.0.to_owned(), producer.1));
                }
                self.end(number, batch, Outcome::Unknown);
            }
            RequestError::ReplyLost => {
                // Only the outcome of a commit can be lost.
                if self.instances[number].transactors.jobs[&batch].step == Step::Commit {
                    let _ = self.history.kafka.end(producer, self.now_ms, true);
                }
                self.end(number, batch, Outcome::Unknown);
            }
        }
        true
    }
}

fn bytes(outgoing: &Outgoing) -> u64 {
    /// Bytes of a record besides its key, value and headers.
    const OVERHEAD: usize = 20;
    let size = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
    let Stored { key, value, headers, .. } = &outgoing.stored;
    let headers: usize = headers.iter().map(|(name, value)| name.len() + size(value)).sum();
    (OVERHEAD + size(key) + size(value) + headers) as u64
}

fn kind(kind: &Kind) -> String {
    match kind {
        Kind::Fire { due, missed, fired, .. } => {
            let occurrence = fired.occurrence.map_or(String::new(), |(n, missed)| format!(" occurrence {n}-{missed}"));
            format!("fire due {} missed {missed}{occurrence}", due.epoch_ms())
        }
        Kind::Expired { due, .. } => format!("expired, due {}", due.epoch_ms()),
        Kind::Skip { after, .. } => format!("skip to {after:?}"),
        Kind::Progress { value, .. } => format!("progress again: {value}"),
        Kind::EndProgress { .. } => "end progress".to_owned(),
        Kind::DeadLetter { reason, .. } => format!("dead letter, {}", reason.code()),
        Kind::RewriteSchedule { .. } => "rewrite schedule".to_owned(),
        Kind::RewriteInvalid { .. } => "rewrite invalid".to_owned(),
        Kind::RewriteCancel { .. } => "rewrite cancel".to_owned(),
        Kind::Barrier { label } => format!("barrier {label}"),
        Kind::Canary { value, .. } => format!("canary {value}"),
        Kind::StartMarker { value } => format!("start marker {value}"),
    }
}
