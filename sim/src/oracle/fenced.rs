//! Checks the coordinators' records: nothing commits in a stale epoch, from a stale generation, or for another member's
//! partition.

use std::collections::BTreeMap;

use kafka_scheduler::core::io::TopicPartition;

use crate::history::History;
use crate::kafka::Event;

/// Checks that every transaction was committed in the newest epoch of its id and, if it is an engine's, from the
/// group's generation.
pub(super) fn fenced(history: &History) -> Result<(), String> {
    let mut newest: BTreeMap<&str, u32> = BTreeMap::new();
    for event in &history.kafka.events {
        match event {
            Event::Init { id, epoch } => {
                newest.insert(id, *epoch);
            }
            Event::Commit { transaction, epoch } => {
                let id = history.kafka.writer(*transaction);
                if newest.get(id) != Some(epoch) {
                    return Err(format!("transaction {transaction} of {id} was committed in the stale epoch {epoch}"));
                }
                if !id.starts_with("user.") {
                    from_the_generation(history, *transaction)?;
                }
            }
        }
    }
    Ok(())
}

fn from_the_generation(history: &History, transaction: u64) -> Result<(), String> {
    match history.kafka.generations_of(transaction) {
        None => Err(format!("transaction {transaction} was committed without its fence")),
        Some((sent, current)) if sent != current => {
            Err(format!("transaction {transaction} was committed from generation {sent} in generation {current}"))
        }
        Some(_) => Ok(()),
    }
}

/// Checks that a member sends offsets of its own partitions alone. Brokers accept any.
pub(super) fn owned(history: &History, member: &str, partitions: &[TopicPartition]) -> Result<(), String> {
    match partitions.iter().find(|partition| !history.kafka.group.holds(member, **partition)) {
        Some(other) => Err(format!("commits offsets of {other:?}, which it does not own")),
        None => Ok(()),
    }
}
