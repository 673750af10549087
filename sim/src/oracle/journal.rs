//! Checks the committed transactions: each record fires once, never early, all or nothing, as its user produced it, and
//! from its owner.

use std::collections::{BTreeMap, BTreeSet};

use kafka_scheduler::core::headers;
use kafka_scheduler::core::io::TopicPartition;
use kafka_scheduler::core::origin::{BARRIER_KEY, CANARY_PREFIX, PROGRESS_PREFIX, START_MARKER_KEY};
use kafka_scheduler::core::ownership::Ownership;
use kafka_scheduler::core::progress::Progress;
use kafka_scheduler::core::reason::Reason;
use kafka_scheduler::core::when::is_when;

use super::fenced::fenced;
use super::leftovers::is_leftover;
use super::occurrences::{self, Ended, Followed, Occurrences};
use super::{header, named};
use crate::failure::Failure;
use crate::history::{History, Misfire, UserRecord};
use crate::kafka::LogId;
use crate::kafka::log::{Headers, Stored};
use crate::names::topic as topic_of;
use crate::scenario::{RecordKind, Target};

/// User records that have ended, by partition and offset.
#[derive(Debug, Default)]
pub struct Fired {
    /// Schedules that fired, or whose last occurrence is over.
    pub schedules: BTreeSet<(TopicPartition, i64)>,
    /// Records that became dead letters.
    pub dead_letters: BTreeSet<(TopicPartition, i64)>,
    /// How far schedules that recur have come.
    pub occurrences: Occurrences,
    /// Number of records that were rewritten.
    pub rewritten: u64,
}

/// Checks everything that must hold at any time.
///
/// # Errors
/// The first broken promise.
pub fn safe(history: &History) -> Result<Fired, Failure> {
    owners(history)
        .and_then(|()| fenced(history))
        .and_then(|()| after_barriers(history))
        .and_then(|()| fired(history))
        .map_err(Failure::Safety)
}

/// Collects the firings and dead letters. Each must be the only one of its record or occurrence, and whole.
fn fired(history: &History) -> Result<Fired, String> {
    let mut fired = Fired::default();
    for (transaction, records) in history.kafka.journal().filter(|(t, _)| is_engines(history, *t)) {
        let mut named = followed(history, transaction, records)?;
        let tombstones = named.ended.len() as u64;
        let mut histories: Vec<&Stored> =
            records.iter().filter(|(log_id, _)| *log_id == LogId::History).map(|(_, stored)| stored).collect();
        for (log_id, stored) in records {
            let (LogId::Target(_) | LogId::DeadLetter) = *log_id else { continue };
            let origin_offset = match log_id {
                LogId::Target(topic) => check_firing(history, topic, stored, &named, &mut histories),
                _ => check_dead_letter(history, stored, &named.ended),
            };
            let origin_offset = origin_offset.map_err(|what| format!("transaction {transaction}: {what}"))?;
            if let Some(original) = history.produced.get(&origin_offset).filter(|original| original.kind.recurs()) {
                occurrences::check(history, &mut fired.occurrences, origin_offset, original, stored, &mut named)
                    .map_err(|what| format!("transaction {transaction}: {origin_offset:?}: {what}"))?;
                if named.ended.remove(&origin_offset).is_some() {
                    fired.schedules.insert(origin_offset);
                }
                continue;
            }
            named.ended.remove(&origin_offset);
            let kept = if *log_id == LogId::DeadLetter { &mut fired.dead_letters } else { &mut fired.schedules };
            if !kept.insert(origin_offset)
                || (fired.dead_letters.contains(&origin_offset) && fired.schedules.contains(&origin_offset))
            {
                return Err(format!("{origin_offset:?} fired twice, the second time in transaction {transaction}"));
            }
        }
        for stored in histories {
            let origin_offset = check_expired(history, stored, &named.ended)
                .map_err(|what| format!("transaction {transaction}: {what}"))?;
            named.ended.remove(&origin_offset);
            if !fired.schedules.insert(origin_offset) {
                return Err(format!("{origin_offset:?} fired and expired, in transaction {transaction}"));
            }
        }
        occurrences::skipped(&mut fired.occurrences, &mut named)
            .map_err(|what| format!("transaction {transaction}: {what}"))?;
        let of_keys = |(_, stored): &&(LogId, Stored)| named_key(stored).is_some_and(|key| !is_progress(key));
        fired.rewritten += records.iter().filter(of_keys).count() as u64 - tombstones + named.ended.len() as u64;
        // Only a cancel may be ended without firing or moving, or a schedule whose last occurrences were skipped.
        for (origin_offset, original) in named.ended {
            if original.recurrence.is_some_and(|recurrence| recurrence.misfire == Misfire::Skip) {
                fired.schedules.insert(origin_offset);
            } else if !original.is_cancel() {
                return Err(format!(
                    "transaction {transaction} ends {origin_offset:?} without firing it: {original:?}"
                ));
            }
        }
    }
    Ok(fired)
}

