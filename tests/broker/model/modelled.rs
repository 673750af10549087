//! Runs scripts on the model.

use std::collections::{BTreeMap, BTreeSet};

use kafka_scheduler::core::io::TopicPartition;
use sim::kafka::group::Answer;
use sim::kafka::log::{Compaction, Stored};
use sim::kafka::{Kafka, LogId, Refusal, TRANSACTION_TIMEOUT_MS};
use sim::rng::Rng;

use super::{From, Seen, Step, Why};

/// The model's time between two steps of the event loop.
const STEP_MS: i64 = 20;
/// The time limit for everything.
const TIMEOUT_MS: i64 = 60_000;
/// How long a read_committed client waits for an offset.
const STABLE_MS: i64 = 1_000;

#[derive(Debug, Default)]
struct Member {
    generation: i32,
    owned: BTreeSet<TopicPartition>,
}

/// The model, with the state of its clients.
pub struct Modelled {
    kafka: Kafka,
    now_ms: i64,
    producers: BTreeMap<&'static str, (&'static str, u32)>,
    members: BTreeMap<&'static str, Member>,
    kept: BTreeMap<&'static str, (&'static str, i32)>,
    generation: i32,
}

fn partition(number: i32) -> TopicPartition {
    TopicPartition { topic: 0, number }
}

fn stored(now_ms: i64, key: &str, value: Option<&str>) -> Stored {
    let bytes = |text: &str| text.as_bytes().to_vec();
    Stored { at_ms: now_ms, key: Some(bytes(key)), value: value.map(bytes), headers: Vec::new(), transaction: None }
}

fn seen<T>(answer: Result<T, Refusal>, done: impl FnOnce(T) -> Seen) -> Seen {
    match answer {
        Ok(answer) => done(answer),
        Err(Refusal::Fenced) => Seen::Refused(Why::Fenced),
        Err(Refusal::Generation) => Seen::Refused(Why::Generation),
        Err(Refusal::Metadata) => Seen::Refused(Why::Metadata),
        Err(Refusal::State) => Seen::Refused(Why::State),
        Err(Refusal::Concurrent) => Seen::Hangs,
    }
}

impl Modelled {
    pub fn new(partitions: i32) -> Self {
        let partitions: Vec<TopicPartition> = (0..partitions).map(partition).collect();
        Self {
            kafka: Kafka::new(&partitions, 1, Rng::new(7)),
            now_ms: 1_000,
            producers: BTreeMap::new(),
            members: BTreeMap::new(),
            kept: BTreeMap::new(),
            generation: 0,
        }
    }

    pub fn act(&mut self, step: Step) -> Seen {
        let seen = self.carry_out(step);
        // Markers are written before the next step, as if the client waited for its response.
        self.pass(1_000);
        seen
    }

    fn carry_out(&mut self, step: Step) -> Seen {
        match step {
            Step::Init(producer, id) => {
                let epoch = self.insist(|kafka, now| kafka.init(id, now));
                seen(epoch, |epoch| {
                    self.producers.insert(producer, (id, epoch));
                    Seen::Done
                })
            }
            Step::Send(producer, number, key, value) => {
                let producer = self.producers[producer];
                let log_id = LogId::Schedules(partition(number));
                let at = self.insist(|kafka, now| kafka.produce(producer, now, log_id, stored(now, key, value)));
                seen(at, Seen::At)
            }
            Step::Offsets(producer, from, offsets, metadata) => self.offsets(producer, from, offsets, metadata),
            Step::Commit(producer) => self.end(producer, true),
            Step::Abort(producer) => self.end(producer, false),
            Step::End(producer) => {
                assert_eq!(self.end(producer, true), Seen::Done);
                Seen::Unanswered
            }
            Step::TimeOut(_) => {
                self.pass(TRANSACTION_TIMEOUT_MS + 1);
                Seen::Done
            }
            Step::Plain(from, number, offset) => {
                let (member, generation) = self.member(from);
                let offsets = vec![(partition(number), offset, String::new())];
                seen(self.kafka.commit_plain((member, generation), offsets), |()| Seen::Done)
            }
            Step::Append(number, key, value) => {
                let stored = stored(self.now_ms, key, value);
                let log = self.kafka.logs.get_mut(&LogId::Schedules(partition(number))).expect("a partition");
                Seen::At(log.append(stored))
            }
            Step::Join(members) => {
                for member in members {
                    self.kafka.group.join(member, BTreeSet::new(), self.now_ms);
                    self.members.insert(*member, Member::default());
                }
                self.share_out()
            }
            Step::Leave(member) => {
                self.kafka.group.leave(member);
                self.members.remove(member);
                self.share_out()
            }
            Step::Keep(name, member) => {
                self.kept.insert(name, (member, self.members[member].generation));
                Seen::Done
            }
            Step::Read(number) => {
                let (found, _) = self.kafka.log(LogId::Schedules(partition(number))).read(0, usize::MAX);
                records(found)
            }
            Step::ReadAll(number) => {
                let (found, _) = self.kafka.log(LogId::Schedules(partition(number))).read_uncommitted(0, usize::MAX);
                records(found)
            }
            Step::Committed(number, stable) => self.committed(partition(number), stable),
            Step::Compact(number, _) => {
                // The last record is in the active segment, which is not compacted.
                let log_id = LogId::Schedules(partition(number));
                let log = self.kafka.logs.get_mut(&log_id).expect("a partition");
                let active = log.read(0, usize::MAX).0.last().map_or(0, |(_, last)| last.at_ms);
                let how = Compaction { before_ms: active, retention_ms: TIMEOUT_MS, tombstones: true };
                log.compact(self.now_ms, how);
                Seen::Done
            }
        }
    }

