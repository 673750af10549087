//! Users: the records that they produce, alone and in transactions of their own.

use kafka_scheduler::core::headers;
use kafka_scheduler::core::io::{Header, Millis, TopicPartition};
use kafka_scheduler::core::origin::{self, BARRIER_KEY, ORIGIN_HEADER, Origin};
use kafka_scheduler::core::progress::progress_key;

use super::{Event, World};
use crate::faults::Fault;
use crate::history::{Misfire, Recurrence, UserRecord};
use crate::kafka::LogId;
use crate::kafka::log::{Headers, Stored};
use crate::names;
use crate::scenario::{Act, CONVERGE_TIMEOUT_MS, RecordKind, SAFETY_MS, Target};

/// Time between two records of a flood in a partition.
const FLOOD_INTERVAL_MS: i64 = 150;
/// When a flood ends, from the start of the run: just before everything must have converged, so there is time to read
/// its last record, also after a canary whose transaction is open.
const FLOOD_END_MS: i64 = SAFETY_MS as i64 + CONVERGE_TIMEOUT_MS as i64 - 1_000;
/// When the schedules of a flood are due. Each replaces the one before.
const FLOOD_DUE_S: i64 = 60;

const LARGE_BYTES: usize = 16 << 10;
/// Large values in a run: few enough to be sent in a minute.
const LARGE_MAX: u32 = 24;

/// A record on its way to the brokers.
#[derive(Clone, Debug)]
pub(super) struct NewRecord {
    partition: TopicPartition,
    record: UserRecord,
}

/// A user's open transaction.
#[derive(Debug)]
pub(super) struct OpenTransaction {
    id: String,
    epoch: u32,
    commit: bool,
    produced: Vec<(TopicPartition, i64, UserRecord)>,
}

impl World {
    pub(super) fn produce_user_record(&mut self, act: Act) {
        let Act::Produce { key, kind, target, in_s, twice, late_ms, large } = act else { return };
        let due_s = self.now_ms.div_euclid(1000) + i64::from(in_s);
        let mut new = self.new_record(key, kind, target, due_s);
        if large && !new.record.is_cancel() && self.large_count < LARGE_MAX {
            self.large_count += 1;
            new.record.value.resize(LARGE_BYTES, b'.');
        }
        let faults = [(twice, Fault::Duplicate), (late_ms > 0, Fault::Reordered), (!target.delivers(), Fault::Poison)];
        for (_, fault) in faults.into_iter().filter(|(is_injected, _)| *is_injected) {
            self.record_hit_on(fault, new.partition);
        }
        if twice {
            self.after(i64::from(late_ms) + 100, Event::Arrival(Box::new(new.clone())));
        }
        if late_ms == 0 {
            self.arrive(&new);
        } else {
            self.after(i64::from(late_ms), Event::Arrival(Box::new(new)));
        }
    }

    fn new_record(&mut self, key: u8, kind: RecordKind, target: Target, due_s: i64) -> NewRecord {
        let number = usize::from(key % self.history.setup.keys);
        let partition = self.history.partitions[number % self.history.partitions.len()];
        // Those of the new forms can always be delivered: what cannot is tested with the old form.
        let is_new = kind.recurs() || kind == RecordKind::Expiring;
        let target = if is_new { Target::Open } else { target };
        let key = match kind {
            RecordKind::ReservedKey if number % 2 == 0 => BARRIER_KEY.to_vec(),
            // A key of a later version, which this one leaves alone.
            RecordKind::ReservedKey => format!("__scheduler.later.k{number}").into_bytes(),
            _ => format!("k{number}").into_bytes(),
        };
        self.summary.produced += 1;
        let value = format!("v{}", self.summary.produced).into_bytes();
        let record = UserRecord {
            key,
            kind,
            target,
            due_s,
            recurrence: None,
            at_ms: 0,
            headers: Headers::new(),
            value,
            can_fire: false,
            readable_ms: 0,
        };
        NewRecord { partition, record }
    }

    pub(super) fn arrive(&mut self, new: &NewRecord) {
        let NewRecord { partition, record } = new.clone();
        if record.kind == RecordKind::NoKey && self.now_ms > self.history.start_ms {
            // A compacted topic rejects it. Such records are in the log only if they are older than its compaction.
            return;
        }
        if record.kind == RecordKind::Replayed {
            return self.replay_progress(partition, &record.key);
        }
        let (stored, record) = self.stored(partition, record);
        let offset = self.history.kafka.log(LogId::Schedules(partition)).end();
        let log = self.history.kafka.logs.get_mut(&LogId::Schedules(partition)).expect("it is one of ours");
        log.append(stored);
        self.acknowledge(partition, offset, record);
    }

    /// Writes an earlier progress record of a key again, byte for byte.
    fn replay_progress(&mut self, partition: TopicPartition, key: &[u8]) {
        let key = progress_key(key);
        let log = self.history.kafka.logs.get_mut(&LogId::Schedules(partition)).expect("it is one of ours");
        let (found, _) = log.read(0, usize::MAX);
        let mut of_key = found.into_iter().filter(|(_, stored)| stored.key.as_deref() == Some(&key[..]));
        let Some((offset, stored)) = of_key.find(|(_, stored)| stored.value.is_some()) else { return };
        let again = Stored { at_ms: self.now_ms, transaction: None, ..stored.clone() };
        log.append(again);
        self.trace(|| format!("user   {partition:?} writes the progress record {offset} again"));
    }

