//! What must hold once nothing breaks any more: everything owed has fired, the rest is held, by everybody who reads.

use std::collections::BTreeMap;

use kafka_scheduler::core::Listed;
use kafka_scheduler::core::floor::Floor;
use kafka_scheduler::core::io::Partition;
use kafka_scheduler::core::mark::{self, FLOOR_KEY};

use super::journal::{Fired, safe};
use crate::failure::Failure;
use crate::kafka::Place;
use crate::world::{CLUSTER, DAY_MS, Said, World};

/// Nothing takes longer than this to fire once it is due, while nothing breaks.
const LATE_MS_MAX: i64 = 8_000;

/// What cannot be delivered is given up, after some tries, within this.
const GIVEN_UP_MS_MAX: i64 = 60_000;

/// Nothing is lost, and nothing that was ended is pending: what the running engines hold is what the users' last words
/// say, in every detail.
///
/// # Errors
/// The first broken promise.
pub fn converged(world: &World) -> Result<Fired, Failure> {
    let fired = safe(world)?;
    served(world)?;
    let mut listed: BTreeMap<(Partition, i64), Listed> = BTreeMap::new();
    for held in world.listed() {
        if let Some(twice) = listed.insert((held.partition, held.offset), held) {
            return Err(Failure::Safety(format!("{twice:?} is held twice{}", world.describe())));
        }
    }
    let floors = floors_of(world);
    let mut last: BTreeMap<(Partition, &[u8]), (i64, &Said)> = BTreeMap::new();
    for ((partition, offset), said) in world.said().iter().filter(|(_, said)| said.is_word()) {
        last.insert((*partition, &said.key), (*offset, said));
    }
    let mut wanted = 0;
    for ((partition, _), (offset, said)) in &last {
        let identity = (*partition, *offset);
        let held = listed.get(&identity);
        wanted += usize::from(held.is_some());
        let moved = fired.letters.contains(&identity);
        if !said.fit || moved || fired.words.contains(&identity) {
            if held.is_some() {
                return Err(Failure::Safety(format!("{identity:?} is held still: {said:?}{}", world.describe())));
            }
            if !moved && !said.fit && !said.is_cancel() && world.setup.dead_letters {
                let broken = format!("{identity:?} is no dead letter: {said:?}{}", world.describe());
                return Err(Failure::Liveness(broken));
            }
            continue;
        }
        if let Some(held) = held {
            is_held(held, said).map_err(|what| Failure::Safety(format!("{identity:?} is held {what}: {said:?}")))?;
        }
        let overdue = said.target.delivers() && said.due * 1000 + LATE_MS_MAX <= world.now_ms;
        let may_be_leftover =
            floors.get(partition).is_some_and(|floor| *offset < floor.offset && said.due * 1000 < floor.since.0);
        match held {
            _ if may_be_leftover => {}
            None => return Err(Failure::Safety(format!("{identity:?} was lost: {said:?}{}", world.describe()))),
            Some(_) if world.setup.dead_letters && said.due * 1000 + GIVEN_UP_MS_MAX <= world.now_ms && !overdue => {
                let broken = format!("{identity:?} is not given up: {said:?}{}", world.describe());
                return Err(Failure::Liveness(broken));
            }
            Some(_) if overdue => {
                return Err(Failure::Liveness(format!("{identity:?} does not fire: {said:?}{}", world.describe())));
            }
            Some(_) => {}
        }
    }
    if wanted != listed.len() {
        let newest = |identity: &(Partition, i64)| last.values().any(|(offset, _)| *offset == identity.1);
        let odd: Vec<_> = listed.keys().filter(|identity| !newest(identity)).collect();
        return Err(Failure::Safety(format!("{odd:?} are held although newer words were read{}", world.describe())));
    }
    Ok(fired)
}

