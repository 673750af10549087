//! What must hold, asked of the brokers' logs and of what users said.

use std::collections::{BTreeMap, BTreeSet};

use kafka_scheduler::core::io::Partition;
use kafka_scheduler::core::mark::MARK_HEADER;
use kafka_scheduler::core::request;

use crate::kafka::Place;
use crate::kafka::log::Stored;
use crate::world::{Said, Word, World};

/// A schedule: partition, key, and the offset of the user's record.
type Identity = (Partition, Vec<u8>, i64);

/// Once, never early, all or nothing. Gives how many target records there are.
///
/// Tombstones are read from an uncompacted journal: the target's records name their schedules through them.
///
/// # Errors
/// The first broken promise.
pub fn safe(world: &World) -> Result<usize, String> {
    fired(world).map(|fired| fired.len())
}

/// What fired, from the logs.
///
/// # Errors
/// The first broken promise.
pub fn fired(world: &World) -> Result<BTreeSet<Identity>, String> {
    let said: BTreeMap<(Partition, i64), &Said> = world.said().iter().map(|s| ((s.partition, s.offset), s)).collect();
    let mut fired = BTreeSet::new();
    for (transaction, records) in world.kafka().journal() {
        let of = |wanted: Place| records.iter().filter(move |(place, _)| *place == wanted).map(|(_, stored)| stored);
        let mut ended: BTreeMap<Vec<u8>, Identity> = BTreeMap::new();
        for (place, stored) in records {
            let (Place::Schedules(partition), None, Some(offset)) = (*place, &stored.value, named(stored)) else {
                continue;
            };
            let Some(word) = said.get(&(partition, offset)) else {
                return Err(format!("a tombstone names offset {offset} of {partition:?}, where no user's record is"));
            };
            if !matches!(word.word, Word::Schedule(_)) {
                continue;
            }
            if ended.insert(word.key.clone(), (partition, word.key.clone(), offset)).is_some() {
                return Err(format!("transaction {transaction} ends {:?} twice", word.key));
            }
        }
        let (targets, histories) = (of(Place::Target).count(), of(Place::History).count());
        if targets != histories || targets != ended.len() {
            return Err(format!(
                "transaction {transaction}: {targets} target records, {histories} history records, {} tombstones",
                ended.len()
            ));
        }
        for stored in of(Place::Target) {
            let key = header(stored, request::KEY).ok_or("a target record without its schedule's key")?;
            let Some(identity) = ended.remove(key) else {
                return Err(format!("transaction {transaction}: a target record without a tombstone"));
            };
            let Word::Schedule(due) = said[&(identity.0, identity.2)].word else { continue };
            if stored.at_ms < due * 1000 {
                return Err(format!("{identity:?} fired {} ms early", due * 1000 - stored.at_ms));
            }
            if !fired.insert(identity.clone()) {
                return Err(format!("{identity:?} fired twice, the second time in transaction {transaction}"));
            }
        }
    }
    Ok(fired)
}

/// Nothing is lost, and nothing that was ended is pending.
///
/// # Errors
/// The first broken promise.
pub fn converged(world: &World) -> Result<(), String> {
    let fired = fired(world)?;
    let pending = world.pending();
    let live = world.live();
    if let Some(dark) = world.partitions().iter().find(|p| !live.contains(p)) {
        return Err(format!("nobody fires {dark:?} although nothing breaks any more{}", world.describe()));
    }
    let mut last: BTreeMap<(Partition, Vec<u8>), &Said> = BTreeMap::new();
    for said in world.said() {
        last.insert((said.partition, said.key.clone()), said);
    }
    let mut wanted = BTreeSet::new();
    for ((partition, key), said) in last {
        let identity = (partition, key, said.offset);
        let Word::Schedule(due) = said.word else { continue };
        match (fired.contains(&identity), due * 1000 <= world.now_ms()) {
            (true, true) => {}
            (false, true) => return Err(format!("{said:?} was lost{}", world.describe())),
            (true, false) => return Err(format!("{said:?} fired early")),
            (false, false) => {
                wanted.insert(identity);
            }
        }
    }
    if pending != wanted {
        return Err(format!("pending is {pending:?}, not {wanted:?}{}", world.describe()));
    }
    Ok(())
}

/// How many words a transaction writes again: engine records beside those of its firings.
#[must_use]
pub fn written_again(records: &[(Place, Stored)]) -> u64 {
    let count = |wanted: &dyn Fn(&(Place, Stored)) -> bool| records.iter().filter(|r| wanted(r)).count() as u64;
    count(&|(_, stored)| named(stored).is_some()) - count(&|(place, _)| *place == Place::Target)
}

fn header<'a>(stored: &'a Stored, name: &[u8]) -> Option<&'a [u8]> {
    stored.headers.iter().find(|(n, _)| n == name)?.1.as_deref()
}

fn named(stored: &Stored) -> Option<i64> {
    let bytes = header(stored, MARK_HEADER)?.get(9..17)?;
    Some(i64::from_be_bytes(bytes.try_into().ok()?))
}