    fn acknowledge(&mut self, partition: TopicPartition, offset: i64, record: UserRecord) {
        self.trace(|| {
            let key = String::from_utf8_lossy(&record.key).into_owned();
            let (kind, target) = (record.kind, record.target);
            format!("user   {partition:?} {offset}: {key} {kind:?} for {target:?} due {}", record.due_s)
        });
        self.history.produced.insert((partition, offset), record);
    }

    /// Returns the record as the log stores it, and completes what the history has of it.
    fn stored(&self, partition: TopicPartition, mut record: UserRecord) -> (Stored, UserRecord) {
        record.at_ms = self.now_ms;
        record.readable_ms = self.now_ms;
        let key = (record.kind != RecordKind::NoKey).then(|| record.key.clone());
        let due_s = record.due_s.to_string();
        let text = |s: &str| Some(s.as_bytes().to_vec());
        let target = match record.kind {
            RecordKind::ToSchedules => names::topic(partition),
            _ => record.target.name(),
        };
        let mut headers: Headers = vec![(b"customer".to_vec(), text("c"))];
        match record.kind {
            RecordKind::NoEpoch | RecordKind::Cancel | RecordKind::Copied => {}
            RecordKind::BadEpoch => headers.push((headers::EPOCH.to_vec(), text("soon"))),
            RecordKind::Recurring => headers.extend(recurring(&mut record)),
            RecordKind::Zoned => headers.extend(zoned(&mut record)),
            RecordKind::Expiring => {
                headers.push((headers::EPOCH_MS.to_vec(), text(&format!("{due_s}000"))));
                headers.push((headers::EXPIRES.to_vec(), text(EXPIRES)));
            }
            _ => headers.push((headers::EPOCH.to_vec(), text(&due_s))),
        }
        headers.push((headers::TARGET_TOPIC.to_vec(), text(target)));
        headers.push((headers::TARGET_KEY.to_vec(), text("to")));
        let value = (!record.is_cancel()).then(|| record.value.clone());
        if record.kind == RecordKind::Copied {
            headers = vec![(ORIGIN_HEADER.to_vec(), Some(self.foreign_origin(partition, &record.key)))];
        }
        record.headers.clone_from(&headers);
        record.can_fire = record.kind.is_schedule() && (record.kind.recurs() || self.is_in_time(&record));
        let stored = Stored { at_ms: self.now_ms, key, value, headers, transaction: None };
        (stored, record)
    }

