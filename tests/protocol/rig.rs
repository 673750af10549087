//! A scheduler, the logs that it reads and what the group has committed, all in memory.

use std::collections::BTreeMap;

use kafka_scheduler::core::batch::{Batch, Kind};
use kafka_scheduler::core::io::{Abort, Header, Input, Millis, Outcome, Output, Record, TargetState, TopicPartition};
use kafka_scheduler::core::origin::{self, ORIGIN_HEADER, Origin};
use kafka_scheduler::core::ownership::Ownership;
use kafka_scheduler::core::{Config, Phase, Scheduler, headers};

pub const P: TopicPartition = TopicPartition { topic: 0, number: 0 };
pub const Q: TopicPartition = TopicPartition { topic: 0, number: 1 };
/// A noon.
pub const NOW: i64 = 1_700_049_600;
pub const TODAY: Millis = Millis((NOW - 43_200) * 1000);

#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    pub timestamp: Millis,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Kept {
    pub fn origin(&self) -> Option<i64> {
        let value = self.headers.iter().find(|(name, _)| name == ORIGIN_HEADER)?.1.as_ref()?;
        Some(i64::from_be_bytes(value[9..17].try_into().unwrap()))
    }
}

pub type Sent = (String, Option<TopicPartition>, Kept);

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

/// A scheduler and the partitions it reads: what is appended is delivered by [`Rig::read`].
pub struct Rig {
    pub core: Scheduler,
    pub now: Millis,
    pub outs: Vec<Output>,
    /// `None` is a place that is never delivered.
    pub logs: BTreeMap<TopicPartition, Vec<Option<Kept>>>,
    pub reads: BTreeMap<TopicPartition, usize>,
    /// What the group has committed.
    pub metadata: BTreeMap<TopicPartition, (i64, String)>,
}

pub fn config() -> Config {
    Config {
        cluster: "c".into(),
        topics: vec!["schedules".into(), "more".into()],
        history: "history".into(),
        dead_letter: None,
        record_bytes_max: Vec::new(),
        group: "g".into(),
        run: "ab".into(),
        grace_s: None,
        horizon_s: None,
        transactors: 1,
        batch_items_max: 100,
        batch_bytes_max: 1 << 20,
        hash_seed: 7,
    }
}

impl Rig {
    pub fn new(config: Config) -> Self {
        Self {
            core: Scheduler::new(config),
            now: Millis(NOW * 1000),
            outs: Vec::new(),
            logs: BTreeMap::new(),
            reads: BTreeMap::new(),
            metadata: BTreeMap::new(),
        }
    }

    /// Live with `P`, on a log that has the start marker of the first start.
    pub fn live() -> Self {
        Self::live_with(config())
    }

    pub fn live_with(config: Config) -> Self {
        let mut rig = Self::new(config);
        rig.bring_up(&[P]);
        rig
    }

    /// Another process on the same logs.
    pub fn successor(&mut self, run: &str) {
        self.core = Scheduler::new(Config { run: run.into(), ..config() });
        self.outs.clear();
    }

    /// Another process has been given `P` and has read what the group has committed: the barrier it writes.
    #[track_caller]
    pub fn successors_barrier(&mut self, run: &str) -> Batch {
        self.successor(run);
        self.assign(&[P]);
        self.tell_committed(&[P]);
        self.batch()
    }

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

    pub fn at(&mut self, second: i64) {
        self.now = Millis(second * 1000);
        self.input(Input::Tick);
    }

    pub fn append(&mut self, p: TopicPartition, kept: Kept) -> i64 {
        let log = self.logs.entry(p).or_default();
        log.push(Some(kept));
        log.len() as i64 - 1
    }

    pub fn schedule(&mut self, p: TopicPartition, key: &str, due: i64) -> i64 {
        self.schedule_to(p, key, due, "target")
    }

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

    pub fn cancel(&mut self, p: TopicPartition, key: &str) -> i64 {
        let timestamp = self.now;
        self.append(p, Kept { timestamp, key: Some(key.into()), value: None, headers: Vec::new() })
    }

    pub fn invalid(&mut self, p: TopicPartition, key: &str) -> i64 {
        let headers = vec![(b"customer".to_vec(), None), (headers::EPOCH.to_vec(), Some(b"soon".to_vec()))];
        let timestamp = self.now;
        self.append(p, Kept { timestamp, key: Some(key.into()), value: Some(b"poison".to_vec()), headers })
    }

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

    pub fn kept(&self, p: TopicPartition, offset: i64) -> Kept {
        self.logs[&p][offset as usize].clone().unwrap()
    }

    /// Compaction takes the record away.
    pub fn compact(&mut self, p: TopicPartition, offset: i64) {
        self.logs.get_mut(&p).unwrap()[offset as usize] = None;
    }

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

    pub fn find<T>(&mut self, wanted: impl Fn(&Output) -> bool, take: impl FnOnce(Output) -> T) -> Option<T> {
        let at = self.outs.iter().position(wanted)?;
        Some(take(self.outs.remove(at)))
    }

