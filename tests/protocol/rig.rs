//! Runs a scheduler on logs and committed offsets in memory.

use std::collections::BTreeMap;

use kafka_scheduler::calendar::ZoneCalendar;
use kafka_scheduler::core::batch::{Batch, Kind};
use kafka_scheduler::core::calendar::Calendar;
use kafka_scheduler::core::io::{Abort, Header, Input, Millis, Outcome, Output, Record, TargetState, TopicPartition};
use kafka_scheduler::core::origin::{self, ORIGIN_HEADER, Origin};
use kafka_scheduler::core::ownership::{Ownership, RunId};
use kafka_scheduler::core::{Config, PartitionState, Scheduler, SchedulesTopic, headers};

pub const P: TopicPartition = TopicPartition { topic: 0, number: 0 };
pub const Q: TopicPartition = TopicPartition { topic: 0, number: 1 };
/// Noon.
pub const NOW: i64 = 1_700_049_600;
pub const LEFTOVER_CUTOFF: Millis = Millis((NOW - 43_200) * 1000);

/// A record of a log.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    pub timestamp: Millis,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Kept {
    /// Returns the offset that the origin header names.
    pub fn origin(&self) -> Option<i64> {
        let value = self.headers.iter().find(|(name, _)| name == ORIGIN_HEADER)?.1.as_ref()?;
        Some(i64::from_be_bytes(value[9..17].try_into().unwrap()))
    }
}

/// A record of a batch: its topic, its partition if the topic is a schedules topic, and the record.
pub type Sent = (String, Option<TopicPartition>, Kept);

/// Returns the records that a batch produces.
pub fn sent(batch: &Batch, now: Millis) -> Vec<Sent> {
    let mut all = Vec::new();
    batch
        .records(|r| {
            let headers = r.headers.iter().map(|h| (h.name.to_vec(), h.value.map(<[u8]>::to_vec))).collect();
            let kept =
                Kept { timestamp: now, key: r.key.map(<[u8]>::to_vec), value: r.value.map(<[u8]>::to_vec), headers };
            all.push((r.topic.to_owned(), r.partition, kept));
            Ok::<(), ()>(())
        })
        .unwrap();
    all
}

/// Takes the first output of this kind, if there is one: `take!(rig, Output::Transact(batch) => batch)`.
macro_rules! take {
    ($rig:expr, $output:pat $(if $guard:expr)? => $value:expr) => {{
        #[allow(unused_variables)]
        let at = $rig.outs.iter().position(|out| matches!(out, $output $(if $guard)?));
        at.map(|at| match $rig.outs.remove(at) {
            $output => $value,
            _ => unreachable!("it matched by reference"),
        })
    }};
}
pub(crate) use take;

/// A scheduler and its partitions: [`Rig::read`] delivers appended records.
pub struct Rig {
    pub core: Scheduler,
    pub now: Millis,
    /// Outputs that the test has not taken yet.
    pub outs: Vec<Output>,
    /// `None` is an offset that is never delivered.
    pub logs: BTreeMap<TopicPartition, Vec<Option<Kept>>>,
    /// The offset that [`Rig::read`] delivers next.
    pub reads: BTreeMap<TopicPartition, usize>,
    /// The committed offsets with their metadata.
    pub metadata: BTreeMap<TopicPartition, (i64, String)>,
}

/// The calendar of every engine under test.
pub fn calendar() -> Box<dyn Calendar> {
    Box::new(ZoneCalendar::default())
}

/// Returns the settings of most tests.
pub fn config() -> Config {
    Config {
        cluster: "c".into(),
        topics: vec![SchedulesTopic::new("schedules"), SchedulesTopic::new("more")],
        history: "history".into(),
        dead_letter: None,
        group: "g".into(),
        run: run_id("ab"),
        grace_s: None,
        horizon_s: None,
        transactors: 1,
        batch_items_max: 100,
        batch_bytes_max: 1 << 20,
        adds_due_header: false,
        hash_seed: 7,
    }
}

/// Returns the run of this name.
pub fn run_id(name: &str) -> RunId {
    RunId::parse(name).expect("hexadecimal digits")
}

