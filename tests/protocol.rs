//! The rules of the protocol, one by one, at the scheduler's own inputs and outputs.

use std::collections::BTreeMap;

use kafka_scheduler::core::batch::{Batch, Kind};
use kafka_scheduler::core::floor::Floor;
use kafka_scheduler::core::io::{
    Abort, Header, Input, Millis, Outcome, Output, Partition, Record, Report, TargetState,
};
use kafka_scheduler::core::mark::{self, BARRIER_KEY, FLOOR_KEY, MARK_HEADER, Mark};
use kafka_scheduler::core::owner::Ownership;
use kafka_scheduler::core::reason::Reason;
use kafka_scheduler::core::{Config, Phase, Scheduler, request};

const P: Partition = Partition { topic: 0, number: 0 };
const Q: Partition = Partition { topic: 0, number: 1 };
/// A noon.
const NOW: i64 = 1_700_049_600;
const TODAY: Millis = Millis((NOW - 43_200) * 1000);

#[derive(Clone, Debug, PartialEq)]
struct Kept {
    timestamp: Millis,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Kept {
    fn mark(&self) -> Option<i64> {
        let value = self.headers.iter().find(|(name, _)| name == MARK_HEADER)?.1.as_ref()?;
        Some(i64::from_be_bytes(value[9..17].try_into().unwrap()))
    }
}

type Sent = (String, Option<Partition>, Kept);

fn sent(batch: &Batch, now: Millis) -> Vec<Sent> {
    let mut all = Vec::new();
    batch
        .records(|r| {
            let headers = r.headers.iter().map(|h| (h.name.to_vec(), h.value.map(<[u8]>::to_vec))).collect();
            let kept =
                Kept { timestamp: now, key: r.key.map(<[u8]>::to_vec), value: r.value.map(<[u8]>::to_vec), headers };
            all.push((r.topic.to_owned(), r.schedules, kept));
            Ok::<(), ()>(())
        })
        .unwrap();
    all
}

/// A scheduler and the partitions it reads: what is appended is delivered by [`Rig::read`].
struct Rig {
    core: Scheduler,
    now: Millis,
    outs: Vec<Output>,
    /// `None` is a place that is never delivered.
    logs: BTreeMap<Partition, Vec<Option<Kept>>>,
    reads: BTreeMap<Partition, usize>,
    /// What the group has committed.
    metadata: BTreeMap<Partition, (i64, String)>,
}

fn config() -> Config {
    Config {
        cluster: "c".into(),
        topics: vec!["schedules".into(), "more".into()],
        history: "history".into(),
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
    fn new(config: Config) -> Self {
        Self {
            core: Scheduler::new(config),
            now: Millis(NOW * 1000),
            outs: Vec::new(),
            logs: BTreeMap::new(),
            reads: BTreeMap::new(),
            metadata: BTreeMap::new(),
        }
    }

    /// Live with `P`, on a log that has a floor of the first start.
    fn live() -> Self {
        Self::live_with(config())
    }

    fn live_with(config: Config) -> Self {
        let mut rig = Self::new(config);
        rig.bring_up(&[P]);
        rig
    }

    /// Another process on the same logs.
    fn successor(&mut self, run: &str) {
        self.core = Scheduler::new(Config { run: run.into(), ..config() });
        self.outs.clear();
    }

    fn input(&mut self, input: Input<'_>) {
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

    fn at(&mut self, second: i64) {
        self.now = Millis(second * 1000);
        self.input(Input::Tick);
    }

    fn append(&mut self, p: Partition, kept: Kept) -> i64 {
        let log = self.logs.entry(p).or_default();
        log.push(Some(kept));
        log.len() as i64 - 1
    }

    fn schedule(&mut self, p: Partition, key: &str, due: i64) -> i64 {
        self.schedule_to(p, key, due, "target")
    }

    fn schedule_to(&mut self, p: Partition, key: &str, due: i64, target: &str) -> i64 {
        let headers = vec![
            (request::EPOCH.to_vec(), Some(due.to_string().into_bytes())),
            (request::TARGET_TOPIC.to_vec(), Some(target.into())),
            (request::TARGET_KEY.to_vec(), Some(format!("to-{key}").into_bytes())),
        ];
        let value = Some(format!("{key}@{due}").into_bytes());
        let timestamp = self.now;
        self.append(p, Kept { timestamp, key: Some(key.into()), value, headers })
    }

    fn cancel(&mut self, p: Partition, key: &str) -> i64 {
        let timestamp = self.now;
        self.append(p, Kept { timestamp, key: Some(key.into()), value: None, headers: Vec::new() })
    }

    fn unfit(&mut self, p: Partition, key: &str) -> i64 {
        let headers = vec![(b"customer".to_vec(), None), (request::EPOCH.to_vec(), Some(b"soon".to_vec()))];
        let timestamp = self.now;
        self.append(p, Kept { timestamp, key: Some(key.into()), value: Some(b"poison".to_vec()), headers })
    }

    fn engine(&mut self, p: Partition, key: &str, names: i64, like: Option<&Kept>) -> i64 {
        let (value, mut headers) = like.map_or((None, Vec::new()), |k| (k.value.clone(), k.headers.clone()));
        let borrowed: Vec<Header<'_>> = headers.iter().map(|(n, v)| Header { name: n, value: v.as_deref() }).collect();
        let content = mark::content(key.as_bytes(), value.as_deref(), &borrowed);
        let place = mark::place("c", "schedules", p.number);
        let timestamp = like.map_or(self.now, |k| k.timestamp);
        let value_of_mark = Mark { place, offset: names, timestamp, content }.encode().to_vec();
        headers.push((MARK_HEADER.to_vec(), Some(value_of_mark)));
        let timestamp = self.now;
        self.append(p, Kept { timestamp, key: Some(key.into()), value, headers })
    }

    fn kept(&self, p: Partition, offset: i64) -> Kept {
        self.logs[&p][offset as usize].clone().unwrap()
    }

    /// Compaction takes the record away.
    fn compact(&mut self, p: Partition, offset: i64) {
        self.logs.get_mut(&p).unwrap()[offset as usize] = None;
    }

    fn read(&mut self, p: Partition) {
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

    fn deliver(&mut self, partition: Partition, offset: i64, kept: &Kept) {
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

    fn find<T>(&mut self, wanted: impl Fn(&Output) -> bool, take: impl FnOnce(Output) -> T) -> Option<T> {
        let at = self.outs.iter().position(wanted)?;
        Some(take(self.outs.remove(at)))
    }

    fn try_batch(&mut self) -> Option<Batch> {
        self.find(
            |o| matches!(o, Output::Transact(_)),
            |o| match o {
                Output::Transact(batch) => batch,
                _ => unreachable!(),
            },
        )
    }

    #[track_caller]
    fn batch(&mut self) -> Batch {
        let outs = format!("{:?}", self.outs);
        self.try_batch().unwrap_or_else(|| panic!("a batch is expected, among {outs}"))
    }

    #[track_caller]
    fn no_batch(&mut self, why: &str) {
        if let Some(batch) = self.try_batch() {
            panic!("{why}, but {batch:?}");
        }
    }

    fn saw(&mut self, wanted: impl Fn(&Output) -> bool) -> bool {
        self.find(wanted, drop).is_some()
    }

    /// The broker commits it: its records lie in the logs, each partition with a control marker behind.
    fn land(&mut self, batch: &Batch) -> Vec<(Partition, i64)> {
        let mut written: BTreeMap<Partition, i64> = BTreeMap::new();
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

    fn commit(&mut self, batch: &Batch) {
        let written = self.land(batch);
        self.input(Input::Settled { batch: batch.id, outcome: Outcome::Committed { written: &written } });
    }

    fn abort(&mut self, batch: &Batch, abort: Abort<'_>) {
        self.input(Input::Settled { batch: batch.id, outcome: Outcome::Aborted(abort) });
    }

    fn assign(&mut self, partitions: &[Partition]) {
        for p in partitions {
            self.reads.insert(*p, 0);
        }
        self.input(Input::Assigned { partitions, today: TODAY });
        assert!(self.saw(|o| matches!(o, Output::ReadCommitted(asked) if asked == partitions)));
    }

    fn tell_committed(&mut self, partitions: &[Partition]) {
        for p in partitions {
            let known = self.metadata.get(p).cloned();
            let (offset, metadata) = known.map_or((None, String::new()), |(o, m)| (Some(o), m));
            self.input(Input::Committed { partition: *p, offset, metadata: metadata.as_bytes() });
        }
    }

    /// Assigned, read and live, whatever it takes.
    fn bring_up(&mut self, partitions: &[Partition]) {
        self.assign(partitions);
        self.tell_committed(partitions);
        self.run_until_quiet(partitions);
        for p in partitions {
            assert_eq!(self.phase(*p), Some(Phase::Live), "{:?}", self.core.status());
        }
        self.outs.clear();
    }

    /// Answers barriers, floors, fences and questions about `since`, until something else has to happen.
    fn run_until_quiet(&mut self, partitions: &[Partition]) {
        for _ in 0..20 {
            for p in partitions {
                self.read(*p);
            }
            let fence = |o: Output| match o {
                Output::Fence { take, .. } => take,
                _ => unreachable!(),
            };
            if let Some(take) = self.find(|o| matches!(o, Output::Fence { .. }), fence) {
                self.input(Input::Fenced { take });
            }
            if self.saw(|o| matches!(o, Output::FindSince { .. })) {
                self.input(Input::Since { topic: 0, since: None, today: TODAY });
            }
            let own = |o: &Output| {
                matches!(o, Output::Transact(b)
                    if b.items.iter().all(|i| matches!(i.kind, Kind::Barrier { .. } | Kind::Floor { .. })))
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

    fn phase(&self, p: Partition) -> Option<Phase> {
        self.core.status().into_iter().find(|s| s.partition == p).map(|s| s.phase)
    }

    fn ownership(&self, p: Partition) -> Ownership {
        Ownership::decode(self.metadata[&p].1.as_bytes()).unwrap()
    }
}

fn fired(batch: &Batch) -> Vec<i64> {
    batch.items.iter().filter(|i| matches!(i.kind, Kind::Fire { .. })).map(|i| i.identity).collect()
}

fn text(bytes: Option<&Vec<u8>>) -> String {
    String::from_utf8(bytes.unwrap().clone()).unwrap()
}

// A firing transaction

#[test]
fn a_firing_is_a_target_record_a_history_record_and_a_tombstone_in_the_schedules_own_partition() {
    let mut rig = Rig::live();
    let mut kept = {
        let offset = rig.schedule(P, "k", NOW + 5);
        let kept = rig.kept(P, offset);
        rig.compact(P, offset);
        kept
    };
    kept.headers.push((b"customer".to_vec(), Some(b"1".to_vec())));
    kept.headers.push((request::KEY.to_vec(), Some(b"forged".to_vec())));
    kept.headers.push((b"customer".to_vec(), None));
    let offset = rig.append(P, kept);
    rig.read(P);
    rig.at(NOW + 5);
    let batch = rig.batch();
    let records = sent(&batch, rig.now);
    assert_eq!(records.len(), 3);
    let bytes = |s: &str| s.as_bytes().to_vec();
    let triggered = vec![
        (bytes("customer"), Some(bytes("1"))),
        (bytes("customer"), None),
        (bytes("scheduler-timestamp"), Some(bytes(&NOW.to_string()))),
        (bytes("scheduler-key"), Some(bytes("k"))),
        (bytes("scheduler-topic"), Some(bytes("schedules"))),
    ];
    let (topic, partition, target) = &records[0];
    assert_eq!((topic.as_str(), *partition), ("target", None));
    assert_eq!((text(target.key.as_ref()), &target.headers), ("to-k".into(), &triggered));
    assert_eq!(text(target.value.as_ref()), format!("k@{}", NOW + 5));
    let (topic, partition, history) = &records[1];
    assert_eq!((topic.as_str(), *partition), ("history", None));
    assert_eq!(history.headers[..triggered.len()], triggered);
    assert_eq!(
        history.headers[triggered.len()..],
        [
            (bytes("scheduler-epoch"), Some(bytes(&(NOW + 5).to_string()))),
            (bytes("scheduler-target-topic"), Some(bytes("target"))),
            (bytes("scheduler-target-key"), Some(bytes("to-k"))),
        ]
    );
    let (topic, partition, tombstone) = &records[2];
    assert_eq!((topic.as_str(), *partition), ("schedules", Some(P)));
    assert_eq!((text(tombstone.key.as_ref()), &tombstone.value), ("k".into(), &None));
    assert_eq!(tombstone.mark(), Some(offset), "it names the record that it speaks for");
}

#[test]
fn every_batch_names_each_partition_it_touches_once_with_offsets_not_below_zero() {
    let mut rig = Rig::new(config());
    rig.assign(&[P, Q]);
    rig.tell_committed(&[P, Q]);
    let check = |batch: &Batch| {
        let mut named: Vec<_> = batch.offsets.iter().map(|o| o.partition).collect();
        let mut touched: Vec<_> = batch.items.iter().map(|i| i.partition).collect();
        touched.sort();
        touched.dedup();
        named.sort();
        assert!(!named.is_empty() && touched.iter().all(|p| named.contains(p)), "{batch:?}");
        let before = named.len();
        named.dedup();
        assert_eq!(named.len(), before);
        assert!(batch.offsets.iter().all(|o| o.offset >= 0 && !o.metadata.is_empty()), "{batch:?}");
    };
    let barrier = rig.batch();
    check(&barrier);
    rig.commit(&barrier);
    rig.run_until_quiet(&[P, Q]);
    rig.schedule(P, "a", NOW + 1);
    rig.schedule(Q, "b", NOW + 1);
    rig.read(P);
    rig.read(Q);
    rig.at(NOW + 1);
    let batch = rig.batch();
    check(&batch);
    assert_eq!(batch.offsets.len(), 2);
    rig.commit(&batch);
    rig.read(P);
    rig.read(Q);
    rig.input(Input::Revoked { partitions: &[P, Q] });
    let clean = rig.batch();
    check(&clean);
    assert!(clean.items.is_empty());
}

#[test]
fn offsets_committed_for_a_partition_never_go_backwards() {
    let mut rig = Rig::live();
    rig.schedule(P, "a", NOW + 1);
    rig.schedule(P, "b", NOW + 2);
    rig.read(P);
    let mut last = rig.metadata[&P].0;
    for second in 1..3 {
        rig.at(NOW + second);
        let batch = rig.batch();
        assert!(batch.offsets[0].offset >= last, "{batch:?}");
        last = batch.offsets[0].offset;
        rig.commit(&batch);
        rig.read(P);
    }
    let committed = rig.metadata[&P].0;
    rig.successor("cd");
    rig.assign(&[P]);
    rig.tell_committed(&[P]);
    let barrier = rig.batch();
    assert_eq!(barrier.offsets[0].offset, committed, "a takeover commits the offset as it was read");
}

#[test]
fn a_refused_generation_sends_nothing_until_there_is_another() {
    let mut rig = Rig::live();
    rig.input(Input::Generation(4));
    rig.schedule(P, "a", NOW + 1);
    rig.read(P);
    rig.at(NOW + 1);
    let batch = rig.batch();
    rig.abort(&batch, Abort::Refused { generation: 4 });
    rig.at(NOW + 30);
    rig.no_batch("the generation is the refused one");
    rig.input(Input::Generation(5));
    rig.at(NOW + 31);
    assert_eq!(fired(&rig.batch()).len(), 1);
}

#[test]
fn one_engine_record_for_a_key_is_outstanding_until_it_is_read_past() {
    let mut rig = Rig::live_with(Config { transactors: 2, ..config() });
    let first = rig.schedule(P, "k", NOW + 1);
    rig.read(P);
    rig.at(NOW + 1);
    let batch = rig.batch();
    assert_eq!(fired(&batch), [first]);
    let second = rig.schedule(P, "k", NOW + 2);
    rig.read(P);
    rig.at(NOW + 2);
    rig.no_batch("an engine record for the key is in flight");
    rig.commit(&batch);
    rig.no_batch("settled is not enough: the tombstone has not been read");
    rig.at(NOW + 3);
    rig.no_batch("settled is not enough: the tombstone has not been read");
    rig.read(P);
    assert_eq!(fired(&rig.batch()), [second]);
}

#[test]
fn the_tombstone_may_be_read_before_the_commit_is_answered() {
    let mut rig = Rig::live_with(Config { transactors: 2, ..config() });
    rig.schedule(P, "k", NOW + 1);
    rig.read(P);
    rig.at(NOW + 1);
    let batch = rig.batch();
    let second = rig.schedule(P, "k", NOW + 2);
    let written = rig.land(&batch);
    rig.now = Millis((NOW + 2) * 1000);
    rig.read(P);
    let next = rig.batch();
    assert_eq!(fired(&next), [second]);
    rig.input(Input::Settled { batch: batch.id, outcome: Outcome::Committed { written: &written } });
    rig.at(NOW + 3);
    rig.no_batch("the second firing is in flight still");
    rig.commit(&next);
    rig.read(P);
    rig.at(NOW + 4);
    rig.no_batch("both have fired");
}

#[test]
fn an_aborted_batch_frees_its_keys() {
    let mut rig = Rig::live();
    let offset = rig.schedule(P, "k", NOW + 1);
    rig.read(P);
    rig.at(NOW + 1);
    let batch = rig.batch();
    rig.abort(&batch, Abort::Retry);
    rig.no_batch("it is tried again after a moment, not at once");
    let (at, _) = rig.core.poll_timeout().expect("there is a deadline");
    rig.now = at;
    rig.input(Input::Tick);
    assert_eq!(fired(&rig.batch()), [offset]);
}

#[test]
fn two_batches_may_be_in_flight_but_no_third() {
    let mut rig = Rig::live_with(Config { transactors: 2, batch_items_max: 1, ..config() });
    for key in ["a", "b", "c"] {
        rig.schedule(P, key, NOW + 1);
    }
    rig.read(P);
    rig.at(NOW + 1);
    let (one, two) = (rig.batch(), rig.batch());
    assert_eq!(two.id, one.id + 1, "numbered without gaps: the order in which they commit");
    rig.no_batch("two transactors, two batches");
    rig.commit(&one);
    rig.batch();
}

#[test]
fn progress_is_committed_in_transactions_of_offsets_alone_at_most_every_30_s() {
    let mut rig = Rig::live();
    rig.schedule(P, "later", NOW + 100_000);
    rig.read(P);
    let (at, _) = rig.core.poll_timeout().expect("progress waits to be committed");
    assert!(at.0 > NOW * 1000 && at.0 <= (NOW + 31) * 1000, "{at:?}");
    rig.now = at;
    rig.input(Input::Tick);
    let mark = rig.batch();
    assert!(mark.items.is_empty());
    assert_eq!(mark.offsets[0].offset, rig.logs[&P].len() as i64);
    rig.commit(&mark);
    let second = at.0 / 1000;
    rig.schedule(P, "later still", NOW + 100_000);
    rig.read(P);
    rig.at(second + 10);
    rig.no_batch("the last one is 10 s old");
    rig.at(second + 31);
    assert!(rig.batch().items.is_empty());
}

// Taking over

#[test]
fn the_barrier_comes_first_and_only_then_are_former_owners_fenced() {
    let mut rig = Rig::live();
    rig.successor("cd");
    rig.assign(&[P]);
    rig.no_batch("the former owner is not known yet");
    rig.tell_committed(&[P]);
    let barrier = rig.batch();
    assert!(matches!(&barrier.items[..], [item] if matches!(item.kind, Kind::Barrier { .. })));
    let records = sent(&barrier, rig.now);
    assert_eq!((records[0].1, records[0].2.key.as_deref()), (Some(P), Some(BARRIER_KEY)));
    assert_eq!(records[0].2.value, None);
    let ownership = Ownership::decode(barrier.offsets[0].metadata.as_bytes()).unwrap();
    assert_eq!((ownership.owner.as_str(), &ownership.fence[..]), ("cd.0", &["ab.0".to_owned()][..]));
    assert!(!rig.saw(|o| matches!(o, Output::Fence { .. })), "a late riser would fence a live owner");
    rig.commit(&barrier);
    let ids = rig.find(
        |o| matches!(o, Output::Fence { .. }),
        |o| match o {
            Output::Fence { take, transactional_ids } => (take, transactional_ids),
            _ => unreachable!(),
        },
    );
    let (take, ids) = ids.expect("the former owner is fenced");
    assert_eq!(ids, ["g.ab.0.0", "g.ab.0.1"]);
    rig.input(Input::Fenced { take });
    let drop_list = rig.batch();
    assert!(drop_list.items.is_empty());
    assert_eq!(Ownership::decode(drop_list.offsets[0].metadata.as_bytes()).unwrap().fence, Vec::<String>::new());
    rig.commit(&drop_list);
    rig.no_batch("the list is dropped once");
}

#[test]
fn a_list_that_was_not_worked_off_is_handed_on() {
    let mut rig = Rig::live();
    rig.successor("cd");
    rig.assign(&[P]);
    rig.tell_committed(&[P]);
    let barrier = rig.batch();
    rig.land(&barrier);
    rig.successor("ef");
    rig.assign(&[P]);
    rig.tell_committed(&[P]);
    let barrier = rig.batch();
    assert_eq!(Ownership::decode(barrier.offsets[0].metadata.as_bytes()).unwrap().fence, ["cd.0", "ab.0"]);
}

#[test]
fn each_takeover_writes_a_barrier_that_is_its_own() {
    let mut rig = Rig::live();
    rig.successor("cd");
    rig.bring_up(&[P]);
    let headers: Vec<_> = rig.logs[&P]
        .iter()
        .flatten()
        .filter(|k| k.key.as_deref() == Some(BARRIER_KEY))
        .map(|k| k.headers[0].1.clone())
        .collect();
    assert_eq!(headers.len(), 2);
    assert_ne!(headers[0], headers[1]);
}

#[test]
fn only_the_barriers_own_offset_ends_loading() {
    let mut rig = Rig::live();
    rig.schedule(P, "a", NOW - 1);
    rig.successor("cd");
    rig.assign(&[P]);
    rig.tell_committed(&[P]);
    let barrier = rig.batch();
    rig.read(P);
    rig.at(NOW + 60);
    rig.no_batch("the end of the log was reached and time has passed, but the barrier does not stand");
    let written = rig.land(&barrier);
    rig.input(Input::Settled { batch: barrier.id, outcome: Outcome::Committed { written: &written } });
    assert_eq!(rig.phase(P), Some(Phase::Loading));
    rig.input(Input::Fenced { take: 0 });
    let list = rig.batch();
    assert!(list.items.is_empty(), "only the fence list is dropped");
    rig.commit(&list);
    rig.no_batch("the barrier has not been read");
    rig.read(P);
    assert_eq!(rig.phase(P), Some(Phase::Live));
    assert_eq!(fired(&rig.batch()).len(), 1);
}

#[test]
fn a_record_behind_the_barrier_ends_loading_as_well() {
    let mut rig = Rig::live();
    rig.successor("cd");
    rig.assign(&[P]);
    rig.tell_committed(&[P]);
    let barrier = rig.batch();
    rig.commit(&barrier);
    let at = rig.logs[&P].iter().rposition(|k| k.as_ref().is_some_and(|k| k.value.is_none())).unwrap();
    rig.compact(P, at as i64);
    rig.read(P);
    assert_eq!(rig.phase(P), Some(Phase::Loading), "compaction took the barrier");
    rig.schedule(P, "a", NOW + 9);
    rig.read(P);
    assert_eq!(rig.phase(P), Some(Phase::Live));
}

#[test]
fn a_barrier_may_be_read_before_its_commit_is_answered() {
    let mut rig = Rig::live();
    rig.successor("cd");
    rig.assign(&[P]);
    rig.tell_committed(&[P]);
    let barrier = rig.batch();
    let written = rig.land(&barrier);
    rig.read(P);
    assert_eq!(rig.phase(P), Some(Phase::TakingOver));
    rig.input(Input::Settled { batch: barrier.id, outcome: Outcome::Committed { written: &written } });
    assert_eq!(rig.phase(P), Some(Phase::Live));
}

#[test]
fn a_barrier_whose_offset_is_not_reported_is_written_again() {
    let mut rig = Rig::live();
    rig.successor("cd");
    rig.assign(&[P]);
    rig.tell_committed(&[P]);
    let barrier = rig.batch();
    rig.land(&barrier);
    rig.input(Input::Settled { batch: barrier.id, outcome: Outcome::Committed { written: &[] } });
    let again = rig.batch();
    assert!(matches!(again.items[0].kind, Kind::Barrier { .. }));
    rig.commit(&again);
    rig.read(P);
    assert_eq!(rig.phase(P), Some(Phase::Live));
}

#[test]
fn an_aborted_barrier_is_written_again() {
    let mut rig = Rig::new(config());
    rig.assign(&[P]);
    rig.tell_committed(&[P]);
    let barrier = rig.batch();
    rig.abort(&barrier, Abort::Retry);
    rig.at(NOW + 5);
    let again = rig.batch();
    assert!(matches!(again.items[0].kind, Kind::Barrier { .. }));
}

#[test]
fn an_offset_at_or_below_one_already_seen_reads_the_partition_again_behind_a_new_barrier() {
    let mut rig = Rig::live();
    let offset = rig.schedule(P, "a", NOW + 9);
    rig.read(P);
    let kept = rig.kept(P, offset);
    rig.deliver(P, offset, &kept);
    assert!(rig.saw(|o| matches!(o, Output::Seek(p) if *p == P)));
    assert!(rig.saw(|o| matches!(o, Output::Report(Report::Reread { .. }))));
    rig.reads.insert(P, 0);
    let barrier = rig.batch();
    assert!(matches!(barrier.items[0].kind, Kind::Barrier { .. }));
    rig.commit(&barrier);
    rig.run_until_quiet(&[P]);
    rig.at(NOW + 9);
    assert_eq!(fired(&rig.batch()), [offset]);
}

#[test]
fn a_partition_that_can_no_longer_be_read_makes_the_consumer_join_anew() {
    let mut rig = Rig::live();
    rig.input(Input::Unreadable { why: "truncated" });
    assert!(rig.saw(|o| matches!(o, Output::Renew { .. })));
    assert!(rig.saw(|o| matches!(o, Output::Restart(_))));
}

// Giving up

#[test]
fn a_partition_is_released_only_when_its_batches_have_settled_and_its_clean_mark_is_committed() {
    let mut rig = Rig::live();
    rig.schedule(P, "a", NOW + 1);
    rig.schedule(P, "b", NOW + 2);
    rig.read(P);
    rig.at(NOW + 1);
    let batch = rig.batch();
    rig.input(Input::Revoked { partitions: &[P] });
    rig.at(NOW + 2);
    rig.no_batch("no new batch touches it, and one is in flight");
    assert!(!rig.saw(|o| matches!(o, Output::Release(_))));
    rig.commit(&batch);
    let clean = rig.batch();
    assert!(clean.items.is_empty(), "b is the successor's");
    assert!(!rig.saw(|o| matches!(o, Output::Release(_))));
    rig.commit(&clean);
    assert!(rig.saw(|o| matches!(o, Output::Release(p) if p == &[P])));
    assert!(rig.ownership(P).clean);
    rig.successor("cd");
    rig.assign(&[P]);
    rig.tell_committed(&[P]);
    let barrier = rig.batch();
    assert_eq!(Ownership::decode(barrier.offsets[0].metadata.as_bytes()).unwrap().fence, Vec::<String>::new());
    rig.commit(&barrier);
    assert!(!rig.saw(|o| matches!(o, Output::Fence { .. })), "a clean owner has nothing to fence");
}

#[test]
fn a_release_that_takes_too_long_happens_under_new_transactional_ids() {
    let mut rig = Rig::live();
    rig.schedule(P, "a", NOW + 1);
    rig.read(P);
    rig.at(NOW + 1);
    let batch = rig.batch();
    let before = rig.core.transactional_ids();
    rig.input(Input::Revoked { partitions: &[P] });
    let (at, _) = rig.core.poll_timeout().expect("a release has a deadline");
    assert!(at.0 <= (NOW + 6) * 1000);
    rig.now = at;
    rig.input(Input::Tick);
    assert!(rig.saw(|o| matches!(o, Output::Renew { transactional_ids } if *transactional_ids != before)));
    assert!(rig.saw(|o| matches!(o, Output::Restart(_) | Output::Release(_))));
    rig.commit(&batch);
    rig.no_batch("the old batch is forgotten");
}

#[test]
fn a_clean_mark_that_fails_releases_under_new_transactional_ids() {
    let mut rig = Rig::live();
    rig.input(Input::Revoked { partitions: &[P] });
    let clean = rig.batch();
    rig.abort(&clean, Abort::Retry);
    assert!(rig.saw(|o| matches!(o, Output::Renew { .. })));
    assert!(rig.saw(|o| matches!(o, Output::Restart(_) | Output::Release(_))));
}

#[test]
fn lost_partitions_are_forgotten_at_once_with_new_transactional_ids_and_nothing_committed() {
    let mut rig = Rig::live();
    rig.schedule(P, "a", NOW + 1);
    rig.read(P);
    rig.input(Input::Lost { partitions: &[P] });
    assert!(rig.saw(|o| matches!(o, Output::Renew { transactional_ids } if transactional_ids[0] == "g.ab.1.0")));
    rig.at(NOW + 1);
    rig.no_batch("the partition is somebody else's");
    assert_eq!(rig.core.status(), []);
}

#[test]
fn an_unknown_outcome_is_not_guessed_but_restarts_under_new_ids_behind_a_new_barrier() {
    let mut rig = Rig::live();
    rig.schedule(P, "a", NOW + 1);
    rig.read(P);
    rig.at(NOW + 1);
    let batch = rig.batch();
    rig.land(&batch);
    rig.input(Input::Settled { batch: batch.id, outcome: Outcome::Unknown });
    assert!(rig.saw(|o| matches!(o, Output::Renew { .. })));
    assert!(rig.saw(|o| matches!(o, Output::Restart(_))));
    rig.at(NOW + 2);
    rig.no_batch("nothing is known until the log is read");
    rig.bring_up(&[P]);
    rig.at(NOW + 3);
    assert!(rig.try_batch().is_none_or(|b| fired(&b).is_empty()), "it had been committed");
}

#[test]
fn stopping_hands_everything_over_first() {
    let mut rig = Rig::live();
    rig.input(Input::Stop);
    let clean = rig.batch();
    assert!(!rig.saw(|o| matches!(o, Output::Stopped)));
    rig.commit(&clean);
    assert!(rig.saw(|o| matches!(o, Output::Stopped)));
    assert!(rig.ownership(P).clean);
}

// What is owed

#[test]
fn a_first_start_writes_a_floor_and_leaves_older_schedules_alone() {
    let mut rig = Rig::new(config());
    let yesterday = TODAY.0 / 1000 - 1;
    rig.schedule(P, "old", yesterday);
    let this_morning = rig.schedule(P, "morning", TODAY.0 / 1000);
    rig.assign(&[P]);
    rig.tell_committed(&[P]);
    rig.run_until_quiet(&[P]);
    let batch = rig.batch();
    assert_eq!(fired(&batch), [this_morning]);
    rig.commit(&batch);
    assert_eq!(rig.core.counters().leftovers, 1);
    let floors: Vec<_> =
        rig.logs[&P].iter().flatten().filter(|k| k.key.as_deref() == Some(FLOOR_KEY)).cloned().collect();
    let place = mark::place("c", "schedules", 0);
    let floor = Floor::decode(floors[0].value.as_deref().unwrap(), place).unwrap();
    let barrier = rig.core.status()[0].barrier.unwrap();
    assert_eq!((floors.len(), floor), (1, Floor { since: TODAY, offset: barrier }));
    assert_eq!(rig.ownership(P).since, Some(TODAY));
    rig.schedule(P, "old but new here", yesterday);
    rig.read(P);
    assert_eq!(fired(&rig.batch()).len(), 1, "what arrives later is owed, however overdue");
}

#[test]
fn behind_a_floor_everything_is_owed_after_any_downtime_and_under_another_group() {
    let mut rig = Rig::live();
    let offset = rig.schedule(P, "a", NOW + 1);
    rig.metadata.clear();
    rig.successor("cd");
    rig.now = Millis((NOW + 90 * 86_400) * 1000);
    rig.assign(&[P]);
    rig.tell_committed(&[P]);
    rig.run_until_quiet(&[P]);
    assert_eq!(fired(&rig.batch()), [offset]);
    let floors = rig.logs[&P].iter().flatten().filter(|k| k.key.as_deref() == Some(FLOOR_KEY)).count();
    assert_eq!(floors, 1, "a floor is written once");
}

#[test]
fn a_partition_without_a_floor_takes_the_since_that_the_group_knows() {
    let mut rig = Rig::new(config());
    let long_ago = TODAY.plus(-10 * 86_400_000);
    let owed = rig.schedule(P, "a", long_ago.0 / 1000 + 1);
    rig.schedule(P, "b", long_ago.0 / 1000 - 1);
    rig.assign(&[P]);
    rig.tell_committed(&[P]);
    let barrier = rig.batch();
    rig.commit(&barrier);
    rig.read(P);
    assert!(rig.saw(|o| matches!(o, Output::FindSince { topic: 0, known } if known == &[0])));
    rig.input(Input::Since { topic: 0, since: Some(long_ago), today: TODAY });
    rig.run_until_quiet(&[P]);
    assert_eq!(fired(&rig.batch()), [owed]);
}

#[test]
fn siblings_floors_say_since_when_a_new_partition_is_owed() {
    let mut rig = Rig::live();
    let yesterday = TODAY.0 / 1000 - 1;
    rig.successor("cd");
    rig.metadata.clear();
    let since = TODAY.plus(-5 * 86_400_000);
    let place = mark::place("c", "schedules", 0);
    let at = rig.logs[&P].iter().position(|k| k.as_ref().is_some_and(|k| k.key.as_deref() == Some(FLOOR_KEY))).unwrap();
    rig.logs.get_mut(&P).unwrap()[at].as_mut().unwrap().value =
        Some(Floor { since, offset: 0 }.encode(place).into_bytes());
    let owed = rig.schedule(Q, "a", yesterday);
    rig.assign(&[P, Q]);
    rig.tell_committed(&[P, Q]);
    for _ in [P, Q] {
        let barrier = rig.batch();
        rig.commit(&barrier);
    }
    rig.read(Q);
    assert!(rig.saw(|o| matches!(o, Output::FindSince { .. })));
    rig.input(Input::Since { topic: 0, since: None, today: TODAY });
    rig.no_batch("the sibling's floor has not been read");
    rig.read(P);
    rig.run_until_quiet(&[P, Q]);
    assert_eq!(fired(&rig.batch()), [owed]);
    assert_eq!(rig.ownership(Q).since, Some(since));
}

#[test]
fn a_lower_since_delta_rescues_leftovers_later() {
    let mut rig = Rig::new(config());
    let rescued = rig.schedule(P, "old", TODAY.0 / 1000 - 1);
    rig.bring_up(&[P]);
    rig.successor("cd");
    rig.reads.insert(P, 0);
    rig.input(Input::Assigned { partitions: &[P], today: TODAY.plus(-86_400_000) });
    rig.outs.clear();
    rig.tell_committed(&[P]);
    rig.run_until_quiet(&[P]);
    assert_eq!(fired(&rig.batch()), [rescued]);
}

#[test]
fn a_floor_of_another_place_is_ignored() {
    let mut rig = Rig::new(config());
    let foreign = Floor { since: Millis(0), offset: 0 }.encode(mark::place("elsewhere", "schedules", 0));
    let timestamp = rig.now;
    let value = Some(foreign.into_bytes());
    rig.append(P, Kept { timestamp, key: Some(FLOOR_KEY.to_vec()), value, headers: Vec::new() });
    rig.schedule(P, "old", TODAY.0 / 1000 - 1);
    rig.bring_up(&[P]);
    rig.at(NOW + 1);
    assert!(rig.try_batch().is_none_or(|b| fired(&b).is_empty()), "it is a leftover still");
}

#[test]
fn a_clock_set_back_before_the_floor_writes_it_again_and_reads_again() {
    let mut rig = Rig::live();
    let earlier = TODAY.plus(-2 * 86_400_000);
    rig.now = earlier.plus(3_600_000);
    rig.input(Input::Tick);
    assert!(rig.saw(|o| matches!(o, Output::Seek(_))));
    rig.reads.insert(P, 0);
    let barrier = rig.batch();
    rig.commit(&barrier);
    rig.read(P);
    assert!(rig.saw(|o| matches!(o, Output::FindSince { .. })));
    rig.input(Input::Since { topic: 0, since: Some(TODAY), today: earlier });
    let floor = rig.batch();
    assert!(matches!(&floor.items[0].kind, Kind::Floor { value } if value.contains(&earlier.0.to_string())));
    rig.commit(&floor);
    assert_eq!(rig.phase(P), Some(Phase::Live));
}

#[test]
fn keys_with_the_reserved_prefix_are_refused_from_users() {
    let mut rig = Rig::live();
    let offset = rig.schedule(P, "__scheduler.x", NOW + 1);
    rig.read(P);
    let wanted = Report::Invalid { partition: P, offset, reason: Reason::ReservedKey };
    assert!(rig.saw(|o| matches!(o, Output::Report(report) if *report == wanted)));
    rig.at(NOW + 1);
    rig.no_batch("it does not fire");
}

#[test]
fn a_barrier_of_another_group_behind_our_own_is_reported() {
    let mut rig = Rig::live();
    let timestamp = rig.now;
    let headers =
        vec![(request::BARRIER.to_vec(), Some(b"x.0.1".to_vec())), (request::GROUP.to_vec(), Some(b"other".to_vec()))];
    rig.append(P, Kept { timestamp, key: Some(BARRIER_KEY.to_vec()), value: None, headers });
    rig.read(P);
    assert!(rig.saw(|o| matches!(o, Output::Report(Report::ForeignGroup { group, .. }) if group == "other")));
}

// The last word on a key

#[test]
fn a_newer_word_that_a_tombstone_outran_is_written_again_naming_the_original() {
    let mut rig = Rig::live();
    rig.schedule(P, "k", NOW + 1);
    rig.read(P);
    rig.at(NOW + 1);
    let batch = rig.batch();
    let second = rig.schedule(P, "k", NOW + 50);
    rig.commit(&batch);
    rig.read(P);
    let copy = rig.batch();
    assert!(matches!(copy.items[0].kind, Kind::Schedule { .. }), "{copy:?}");
    let records = sent(&copy, rig.now);
    assert_eq!(records.len(), 1);
    let original = rig.kept(P, second);
    assert_eq!((records[0].1, &records[0].2.key, &records[0].2.value), (Some(P), &original.key, &original.value));
    assert_eq!(records[0].2.mark(), Some(second));
    rig.commit(&copy);
    rig.compact(P, second);
    rig.read(P);
    rig.no_batch("nothing more is owed now");
    rig.successor("cd");
    rig.bring_up(&[P]);
    rig.at(NOW + 50);
    let batch = rig.batch();
    assert_eq!(fired(&batch), [second], "the copy keeps the original's identity");
    let stamp = sent(&batch, rig.now)[0].2.headers.iter().find(|(n, _)| n == request::TIMESTAMP).unwrap().1.clone();
    assert_eq!(text(stamp.as_ref()), (NOW + 1).to_string(), "and its timestamp");
}

#[test]
fn a_cancel_that_a_copy_outran_is_written_again() {
    let mut rig = Rig::live();
    rig.schedule(P, "k", NOW + 1);
    rig.read(P);
    rig.at(NOW + 1);
    let batch = rig.batch();
    rig.schedule(P, "k", NOW + 50);
    rig.commit(&batch);
    rig.read(P);
    let copy = rig.batch();
    let cancel = rig.cancel(P, "k");
    rig.commit(&copy);
    rig.read(P);
    let again = rig.batch();
    assert!(matches!(again.items[0].kind, Kind::Cancel { .. }), "{again:?}");
    let records = sent(&again, rig.now);
    assert_eq!((records[0].2.mark(), &records[0].2.value), (Some(cancel), &None));
    rig.commit(&again);
    rig.compact(P, cancel);
    rig.read(P);
    rig.at(NOW + 60);
    assert!(rig.try_batch().is_none_or(|b| b.items.is_empty()), "it is cancelled");
    rig.successor("cd");
    rig.bring_up(&[P]);
    rig.at(NOW + 70);
    assert!(rig.try_batch().is_none_or(|b| b.items.is_empty()), "it is cancelled for the successor as well");
}

#[test]
fn a_cancel_that_a_tombstone_outran_is_written_again() {
    let mut rig = Rig::live();
    rig.schedule(P, "k", NOW + 1);
    rig.read(P);
    rig.at(NOW + 1);
    let batch = rig.batch();
    let cancel = rig.cancel(P, "k");
    rig.read(P);
    rig.commit(&batch);
    rig.read(P);
    let again = rig.batch();
    assert_eq!((again.items[0].identity, again.items.len()), (cancel, 1));
    assert!(matches!(again.items[0].kind, Kind::Cancel { .. }));
}

#[test]
fn a_tombstone_ends_words_up_to_the_one_it_names_and_no_newer_one() {
    let mut rig = Rig::live();
    let old = rig.schedule(P, "k", NOW + 10);
    let new = rig.schedule(P, "k", NOW + 20);
    rig.engine(P, "k", old, None);
    rig.read(P);
    rig.at(NOW + 10);
    let copy = rig.batch();
    assert!(matches!(copy.items[0].kind, Kind::Schedule { .. }));
    rig.commit(&copy);
    rig.read(P);
    rig.engine(P, "k", new, None);
    rig.read(P);
    rig.at(NOW + 20);
    rig.no_batch("ended");
}

#[test]
fn a_copy_of_an_older_word_does_not_revive_it() {
    let mut rig = Rig::live();
    let old = rig.schedule(P, "k", NOW + 10);
    let original = rig.kept(P, old);
    rig.cancel(P, "k");
    rig.engine(P, "k", old, Some(&original));
    rig.successor("cd");
    rig.assign(&[P]);
    rig.tell_committed(&[P]);
    rig.run_until_quiet(&[P]);
    rig.at(NOW + 10);
    let again = rig.batch();
    assert!(again.items.iter().all(|i| matches!(i.kind, Kind::Cancel { .. })), "{again:?}");
}

#[test]
fn a_copy_sets_the_word_where_nothing_newer_is_known() {
    let mut rig = Rig::live();
    let old = rig.schedule(P, "k", NOW + 10);
    let original = rig.kept(P, old);
    rig.engine(P, "k", old, Some(&original));
    rig.compact(P, old);
    rig.successor("cd");
    rig.bring_up(&[P]);
    rig.at(NOW + 10);
    assert_eq!(fired(&rig.batch()), [old]);
}

#[test]
fn a_mark_that_does_not_fit_its_place_makes_the_record_the_users() {
    let mut rig = Rig::live();
    let old = rig.schedule(P, "k", NOW + 10);
    let mut mirrored = rig.kept(P, old);
    let forged = Mark { place: 1, offset: 0, timestamp: Millis(0), content: 2 }.encode().to_vec();
    mirrored.headers.push((MARK_HEADER.to_vec(), Some(forged)));
    let offset = rig.append(P, mirrored);
    rig.read(P);
    rig.at(NOW + 10);
    let batch = rig.batch();
    assert_eq!(fired(&batch), [offset]);
    assert!(sent(&batch, rig.now)[0].2.mark().is_none(), "engine headers never reach the target");
}

#[test]
fn a_tombstone_without_a_mark_is_a_users_cancel() {
    let mut rig = Rig::live();
    rig.schedule(P, "k", NOW + 10);
    rig.cancel(P, "k");
    rig.read(P);
    rig.at(NOW + 10);
    rig.no_batch("cancelled");
    assert_eq!(rig.core.counters().deleted, 1);
}

#[test]
fn an_unfit_record_ends_earlier_words_and_is_written_again_whole() {
    let mut rig = Rig::live();
    rig.schedule(P, "k", NOW + 1);
    rig.read(P);
    rig.at(NOW + 1);
    let batch = rig.batch();
    let unfit = rig.unfit(P, "k");
    rig.commit(&batch);
    rig.read(P);
    let again = rig.batch();
    assert!(matches!(again.items[0].kind, Kind::Unfit { .. }), "{again:?}");
    let records = sent(&again, rig.now);
    let original = rig.kept(P, unfit);
    assert_eq!((&records[0].2.value, records[0].2.mark()), (&original.value, Some(unfit)));
    assert_eq!(records[0].2.headers[..2], original.headers);
    rig.commit(&again);
    rig.read(P);
    rig.at(NOW + 100);
    assert!(rig.try_batch().is_none_or(|b| b.items.is_empty()));
    let mut rig = Rig::live();
    rig.schedule(P, "k", NOW + 5);
    rig.unfit(P, "k");
    rig.read(P);
    rig.at(NOW + 5);
    rig.no_batch("it ended the earlier word");
}

#[test]
fn grace_is_judged_by_the_originals_timestamp() {
    let mut rig = Rig::live_with(Config { grace_s: Some(10), ..config() });
    rig.schedule(P, "late", NOW - 11);
    let fine = rig.schedule(P, "fine", NOW - 10);
    rig.read(P);
    assert_eq!(fired(&rig.batch()), [fine]);
    assert_eq!(rig.core.counters().invalid, 1);
}

// When it fires

#[test]
fn nothing_fires_before_its_second_and_the_deadline_says_when() {
    let mut rig = Rig::live();
    rig.schedule(P, "k", NOW + 10);
    rig.read(P);
    let due = Millis((NOW + 10) * 1000);
    assert_eq!(rig.core.poll_timeout().map(|(at, _)| at), Some(due));
    rig.now = due.plus(-1);
    rig.input(Input::Tick);
    rig.no_batch("one millisecond early");
    rig.now = due;
    rig.input(Input::Tick);
    rig.batch();
}

#[test]
fn what_was_missed_fires_first_and_in_due_order() {
    let mut rig = Rig::live();
    let c = rig.schedule(P, "c", NOW + 30);
    let a = rig.schedule(P, "a", NOW + 10);
    let b = rig.schedule(P, "b", NOW + 20);
    rig.schedule(P, "later", NOW + 10_000);
    rig.successor("cd");
    rig.now = Millis((NOW + 3_600) * 1000);
    rig.assign(&[P]);
    rig.tell_committed(&[P]);
    rig.run_until_quiet(&[P]);
    let batch = rig.batch();
    assert_eq!(fired(&batch), [a, b, c]);
    assert!(batch.items.iter().all(|i| matches!(i.kind, Kind::Fire { missed: true, .. })));
    rig.commit(&batch);
    assert_eq!((rig.core.counters().missed, rig.core.counters().triggered), (3, 0));
}

// Poison

#[test]
fn a_rejected_record_is_parked_and_its_neighbours_fire() {
    let mut rig = Rig::live();
    let poison = rig.schedule(P, "a", NOW + 1);
    let healthy = rig.schedule(P, "b", NOW + 1);
    rig.read(P);
    rig.at(NOW + 1);
    let batch = rig.batch();
    let at = batch.items.iter().position(|i| i.identity == poison).unwrap() as u32;
    rig.abort(&batch, Abort::Rejected(&[(at, Reason::TooLarge)]));
    let next = rig.batch();
    assert_eq!(fired(&next), [healthy]);
    rig.commit(&next);
    assert!(rig.saw(|o| matches!(o, Output::Report(Report::Parked { offset, .. }) if *offset == poison)));
    rig.at(NOW + 60);
    assert_eq!(fired(&rig.batch()), [poison], "and tried again later");
}

#[test]
fn without_a_guilty_record_batches_are_halved_until_it_stands_alone() {
    let mut rig = Rig::live();
    let keys = ["a", "b", "c", "d", "e", "f", "g", "poison"];
    for key in keys {
        rig.schedule(P, key, NOW + 1);
    }
    rig.read(P);
    rig.at(NOW + 1);
    let mut done = 0;
    for step in 1..200 {
        while let Some(batch) = rig.try_batch() {
            let bad = batch.items.iter().any(|i| batch.parts(i).key == b"poison");
            if bad {
                rig.abort(&batch, Abort::Rejected(&[]));
            } else {
                done += fired(&batch).len();
                rig.commit(&batch);
                rig.read(P);
            }
        }
        rig.now = Millis((NOW + 1) * 1000 + step * 100);
        rig.input(Input::Tick);
    }
    assert_eq!(done, keys.len() - 1);
}

#[test]
fn schedules_for_a_missing_target_wait_and_harm_nobody() {
    let mut rig = Rig::live();
    let waits = rig.schedule_to(P, "a", NOW + 1, "missing");
    let fires = rig.schedule(P, "b", NOW + 1);
    rig.read(P);
    let target = rig.find(
        |o| matches!(o, Output::CheckTarget { .. }),
        |o| match o {
            Output::CheckTarget { target, .. } => target,
            _ => unreachable!(),
        },
    );
    let target = target.expect("the target is looked up before it is used");
    rig.input(Input::Target { target, state: TargetState::Missing });
    rig.at(NOW + 1);
    let batch = rig.batch();
    assert_eq!(fired(&batch), [fires]);
    rig.commit(&batch);
    rig.read(P);
    rig.at(NOW + 10);
    assert!(rig.saw(|o| matches!(o, Output::CheckTarget { .. })), "it is looked for again");
    rig.input(Input::Target { target, state: TargetState::Exists });
    assert_eq!(fired(&rig.batch()), [waits]);
}

// All of it at once: several instances against the model of Kafka, with crashes, pauses past the session time-out,
// delayed steps, aborts, unknown outcomes and compaction

fn swarm(seeds: std::ops::Range<u64>) {
    let mut total = sim::world::Summary::default();
    for seed in seeds {
        match sim::play(seed, false) {
            Ok(summary) => total.add(&summary),
            Err(broken) => panic!("{broken}\n  replay: cargo run --release -p sim -- run --seed {seed}"),
        }
    }
    for kind in sim::world::FAULT_KINDS {
        assert!(total.faults.contains_key(kind), "no {kind} happened: {total:?}");
    }
    assert!(total.fired > 1_000 && total.reasserted > 100, "{total:?}");
}

#[test]
fn promises_hold_in_a_swarm_of_seeds_with_faults_first_third() {
    swarm(0..100);
}

#[test]
fn promises_hold_in_a_swarm_of_seeds_with_faults_second_third() {
    swarm(100..200);
}

#[test]
fn promises_hold_in_a_swarm_of_seeds_with_faults_last_third() {
    swarm(200..300);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    assert_eq!(sim::play(11, false), sim::play(11, false));
}
