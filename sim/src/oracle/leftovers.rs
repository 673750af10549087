//! Tells which schedules may count as leftovers, by the start markers in the logs and the clocks that were wrong.

use std::collections::BTreeMap;

use kafka_scheduler::core::io::TopicPartition;
use kafka_scheduler::core::origin::{self, START_MARKER_KEY};
use kafka_scheduler::core::start_marker::StartMarker;

use crate::engine::leftover_cutoff_ms;
use crate::history::{History, UserRecord};
use crate::kafka::LogId;
use crate::names::{CLUSTER, DAY_MS, topic};

/// Returns the first start marker of each partition, with the latest `since` that it may have. A schedule may be a
/// leftover if it comes before its partition's first start marker and was due before the topic's first start marker was
/// written, by the clock that was furthest ahead. A start marker from a future day is rewritten once that clock is
/// right.
pub(super) fn start_markers_of(history: &History, now_ms: i64) -> BTreeMap<TopicPartition, StartMarker> {
    let mut first: BTreeMap<TopicPartition, StartMarker> = BTreeMap::new();
    let mut begun: BTreeMap<u16, i64> = BTreeMap::new();
    for (_, records) in history.kafka.journal() {
        for (log_id, stored) in records.iter().filter(|(_, stored)| stored.key.as_deref() == Some(START_MARKER_KEY)) {
            let LogId::Schedules(partition) = *log_id else { continue };
            let name = origin::partition_hash(CLUSTER, topic(partition), partition.number);
            let Some(start_marker) = stored.value.as_deref().and_then(|value| StartMarker::decode(value, name)) else {
                continue;
            };
            first.entry(partition).or_insert(start_marker);
            begun.entry(partition.topic).or_insert(stored.at_ms);
        }
    }
    for (partition, start_marker) in &mut first {
        let begun_ms = begun.get(&partition.topic).copied().unwrap_or(history.start_ms);
        start_marker.since.0 = first_today(history, begun_ms, now_ms);
    }
    first
}

/// Returns the latest `since` of a first start at `begun_ms`, after all clocks are right again.
fn first_today(history: &History, begun_ms: i64, now_ms: i64) -> i64 {
    /// All partitions of a topic get their first start markers within this.
    const TOGETHER_MS: i64 = 30_000;
    let History { ahead_ms_max, setup, .. } = history;
    let (small, large) = (*ahead_ms_max.min(&(DAY_MS / 24)), *ahead_ms_max > DAY_MS / 2);
    let quiet_since_ms = history.quiet_since_ms.unwrap_or(now_ms + ahead_ms_max);
    // With days to look back, a start marker from a wrong day is in the past, so only the next start checks the day
    // again.
    let wrong_ms = if setup.since_days > 0 && !history.restarted { *ahead_ms_max } else { 0 };
    let at = if large { quiet_since_ms.max(begun_ms) + wrong_ms } else { begun_ms + TOGETHER_MS };
    leftover_cutoff_ms(at + small, setup)
}

/// Whether a record was produced before any engine ran, and was due before the earliest `since` of any clock.
pub(super) fn is_leftover(history: &History, record: &UserRecord) -> bool {
    let earliest_cutoff_ms = leftover_cutoff_ms(history.start_ms + history.behind_ms_max, &history.setup);
    !record.kind.recurs() && record.at_ms == history.start_ms && record.due_s * 1000 < earliest_cutoff_ms
}