    /// Returns the origin header of an engine record in another cluster.
    fn foreign_origin(&self, partition: TopicPartition, key: &[u8]) -> Vec<u8> {
        let none: &[Header<'_>] = &[];
        let origin = Origin {
            partition_hash: origin::partition_hash("another", names::topic(partition), partition.number),
            offset: 0,
            timestamp: Millis(self.now_ms),
            content_hash: origin::content_hash(key, None, none),
        };
        origin.encode().to_vec()
    }

    fn is_in_time(&self, record: &UserRecord) -> bool {
        let late_ms = record.at_ms - record.due_s * 1000;
        let over_grace = self.history.setup.grace_s.is_some_and(|s| late_ms > i64::from(s) * 1000);
        let beyond = self.history.setup.horizon_hs.is_some_and(|hs| -late_ms > i64::from(hs) * 100_000);
        record.due_s >= 0 && !over_grace && !beyond
    }

    pub(super) fn begin_user_transaction(&mut self, key: u8, count: u8, commit: bool, for_ms: i64, in_s: i16) {
        let id = format!("user.{}", self.next_open);
        let Ok(epoch) = self.history.kafka.init(&id, self.now_ms) else { return };
        let mut produced = Vec::new();
        for more in 0..count {
            let due_s = self.now_ms.div_euclid(1000) + i64::from(in_s);
            let new = self.new_record(key.wrapping_add(more), RecordKind::Schedule, Target::Open, due_s);
            let (stored, record) = self.stored(new.partition, new.record);
            let log_id = LogId::Schedules(new.partition);
            let Ok(offset) = self.history.kafka.produce((&id, epoch), self.now_ms, log_id, stored) else { continue };
            self.record_hit_on(Fault::UserTransaction, new.partition);
            produced.push((new.partition, offset, record));
        }
        self.trace(|| format!("user   {id} is open with {produced:?}"));
        self.open.insert(self.next_open, OpenTransaction { id, epoch, commit, produced });
        let for_ms = if self.history.quiet_since_ms.is_some() { 0 } else { for_ms };
        self.after(for_ms, Event::EndTransaction(self.next_open));
        self.next_open += 1;
    }

    pub(super) fn end_user_transaction(&mut self, number: u64) {
        let Some(OpenTransaction { id, epoch, commit, produced }) = self.open.remove(&number) else { return };
        let ended = self.history.kafka.end((&id, epoch), self.now_ms, commit);
        self.trace(|| format!("user   {id} ends: commit {commit}, {ended:?}"));
        if self.history.kafka.markers_are_late && ended.is_ok() {
            for (partition, ..) in &produced {
                self.record_hit_on(Fault::SlowMarkers, *partition);
            }
        }
        if commit && ended.is_ok() {
            for (partition, offset, mut record) in produced {
                record.readable_ms = self.now_ms;
                self.acknowledge(partition, offset, record);
            }
        }
    }

    /// Makes users write to every partition from now on.
    pub(super) fn flood(&mut self) {
        self.history.partitions.clone().into_iter().for_each(|partition| self.record_hit_on(Fault::Flood, partition));
        if !self.flooded {
            self.flooded = true;
            self.after(0, Event::ContinueFlood);
        }
    }

    pub(super) fn continue_flood(&mut self) {
        if self.now_ms < self.history.start_ms + FLOOD_END_MS {
            self.produce_everywhere("flood", FLOOD_DUE_S);
            self.after(FLOOD_INTERVAL_MS, Event::ContinueFlood);
        }
    }

    /// Produces a schedule to each partition, under a key of its own, due in `in_s` seconds.
    pub(crate) fn probe(&mut self, in_s: i64) {
        self.produce_everywhere("probe", in_s);
    }

    fn produce_everywhere(&mut self, name: &str, in_s: i64) {
        for partition in self.history.partitions.clone() {
            let due_s = self.now_ms.div_euclid(1000) + in_s;
            let mut new = self.new_record(0, RecordKind::Schedule, Target::Open, due_s);
            new.partition = partition;
            new.record.key = format!("{name}{}.{}", partition.topic, partition.number).into_bytes();
            self.arrive(&new);
        }
    }
}

/// `scheduler-expires` of schedules that expire.
const EXPIRES: &str = "3s";

/// Returns the headers of a schedule that recurs at an interval of some seconds, chosen by its seed.
fn recurring(record: &mut UserRecord) -> Headers {
    let seed = record.due_s.unsigned_abs();
    let (interval_s, count, policy) = (seed % 7 + 1, seed / 7 % 12 + 1, seed / 84 % 3);
    let interval_ms = interval_s as i64 * 1000;
    let (misfire, policy) = [(Misfire::Once, "once"), (Misfire::Skip, "skip"), (Misfire::All, "all")][policy as usize];
    // Half of them are due at once, so their key often has an outstanding record when they fire.
    let is_at_once = (seed / 252).is_multiple_of(2);
    let first_ms = if is_at_once { record.at_ms } else { record.at_ms + interval_ms };
    record.recurrence = Some(Recurrence { first_ms, interval_ms, count, misfire });
    let header = |name: &[u8], text: String| (name.to_vec(), Some(text.into_bytes()));
    let start = is_at_once.then(|| header(headers::START, rfc3339(first_ms)));
    let rest = [
        header(headers::EVERY, format!("{interval_s}s")),
        header(headers::COUNT, count.to_string()),
        header(headers::MISFIRE, policy.to_owned()),
    ];
    rest.into_iter().chain(start).collect()
}

/// Returns the headers of a schedule with one occurrence a year, some seconds from now, by the clocks of Kolkata, which
/// are always five and a half hours ahead of UTC.
fn zoned(record: &mut UserRecord) -> Headers {
    const YEAR_MS: i64 = 365 * names::DAY_MS;
    let first_s = record.at_ms.div_euclid(1000) + record.due_s.rem_euclid(30) + 1;
    let local_s = (first_s + 19_800).rem_euclid(names::DAY_MS / 1000);
    let (hour, minute, second) = (local_s / 3_600, local_s / 60 % 60, local_s % 60);
    // Every day at this time. It fires once: the next day is after the end of the run.
    let first_ms = first_s * 1000;
    record.recurrence = Some(Recurrence { first_ms, interval_ms: YEAR_MS, count: 1, misfire: Misfire::Once });
    let header = |name: &[u8], text: String| (name.to_vec(), Some(text.into_bytes()));
    vec![
        header(headers::CRON, format!("{second} {minute} {hour} * * *")),
        header(headers::TIMEZONE, "Asia/Kolkata".to_owned()),
        header(headers::COUNT, "1".to_owned()),
    ]
}

/// Formats a time of the run, which is within some days of 2023-11-14.
fn rfc3339(at_ms: i64) -> String {
    let (day, ms) = (at_ms.div_euclid(names::DAY_MS), at_ms.rem_euclid(names::DAY_MS));
    // Howard Hinnant's algorithm: years that begin in March, in eras of 400.
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let (date, month) = (day_of_year - (153 * shifted_month + 2) / 5 + 1, (shifted_month + 2) % 12 + 1);
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (s, ms) = (ms / 1000, ms % 1000);
    format!("{year:04}-{month:02}-{date:02}T{:02}:{:02}:{:02}.{ms:03}Z", s / 3_600, s / 60 % 60, s % 60)
}