/// Every instance holds what the log that it has read says, no more and no less.
///
/// # Errors
/// The first difference.
pub fn folds(world: &World) -> Result<(), Failure> {
    for (number, partition, listed) in world.held() {
        let expected = world.watch.held(number, partition);
        if let Some(odd) = listed.difference(&expected).next() {
            let said = world.said().get(&(partition, *odd));
            return Err(Failure::Safety(format!(
                "i{number} holds {odd} of {partition:?}, which it read to be over: {said:?}"
            )));
        }
        let gone =
            expected.difference(&listed).filter_map(|offset| Some((*offset, world.said().get(&(partition, *offset))?)));
        let mut floors = None;
        for (offset, said) in gone {
            let floors = floors.get_or_insert_with(|| floors_of(world));
            let since = |floor: &Floor| floor.since.0.min(world.latest_since(number));
            let leftover = |floor: &Floor| offset < floor.offset && said.due * 1000 < since(floor);
            if !floors.get(&partition).is_some_and(leftover) {
                return Err(Failure::Safety(format!("i{number} has forgotten {offset} of {partition:?}: {said:?}")));
            }
        }
    }
    Ok(())
}

/// Somebody fires every partition.
///
/// # Errors
/// The partition that nobody fires.
pub fn served(world: &World) -> Result<(), Failure> {
    let live = world.live();
    match world.partitions().iter().find(|partition| !live.contains(partition)) {
        Some(dark) => {
            Err(Failure::Liveness(format!("nobody fires {dark:?} although nothing breaks{}", world.describe())))
        }
        None => Ok(()),
    }
}

/// Every probe that is due has fired.
///
/// # Errors
/// The one that has not.
pub fn fires_on_time(world: &World) -> Result<(), Failure> {
    let fired = safe(world)?;
    served(world)?;
    let late = |(identity, said): &(&(Partition, i64), &Said)| {
        said.key.starts_with(b"probe")
            && said.due * 1000 + LATE_MS_MAX <= world.now_ms
            && !fired.words.contains(identity)
    };
    match world.said().iter().find(late) {
        Some((identity, said)) => Err(Failure::Liveness(format!("{identity:?} is late: {said:?}{}", world.describe()))),
        None => Ok(()),
    }
}

fn is_held(held: &Listed, said: &Said) -> Result<(), String> {
    let parts = held.parts();
    let same = held.due as i64 == said.due
        && held.timestamp.0 == said.at_ms
        && &*held.target == said.target.name()
        && parts.key == said.key
        && parts.value == said.value
        && parts.target_key == Some(b"to")
        && parts.headers.len() == 1;
    if same { Ok(()) } else { Err(format!("as {held:?}")) }
}

/// What may be a leftover lies below its partition's first floor, and was due before the topic's first one was written,
/// by the clock that was furthest ahead. A floor from a future day is written anew once that clock is right again.
fn floors_of(world: &World) -> BTreeMap<Partition, Floor> {
    let mut first: BTreeMap<Partition, Floor> = BTreeMap::new();
    let mut begun: BTreeMap<u16, i64> = BTreeMap::new();
    for (_, records) in world.kafka().journal() {
        for (place, stored) in records.iter().filter(|(_, stored)| stored.key.as_deref() == Some(FLOOR_KEY)) {
            let Place::Schedules(partition) = *place else { continue };
            let name = mark::place(CLUSTER, World::topic(partition), partition.number);
            let Some(floor) = stored.value.as_deref().and_then(|value| Floor::decode(value, name)) else { continue };
            first.entry(partition).or_insert(floor);
            begun.entry(partition.topic).or_insert(stored.at_ms);
        }
    }
    for (partition, floor) in &mut first {
        floor.since.0 = world.first_today(begun.get(&partition.topic).copied().unwrap_or(world.start_ms));
    }
    first
}

impl World {
    /// The latest `since` that a first start at `begun_ms` may have come to, after all clocks are right again.
    fn first_today(&self, begun_ms: i64) -> i64 {
        /// Partitions of a topic get their first floors within this.
        const TOGETHER_MS: i64 = 30_000;
        let (small, large) = (self.ahead_ms_max.min(DAY_MS / 24), self.ahead_ms_max > DAY_MS / 2);
        let calm_ms = if self.quiet { self.calm_ms } else { self.now_ms + self.ahead_ms_max };
        // With days to look back a floor from a wrong day lies in the past: only the next start looks at the day again.
        let wrong_ms = if self.setup.since_days > 0 && !self.restarted { self.ahead_ms_max } else { 0 };
        let at = if large { calm_ms.max(begun_ms) + wrong_ms } else { begun_ms + TOGETHER_MS };
        self.today_of(at + small)
    }
}
