//! Checks every record that was produced against the records in the topics.

use std::collections::{BTreeMap, HashMap};

/// The number of a user record, which is also its value and one of its headers.
pub type Id = usize;

/// The number of a schedules topic, a partition and an offset.
pub type Place = (usize, i32, i64);

/// A schedule that has not fired for this long is lost, and one that fires this long after it was superseded is stale.
/// This is longer than any fault with recovery; on a slow machine, twice the worst lateness replaces it.
const LONG_MS: i64 = 120_000;

/// A schedule or a cancel.
#[derive(Clone, Debug)]
pub struct UserRecord {
    pub topic: usize,
    pub key: usize,
    /// The due time in seconds; `None` for a cancel.
    pub due: Option<i64>,
    pub sent_ms: i64,
    /// Partition and offset of the acknowledgement, and the time at which it was received.
    pub acked: Option<(i32, i64, i64)>,
    /// Not acknowledged in time, so it may or may not be in the log.
    pub unknown: bool,
}

/// A triggered record.
#[derive(Clone, Copy, Debug)]
pub struct Firing {
    /// Partition and offset, which only the report needs.
    #[allow(dead_code)]
    pub at: (i32, i64),
    pub appended_ms: i64,
    /// Whether value and headers are as expected.
    pub intact: bool,
}

/// All records that read_committed consumers have received.
#[derive(Debug, Default)]
pub struct Seen {
    pub target: HashMap<Id, Vec<Firing>>,
    pub history: HashMap<Id, u32>,
    pub dead: HashMap<Id, u32>,
    /// User records in the schedules topics, by place.
    pub log: BTreeMap<Place, Id>,
    /// The engine's tombstones, by the place of the record that they end.
    pub tombstones: HashMap<Place, u32>,
    /// The number of copies that the engine wrote.
    pub copies: u64,
    /// The number of records in the schedules topics that were compacted away.
    pub compacted: usize,
    /// Records that belong to no user record.
    pub foreign: Vec<String>,
}

/// The result.
#[derive(Debug, Default)]
pub struct Verdict {
    pub schedules: usize,
    pub cancels: usize,
    pub acknowledged: usize,
    pub unknown: usize,
    /// How many of the unacknowledged records were in the log.
    pub unknown_in_log: usize,
    pub fired: usize,
    pub superseded: usize,
    pub lost: Vec<String>,
    pub doubled: Vec<String>,
    pub early: Vec<String>,
    /// Schedules that fired very long after they were superseded in the log.
    pub stale: Vec<String>,
    /// The number of schedules that fired more than 1 s after a newer record was acknowledged, and the longest such
    /// time.
    pub overlapped: usize,
    pub overlapped_ms_max: i64,
    /// Disagreements between target, history, tombstones and records.
    pub unequal: Vec<String>,
    /// Lateness up to the broker's append in milliseconds, sorted.
    pub late_ms: Vec<i64>,
}

impl Verdict {
    /// Returns whether there are no errors.
    pub fn good(&self) -> bool {
        self.findings().iter().all(|(_, list)| list.is_empty())
    }