/// Returns the headers of a triggered record and of its history record.
fn expected_headers(
    origin_offset: (TopicPartition, i64),
    original: &UserRecord,
    due_ms: i64,
    occurrence: Option<(&[u8], &[u8])>,
) -> (Headers, Headers) {
    let seconds = original.at_ms.div_euclid(1000).to_string().into_bytes();
    let is_target = |name: &[u8]| [headers::TARGET_TOPIC, headers::TARGET_KEY].contains(&name);
    let (request, rest): (Headers, Headers) = original.headers.iter().cloned().partition(|(name, _)| is_target(name));
    let user: Headers = rest.iter().filter(|(name, _)| !is_when(name)).cloned().collect();
    let mut own = vec![
        (headers::TIMESTAMP, seconds),
        (headers::KEY, original.key.clone()),
        (headers::TOPIC, topic_of(origin_offset.0).as_bytes().to_vec()),
    ];
    let is_old = original.kind == RecordKind::Schedule;
    if !is_old {
        own.push((headers::DUE, due_ms.to_string().into_bytes()));
        own.push((headers::ID, format!("{}-{}", origin_offset.0.number, origin_offset.1).into_bytes()));
    }
    if let Some((number, missed)) = occurrence {
        own.extend([(headers::OCCURRENCE, number.to_vec()), (headers::MISSED, missed.to_vec())]);
    }
    let own: Headers = own.into_iter().map(|(name, value)| (name.to_vec(), Some(value))).collect();
    let target: Headers = user.iter().cloned().chain(own.clone()).collect();
    let epoch = (headers::EPOCH.to_vec(), Some(due_ms.div_euclid(1000).to_string().into_bytes()));
    let kept = if is_old { user } else { rest.into_iter().filter(|(name, _)| name != headers::EPOCH).collect() };
    let archived: Headers = kept.into_iter().chain(own).chain([epoch]).chain(request).collect();
    (target, archived)
}

/// Checks that a target record is what its user requested, and that its history record is the same with the request
/// headers. Returns the schedule.
fn check_firing(
    history: &History,
    topic: &str,
    stored: &Stored,
    named: &Followed<'_>,
    histories: &mut Vec<&Stored>,
) -> Result<(TopicPartition, i64), String> {
    let key = header(stored, headers::KEY).unwrap_or_default();
    let progress = named.progress.iter().map(|(origin_offset, (original, _))| (origin_offset, original));
    let found = named.ended.iter().chain(progress).find(|((partition, _), original)| {
        original.key == key
            && header(stored, headers::TOPIC) == Some(topic_of(*partition).as_bytes())
            && stored.value.as_ref() == Some(&original.value)
    });
    let Some((origin_offset, original)) = found.map(|(origin_offset, original)| (*origin_offset, *original)) else {
        return Err(format!("a target record without a tombstone or progress of its schedule: {stored:?}"));
    };
    let occurrence = header(stored, headers::OCCURRENCE).zip(header(stored, headers::MISSED));
    let number = |text: &[u8]| std::str::from_utf8(text).ok()?.parse::<i64>().ok();
    let due_ms = match original.recurrence {
        Some(_) => header(stored, headers::DUE).and_then(number).unwrap_or(i64::MAX),
        None => original.due_s * 1000,
    };
    let (target, archived) = expected_headers(origin_offset, original, due_ms, occurrence);
    let is = |stored: &Stored, headers: &Headers| {
        stored.key.as_deref() == Some(b"to")
            && stored.value.as_ref() == Some(&original.value)
            && stored.headers == *headers
    };
    if !is(stored, &target)
        || topic != original.target.name()
        || !original.kind.is_schedule()
        || !original.can_fire
        || occurrence.is_some() != original.kind.recurs()
    {
        return Err(format!(
            "{origin_offset:?} fired into {topic} as {stored:?}, which differs from the record: {original:?}"
        ));
    }
    let Some(at) = histories.iter().position(|stored| is(stored, &archived)) else {
        return Err(format!("{origin_offset:?} fired without its history record: {histories:?}"));
    };
    histories.remove(at);
    let early_ms = due_ms - stored.at_ms - history.ahead_ms_max;
    if early_ms > 0 {
        return Err(format!("{origin_offset:?} fired {early_ms} ms early"));
    }
    if !original.kind.recurs() && is_leftover(history, original) {
        return Err(format!("{origin_offset:?} fired, although it is a leftover from before the first start"));
    }
    Ok(origin_offset)
}

