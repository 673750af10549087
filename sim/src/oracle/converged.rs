//! Checks what must hold some time after faults have stopped: everything owed has fired, and the rest is pending.

use std::collections::BTreeMap;

use kafka_scheduler::core::Listed;
use kafka_scheduler::core::io::TopicPartition;
use kafka_scheduler::core::start_marker::StartMarker;

use super::journal::{Fired, safe};
use super::leftovers::start_markers_of;
use crate::failure::Failure;
use crate::history::{History, Observed, UserRecord};

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
            latest.is_pending(start_markers.get(partition), history, observed)?;
        }
    }
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
    /// Checks a record that has fired, has moved or cannot fire: it is not pending, and has moved if there is a
    /// dead-letter topic.
    fn has_ended(&self, moved: bool, history: &History, observed: &Observed) -> Result<(), Failure> {
        let Self { id, record, held } = self;
        if held.is_some() {
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
        history: &History,
        observed: &Observed,
    ) -> Result<(), Failure> {
        let Self { id, record, held } = self;
        if let Some(held) = held {
            is_held(held, record).map_err(|what| Failure::Safety(format!("{id:?} is held {what}: {record:?}")))?;
        }
        let due_ms = record.due_s * 1000;
        let overdue = record.target.delivers() && due_ms + FIRING_TIMEOUT_MS <= observed.now_ms;
        if start_marker.is_some_and(|start_marker| id.1 < start_marker.offset && due_ms < start_marker.since.0) {
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

fn is_held(held: &Listed, record: &UserRecord) -> Result<(), String> {
    let parts = held.parts();
    let same = held.due_s as i64 == record.due_s
        && held.timestamp.0 == record.at_ms
        && &*held.target == record.target.name()
        && parts.key == record.key
        && parts.value == record.value
        && parts.target_key == Some(b"to")
        && parts.headers.len() == 1;
    if same { Ok(()) } else { Err(format!("as {held:?}")) }
}