    /// Returns the errors by kind.
    pub fn findings(&self) -> [(&'static str, &[String]); 5] {
        [
            ("lost", &self.lost),
            ("doubled", &self.doubled),
            ("early", &self.early),
            ("stale", &self.stale),
            ("unequal", &self.unequal),
        ]
    }

    /// Returns the lateness that this percentage of records does not exceed.
    pub fn percentile(&self, percent: f64) -> i64 {
        let at = (percent / 100.0 * self.late_ms.len() as f64).ceil() as usize;
        self.late_ms.get(at.saturating_sub(1)).copied().unwrap_or_default()
    }
}

/// Checks all records.
pub fn judge(records: &[UserRecord], seen: &Seen) -> Verdict {
    let mut verdict = Verdict {
        schedules: records.iter().filter(|record| record.due.is_some()).count(),
        cancels: records.iter().filter(|record| record.due.is_none()).count(),
        acknowledged: records.iter().filter(|record| record.acked.is_some()).count(),
        unknown: records.iter().filter(|record| record.unknown).count(),
        ..Verdict::default()
    };
    let place: HashMap<Id, Place> = seen.log.iter().map(|(place, id)| (*id, *place)).collect();
    for (id, record) in records.iter().enumerate() {
        verdict.unknown_in_log += usize::from(record.unknown && place.contains_key(&id));
        let expected = record.acked.map(|(partition, offset, _)| (record.topic, partition, offset));
        if expected.is_some() && expected != place.get(&id).copied() {
            verdict.unequal.push(format!(
                "record {id} {record:?} is not at the place that was acknowledged: {:?}",
                place.get(&id)
            ));
        }
    }
    // By partition and offset, which is also the order of each key's records.
    let mut keys: BTreeMap<(usize, usize), Vec<Id>> = BTreeMap::new();
    for id in seen.log.values() {
        keys.entry((records[*id].topic, records[*id].key)).or_default().push(*id);
    }
    let mut slow = Vec::new();
    for ids in keys.values() {
        for (at, id) in ids.iter().enumerate() {
            let next = ids.get(at + 1).copied();
            slow.extend(judge_record(&mut verdict, records, seen, (*id, next), place[id]));
        }
    }
    verdict.late_ms.sort_unstable();
    let long_ms = LONG_MS.max(2 * verdict.percentile(100.0));
    for (late_ms, kind, text) in slow.into_iter().filter(|(late_ms, ..)| *late_ms > long_ms) {
        let found = if kind == Slow::Superseded { &mut verdict.lost } else { &mut verdict.stale };
        found.push(format!("after {late_ms} ms {text}"));
    }
    for id in seen.target.keys().filter(|id| !place.contains_key(*id)) {
        verdict.unequal.push(format!("record {id} fired but is not in the log: {:?}", records.get(*id)));
    }
    for (place, count) in &seen.tombstones {
        let named = seen.log.get(place);
        let fired = named.is_some_and(|id| seen.target.contains_key(id));
        // A schedule's tombstone means that it fired; a cancel's is a copy of the cancel.
        let due = named.is_some_and(|id| records[*id].due.is_some());
        if named.is_none() || (due && (!fired || *count != 1)) {
            verdict.unequal.push(format!("{count} tombstones name {place:?}, record {named:?}, which fired: {fired}"));
        }
    }
    verdict.unequal.extend(seen.dead.iter().map(|(id, n)| format!("record {id} became {n} dead letters")));
    verdict.unequal.extend(seen.foreign.iter().cloned());
    verdict
}

/// Findings that are errors only if they took very long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slow {
    /// It did not fire before it was superseded.
    Superseded,
    /// It fired after it was superseded.
    Overlapped,
}

/// Checks one record and the one that superseded it. Returns findings that are errors only if they took very long.
fn judge_record(
    verdict: &mut Verdict,
    records: &[UserRecord],
    seen: &Seen,
    (id, next): (Id, Option<Id>),
    place: Place,
) -> Option<(i64, Slow, String)> {
    let record = &records[id];
    let next = next.map(|next| &records[next]);
    let history = seen.history.get(&id).copied().unwrap_or_default();
    let firings = seen.target.get(&id).map_or(&[][..], Vec::as_slice);
    let Some(due) = record.due else {
        if !firings.is_empty() || history > 0 {
            verdict.unequal.push(format!("record {id} is a cancel and fired: {firings:?}"));
        }
        return None;
    };
    let tombstones = seen.tombstones.get(&place).copied().unwrap_or_default();
    let tell = |what: &str| format!("record {id} at {place:?} {what}: {record:?}, then {next:?}; it fired {firings:?}");
    if firings.len() != history as usize || firings.len() != tombstones as usize {
        verdict.unequal.push(tell(&format!("has {history} history records and {tombstones} tombstones")));
    }
    verdict.superseded += usize::from(next.is_some());
    let [first, ..] = firings else {
        // It was superseded before it was due, so it need not fire.
        let Some(next) = next else {
            verdict.lost.push(tell("is lost"));
            return None;
        };
        let arrived_ms = record.acked.map_or(record.sent_ms, |(.., acked_ms)| acked_ms);
        let late_ms = next.sent_ms - arrived_ms.max(due * 1_000);
        return (late_ms > LONG_MS).then(|| (late_ms, Slow::Superseded, tell("had not fired")));
    };
    verdict.fired += 1;
    if firings.len() > 1 {
        verdict.doubled.push(tell("is doubled"));
    }
    if firings.iter().any(|firing| firing.appended_ms < due * 1_000) {
        verdict.early.push(tell("is early"));
    }
    if firings.iter().any(|firing| !firing.intact) {
        verdict.unequal.push(tell("does not carry what it should"));
    }
    let arrived_ms = record.acked.map_or(record.sent_ms, |(.., acked_ms)| acked_ms);
    verdict.late_ms.push((first.appended_ms - arrived_ms.max(due * 1_000)).max(0));
    let (.., superseded_ms) = next?.acked?;
    let overlapped = first.appended_ms - superseded_ms;
    verdict.overlapped += usize::from(overlapped > 1_000);
    verdict.overlapped_ms_max = verdict.overlapped_ms_max.max(overlapped);
    (overlapped > LONG_MS).then(|| (overlapped, Slow::Overlapped, tell("still fired")))
}
