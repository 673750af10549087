//! What must hold once nothing breaks any more: everything owed has fired, the rest is held, by everybody who reads.

use std::collections::BTreeMap;

use kafka_scheduler::core::Listed;
use kafka_scheduler::core::floor::Floor;
use kafka_scheduler::core::io::Partition;
use kafka_scheduler::core::payload::Parts;

use super::journal::{Fired, safe};
use super::leftovers::floors_of;
use crate::failure::Failure;
use crate::history::{History, Observed, Said};

/// Nothing takes longer than this to fire once it is due, while nothing breaks.
const LATE_MS_MAX: i64 = 8_000;

/// What cannot be delivered is given up, after some tries, within this.
const GIVEN_UP_MS_MAX: i64 = 60_000;

/// The partition and the offset of a user's record.
type Identity = (Partition, i64);

/// Nothing is lost, and nothing that was ended is pending: what the running engines hold is what the users' last words
/// say, in every detail.
///
/// # Errors
/// The first broken promise.
pub fn converged(history: &History, observed: &Observed) -> Result<Fired, Failure> {
    let fired = safe(history)?;
    served(history, observed)?;
    let listed = listed_once(observed)?;
    let floors = floors_of(history, observed.now_ms);
    let mut last: BTreeMap<(Partition, &[u8]), (i64, &Said)> = BTreeMap::new();
    for ((partition, offset), said) in history.said.iter().filter(|(_, said)| said.is_word()) {
        last.insert((*partition, &said.key), (*offset, said));
    }
    let mut wanted = 0;
    for ((partition, _), (offset, said)) in &last {
        let word = Last { identity: (*partition, *offset), said, held: listed.get(&(*partition, *offset)).copied() };
        wanted += usize::from(word.held.is_some());
        let moved = fired.letters.contains(&word.identity);
        if !said.fit || moved || fired.words.contains(&word.identity) {
            word.has_ended(moved, history, observed)?;
        } else {
            word.is_pending(floors.get(partition), history, observed)?;
        }
    }
    if wanted != listed.len() {
        let newest = |identity: &Identity| last.values().any(|(offset, _)| *offset == identity.1);
        let odd: Vec<_> = listed.keys().filter(|identity| !newest(identity)).collect();
        let broken = format!("{odd:?} are held although newer words were read{}", observed.description);
        return Err(Failure::Safety(broken));
    }
    Ok(fired)
}

/// No two instances hold the same schedule.
fn listed_once(observed: &Observed) -> Result<BTreeMap<Identity, &Listed>, Failure> {
    let mut listed = BTreeMap::new();
    for held in &observed.listed {
        if let Some(twice) = listed.insert((held.partition, held.offset), held) {
            return Err(Failure::Safety(format!("{twice:?} is held twice{}", observed.description)));
        }
    }
    Ok(listed)
}

/// The last word of a key, and what an instance holds of it.
struct Last<'a> {
    identity: Identity,
    said: &'a Said,
    held: Option<&'a Listed>,
}

impl Last<'_> {
    /// What has fired, moved or cannot fire is not held, and has moved if there is a place to move it to.
    fn has_ended(&self, moved: bool, history: &History, observed: &Observed) -> Result<(), Failure> {
        let Self { identity, said, held } = self;
        if held.is_some() {
            return Err(Failure::Safety(format!("{identity:?} is held still: {said:?}{}", observed.description)));
        }
        if !moved && !said.fit && !said.is_cancel() && history.setup.dead_letters {
            let broken = format!("{identity:?} is no dead letter: {said:?}{}", observed.description);
            return Err(Failure::Liveness(broken));
        }
        Ok(())
    }

    /// What has not fired is held as it was said, unless it may be a leftover, and is not overdue.
    fn is_pending(&self, floor: Option<&Floor>, history: &History, observed: &Observed) -> Result<(), Failure> {
        let Self { identity, said, held } = self;
        if let Some(held) = held {
            is_held(held, said).map_err(|what| Failure::Safety(format!("{identity:?} is held {what}: {said:?}")))?;
        }
        let due_ms = said.due * 1000;
        let overdue = said.target.delivers() && due_ms + LATE_MS_MAX <= observed.now_ms;
        if floor.is_some_and(|floor| identity.1 < floor.offset && due_ms < floor.since.0) {
            return Ok(());
        }
        let what = format!("{said:?}{}", observed.description);
        match held {
            None => Err(Failure::Safety(format!("{identity:?} was lost: {what}"))),
            Some(_) if overdue => Err(Failure::Liveness(format!("{identity:?} does not fire: {what}"))),
            Some(_) if history.setup.dead_letters && due_ms + GIVEN_UP_MS_MAX <= observed.now_ms => {
                Err(Failure::Liveness(format!("{identity:?} is not given up: {what}")))
            }
            Some(_) => Ok(()),
        }
    }
}

/// Somebody fires every partition.
///
/// # Errors
/// The partition that nobody fires.
pub fn served(history: &History, observed: &Observed) -> Result<(), Failure> {
    match history.partitions.iter().find(|partition| !observed.live.contains(partition)) {
        Some(dark) => {
            Err(Failure::Liveness(format!("nobody fires {dark:?} although nothing breaks{}", observed.description)))
        }
        None => Ok(()),
    }
}

/// Every probe that is due has fired.
///
/// # Errors
/// The one that has not.
pub fn fires_on_time(history: &History, observed: &Observed) -> Result<(), Failure> {
    let fired = safe(history)?;
    served(history, observed)?;
    let late = |(identity, said): &(&Identity, &Said)| {
        said.key.starts_with(b"probe")
            && said.due * 1000 + LATE_MS_MAX <= observed.now_ms
            && !fired.words.contains(identity)
    };
    match history.said.iter().find(late) {
        Some((identity, said)) => {
            Err(Failure::Liveness(format!("{identity:?} is late: {said:?}{}", observed.description)))
        }
        None => Ok(()),
    }
}

fn is_held(held: &Listed, said: &Said) -> Result<(), String> {
    let parts = Parts::unpack(&held.packed);
    let same = held.due as i64 == said.due
        && held.timestamp.0 == said.at_ms
        && &*held.target == said.target.name()
        && parts.key == said.key
        && parts.value == said.value
        && parts.target_key == Some(b"to")
        && parts.headers.len() == 1;
    if same { Ok(()) } else { Err(format!("as {held:?}")) }
}
