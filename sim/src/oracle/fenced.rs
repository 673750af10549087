//! Questions to the coordinators' own records: nothing commits in a stale epoch or from a stale generation.

use std::collections::BTreeMap;

use crate::kafka::Event;
use crate::world::World;

/// Every transaction of an engine was committed in the newest epoch of its id and from the group's generation.
pub(super) fn fenced(world: &World) -> Result<(), String> {
    let mut newest: BTreeMap<&str, u32> = BTreeMap::new();
    for event in &world.kafka().events {
        match event {
            Event::Init { id, epoch } => {
                newest.insert(id, *epoch);
            }
            Event::Commit { transaction, epoch } => {
                let id = world.kafka().writer(*transaction);
                if newest.get(id) != Some(epoch) {
                    return Err(format!("transaction {transaction} of {id} was committed in the stale epoch {epoch}"));
                }
                if !id.starts_with("user.") {
                    from_the_generation(world, *transaction)?;
                }
            }
        }
    }
    Ok(())
}

fn from_the_generation(world: &World, transaction: u64) -> Result<(), String> {
    match world.kafka().generations_of(transaction) {
        None => Err(format!("transaction {transaction} was committed without its fence")),
        Some((sent, current)) if sent != current => {
            Err(format!("transaction {transaction} was committed from generation {sent} in generation {current}"))
        }
        Some(_) => Ok(()),
    }
}
