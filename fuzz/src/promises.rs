//! Checks the promises of every batch, and of the final state.

use std::collections::{BTreeMap, BTreeSet};

use kafka_scheduler::core::batch::{Batch, Item, Kind};
use kafka_scheduler::core::calendar::NoCalendar;
use kafka_scheduler::core::due::Due;
use kafka_scheduler::core::io::{Header, Millis, TopicPartition};
use kafka_scheduler::core::origin::{self, BARRIER_KEY, ORIGIN_HEADER, Origin, START_MARKER_KEY};
use kafka_scheduler::core::reason::Reason;
use kafka_scheduler::core::schedule::{self, AcceptanceRules, ParsedSchedule};
use kafka_scheduler::core::start_marker::StartMarker;
use kafka_scheduler::core::when::{Form, is_when};
use kafka_scheduler::core::{Config, headers};

use super::kept::Kept;

/// A record that a batch produces.
#[derive(Debug)]
pub struct Sent {
    pub topic: String,
    pub schedules: Option<TopicPartition>,
    pub kept: Kept,
    item: usize,
}

/// All records of users, all start markers, and the schedules that have ended.
#[derive(Debug)]
pub struct Promises {
    config: Config,
    topics: Vec<String>,
    limits: AcceptanceRules,
    users: BTreeMap<(TopicPartition, i64), Kept>,
    last: BTreeMap<(TopicPartition, Vec<u8>), i64>,
    /// User records that fired or became dead letters.
    ended: BTreeSet<(TopicPartition, i64)>,
    start_markers: Vec<(TopicPartition, StartMarker)>,
    batches: u64,
}

impl Promises {
    pub fn new(config: Config) -> Self {
        let (users, last, ended) = Default::default();
        let limits = AcceptanceRules {
            grace_s: config.grace_s,
            horizon_s: config.horizon_s,
            record_bytes_max: config.topics.iter().map(|topic| topic.record_bytes_max).collect(),
        };
        let topics = config.topics.iter().map(|topic| topic.name.clone()).collect();
        Self { config, topics, limits, users, last, ended, start_markers: Vec::new(), batches: 0 }
    }

    /// A new process numbers its batches from 1.
    pub fn successor(&mut self) {
        self.batches = 0;
    }

    /// Adds a record that a user has appended.
    pub fn added(&mut self, partition: TopicPartition, offset: i64, kept: &Kept) {
        if let Some(key) = kept.key.clone() {
            self.last.insert((partition, key), offset);
            self.users.insert((partition, offset), kept.clone());
        }
    }

