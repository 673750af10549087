//! Every record that was produced, what the topics hold of it, and whether the two agree.

use std::collections::{BTreeMap, HashMap};

/// A user record's number, which is also its value and one of its headers.
pub type Id = usize;

/// A schedules topic's number, a partition and an offset.
pub type Place = (usize, i32, i64);

/// A record that has not fired for so long is lost, and one that fires so long after it was superseded is stale. It is
/// longer than any fault, with recovery; on a machine that is slower than that it is twice the worst lateness.
const LONG_MS: i64 = 120_000;

/// A schedule or a cancel.
#[derive(Clone, Debug)]
pub struct UserRecord {
    pub topic: usize,
    pub key: usize,
    /// When it is due, in seconds; a cancel has none.
    pub due: Option<i64>,
    pub sent_ms: i64,
    /// Where it was acknowledged, and when the acknowledgement was seen.
    pub acked: Option<(i32, i64, i64)>,
    /// Not acknowledged within its time: it may be in the log or not.
    pub unknown: bool,
}

/// A triggered record.
#[derive(Clone, Copy, Debug)]
pub struct Firing {
    /// Partition and offset, for the report.
    #[allow(dead_code)]
    pub at: (i32, i64),
    pub appended_ms: i64,
    /// It carries what it should.
    pub intact: bool,
}

/// What read_committed consumers have seen.
#[derive(Debug, Default)]
pub struct Seen {
    pub target: HashMap<Id, Vec<Firing>>,
    pub history: HashMap<Id, u32>,
    pub dead: HashMap<Id, u32>,
    /// User records in the schedules topics, by their place.
    pub log: BTreeMap<Place, Id>,
    /// Tombstones of the engine, by the place that they name.
    pub tombstones: HashMap<Place, u32>,
    /// Records that the engine wrote again.
    pub copies: u64,
    /// Records of the schedules topics that were there and are no more.
    pub compacted: usize,
    /// Records that no user record explains.
    pub foreign: Vec<String>,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Verdict {
    pub schedules: usize,
    pub cancels: usize,
    pub acknowledged: usize,
    pub unknown: usize,
    /// Of those, how many were in the log after all.
    pub unknown_in_log: usize,
    pub fired: usize,
    pub superseded: usize,
    pub lost: Vec<String>,
    pub doubled: Vec<String>,
    pub early: Vec<String>,
    /// Words that fired although a newer one had been in the log for very long.
    pub stale: Vec<String>,
    /// Words that fired more than 1 s after a newer one was acknowledged, and the longest such time.
    pub overlapped: usize,
    pub overlapped_ms_max: i64,
    /// Where target, history, tombstones and records do not agree.
    pub unequal: Vec<String>,
    /// Milliseconds to the broker's append, sorted.
    pub late_ms: Vec<i64>,
}

impl Verdict {
    /// Nothing is wrong.
    pub fn good(&self) -> bool {
        self.findings().iter().all(|(_, list)| list.is_empty())
    }

    /// What is wrong, by kind.
    pub fn findings(&self) -> [(&'static str, &[String]); 5] {
        [
            ("lost", &self.lost),
            ("doubled", &self.doubled),
            ("early", &self.early),
            ("stale", &self.stale),
            ("unequal", &self.unequal),
        ]
    }

    /// So many of a hundred are not later.
    pub fn percentile(&self, percent: f64) -> i64 {
        let at = (percent / 100.0 * self.late_ms.len() as f64).ceil() as usize;
        self.late_ms.get(at.saturating_sub(1)).copied().unwrap_or_default()
    }
}

/// Judges what was seen.
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
            verdict
                .unequal
                .push(format!("record {id} {record:?} is not where it was acknowledged: {:?}", place.get(&id)));
        }
    }
    // In the order of each partition's log, which is the order of each key's records.
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
        verdict.unequal.push(format!("record {id} fired and is not in the log: {:?}", records.get(*id)));
    }
    for (place, count) in &seen.tombstones {
        let named = seen.log.get(place);
        let fired = named.is_some_and(|id| seen.target.contains_key(id));
        // A schedule's tombstone says that it has fired; a cancel's is the cancel, written again.
        let due = named.is_some_and(|id| records[*id].due.is_some());
        if named.is_none() || (due && (!fired || *count != 1)) {
            verdict.unequal.push(format!("{count} tombstones name {place:?}, record {named:?}, which fired: {fired}"));
        }
    }
    verdict.unequal.extend(seen.dead.iter().map(|(id, n)| format!("record {id} became {n} dead letters")));
    verdict.unequal.extend(seen.foreign.iter().cloned());
    verdict
}

/// What is wrong only if it took very long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slow {
    /// It did not fire until it was superseded.
    Superseded,
    /// It fired although it was superseded.
    Overlapped,
}

/// Judges one record and the one that superseded it. Gives what is wrong only if those milliseconds are very many.
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
        // Superseded in time, it need not fire.
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
