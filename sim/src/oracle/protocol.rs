//! What holds for every batch, whatever becomes of it.

use std::collections::BTreeMap;

use kafka_scheduler::core::batch::{Batch, Kind};
use kafka_scheduler::core::io::{Millis, TopicPartition};

use crate::world::Said;

/// Asks a batch about itself. `clock` is that of the instance which formed it.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check(
    batch: &Batch,
    clock: Millis,
    said: &BTreeMap<(TopicPartition, i64), Said>,
) -> Result<(), &'static str> {
    if batch.offsets.is_empty() || batch.offsets.iter().any(|o| o.metadata.is_empty()) {
        return Err("a batch without its fence");
    }
    if batch.items.iter().any(|item| !batch.offsets.iter().any(|o| o.partition == item.partition)) {
        return Err("a partition without its offset");
    }
    for item in &batch.items {
        let Kind::Fire { target, due, .. } = &item.kind else { continue };
        if due.epoch_s() as i64 * 1000 > clock.0 {
            return Err("decided early by its own clock");
        }
        let Some(said) = said.get(&(item.partition, item.origin_offset)) else {
            return Err("a firing for what no user said");
        };
        if said.due != due.epoch_s() as i64 || said.target.name() != &**target {
            return Err("a firing that is not what the user asked for");
        }
    }
    Ok(())
}
