//! Checks the committed transactions: each record fires once, never early, all or nothing, as its user produced it, and
//! from its owner.

use std::collections::{BTreeMap, BTreeSet};

use kafka_scheduler::core::headers;
use kafka_scheduler::core::io::TopicPartition;
use kafka_scheduler::core::origin::{BARRIER_KEY, START_MARKER_KEY};
use kafka_scheduler::core::ownership::Ownership;
use kafka_scheduler::core::reason::Reason;

use super::fenced::fenced;
use super::leftovers::is_leftover;
use super::{header, named};
use crate::failure::Failure;
use crate::history::{History, UserRecord};
use crate::kafka::LogId;
use crate::kafka::log::{Headers, Stored};
use crate::names::topic as topic_of;
use crate::scenario::{RecordKind, Target};

/// User records that have ended, by partition and offset.
#[derive(Debug, Default)]
pub struct Fired {
    /// Schedules that fired.
    pub schedules: BTreeSet<(TopicPartition, i64)>,
    /// Records that became dead letters.
    pub dead_letters: BTreeSet<(TopicPartition, i64)>,
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

/// Collects the firings and dead letters. Each must be the only one of its record, and whole.
fn fired(history: &History) -> Result<Fired, String> {
    let mut fired = Fired::default();
    for (transaction, records) in history.kafka.journal().filter(|(t, _)| is_engines(history, *t)) {
        let mut ended = ended(history, transaction, records)?;
        let mut histories: Vec<&Stored> =
            records.iter().filter(|(log_id, _)| *log_id == LogId::History).map(|(_, stored)| stored).collect();
        let mut ends = 0;
        for (log_id, stored) in records {
            let (LogId::Target(_) | LogId::DeadLetter) = *log_id else { continue };
            ends += 1;
            let origin_offset = match log_id {
                LogId::Target(topic) => check_firing(history, topic, stored, &ended, &mut histories),
                _ => check_dead_letter(history, stored, &ended),
            };
            let origin_offset = origin_offset.map_err(|what| format!("transaction {transaction}: {what}"))?;
            ended.remove(&origin_offset);
            let kept = if *log_id == LogId::DeadLetter { &mut fired.dead_letters } else { &mut fired.schedules };
            if !kept.insert(origin_offset)
                || (fired.dead_letters.contains(&origin_offset) && fired.schedules.contains(&origin_offset))
            {
                return Err(format!("{origin_offset:?} fired twice, the second time in transaction {transaction}"));
            }
        }
        if let Some(alone) = histories.first() {
            return Err(format!("transaction {transaction}: a history record without its firing: {alone:?}"));
        }
        fired.rewritten += records.iter().filter(|(_, stored)| named(stored).is_some()).count() as u64 - ends;
        // Only a cancel may be ended without firing or moving.
        if let Some((origin_offset, original)) = ended.into_iter().find(|(_, original)| !original.is_cancel()) {
            return Err(format!("transaction {transaction} ends {origin_offset:?} without firing it: {original:?}"));
        }
    }
    Ok(fired)
}

type Ended<'a> = BTreeMap<(TopicPartition, i64), &'a UserRecord>;

/// Checks that a target record is what its user requested, and that its history record is the same with the request
/// headers. Returns the schedule.
fn check_firing(
    history: &History,
    topic: &str,
    stored: &Stored,
    ended: &Ended<'_>,
    histories: &mut Vec<&Stored>,
) -> Result<(TopicPartition, i64), String> {
    let key = header(stored, headers::KEY).unwrap_or_default();
    let found = ended.iter().find(|((partition, _), original)| {
        original.key == key
            && header(stored, headers::TOPIC) == Some(topic_of(*partition).as_bytes())
            && stored.value.as_ref() == Some(&original.value)
    });
    let Some((origin_offset, original)) = found.map(|(origin_offset, original)| (*origin_offset, *original)) else {
        return Err(format!("a target record without a tombstone for its schedule: {stored:?}"));
    };
    let seconds = original.at_ms.div_euclid(1000).to_string().into_bytes();
    let is_request = |name: &[u8]| [headers::EPOCH, headers::TARGET_TOPIC, headers::TARGET_KEY].contains(&name);
    let (request, user): (Headers, Headers) = original.headers.iter().cloned().partition(|(name, _)| is_request(name));
    let own = [
        (headers::TIMESTAMP, seconds),
        (headers::KEY, original.key.clone()),
        (headers::TOPIC, topic_of(origin_offset.0).as_bytes().to_vec()),
    ];
    let target: Headers = user.into_iter().chain(own.map(|(name, value)| (name.to_vec(), Some(value)))).collect();
    let archived: Headers = target.iter().cloned().chain(request).collect();
    let is = |stored: &Stored, headers: &Headers| {
        stored.key.as_deref() == Some(b"to")
            && stored.value.as_ref() == Some(&original.value)
            && stored.headers == *headers
    };
    if !is(stored, &target)
        || topic != original.target.name()
        || original.kind != RecordKind::Schedule
        || !original.can_fire
    {
        return Err(format!(
            "{origin_offset:?} fired into {topic} as {stored:?}, which differs from the record: {original:?}"
        ));
    }
    let Some(at) = histories.iter().position(|stored| is(stored, &archived)) else {
        return Err(format!("{origin_offset:?} fired without its history record: {histories:?}"));
    };
    histories.remove(at);
    let early_ms = original.due_s * 1000 - stored.at_ms - history.ahead_ms_max;
    if early_ms > 0 {
        return Err(format!("{origin_offset:?} fired {early_ms} ms early"));
    }
    if is_leftover(history, original) {
        return Err(format!("{origin_offset:?} fired, although it is a leftover from before the first start"));
    }
    Ok(origin_offset)
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
    let headers: Headers = original.headers.iter().cloned().chain(own).collect();
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
        RecordKind::Cancel | RecordKind::Copied | RecordKind::ReservedKey | RecordKind::NoKey => false,
    }
}

/// Returns the user records that a transaction's tombstones end.
fn ended<'a>(
    history: &'a History,
    transaction: u64,
    records: &[(LogId, Stored)],
) -> Result<BTreeMap<(TopicPartition, i64), &'a UserRecord>, String> {
    let mut ended = BTreeMap::new();
    for (log_id, stored) in records {
        let (LogId::Schedules(partition), Some(key)) = (*log_id, stored.key.as_deref()) else { continue };
        if key == BARRIER_KEY || key == START_MARKER_KEY {
            continue;
        }
        let Some(offset) = named(stored) else {
            return Err(format!("transaction {transaction}: a record in {partition:?} that names no user record"));
        };
        let Some(original) = history.produced.get(&(partition, offset)).filter(|original| original.key == key) else {
            return Err(format!("a record names offset {offset} of {partition:?}, where no user produced {key:?}"));
        };
        if stored.value.is_none() && ended.insert((partition, offset), original).is_some() {
            return Err(format!("transaction {transaction} ends {offset} of {partition:?} twice"));
        }
    }
    Ok(ended)
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
