//! Checks batches when they are formed, whatever their outcome.

use kafka_scheduler::core::batch::Kind;

use crate::history::{Decision, History};

/// Checks that a batch carries its fence, and that its firings are due and as their users requested.
///
/// # Errors
/// The rule that it breaks.
pub(super) fn check(history: &History, decision: &Decision) -> Result<(), &'static str> {
    let Decision { batch, clock, .. } = decision;
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
        let Some(record) = history.produced.get(&(item.partition, item.origin_offset)) else {
            return Err("a firing of a record that no user produced");
        };
        if record.due_s != due.epoch_s() as i64 || record.target.name() != &**target {
            return Err("a firing that differs from the user's request");
        }
    }
    Ok(())
}
