//! Questions to the journal of committed transactions: once, never early, all or nothing, as it was said, fenced.

use std::collections::{BTreeMap, BTreeSet};

use kafka_scheduler::core::io::Partition;
use kafka_scheduler::core::mark::{BARRIER_KEY, FLOOR_KEY};
use kafka_scheduler::core::owner::Ownership;
use kafka_scheduler::core::request;

use super::{header, named};
use crate::failure::Failure;
use crate::kafka::Place;
use crate::kafka::log::Stored;
use crate::scenario::Word;
use crate::world::{Said, World};

/// What has fired: partition, and offset of the user's record.
#[derive(Debug, Default)]
pub struct Fired {
    /// Identities.
    pub words: BTreeSet<(Partition, i64)>,
    /// Words that were written again.
    pub reasserted: u64,
}

/// Asks everything that must hold at any time.
///
/// # Errors
/// The first broken promise.
pub fn safe(world: &World) -> Result<Fired, Failure> {
    owners(world).and_then(|()| behind_barriers(world)).and_then(|()| fired(world)).map_err(Failure::Safety)
}

/// What fired, from the logs: each once, not early, whole, and as it was said.
fn fired(world: &World) -> Result<Fired, String> {
    let mut fired = Fired::default();
    for (transaction, records) in world.kafka().journal().filter(|(t, _)| is_engines(world, *t)) {
        let mut ended = ended(world, transaction, records)?;
        let count = |wanted: Place| records.iter().filter(|(place, _)| *place == wanted).count();
        let (targets, histories) = (count(Place::Target), count(Place::History));
        if targets != histories || targets > ended.len() {
            return Err(format!(
                "transaction {transaction}: {targets} target records, {histories} history records, {} tombstones",
                ended.len()
            ));
        }
        fired.reasserted += records.iter().filter(|(_, stored)| named(stored).is_some()).count() as u64;
        for (_, stored) in records.iter().filter(|(place, _)| *place == Place::Target) {
            let key = header(stored, request::KEY).unwrap_or_default();
            let identity = ended.iter().find(|((partition, _), said)| {
                said.key == key
                    && header(stored, request::TOPIC) == Some(World::topic(*partition).as_bytes())
                    && stored.value.as_ref() == Some(&said.value)
            });
            let Some((identity, said)) = identity.map(|(identity, said)| (*identity, *said)) else {
                return Err(format!("transaction {transaction}: a target record without a tombstone for its schedule"));
            };
            ended.remove(&identity);
            as_said(stored, said).map_err(|what| format!("{identity:?}: {what}"))?;
            let early_ms = said.due * 1000 - stored.at_ms - world.ahead_ms_max;
            if early_ms > 0 {
                return Err(format!("{identity:?} fired {early_ms} ms early"));
            }
            if is_leftover(world, said) {
                return Err(format!("{identity:?} fired, which was left behind before the first start"));
            }
            if !fired.words.insert(identity) {
                return Err(format!("{identity:?} fired twice, the second time in transaction {transaction}"));
            }
            fired.reasserted -= 1;
        }
        // Schedules are ended by nothing but their firing.
        if let Some((identity, said)) = ended.into_iter().find(|(_, said)| said.fit) {
            return Err(format!("transaction {transaction} ends {identity:?} without firing it: {said:?}"));
        }
    }
    Ok(fired)
}

/// The user records that a transaction's tombstones end.
fn ended<'a>(
    world: &'a World,
    transaction: u64,
    records: &[(Place, Stored)],
) -> Result<BTreeMap<(Partition, i64), &'a Said>, String> {
    let mut ended = BTreeMap::new();
    for (place, stored) in records {
        let (Place::Schedules(partition), Some(key)) = (*place, stored.key.as_deref()) else { continue };
        if key == BARRIER_KEY || key == FLOOR_KEY {
            continue;
        }
        let Some(offset) = named(stored) else {
            return Err(format!("transaction {transaction}: a record in {partition:?} that names no user record"));
        };
        let Some(said) = world.said().get(&(partition, offset)).filter(|said| said.key == key) else {
            return Err(format!("a record names offset {offset} of {partition:?}, where no user said {key:?}"));
        };
        if stored.value.is_none() && ended.insert((partition, offset), said).is_some() {
            return Err(format!("transaction {transaction} ends {offset} of {partition:?} twice"));
        }
    }
    Ok(ended)
}

/// A target record is what its user asked for.
fn as_said(stored: &Stored, said: &Said) -> Result<(), String> {
    let seconds = said.at_ms.div_euclid(1000).to_string();
    let expected: [(&[u8], &[u8]); 2] = [(b"customer", b"c"), (request::TIMESTAMP, seconds.as_bytes())];
    if let Some((name, value)) = expected.into_iter().find(|(name, value)| header(stored, name) != Some(*value)) {
        let (name, value) = (String::from_utf8_lossy(name), String::from_utf8_lossy(value));
        return Err(format!("its header {name} is not {value}: {stored:?}"));
    }
    if stored.key.as_deref() != Some(b"to") || said.word != Word::Schedule || !said.fit {
        return Err(format!("it fired as {stored:?}, which its user did not ask for: {said:?}"));
    }
    Ok(())
}

/// It was said before any engine ran, and was due before any clock's today.
fn is_leftover(world: &World, said: &Said) -> bool {
    said.at_ms == world.start_ms && said.due * 1000 < world.earliest_today()
}

/// No former owner commits anything behind its successor's barrier.
fn behind_barriers(world: &World) -> Result<(), String> {
    let mut lines: BTreeMap<(Partition, i64), (u64, bool)> = BTreeMap::new();
    for (transaction, records) in world.kafka().journal().filter(|(t, _)| is_engines(world, *t)) {
        for ((place, stored), offset) in records.iter().zip(world.kafka().offsets_of(transaction)) {
            if let Place::Schedules(partition) = place {
                let barrier = stored.key.as_deref() == Some(BARRIER_KEY);
                lines.insert((*partition, *offset), (transaction, barrier));
            }
        }
    }
    let mut owners: BTreeMap<Partition, &str> = BTreeMap::new();
    for ((partition, offset), (transaction, barrier)) in lines {
        let writer = writer(world, transaction);
        if barrier {
            owners.insert(partition, writer);
        } else if owners.get(&partition) != Some(&writer) {
            return Err(format!(
                "{writer} wrote offset {offset} of {partition:?}, behind the barrier of {:?}",
                owners.get(&partition)
            ));
        }
    }
    Ok(())
}

/// The group's offsets say who owns each partition: nothing but the engine's transactions has written them.
fn owners(world: &World) -> Result<(), String> {
    let foreign = |(_, (_, metadata)): &(&Partition, &(i64, String))| Ownership::decode(metadata.as_bytes()).is_none();
    match world.kafka().committed.iter().find(foreign) {
        Some((partition, committed)) => Err(format!("{partition:?} is committed as {committed:?}, without its owner")),
        None => Ok(()),
    }
}

fn is_engines(world: &World, transaction: u64) -> bool {
    !world.kafka().writer(transaction).starts_with("user.")
}

/// The owner behind a transactional id: all but its last part.
fn writer(world: &World, transaction: u64) -> &str {
    let id = world.kafka().writer(transaction);
    id.rsplit_once('.').map_or(id, |(owner, _)| owner)
}