impl Rig {
    /// Returns a scheduler without partitions, with empty logs.
    pub fn new(config: Config) -> Self {
        Self {
            core: Scheduler::new(config, calendar()),
            now: Millis(NOW * 1000),
            outs: Vec::new(),
            logs: BTreeMap::new(),
            reads: BTreeMap::new(),
            metadata: BTreeMap::new(),
        }
    }

    /// Returns a scheduler that is live on `P`; the log has the start marker of the first start.
    pub fn live() -> Self {
        Self::live_with(config())
    }

    /// Returns the same with other settings.
    pub fn live_with(config: Config) -> Self {
        let mut rig = Self::new(config);
        rig.bring_up(&[P]);
        rig
    }

    /// Replaces the scheduler by another process on the same logs.
    pub fn successor(&mut self, run: &str) {
        self.core = Scheduler::new(Config { run: run_id(run), ..config() }, calendar());
        self.outs.clear();
    }

    /// Assigns `P` to another process, which reads the committed offset. Returns its barrier.
    #[track_caller]
    pub fn successors_barrier(&mut self, run: &str) -> Batch {
        self.successor(run);
        self.assign(&[P]);
        self.tell_committed(&[P]);
        self.batch()
    }

    /// Passes an input, and keeps the outputs. Lookups find every target, unless its name begins with `missing`.
    pub fn input(&mut self, input: Input<'_>) {
        self.core.handle(self.now, input);
        while let Some(out) = self.core.poll() {
            match out {
                Output::CheckTarget { target, name } if !name.starts_with("missing") => {
                    self.core.handle(self.now, Input::Target { target, state: TargetState::Exists });
                }
                out => self.outs.push(out),
            }
        }
    }

    /// Sets the clock, and ticks.
    pub fn at(&mut self, second: i64) {
        self.now = Millis(second * 1000);
        self.input(Input::Tick);
    }

    /// Appends a record. Returns its offset, as the functions below do.
    pub fn append(&mut self, p: TopicPartition, kept: Kept) -> i64 {
        let log = self.logs.entry(p).or_default();
        log.push(Some(kept));
        log.len() as i64 - 1
    }

    /// Appends a schedule for `target`.
    pub fn schedule(&mut self, p: TopicPartition, key: &str, due: i64) -> i64 {
        self.schedule_to(p, key, due, "target")
    }

    /// Appends a schedule for another target.
    pub fn schedule_to(&mut self, p: TopicPartition, key: &str, due: i64, target: &str) -> i64 {
        let headers = vec![
            (headers::EPOCH.to_vec(), Some(due.to_string().into_bytes())),
            (headers::TARGET_TOPIC.to_vec(), Some(target.into())),
            (headers::TARGET_KEY.to_vec(), Some(format!("to-{key}").into_bytes())),
        ];
        let value = Some(format!("{key}@{due}").into_bytes());
        let timestamp = self.now;
        self.append(p, Kept { timestamp, key: Some(key.into()), value, headers })
    }

    /// Appends a cancel.
    pub fn cancel(&mut self, p: TopicPartition, key: &str) -> i64 {
        let timestamp = self.now;
        self.append(p, Kept { timestamp, key: Some(key.into()), value: None, headers: Vec::new() })
    }

    /// Appends a record that cannot fire: its due time is not a number.
    pub fn invalid(&mut self, p: TopicPartition, key: &str) -> i64 {
        let headers = vec![(b"customer".to_vec(), None), (headers::EPOCH.to_vec(), Some(b"soon".to_vec()))];
        let timestamp = self.now;
        self.append(p, Kept { timestamp, key: Some(key.into()), value: Some(b"poison".to_vec()), headers })
    }

