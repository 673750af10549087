//! Checks what must hold some time after faults have stopped: everything owed has fired, and the rest is pending.

use std::collections::BTreeMap;

use kafka_scheduler::core::Listed;
use kafka_scheduler::core::io::TopicPartition;
use kafka_scheduler::core::origin::PROGRESS_PREFIX;
use kafka_scheduler::core::start_marker::StartMarker;
use kafka_scheduler::core::when::is_when;

use super::journal::{Fired, safe};
use super::leftovers::start_markers_of;
use super::named;
use super::occurrences::may_begin_later;
use crate::failure::Failure;
use crate::history::{History, Observed, UserRecord};
use crate::kafka::LogId;
use crate::kafka::log::Stored;
use crate::scenario::RecordKind;

/// How late a schedule may fire without faults.
const FIRING_TIMEOUT_MS: i64 = 8_000;

/// How late a schedule may become a dead letter, after all tries.
const GIVE_UP_TIMEOUT_MS: i64 = 60_000;

/// The partition and the offset of a user's record.
type RecordId = (TopicPartition, i64);

/// Checks that nothing is lost and nothing that ended is pending: the running engines hold exactly the users' latest
/// records, in every detail.
///
/// # Errors
/// The first broken promise.
pub fn converged(history: &History, observed: &Observed) -> Result<Fired, Failure> {
    let fired = safe(history)?;
    served(history, observed)?;
    let listed = listed_once(observed)?;
    let start_markers = start_markers_of(history, observed.now_ms);
    let mut latest_records: BTreeMap<(TopicPartition, &[u8]), (i64, &UserRecord)> = BTreeMap::new();
    for ((partition, offset), record) in history.produced.iter().filter(|(_, record)| record.can_be_latest()) {
        latest_records.insert((*partition, &record.key), (*offset, record));
    }
    let mut wanted = 0;
    for ((partition, _), (offset, record)) in &latest_records {
        let latest = Latest { id: (*partition, *offset), record, held: listed.get(&(*partition, *offset)).copied() };
        wanted += usize::from(latest.held.is_some());
        let moved = fired.dead_letters.contains(&latest.id);
        if !record.can_fire || moved || fired.schedules.contains(&latest.id) {
            latest.has_ended(moved, history, observed)?;
        } else {
            latest.is_pending(start_markers.get(partition), &fired, history, observed)?;
        }
    }
    without_stray_progress(history, observed, &fired, &latest_records)?;
    survive_compaction(history, observed, &listed)?;
    if wanted != listed.len() {
        let newest = |id: &RecordId| latest_records.values().any(|(offset, _)| *offset == id.1);
        let odd: Vec<_> = listed.keys().filter(|id| !newest(id)).collect();
        let broken = format!("{odd:?} are held although newer records were read{}", observed.description);
        return Err(Failure::Safety(broken));
    }
    Ok(fired)
}

/// Returns the pending schedules of all instances. Each must be pending in one instance only.
fn listed_once(observed: &Observed) -> Result<BTreeMap<RecordId, &Listed>, Failure> {
    let mut listed = BTreeMap::new();
    for held in &observed.listed {
        if let Some(twice) = listed.insert((held.partition, held.offset), held) {
            return Err(Failure::Safety(format!("{twice:?} is held twice{}", observed.description)));
        }
    }
    Ok(listed)
}

/// The latest record for a key, and the pending schedule that an instance has for it.
struct Latest<'a> {
    id: RecordId,
    record: &'a UserRecord,
    held: Option<&'a Listed>,
}

impl Latest<'_> {
    /// Returns when it is due next. One that recurs and is from before the engine's first start may begin later than
    /// its first occurrence: then it is due when the instance that holds it says.
    fn next_due_ms(&self, fired: &Fired, history: &History) -> i64 {
        let Some(recurrence) = self.record.recurrence else { return self.record.due_s * 1000 };
        let done = fired.occurrences.get(&self.id).copied().unwrap_or(0);
        let nominal_ms = recurrence.nominal_ms(done + 1);
        match self.held {
            Some(held) if may_begin_later(history, self.id, self.record) => held.due.at().0.max(nominal_ms),
            _ => nominal_ms,
        }
    }

    /// Checks a record that has fired, has moved or cannot fire: it is not pending, and has moved if there is a
    /// dead-letter topic.
    fn has_ended(&self, moved: bool, history: &History, observed: &Observed) -> Result<(), Failure> {
        let Self { id, record, held } = self;
        // Of one that recurs, the last firing may be in the log and not yet known.
        if held.is_some() && (observed.is_idle || !record.kind.recurs()) {
            return Err(Failure::Safety(format!("{id:?} is still held: {record:?}{}", observed.description)));
        }
        if !moved && !record.can_fire && !record.is_cancel() && history.setup.dead_letters {
            let broken = format!("{id:?} is no dead letter: {record:?}{}", observed.description);
            return Err(Failure::Liveness(broken));
        }
        Ok(())
    }

    /// Checks a schedule that has not fired: it is pending as it was produced and not overdue, or may be a leftover.
    fn is_pending(
        &self,
        start_marker: Option<&StartMarker>,
        fired: &Fired,
        history: &History,
        observed: &Observed,
    ) -> Result<(), Failure> {
        let Self { id, record, held } = self;
        let due_ms = self.next_due_ms(fired, history);
        if let Some(held) = held {
            is_held(held, record, due_ms)
                .map_err(|what| Failure::Safety(format!("{id:?} is held {what}: {record:?}")))?;
        }
        let overdue = record.target.delivers() && due_ms + FIRING_TIMEOUT_MS <= observed.now_ms;
        let is_leftover = |start_marker: &StartMarker| id.1 < start_marker.offset && due_ms < start_marker.since.0;
        if !record.kind.recurs() && start_marker.is_some_and(is_leftover) {
            return Ok(());
        }
        let what = format!("{record:?}{}", observed.description);
        match held {
            None => Err(Failure::Safety(format!("{id:?} was lost: {what}"))),
            Some(_) if overdue => Err(Failure::Liveness(format!("{id:?} does not fire: {what}"))),
            Some(_) if history.setup.dead_letters && due_ms + GIVE_UP_TIMEOUT_MS <= observed.now_ms => {
                Err(Failure::Liveness(format!("{id:?} is not given up: {what}")))
            }
            Some(_) => Ok(()),
        }
    }
}

