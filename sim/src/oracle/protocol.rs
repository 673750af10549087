//! Checks batches when they are formed, whatever their outcome.

use kafka_scheduler::core::batch::Kind;

use crate::history::{Decision, History, Misfire, Recurrence};
use crate::names::EXPIRES_MS;
use crate::scenario::RecordKind;

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
        let Kind::Fire { target, due, fired, .. } = &item.kind else { continue };
        if due.at() > *clock || fired.nominal.is_some_and(|nominal| nominal.at() > *clock) {
            return Err("decided early by its own clock");
        }
        let Some(record) = history.produced.get(&(item.partition, item.origin_offset)) else {
            return Err("a firing of a record that no user produced");
        };
        if let (Some(recurrence), Some((number, _))) = (record.recurrence, fired.occurrence) {
            // They may begin later than the user's record says: see `occurrences::check`.
            let nominal_ms = fired.nominal.map_or(0, |nominal| nominal.at().0);
            let first_ms = recurrence.first_ms + nominal_ms - recurrence.nominal_ms(number);
            occurrence(&Recurrence { first_ms, ..recurrence }, number, clock.0)?;
        } else if record.due_s * 1000 != due.at().0 {
            return Err("a firing that differs from the user's request");
        }
        if record.kind == RecordKind::Expiring && record.due_s * 1000 + EXPIRES_MS < clock.0 {
            return Err("a firing of a schedule that has expired");
        }
        if record.target.name() != &**target {
            return Err("a firing that differs from the user's request");
        }
    }
    Ok(())
}

/// Checks that what was missed fires as its user wants it.
fn occurrence(recurrence: &Recurrence, number: u64, now_ms: i64) -> Result<(), &'static str> {
    let is_missed = |number| recurrence.is_missed(number, now_ms);
    match recurrence.misfire {
        Misfire::Skip if is_missed(number) => Err("a firing of a missed occurrence that is to be skipped"),
        Misfire::Once if is_missed(number) && number < recurrence.count && is_missed(number + 1) => {
            Err("a firing of a missed occurrence that is not the last one")
        }
        Misfire::Once | Misfire::Skip | Misfire::All => Ok(()),
    }
}