    fn offsets(&mut self, producer: &str, from: From, offsets: &[(i32, i64)], metadata: usize) -> Seen {
        let producer = self.producers[producer];
        let member = self.member(from);
        let all = offsets.iter().map(|(number, offset)| (partition(*number), *offset, "m".repeat(metadata)));
        let Some(offsets) = sim::kafka::sent_by_librdkafka(all.collect()) else { return Seen::Done };
        seen(self.insist(|kafka, now| kafka.send_offsets(producer, now, member, offsets.clone())), |()| Seen::Done)
    }

    fn end(&mut self, producer: &str, commit: bool) -> Seen {
        let producer = self.producers[producer];
        seen(self.kafka.end(producer, self.now_ms, commit), |()| Seen::Done)
    }

    fn member(&self, from: From) -> (&'static str, i32) {
        match from {
            From::Kept(name) => self.kept[name],
            From::NonMember => ("", -1),
            From::Member(name) => {
                let (name, member) = self.members.get_key_value(name).expect("it has joined");
                (*name, member.generation)
            }
        }
    }

    fn committed(&mut self, partition: TopicPartition, stable: bool) -> Seen {
        if stable {
            self.pass(STABLE_MS);
            if self.kafka.has_pending_offset(partition) {
                return Seen::Hangs;
            }
        }
        let committed = self.kafka.committed.get(&partition);
        Seen::Offset(committed.map(|(offset, metadata)| (*offset, metadata.len())))
    }

    /// Retries as librdkafka does while the last transaction's markers are being written.
    fn insist<T>(&mut self, mut ask: impl FnMut(&mut Kafka, i64) -> Result<T, Refusal>) -> Result<T, Refusal> {
        let until = self.now_ms + TIMEOUT_MS;
        loop {
            match ask(&mut self.kafka, self.now_ms) {
                Err(Refusal::Concurrent) if self.now_ms < until => self.pass(STEP_MS),
                other => return other,
            }
        }
    }

    /// Advances the clock while members send heartbeats.
    fn pass(&mut self, ms: i64) {
        let until = self.now_ms + ms;
        while self.now_ms < until {
            self.now_ms += STEP_MS;
            self.kafka.tick(self.now_ms);
            for (name, member) in &mut self.members {
                match self.kafka.group.beat(name, self.now_ms) {
                    Answer::Stable => {}
                    Answer::Rebalance => self.kafka.group.join(name, member.owned.clone(), self.now_ms),
                    Answer::Synced(generation, assigned) => {
                        member.generation = generation;
                        let revokes = !member.owned.is_subset(&assigned);
                        member.owned = assigned;
                        if revokes {
                            self.kafka.group.join(name, member.owned.clone(), self.now_ms);
                        }
                    }
                    Answer::Unknown => panic!("{name} sends heartbeats and is removed"),
                }
            }
        }
    }

    fn share_out(&mut self) -> Seen {
        let before = self.generation;
        self.pass(5_000);
        self.generation = self.members.values().map(|m| m.generation).max().unwrap_or(before);
        assert!(self.members.values().all(|m| m.generation == self.generation), "{:?}", self.members);
        Seen::Shares(self.generation - before, self.members.values().map(|m| m.owned.len()).collect())
    }
}

fn records(found: Vec<(i64, &Stored)>) -> Seen {
    let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
    Seen::Records(found.into_iter().map(|(offset, stored)| (offset, stored.value.as_ref().map(text))).collect())
}