    /// Checks a batch that was formed while others are in flight. Returns its records.
    pub fn formed<'a>(&mut self, batch: &Batch, in_flight: impl Iterator<Item = &'a Batch>, now: Millis) -> Vec<Sent> {
        self.batches += 1;
        assert_eq!(batch.id, self.batches, "batches are numbered without gaps");
        assert!(!batch.offsets.is_empty() && batch.items.len() <= self.config.batch_items_max.max(3), "{batch:?}");
        let named: BTreeSet<TopicPartition> = batch.offsets.iter().map(|position| position.partition).collect();
        assert_eq!(named.len(), batch.offsets.len(), "each partition has one offset");
        assert!(batch.offsets.iter().all(|p| p.offset >= 0 && p.metadata.len() <= 2_048), "{:?}", batch.offsets);
        let mut keys = BTreeSet::new();
        let with_key = |item: &&Item| item.origin_offset >= 0;
        for other in in_flight {
            keys.extend(
                other.items.iter().filter(with_key).map(|item| (item.partition, other.parts(item).key.to_vec())),
            );
        }
        for item in &batch.items {
            assert!(
                named.contains(&item.partition),
                "a batch commits an offset for each partition it writes for, so it is fenced"
            );
            let first = item.origin_offset < 0 || keys.insert((item.partition, batch.parts(item).key.to_vec()));
            assert!(first, "two engine records for one key are outstanding");
        }
        let sent = sent(batch, now);
        for (index, item) in batch.items.iter().enumerate() {
            let of_item: Vec<&Sent> = sent.iter().filter(|sent| sent.item == index).collect();
            self.item(batch, item, &of_item, now);
        }
        sent
    }

    fn item(&self, batch: &Batch, item: &Item, sent: &[&Sent], now: Millis) {
        let place = self.partition_hash(item.partition);
        match &item.kind {
            Kind::Barrier { .. } | Kind::StartMarker { .. } => {
                let [only] = sent else { panic!("expected one record: {sent:?}") };
                assert_eq!(only.schedules, Some(item.partition));
                let key = only.kept.key.as_deref();
                assert!(key == Some(BARRIER_KEY) || key == Some(START_MARKER_KEY) && only.kept.value.is_some());
                return;
            }
            _ => {}
        }
        let Some(user) = self.users.get(&(item.partition, item.origin_offset)) else {
            panic!("no user record belongs to the item: {item:?} {sent:?}");
        };
        let own = sent.last().expect("at least one record");
        assert_eq!((own.topic.as_str(), own.schedules), (batch.topic(item.partition), Some(item.partition)));
        assert_eq!(own.kept.key, user.key);
        let headers = own.kept.headers();
        let origin = Origin::of(&own.kept.at(item.partition, item.origin_offset + 1, &headers), place);
        let origin = origin.expect("the engine recognizes its own record");
        assert_eq!((origin.offset, origin.timestamp), (item.origin_offset, user.timestamp));
        let lent = user.headers();
        let request = self.read(user, item.partition, item.origin_offset, &lent);
        match &item.kind {
            Kind::Fire { due, timestamp, .. } => {
                let request = request.expect("only a schedule fires");
                assert!(request.due() == Some(*due) && *timestamp == user.timestamp);
                assert!(due.is_due(now), "no schedule fires early");
                self.fires(item, user, &request, sent);
            }
            Kind::DeadLetter { reason, .. } => self.dead_letter(item, user, *reason, sent),
            Kind::RewriteSchedule { .. } => {
                assert_eq!(sent.len(), 1);
                let again =
                    self.read(&own.kept_with(user.timestamp), item.partition, item.origin_offset, &headers).map(owned);
                assert_eq!(again, request.map(owned), "a copy requests the same as its original");
            }
            Kind::RewriteInvalid { .. } => {
                assert!(sent.len() == 1 && request.is_none() && own.kept.value == user.value);
                assert!(
                    headers.iter().filter(not_origin).eq(lent.iter().filter(not_origin)),
                    "a copy keeps all user headers"
                );
            }
            Kind::RewriteCancel { .. } => assert!(sent.len() == 1 && user.value.is_none() && own.kept.value.is_none()),
            Kind::Barrier { .. } | Kind::StartMarker { .. } => {}
            other => panic!("nothing recurs or expires without a calendar: {other:?}"),
        }
    }

    /// Checks a firing: triggered record, history record and tombstone.
    fn fires(&self, item: &Item, user: &Kept, request: &ParsedSchedule<'_>, sent: &[&Sent]) {
        let [target, history, tombstone] = sent else { panic!("expected three records: {sent:?}") };
        let topic = &self.config.topics[usize::from(item.partition.topic)].name;
        let seconds = user.timestamp.0.div_euclid(1000).max(0).to_string();
        let mut expected = request.parts.headers.clone();
        expected.retain(|header| !is_when(header.name));
        let due_ms = request.due().map_or(0, Due::epoch_ms).to_string();
        let id = format!("{}-{}", item.partition.number, item.origin_offset);
        let is_new = request.form() != Form::Epoch;
        expected.push(Header { name: headers::TIMESTAMP, value: Some(seconds.as_bytes()) });
        expected.push(Header { name: headers::KEY, value: user.key.as_deref() });
        expected.push(Header { name: headers::TOPIC, value: Some(topic.as_bytes()) });
        if is_new {
            expected.push(Header { name: headers::DUE, value: Some(due_ms.as_bytes()) });
            expected.push(Header { name: headers::ID, value: Some(id.as_bytes()) });
        }
        assert_eq!((target.topic.as_str(), target.schedules), (request.target, None));
        assert_eq!(target.kept.headers(), expected);
        assert_eq!((history.topic.as_str(), history.schedules), (self.config.history.as_str(), None));
        let archived = history.kept.headers();
        assert!(expected.iter().all(|header| archived.contains(header)), "{archived:?} without {expected:?}");
        assert!(is_new || archived[..expected.len()] == expected);
        for record in [target, history] {
            assert_eq!((record.kept.key.as_deref(), &record.kept.value), (request.parts.target_key, &user.value));
        }
        if is_new {
            // Its history record also has scheduler-epoch, for older readers.
            assert!(archived.iter().any(|header| header.name == headers::EPOCH));
            return;
        }
        // The history record has the request headers.
        let as_request = Kept { key: user.key.clone(), timestamp: user.timestamp, ..history.kept.clone() };
        let lent = as_request.headers();
        let read = self
            .read(&as_request, item.partition, item.origin_offset, &lent)
            .expect("the history record has the whole request");
        assert_eq!((read.due(), read.target), (request.due(), request.target));
        assert_eq!(read.parts.target_key, request.parts.target_key);
        assert_eq!(tombstone.kept.value, None);
        assert!(tombstone.kept.headers.len() == 1, "a tombstone has only the origin header");
    }

    /// Checks a dead letter and its tombstone. The dead letter keeps the request headers, so it can be redriven.
    fn dead_letter(&self, item: &Item, user: &Kept, reason: Reason, sent: &[&Sent]) {
        let [dead_letter, tombstone] = sent else { panic!("expected two records: {sent:?}") };
        assert_eq!((Some(&dead_letter.topic), dead_letter.schedules), (self.config.dead_letter.as_ref(), None));
        assert_eq!((&dead_letter.kept.key, &dead_letter.kept.value), (&user.key, &user.value));
        let (headers, lent) = (dead_letter.kept.headers(), user.headers());
        let why: Vec<_> = headers.iter().filter(|header| header.name == headers::ERROR).collect();
        assert!(why.len() == 1 && why[0].value == Some(reason.code().as_bytes()), "{why:?}");
        // The dead letter is larger than the original by the header with its reason.
        if self.limits.record_bytes_max.iter().all(Option::is_none) {
            let dead_letter = dead_letter.kept_with(user.timestamp);
            let read = |kept, headers| {
                self.read(kept, item.partition, item.origin_offset, headers).map(|r| (r.due(), r.target.to_owned()))
            };
            assert_eq!(read(&dead_letter, &headers), read(user, &lent));
        }
        assert_eq!(tombstone.kept.value, None);
    }

    /// Adds a committed batch.
    pub fn committed(&mut self, batch: &Batch) {
        for item in &batch.items {
            match &item.kind {
                Kind::Fire { .. } | Kind::DeadLetter { .. } => {
                    assert!(self.ended.insert((item.partition, item.origin_offset)), "ended twice: {item:?}");
                }
                Kind::StartMarker { value } => {
                    let start_marker = StartMarker::decode(value.as_bytes(), self.partition_hash(item.partition))
                        .expect("the start marker can be decoded");
                    self.start_markers.push((item.partition, start_marker));
                }
                _ => {}
            }
        }
    }

    /// Checks the final state, with all records read: every pending schedule is the latest record for its key, and none
    /// is lost.
    pub fn at_rest(&self, pending: &BTreeMap<(TopicPartition, i64), Vec<u8>>) {
        for (at, key) in pending {
            assert_eq!(self.last.get(&(at.0, key.clone())), Some(&at.1), "{key:?} has a newer record");
            assert!(!self.ended.contains(at), "{at:?} has ended");
        }
        for ((partition, _), offset) in &self.last {
            let at = (*partition, *offset);
            let user = &self.users[&at];
            let lent = user.headers();
            let Some(request) = self.read(user, *partition, *offset, &lent) else {
                assert!(!pending.contains_key(&at), "{user:?} cannot fire");
                continue;
            };
            let due = request.due().expect("it fires once").at();
            let leftover = |(of, start_marker): &(TopicPartition, StartMarker)| {
                of == partition && *offset < start_marker.offset && due < start_marker.since
            };
            let kept = self.ended.contains(&at) || pending.contains_key(&at) || self.start_markers.iter().any(leftover);
            assert!(kept, "lost: {at:?} {user:?}");
        }
    }

    fn read<'a>(
        &self,
        kept: &'a Kept,
        of: TopicPartition,
        offset: i64,
        headers: &'a [Header<'a>],
    ) -> Option<ParsedSchedule<'a>> {
        let record = kept.at(of, offset, headers);
        schedule::parse(&record, record.value?, kept.timestamp, &self.topics, &self.limits, &NoCalendar).ok()
    }

    pub fn partition_hash(&self, partition: TopicPartition) -> u64 {
        origin::partition_hash(
            &self.config.cluster,
            &self.config.topics[usize::from(partition.topic)].name,
            partition.number,
        )
    }
}

impl Sent {
    fn kept_with(&self, timestamp: Millis) -> Kept {
        Kept { timestamp, ..self.kept.clone() }
    }
}

fn not_origin(header: &&Header<'_>) -> bool {
    header.name != ORIGIN_HEADER
}

/// Returns the due time, target and target key of a request, owned.
fn owned(request: ParsedSchedule<'_>) -> (Option<u64>, String, Vec<u8>) {
    let mut packed = Vec::new();
    request.parts.write(&mut packed);
    (request.due().map(Due::epoch_ms), request.target.to_owned(), packed)
}

fn sent(batch: &Batch, now: Millis) -> Vec<Sent> {
    let mut sent = Vec::new();
    let Ok(()) = batch.records(|record| {
        let headers = record.headers.iter().map(|h| (h.name.to_vec(), h.value.map(<[u8]>::to_vec))).collect();
        let (key, value) = (record.key.map(<[u8]>::to_vec), record.value.map(<[u8]>::to_vec));
        sent.push(Sent {
            topic: record.topic.to_owned(),
            schedules: record.partition,
            kept: Kept { timestamp: now, key, value, headers },
            item: record.item as usize,
        });
        Ok::<(), std::convert::Infallible>(())
    });
    sent
}