/// Checks that a history record without a target record is that of a schedule which has expired. Returns the schedule.
fn check_expired(history: &History, stored: &Stored, ended: &Ended<'_>) -> Result<(TopicPartition, i64), String> {
    let found = ended
        .iter()
        .find(|(_, original)| original.kind == RecordKind::Expiring && stored.value.as_ref() == Some(&original.value));
    let Some((origin_offset, original)) = found else {
        return Err(format!("a history record without its firing: {stored:?}"));
    };
    let (_, mut archived) = expected_headers(*origin_offset, original, original.due_s * 1000, None);
    archived.push((headers::ERROR.to_vec(), Some(Reason::Expired.code().as_bytes().to_vec())));
    if stored.headers != archived || history.setup.dead_letters {
        return Err(format!("{origin_offset:?} expired as {stored:?}, which differs from the record: {original:?}"));
    }
    Ok(*origin_offset)
}

/// Checks that a dead letter is the whole record with its reason. Returns the record.
fn check_dead_letter(history: &History, stored: &Stored, ended: &Ended<'_>) -> Result<(TopicPartition, i64), String> {
    let found = ended.iter().find(|((partition, offset), _)| {
        header(stored, headers::TOPIC) == Some(topic_of(*partition).as_bytes())
            && header(stored, headers::PARTITION) == Some(partition.number.to_string().as_bytes())
            && header(stored, headers::OFFSET) == Some(offset.to_string().as_bytes())
    });
    let Some((origin_offset, original)) = found.map(|(origin_offset, original)| (*origin_offset, *original)) else {
        return Err(format!("a dead letter without a tombstone for its record: {stored:?}"));
    };
    let Some(reason) =
        header(stored, headers::ERROR).and_then(|c| Reason::ALL.iter().find(|r| r.code().as_bytes() == c))
    else {
        return Err(format!("{origin_offset:?} became a dead letter without a reason"));
    };
    let own = [
        (headers::ERROR, reason.code().to_owned()),
        (headers::ERROR_DETAIL, reason.detail().to_owned()),
        (headers::TOPIC, topic_of(origin_offset.0).to_owned()),
        (headers::PARTITION, origin_offset.0.number.to_string()),
        (headers::OFFSET, origin_offset.1.to_string()),
    ];
    let own = own.into_iter().map(|(name, value)| (name.to_vec(), Some(value.into_bytes())));
    let request = match original.kind {
        RecordKind::Expiring if *reason == Reason::Expired => once_more(origin_offset, original),
        _ => original.headers.clone(),
    };
    let headers: Headers = request.into_iter().chain(own).collect();
    let whole = stored.key.as_ref() == Some(&original.key)
        && stored.value.as_ref() == Some(&original.value)
        && stored.headers == headers;
    if !whole || !may_move(history, original, *reason) {
        return Err(format!(
            "{origin_offset:?} became the dead letter {stored:?}, which differs from the record: {original:?}"
        ));
    }
    Ok(origin_offset)
}

/// Returns the headers with which the dead letter of a new form asks for its firing.
fn once_more(origin_offset: (TopicPartition, i64), original: &UserRecord) -> Headers {
    let is_target = |name: &[u8]| [headers::TARGET_TOPIC, headers::TARGET_KEY].contains(&name);
    let (target, rest): (Headers, Headers) = original.headers.iter().cloned().partition(|(name, _)| is_target(name));
    let due_ms = format!("{}000", original.due_s).into_bytes();
    let id = format!("{}-{}", origin_offset.0.number, origin_offset.1).into_bytes();
    let when = [(headers::EPOCH_MS, due_ms.clone()), (headers::DUE, due_ms), (headers::ID, id)];
    let when = when.into_iter().map(|(name, value)| (name.to_vec(), Some(value)));
    rest.into_iter().filter(|(name, _)| !is_when(name)).chain(when).chain(target).collect()
}

