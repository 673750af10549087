//! Checks that a fresh engine reads from the log what the running engines hold.

use std::collections::BTreeMap;

use kafka_scheduler::core::batch::{Batch, Kind};
use kafka_scheduler::core::io::{Cursor, Header, Input, Millis, Outcome, Output, Record, TargetState, TopicPartition};
use kafka_scheduler::core::{Listed, PartitionState, Scheduler};

use crate::engine::{calendar, config, leftover_cutoff_ms, since_of};
use crate::failure::Failure;
use crate::history::{History, Observed};
use crate::kafka::LogId;
use crate::kafka::log::Stored;
use crate::rng::Rng;

/// The fresh engine's number. No instance of the run has it.
const NUMBER: usize = 0xf;
/// Schedules due in this time may have fired in the running engines only.
const DUE_NOW_MS: i64 = 10_000;

/// Reads the logs with a fresh engine, and compares.
///
/// # Errors
/// The first difference.
pub fn recovered(history: &History, observed: &Observed) -> Result<(), Failure> {
    if !observed.is_idle {
        // A batch in flight may be in the log or not.
        return Ok(());
    }
    let fresh = Fresh::of(history, observed.now_ms).map_err(Failure::Safety)?;
    let (fresh, running) = (known(fresh.core.list(Cursor::default(), usize::MAX).0), known(observed.listed.clone()));
    let due_now = |listed: &Listed| {
        let due_ms = listed.due.at().0;
        (observed.now_ms - DUE_NOW_MS..=observed.now_ms).contains(&due_ms)
    };
    let all = fresh.iter().chain(&running).filter(|(_, listed)| !due_now(listed));
    for (origin_offset, _) in all {
        let (fresh, running) = (fresh.get(origin_offset), running.get(origin_offset));
        let same = fresh.zip(running).is_some_and(|(one, other)| is_same(one, other));
        if !same {
            let broken =
                format!("{origin_offset:?} is {running:?} in the running engines and {fresh:?} in a fresh one");
            return Err(Failure::Safety(format!("{broken}{}", observed.description)));
        }
    }
    Ok(())
}

fn known(listed: Vec<Listed>) -> BTreeMap<(TopicPartition, i64), Listed> {
    listed.into_iter().map(|listed| ((listed.partition, listed.offset), listed)).collect()
}

fn is_same(one: &Listed, other: &Listed) -> bool {
    let facts = |listed: &Listed| (listed.due, listed.timestamp, listed.target.clone());
    facts(one) == facts(other) && one.parts() == other.parts()
}

struct Fresh<'a> {
    history: &'a History,
    now_ms: i64,
    core: Scheduler,
    /// The last offset that it has written after each log's end.
    written: BTreeMap<TopicPartition, i64>,
    waiting: Vec<Output>,
}

impl<'a> Fresh<'a> {
    fn of(history: &'a History, now_ms: i64) -> Result<Self, String> {
        let core = Scheduler::new(config(NUMBER, 0, &history.setup, Rng::new(1).bits()), calendar());
        let mut fresh = Self { history, now_ms, core, written: BTreeMap::new(), waiting: Vec::new() };
        let leftover_cutoff = Millis(leftover_cutoff_ms(now_ms, &history.setup));
        fresh.feed(Input::Generation(1));
        fresh.feed(Input::Assigned { partitions: &history.partitions, leftover_cutoff });
        while !fresh.waiting.is_empty() {
            for output in std::mem::take(&mut fresh.waiting) {
                fresh.carry_out(output)?;
            }
        }
        let status = fresh.core.status();
        match status.iter().find(|status| status.state != PartitionState::Live) {
            Some(stuck) => Err(format!("a fresh engine does not get beyond {stuck:?}")),
            None => Ok(fresh),
        }
    }

    fn feed(&mut self, input: Input<'_>) {
        self.core.handle(Millis(self.now_ms), input);
        while let Some(output) = self.core.poll() {
            self.waiting.push(output);
        }
    }

    fn carry_out(&mut self, output: Output) -> Result<(), String> {
        match output {
            Output::ReadCommitted(partitions) => {
                for partition in partitions {
                    let known = self.history.kafka.committed.get(&partition);
                    let (offset, metadata) = known.map_or((None, ""), |(offset, text)| (Some(*offset), text.as_str()));
                    self.feed(Input::Committed { partition, offset, metadata: metadata.as_bytes() });
                }
            }
            Output::Fence { request, .. } => self.feed(Input::Fenced { request }),
            Output::FindSince { request, topic, known } => {
                let since = since_of(&self.history.kafka, &self.history.partitions, topic, &known);
                let leftover_cutoff = Millis(leftover_cutoff_ms(self.now_ms, &self.history.setup));
                self.feed(Input::Since { request, since, leftover_cutoff });
            }
            Output::CheckTarget { target, .. } => self.feed(Input::Target { target, state: TargetState::Exists }),
            Output::Transact(batch) => self.transact(&batch),
            Output::Report(_) => {}
            other => return Err(format!("a fresh engine wants {other:?}")),
        }
        Ok(())
    }

    /// Commits barriers and start markers. All other batches stay in flight.
    fn transact(&mut self, batch: &Batch) {
        let own = |kind: &Kind| matches!(kind, Kind::Barrier { .. } | Kind::StartMarker { .. });
        if !batch.items.iter().all(|item| own(&item.kind)) {
            return;
        }
        let mut records: Vec<(TopicPartition, i64, Stored)> = Vec::new();
        let shown = batch.records(|record| {
            let partition = record.partition.expect("barriers and start markers go to a schedules topic");
            let end = self.history.kafka.log(LogId::Schedules(partition)).end();
            let offset = self.written.entry(partition).and_modify(|last| *last += 1).or_insert(end);
            let headers = record.headers.iter().map(|h| (h.name.to_vec(), h.value.map(<[u8]>::to_vec))).collect();
            let (key, value) = (record.key.map(<[u8]>::to_vec), record.value.map(<[u8]>::to_vec));
            let at_ms = self.now_ms;
            records.push((partition, *offset, Stored { at_ms, key, value, headers, transaction: None }));
            Ok::<(), ()>(())
        });
        assert!(shown.is_ok(), "the visitor never fails");
        let written: Vec<(TopicPartition, i64)> =
            records.iter().map(|(partition, offset, _)| (*partition, *offset)).collect();
        self.feed(Input::BatchEnded { batch: batch.id, outcome: Outcome::Committed { last_offsets: written } });
        for (partition, offset, stored) in &records {
            if batch.items.iter().any(|item| matches!(item.kind, Kind::Barrier { .. })) {
                let (found, _) = self.history.kafka.log(LogId::Schedules(*partition)).read(0, usize::MAX);
                found.into_iter().for_each(|(offset, stored)| self.read(*partition, offset, stored));
            }
            self.read(*partition, *offset, stored);
        }
    }

    fn read(&mut self, partition: TopicPartition, offset: i64, stored: &Stored) {
        let headers: Vec<Header<'_>> =
            stored.headers.iter().map(|(name, v)| Header { name, value: v.as_deref() }).collect();
        let (key, value) = (stored.key.as_deref(), stored.value.as_deref());
        let record = Record { partition, offset, timestamp: Millis(stored.at_ms), key, value, headers: &headers };
        self.feed(Input::Record(record));
    }
}
