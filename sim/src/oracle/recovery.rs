//! What a fresh engine makes of the log is what the running ones hold.

use std::collections::BTreeMap;

use kafka_scheduler::core::batch::{Batch, Kind};
use kafka_scheduler::core::io::{Cursor, Header, Input, Millis, Outcome, Output, Partition, Record, TargetState};
use kafka_scheduler::core::{Listed, Phase, Scheduler};

use crate::failure::Failure;
use crate::kafka::Place;
use crate::kafka::log::Stored;
use crate::rng::Rng;
use crate::world::{World, config};

/// Who recovers: no instance of the run.
const NUMBER: usize = 0xf;
/// What is due now may be fired by one and not yet by the other.
const DUE_NOW_MS: i64 = 10_000;

/// Reads the log anew, and compares.
///
/// # Errors
/// The first difference.
pub fn recovered(world: &World) -> Result<(), Failure> {
    if !world.is_still() {
        // What is on its way lies in the log already, or does not yet.
        return Ok(());
    }
    let fresh = Fresh::of(world).map_err(Failure::Safety)?;
    let (fresh, running) = (known(fresh.core.list(Cursor::default(), usize::MAX).0), known(world.listed()));
    let due_now = |listed: &Listed| {
        let due_ms = listed.due as i64 * 1000;
        (world.now_ms - DUE_NOW_MS..=world.now_ms).contains(&due_ms)
    };
    let all = fresh.iter().chain(&running).filter(|(_, listed)| !due_now(listed));
    for (identity, _) in all {
        let (fresh, running) = (fresh.get(identity), running.get(identity));
        let same = fresh.zip(running).is_some_and(|(one, other)| is_same(one, other));
        if !same {
            let broken = format!("{identity:?} is {running:?} to who runs and {fresh:?} to who reads the log anew");
            return Err(Failure::Safety(format!("{broken}{}", world.describe())));
        }
    }
    Ok(())
}

fn known(listed: Vec<Listed>) -> BTreeMap<(Partition, i64), Listed> {
    listed.into_iter().map(|listed| ((listed.partition, listed.offset), listed)).collect()
}

fn is_same(one: &Listed, other: &Listed) -> bool {
    let facts = |listed: &Listed| (listed.due, listed.timestamp, listed.target.clone());
    facts(one) == facts(other) && one.parts() == other.parts()
}

struct Fresh<'a> {
    world: &'a World,
    core: Scheduler,
    /// What it has written after the log's end.
    written: BTreeMap<Partition, i64>,
    waiting: Vec<Output>,
}

impl<'a> Fresh<'a> {
    fn of(world: &'a World) -> Result<Self, String> {
        let core = Scheduler::new(config(NUMBER, 0, &world.setup, &mut Rng::new(1)));
        let mut fresh = Self { world, core, written: BTreeMap::new(), waiting: Vec::new() };
        let today = Millis(world.today_of(world.now_ms));
        fresh.tell(Input::Generation(1));
        fresh.tell(Input::Assigned { partitions: world.partitions(), today });
        while !fresh.waiting.is_empty() {
            for output in std::mem::take(&mut fresh.waiting) {
                fresh.carry_out(output)?;
            }
        }
        let status = fresh.core.status();
        match status.iter().find(|status| status.phase != Phase::Live) {
            Some(dark) => Err(format!("a fresh engine does not get beyond {dark:?}")),
            None => Ok(fresh),
        }
    }

    fn tell(&mut self, input: Input<'_>) {
        self.core.handle(Millis(self.world.now_ms), input);
        while let Some(output) = self.core.poll() {
            self.waiting.push(output);
        }
    }

    fn carry_out(&mut self, output: Output) -> Result<(), String> {
        match output {
            Output::ReadCommitted(partitions) => {
                for partition in partitions {
                    let known = self.world.kafka().committed.get(&partition);
                    let (offset, metadata) = known.map_or((None, ""), |(offset, text)| (Some(*offset), text.as_str()));
                    self.tell(Input::Committed { partition, offset, metadata: metadata.as_bytes() });
                }
            }
            Output::Fence { take, .. } => self.tell(Input::Fenced { take }),
            Output::FindSince { ask, topic, known } => {
                let since = self.world.since_of(topic, &known);
                let today = Millis(self.world.today_of(self.world.now_ms));
                self.tell(Input::Since { ask, since, today });
            }
            Output::CheckTarget { target, .. } => self.tell(Input::Target { target, state: TargetState::Exists }),
            Output::Transact(batch) => self.transact(&batch),
            Output::Report(_) => {}
            other => return Err(format!("a fresh engine wants {other:?}")),
        }
        Ok(())
    }

    /// Barriers and floors are written. What would fire stays on its way.
    fn transact(&mut self, batch: &Batch) {
        let own = |kind: &Kind| matches!(kind, Kind::Barrier { .. } | Kind::Floor { .. });
        if !batch.items.iter().all(|item| own(&item.kind)) {
            return;
        }
        let mut records: Vec<(Partition, i64, Stored)> = Vec::new();
        let shown = batch.records(|record| {
            let partition = record.schedules.expect("barriers and floors go to a schedules topic");
            let end = self.world.kafka().log(Place::Schedules(partition)).end();
            let offset = self.written.entry(partition).and_modify(|last| *last += 1).or_insert(end);
            let headers = record.headers.iter().map(|h| (h.name.to_vec(), h.value.map(<[u8]>::to_vec))).collect();
            let (key, value) = (record.key.map(<[u8]>::to_vec), record.value.map(<[u8]>::to_vec));
            let at_ms = self.world.now_ms;
            records.push((partition, *offset, Stored { at_ms, key, value, headers, transaction: None }));
            Ok::<(), ()>(())
        });
        assert!(shown.is_ok(), "the visitor never fails");
        let written: Vec<(Partition, i64)> =
            records.iter().map(|(partition, offset, _)| (*partition, *offset)).collect();
        self.tell(Input::Settled { batch: batch.id, outcome: Outcome::Committed { written: &written } });
        for (partition, offset, stored) in &records {
            if batch.items.iter().any(|item| matches!(item.kind, Kind::Barrier { .. })) {
                let (found, _) = self.world.kafka().log(Place::Schedules(*partition)).read(0, usize::MAX);
                found.into_iter().for_each(|(offset, stored)| self.read(*partition, offset, stored));
            }
            self.read(*partition, *offset, stored);
        }
    }

    fn read(&mut self, partition: Partition, offset: i64, stored: &Stored) {
        let headers: Vec<Header<'_>> =
            stored.headers.iter().map(|(name, v)| Header { name, value: v.as_deref() }).collect();
        let (key, value) = (stored.key.as_deref(), stored.value.as_deref());
        let record = Record { partition, offset, timestamp: Millis(stored.at_ms), key, value, headers: &headers };
        self.tell(Input::Record(record));
    }
}