    /// Appends an engine record for the user record at offset `names`: a copy if `like` is given, otherwise a
    /// tombstone.
    pub fn engine(&mut self, p: TopicPartition, key: &str, names: i64, like: Option<&Kept>) -> i64 {
        let (value, mut headers) = like.map_or((None, Vec::new()), |k| (k.value.clone(), k.headers.clone()));
        let borrowed: Vec<Header<'_>> = headers.iter().map(|(n, v)| Header { name: n, value: v.as_deref() }).collect();
        let content_hash = origin::content_hash(key.as_bytes(), value.as_deref(), &borrowed);
        let partition_hash = origin::partition_hash("c", "schedules", p.number);
        let timestamp = like.map_or(self.now, |k| k.timestamp);
        let origin = Origin { partition_hash, offset: names, timestamp, content_hash }.encode().to_vec();
        headers.push((ORIGIN_HEADER.to_vec(), Some(origin)));
        let timestamp = self.now;
        self.append(p, Kept { timestamp, key: Some(key.into()), value, headers })
    }

    /// Returns the record at an offset.
    pub fn kept(&self, p: TopicPartition, offset: i64) -> Kept {
        self.logs[&p][offset as usize].clone().unwrap()
    }

    /// Removes a record, as compaction does.
    pub fn compact(&mut self, p: TopicPartition, offset: i64) {
        self.logs.get_mut(&p).unwrap()[offset as usize] = None;
    }

    /// Delivers the rest of a partition's log.
    pub fn read(&mut self, p: TopicPartition) {
        loop {
            let at = self.reads.get(&p).copied().unwrap_or(0);
            if at >= self.logs.get(&p).map_or(0, Vec::len) {
                return;
            }
            self.reads.insert(p, at + 1);
            if let Some(kept) = self.logs[&p][at].clone() {
                self.deliver(p, at as i64, &kept);
            }
        }
    }

    /// Delivers one record, which may be absent from the log.
    pub fn deliver(&mut self, partition: TopicPartition, offset: i64, kept: &Kept) {
        let headers: Vec<Header<'_>> =
            kept.headers.iter().map(|(n, v)| Header { name: n, value: v.as_deref() }).collect();
        self.input(Input::Record(Record {
            partition,
            offset,
            timestamp: kept.timestamp,
            key: kept.key.as_deref(),
            value: kept.value.as_deref(),
            headers: &headers,
        }));
    }

    /// Takes the next batch, if there is one.
    pub fn try_batch(&mut self) -> Option<Batch> {
        take!(self, Output::Transact(batch) => batch)
    }

    /// Takes the next batch.
    #[track_caller]
    pub fn batch(&mut self) -> Batch {
        let outs = format!("{:?}", self.outs);
        self.try_batch().unwrap_or_else(|| panic!("a batch is expected, among {outs}"))
    }

    /// Asserts that there is no batch.
    #[track_caller]
    pub fn no_batch(&mut self, why: &str) {
        if let Some(batch) = self.try_batch() {
            panic!("{why}, but {batch:?}");
        }
    }

    /// Takes the next batch with items; commits batches with only offsets before it.
    #[track_caller]
    pub fn work(&mut self) -> Batch {
        loop {
            let batch = self.batch();
            if !batch.items.is_empty() {
                return batch;
            }
            self.commit(&batch);
        }
    }

    /// Asserts that there is no batch with items; commits batches with only offsets.
    #[track_caller]
    pub fn no_work(&mut self, why: &str) {
        while let Some(batch) = self.try_batch() {
            assert!(batch.items.is_empty(), "{why}, but {batch:?}");
            self.commit(&batch);
        }
    }

    /// Removes the first matching output. Returns whether there was one.
    pub fn saw(&mut self, wanted: impl Fn(&Output) -> bool) -> bool {
        let at = self.outs.iter().position(wanted);
        at.map(|at| self.outs.remove(at)).is_some()
    }

    /// Appends a batch's records, each partition's with a control marker after them, and commits its offsets. The
    /// scheduler does not learn the outcome. Returns each partition's last offset.
    pub fn land(&mut self, batch: &Batch) -> Vec<(TopicPartition, i64)> {
        let mut written: BTreeMap<TopicPartition, i64> = BTreeMap::new();
        for (_, schedules, kept) in sent(batch, self.now) {
            if let Some(p) = schedules {
                written.insert(p, self.append(p, kept));
            }
        }
        for p in written.keys() {
            self.logs.get_mut(p).unwrap().push(None);
        }
        for position in &batch.offsets {
            self.metadata.insert(position.partition, (position.offset, position.metadata.clone()));
        }
        written.into_iter().collect()
    }