/// Whether a record may become a dead letter for this reason.
fn may_move(history: &History, original: &UserRecord, reason: Reason) -> bool {
    match original.kind {
        RecordKind::NoEpoch => reason == Reason::NoEpoch,
        RecordKind::BadEpoch => reason == Reason::BadEpoch,
        RecordKind::ToSchedules => reason == Reason::TargetIsSchedules,
        RecordKind::Schedule if !original.can_fire => matches!(reason, Reason::OverGrace | Reason::BeyondHorizon),
        RecordKind::Schedule => match original.target {
            Target::Open => false,
            Target::Late => {
                history.was_away && matches!(reason, Reason::UnknownTarget | Reason::Forbidden | Reason::Rejected)
            }
            Target::Missing => reason == Reason::UnknownTarget,
            Target::Forbidden => reason == Reason::Forbidden,
            Target::Small => reason == Reason::TooLarge,
            Target::Silent => reason == Reason::Rejected,
        },
        RecordKind::Expiring if !original.can_fire => matches!(reason, Reason::OverGrace | Reason::BeyondHorizon),
        RecordKind::Expiring => reason == Reason::Expired,
        RecordKind::Cancel
        | RecordKind::Copied
        | RecordKind::ReservedKey
        | RecordKind::NoKey
        | RecordKind::Recurring
        | RecordKind::Zoned
        | RecordKind::Replayed => false,
    }
}

/// Returns the user records that a transaction's records in the schedules topics were written for.
fn followed<'a>(history: &'a History, transaction: u64, records: &[(LogId, Stored)]) -> Result<Followed<'a>, String> {
    let mut followed = Followed::default();
    for (log_id, stored) in records {
        let (LogId::Schedules(partition), Some(key)) = (*log_id, stored.key.as_deref()) else { continue };
        if key == BARRIER_KEY || key == START_MARKER_KEY || key.starts_with(CANARY_PREFIX) {
            continue;
        }
        let Some(offset) = named(stored) else {
            return Err(format!("transaction {transaction}: a record in {partition:?} that names no user record"));
        };
        let user_key = key.strip_prefix(PROGRESS_PREFIX).unwrap_or(key);
        let original = history.produced.get(&(partition, offset)).filter(|original| original.key == user_key);
        let Some(original) = original else {
            return Err(format!("a record names offset {offset} of {partition:?}, where no user produced {key:?}"));
        };
        if is_progress(key) {
            if let Some(value) = &stored.value {
                let progress = Progress::decode(value).ok_or(format!("bad progress: {stored:?}"))?;
                followed.progress.insert((partition, offset), (original, progress));
            }
            continue;
        }
        if stored.value.is_none() && followed.ended.insert((partition, offset), original).is_some() {
            return Err(format!("transaction {transaction} ends {offset} of {partition:?} twice"));
        }
    }
    Ok(followed)
}

fn is_progress(key: &[u8]) -> bool {
    key.starts_with(PROGRESS_PREFIX)
}

fn named_key(stored: &Stored) -> Option<&[u8]> {
    named(stored).and(stored.key.as_deref())
}

/// Checks that no former owner commits anything after its successor's barrier.
fn after_barriers(history: &History) -> Result<(), String> {
    let mut lines: BTreeMap<(TopicPartition, i64), (u64, bool)> = BTreeMap::new();
    for (transaction, records) in history.kafka.journal().filter(|(t, _)| is_engines(history, *t)) {
        for ((log_id, stored), offset) in records.iter().zip(history.kafka.offsets_of(transaction)) {
            if let LogId::Schedules(partition) = log_id {
                let barrier = stored.key.as_deref() == Some(BARRIER_KEY);
                lines.insert((*partition, *offset), (transaction, barrier));
            }
        }
    }
    let mut owners: BTreeMap<TopicPartition, &str> = BTreeMap::new();
    for ((partition, offset), (transaction, barrier)) in lines {
        let writer = writer(history, transaction);
        if barrier {
            owners.insert(partition, writer);
        } else if owners.get(&partition) != Some(&writer) {
            return Err(format!(
                "{writer} wrote offset {offset} of {partition:?}, after the barrier of {:?}",
                owners.get(&partition)
            ));
        }
    }
    Ok(())
}

/// Checks that all committed offsets name an owner: only the engine's transactions commit any.
fn owners(history: &History) -> Result<(), String> {
    let foreign =
        |(_, (_, metadata)): &(&TopicPartition, &(i64, String))| Ownership::decode(metadata.as_bytes()).is_none();
    match history.kafka.committed.iter().find(foreign) {
        Some((partition, committed)) => Err(format!("{partition:?} is committed as {committed:?}, without its owner")),
        None => Ok(()),
    }
}

fn is_engines(history: &History, transaction: u64) -> bool {
    !history.kafka.writer(transaction).starts_with("user.")
}

/// Returns the owner in a transaction's transactional id: all but its last part.
fn writer(history: &History, transaction: u64) -> &str {
    let id = history.kafka.writer(transaction);
    id.rsplit_once('.').map_or(id, |(owner, _)| owner)
}