    pub fn try_batch(&mut self) -> Option<Batch> {
        self.find(
            |o| matches!(o, Output::Transact(_)),
            |o| match o {
                Output::Transact(batch) => batch,
                _ => unreachable!(),
            },
        )
    }

    #[track_caller]
    pub fn batch(&mut self) -> Batch {
        let outs = format!("{:?}", self.outs);
        self.try_batch().unwrap_or_else(|| panic!("a batch is expected, among {outs}"))
    }

    #[track_caller]
    pub fn no_batch(&mut self, why: &str) {
        if let Some(batch) = self.try_batch() {
            panic!("{why}, but {batch:?}");
        }
    }

    /// The next batch that writes something; offsets alone are committed on the way.
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

    #[track_caller]
    pub fn no_work(&mut self, why: &str) {
        while let Some(batch) = self.try_batch() {
            assert!(batch.items.is_empty(), "{why}, but {batch:?}");
            self.commit(&batch);
        }
    }

    pub fn saw(&mut self, wanted: impl Fn(&Output) -> bool) -> bool {
        self.find(wanted, drop).is_some()
    }

    /// The broker commits it: its records are in the logs, each partition with a control marker after them.
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

    pub fn commit(&mut self, batch: &Batch) {
        let written = self.land(batch);
        self.input(Input::BatchEnded { batch: batch.id, outcome: Outcome::Committed { written: &written } });
    }

    pub fn abort(&mut self, batch: &Batch, abort: Abort<'_>) {
        self.input(Input::BatchEnded { batch: batch.id, outcome: Outcome::Aborted(abort) });
    }

    pub fn assign(&mut self, partitions: &[TopicPartition]) {
        for p in partitions {
            self.reads.insert(*p, 0);
        }
        self.input(Input::Assigned { partitions, leftover_cutoff: TODAY });
        assert!(self.saw(|o| matches!(o, Output::ReadCommitted(asked) if asked == partitions)));
    }

    pub fn tell_committed(&mut self, partitions: &[TopicPartition]) {
        for p in partitions {
            let known = self.metadata.get(p).cloned();
            let (offset, metadata) = known.map_or((None, String::new()), |(o, m)| (Some(o), m));
            self.input(Input::Committed { partition: *p, offset, metadata: metadata.as_bytes() });
        }
    }

    /// Assigned, read and live, whatever it takes.
    pub fn bring_up(&mut self, partitions: &[TopicPartition]) {
        self.bring_up_keeping_outputs(partitions);
        self.outs.clear();
    }

    /// The same, with whatever it wants to do then.
    pub fn bring_up_keeping_outputs(&mut self, partitions: &[TopicPartition]) {
        self.assign(partitions);
        self.tell_committed(partitions);
        self.run_until_quiet(partitions);
        for p in partitions {
            assert_eq!(self.phase(*p), Some(Phase::Live), "{:?}", self.core.status());
        }
    }

    /// Answers barriers, start markers, fences and questions about `since`, until something else has to happen.
    pub fn run_until_quiet(&mut self, partitions: &[TopicPartition]) {
        for _ in 0..20 {
            for p in partitions {
                self.read(*p);
            }
            let fence = |o: Output| match o {
                Output::Fence { request, .. } => request,
                _ => unreachable!(),
            };
            if let Some(request) = self.find(|o| matches!(o, Output::Fence { .. }), fence) {
                self.input(Input::Fenced { request });
            }
            self.answer_since(None, TODAY);
            let own = |o: &Output| {
                matches!(o, Output::Transact(b)
                    if b.items.iter().all(|i| matches!(i.kind, Kind::Barrier { .. } | Kind::StartMarker { .. })))
            };
            let batch = self.find(own, |o| match o {
                Output::Transact(batch) => batch,
                _ => unreachable!(),
            });
            if let Some(batch) = batch {
                self.commit(&batch);
            }
        }
    }

    /// Answers the question since when the topic is owed. Gives the partitions that need no scan, if it was asked.
    pub fn answer_since(&mut self, since: Option<Millis>, leftover_cutoff: Millis) -> Option<Vec<i32>> {
        let (request, known) = self.find(
            |o| matches!(o, Output::FindSince { topic: 0, .. }),
            |o| match o {
                Output::FindSince { request, known, .. } => (request, known),
                _ => unreachable!(),
            },
        )?;
        self.input(Input::Since { request, since, leftover_cutoff });
        Some(known)
    }

    pub fn phase(&self, p: TopicPartition) -> Option<Phase> {
        self.core.status().into_iter().find(|s| s.partition == p).map(|s| s.phase)
    }

    pub fn ownership(&self, p: TopicPartition) -> Ownership {
        Ownership::decode(self.metadata[&p].1.as_bytes()).unwrap()
    }
}

pub fn fired(batch: &Batch) -> Vec<i64> {
    batch.items.iter().filter(|i| matches!(i.kind, Kind::Fire { .. })).map(|i| i.origin_offset).collect()
}

pub fn text(bytes: Option<&Vec<u8>>) -> String {
    String::from_utf8(bytes.unwrap().clone()).unwrap()
}