    /// Commits a batch.
    pub fn commit(&mut self, batch: &Batch) {
        let written = self.land(batch);
        self.input(Input::BatchEnded { batch: batch.id, outcome: Outcome::Committed { last_offsets: written } });
    }

    /// Aborts a batch.
    pub fn abort(&mut self, batch: &Batch, abort: Abort) {
        self.input(Input::BatchEnded { batch: batch.id, outcome: Outcome::Aborted(abort) });
    }

    /// Assigns partitions, to be read from the beginning.
    pub fn assign(&mut self, partitions: &[TopicPartition]) {
        for p in partitions {
            self.reads.insert(*p, 0);
        }
        self.input(Input::Assigned { partitions, leftover_cutoff: LEFTOVER_CUTOFF });
        assert!(self.saw(|o| matches!(o, Output::ReadCommitted(asked) if asked == partitions)));
    }

    /// Answers the query for the committed offset.
    pub fn tell_committed(&mut self, partitions: &[TopicPartition]) {
        for p in partitions {
            let known = self.metadata.get(p).cloned();
            let (offset, metadata) = known.map_or((None, String::new()), |(o, m)| (Some(o), m));
            self.input(Input::Committed { partition: *p, offset, metadata: metadata.as_bytes() });
        }
    }

    /// Assigns and reads partitions until they are live.
    pub fn bring_up(&mut self, partitions: &[TopicPartition]) {
        self.bring_up_keeping_outputs(partitions);
        self.outs.clear();
    }

    /// Assigns and reads partitions until they are live, and keeps the outputs.
    pub fn bring_up_keeping_outputs(&mut self, partitions: &[TopicPartition]) {
        self.assign(partitions);
        self.tell_committed(partitions);
        self.run_until_quiet(partitions);
        for p in partitions {
            assert_eq!(self.state(*p), Some(PartitionState::Live), "{:?}", self.core.status());
        }
    }

    /// Answers barriers, start markers, fencing and queries for `since`, until nothing is left to answer.
    pub fn run_until_quiet(&mut self, partitions: &[TopicPartition]) {
        for _ in 0..20 {
            for p in partitions {
                self.read(*p);
            }
            if let Some(request) = take!(self, Output::Fence { request, .. } => request) {
                self.input(Input::Fenced { request });
            }
            self.answer_since(None, LEFTOVER_CUTOFF);
            let own = |kind: &Kind| matches!(kind, Kind::Barrier { .. } | Kind::StartMarker { .. });
            let is_own = |batch: &Batch| batch.items.iter().all(|item| own(&item.kind));
            if let Some(batch) = take!(self, Output::Transact(batch) if is_own(batch) => batch) {
                self.commit(&batch);
            }
        }
    }

    /// Answers the query for `since`. Returns the partitions that need no scan, if there was a query.
    pub fn answer_since(&mut self, since: Option<Millis>, leftover_cutoff: Millis) -> Option<Vec<i32>> {
        let query = take!(self, Output::FindSince { topic: 0, request, known, .. } => (request, known));
        let (request, known) = query?;
        self.input(Input::Since { request, since, leftover_cutoff });
        Some(known)
    }

    /// Returns a partition's state, if it is assigned.
    pub fn state(&self, p: TopicPartition) -> Option<PartitionState> {
        self.core.status().into_iter().find(|s| s.partition == p).map(|s| s.state)
    }

    /// Returns the metadata that the group has committed.
    pub fn ownership(&self, p: TopicPartition) -> Ownership {
        Ownership::decode(self.metadata[&p].1.as_bytes()).unwrap()
    }
}

/// Returns the offsets of the schedules that a batch fires.
pub fn fired(batch: &Batch) -> Vec<i64> {
    batch.items.iter().filter(|i| matches!(i.kind, Kind::Fire { .. })).map(|i| i.origin_offset).collect()
}

/// Returns bytes as text; panics if there are none.
pub fn text(bytes: Option<&Vec<u8>>) -> String {
    String::from_utf8(bytes.unwrap().clone()).unwrap()
}