/// Checks that an instance fires each partition.
///
/// # Errors
/// The partition that no instance fires.
pub fn served(history: &History, observed: &Observed) -> Result<(), Failure> {
    match history.partitions.iter().find(|partition| !observed.live.contains(partition)) {
        Some(unserved) => Err(Failure::Liveness(format!(
            "no instance fires {unserved:?} although faults have stopped{}",
            observed.description
        ))),
        None => Ok(()),
    }
}

/// Checks that every probe that is due has fired.
///
/// # Errors
/// The one that has not.
pub fn fires_on_time(history: &History, observed: &Observed) -> Result<(), Failure> {
    let fired = safe(history)?;
    served(history, observed)?;
    let late = |(id, record): &(&RecordId, &UserRecord)| {
        record.key.starts_with(b"probe")
            && record.due_s * 1000 + FIRING_TIMEOUT_MS <= observed.now_ms
            && !fired.schedules.contains(id)
    };
    match history.produced.iter().find(late) {
        Some((id, record)) => Err(Failure::Liveness(format!("{id:?} is late: {record:?}{}", observed.description))),
        None => Ok(()),
    }
}

fn is_held(held: &Listed, record: &UserRecord, due_ms: i64) -> Result<(), String> {
    let parts = held.parts();
    let when = record.headers.iter().filter(|(name, _)| is_when(name)).count();
    let kept = if record.kind == RecordKind::Schedule { 1 } else { 1 + when };
    let same = held.due.at().0 == due_ms
        && held.timestamp.0 == record.at_ms
        && &*held.target == record.target.name()
        && parts.key == record.key
        && parts.value == record.value
        && parts.target_key == Some(b"to")
        && parts.headers.len() == kept;
    if same { Ok(()) } else { Err(format!("as {held:?}")) }
}

/// Checks that compaction cannot remove a pending schedule: no other record comes after it on its key, except its copy.
fn survive_compaction(
    history: &History,
    observed: &Observed,
    listed: &BTreeMap<RecordId, &Listed>,
) -> Result<(), Failure> {
    for partition in history.partitions.iter().filter(|_| observed.is_idle) {
        let (found, _) = history.kafka.log(LogId::Schedules(*partition)).read(0, usize::MAX);
        let of_keys = found.into_iter().filter_map(|(offset, stored)| Some((stored.key.as_deref()?, (offset, stored))));
        let last: BTreeMap<&[u8], (i64, &Stored)> = of_keys.collect();
        for (id, held) in listed.iter().filter(|(id, _)| id.0 == *partition) {
            let is_safe = last.get(held.parts().key).is_some_and(|(offset, stored)| {
                *offset == id.1 || named(stored) == Some(id.1) && stored.value.is_some()
            });
            if !is_safe {
                return Err(Failure::Safety(format!(
                    "{id:?} was overtaken, and was not rewritten{}",
                    observed.description
                )));
            }
        }
    }
    Ok(())
}

/// Checks that the progress of schedules that are over has ended too.
fn without_stray_progress(
    history: &History,
    observed: &Observed,
    fired: &Fired,
    latest: &BTreeMap<(TopicPartition, &[u8]), (i64, &UserRecord)>,
) -> Result<(), Failure> {
    for partition in history.partitions.iter().filter(|_| observed.is_idle) {
        let (found, _) = history.kafka.log(LogId::Schedules(*partition)).read(0, usize::MAX);
        let of_keys = found.into_iter().filter_map(|(_, stored)| Some((stored.key.clone()?, stored)));
        let last: BTreeMap<Vec<u8>, &Stored> = of_keys.collect();
        for (key, stored) in last.iter().filter(|(_, stored)| stored.value.is_some()) {
            let Some(user_key) = key.strip_prefix(PROGRESS_PREFIX) else { continue };
            let current = latest.get(&(*partition, user_key)).map(|(offset, _)| *offset);
            let is_current = current.is_some() && named(stored) == current;
            let is_over = current.is_some_and(|offset| fired.schedules.contains(&(*partition, offset)));
            if !is_current || is_over {
                return Err(Failure::Liveness(format!(
                    "progress of {partition:?} is kept after its schedule is over: {stored:?}{}",
                    observed.description
                )));
            }
        }
    }
    Ok(())
}
