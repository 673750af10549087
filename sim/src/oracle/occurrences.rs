//! Checks the occurrences of schedules that recur: each is over once, in order, and none is left out.

use std::collections::BTreeMap;

use kafka_scheduler::core::headers;
use kafka_scheduler::core::io::TopicPartition;
use kafka_scheduler::core::progress::Progress;

use super::header;
use super::leftovers::start_markers_of;
use crate::history::{History, Misfire, UserRecord};
use crate::kafka::log::Stored;
use crate::names::DAY_MS;

/// The number of occurrences that are over, by the user's record.
pub(super) type Occurrences = BTreeMap<(TopicPartition, i64), u64>;

pub(super) type Ended<'a> = BTreeMap<(TopicPartition, i64), &'a UserRecord>;

/// The user records that a transaction's records in the schedules topics were written for.
#[derive(Debug, Default)]
pub(super) struct Followed<'a> {
    /// Those that a tombstone ends.
    pub(super) ended: Ended<'a>,
    /// The progress records.
    pub(super) progress: BTreeMap<(TopicPartition, i64), (&'a UserRecord, Progress)>,
}

/// Checks a firing of a schedule that recurs, and what follows it in its transaction.
///
/// # Errors
/// The promise that it breaks.
pub(super) fn check(
    history: &History,
    occurrences: &mut Occurrences,
    origin_offset: (TopicPartition, i64),
    original: &UserRecord,
    stored: &Stored,
    named: &mut Followed<'_>,
) -> Result<(), String> {
    let recurrence = original.recurrence.ok_or("a schedule that does not recur")?;
    let number = |name: &[u8]| std::str::from_utf8(header(stored, name)?).ok()?.parse::<u64>().ok();
    let (Some(occurrence), Some(missed), Some(due_ms)) =
        (number(headers::OCCURRENCE), number(headers::MISSED), number(headers::DUE))
    else {
        return Err(format!("a firing without its occurrence: {stored:?}"));
    };
    let done = occurrences.entry(origin_offset).or_default();
    let first = occurrence.checked_sub(missed).ok_or("more occurrences were missed than there were")?;
    let skips = recurrence.misfire == Misfire::Skip;
    if first <= *done || first > *done + 1 && !skips {
        return Err(format!("occurrences {first} to {occurrence} fired after {done}: {stored:?}"));
    }
    if missed > 0 && recurrence.misfire != Misfire::Once {
        return Err(format!("missed occurrences became one firing: {stored:?}"));
    }
    if occurrence > recurrence.count {
        return Err(format!("occurrence {occurrence} of {}", recurrence.count));
    }
    if due_ms as i64 != recurrence.nominal_ms(occurrence) && !may_begin_later(history, origin_offset, original) {
        return Err(format!("occurrence {occurrence} was due at {}: {stored:?}", recurrence.nominal_ms(occurrence)));
    }
    *done = occurrence;
    match named.progress.remove(&origin_offset) {
        Some((_, progress)) if progress.done == occurrence && occurrence < recurrence.count => Ok(()),
        None if occurrence == recurrence.count && named.ended.contains_key(&origin_offset) => Ok(()),
        other => Err(format!("occurrence {occurrence} of {} is followed by {other:?}", recurrence.count)),
    }
}

/// Checks the progress records of a transaction that follow no firing: missed occurrences were skipped, or a record was
/// rewritten.
///
/// # Errors
/// The promise that one breaks.
pub(super) fn skipped(occurrences: &mut Occurrences, named: &mut Followed<'_>) -> Result<(), String> {
    for (origin_offset, (original, progress)) in std::mem::take(&mut named.progress) {
        let done = occurrences.entry(origin_offset).or_default();
        let skips = original.recurrence.is_some_and(|recurrence| recurrence.misfire == Misfire::Skip);
        if progress.done < *done || progress.done > *done && !skips {
            return Err(format!("{origin_offset:?} goes on after {progress:?}, and {done} occurrences are over"));
        }
        *done = progress.done;
    }
    Ok(())
}

/// Whether occurrences of a record never existed, because they were before the engine's first start, by some clock.
pub(super) fn may_begin_later(history: &History, origin_offset: (TopicPartition, i64), original: &UserRecord) -> bool {
    let start_markers = start_markers_of(history, history.quiet_since_ms.unwrap_or(i64::MAX / 4));
    let marker = start_markers.get(&origin_offset.0);
    let was_wrong_day = history.ahead_ms_max > DAY_MS / 2;
    let is_before = |since_ms: i64| was_wrong_day || original.first_due_ms() < since_ms;
    marker.is_some_and(|marker| origin_offset.1 < marker.offset && is_before(marker.since.0))
}
