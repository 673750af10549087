//! Users: what they say, alone and in transactions of their own.

use kafka_scheduler::core::io::{Header, Millis, Partition};
use kafka_scheduler::core::mark::{self, BARRIER_KEY, MARK_HEADER, Mark};
use kafka_scheduler::core::request;

use super::{What, World};
use crate::faults::Fault;
use crate::history::Said;
use crate::kafka::Place;
use crate::kafka::log::{Headers, Stored};
use crate::names;
use crate::scenario::{Act, CONVERGE_MS, SAFETY_MS, Target, Word};

/// Between two records of a flood in a partition.
const FLOOD_EVERY_MS: i64 = 150;
/// When it ends, from the start of the run: just before everything must have converged, which leaves time to read the last
/// record.
const FLOOD_MS: i64 = SAFETY_MS as i64 + CONVERGE_MS as i64 - 100;
/// When the last schedule of a flood is due; those before are replaced.
const FLOOD_DUE_S: i64 = 60;

/// Bytes of a large value.
const LARGE_BYTES: usize = 16 << 10;
/// Large values in a run: all of them get through in a minute.
const LARGE_MAX: u32 = 24;

/// A record on its way.
#[derive(Clone, Debug)]
pub(super) struct Speech {
    partition: Partition,
    said: Said,
}

/// A user's open transaction.
#[derive(Debug)]
pub(super) struct Open {
    id: String,
    epoch: u32,
    commit: bool,
    said: Vec<(Partition, i64, Said)>,
}

impl World {
    pub(super) fn say(&mut self, act: Act) {
        let Act::Say { key, word, target, in_s, twice, late_ms, large } = act else { return };
        let due = self.now_ms.div_euclid(1000) + i64::from(in_s);
        let mut speech = self.speech(key, word, target, due);
        if large && !speech.said.is_cancel() && self.large_count < LARGE_MAX {
            self.large_count += 1;
            speech.said.value.resize(LARGE_BYTES, b'.');
        }
        let faults = [(twice, Fault::Duplicate), (late_ms > 0, Fault::Reordered), (!target.delivers(), Fault::Poison)];
        for (_, fault) in faults.into_iter().filter(|(struck, _)| *struck) {
            self.hit_partition(fault, speech.partition);
        }
        if twice {
            self.after(i64::from(late_ms) + 100, What::Arrive(Box::new(speech.clone())));
        }
        if late_ms == 0 {
            self.arrive(&speech);
        } else {
            self.after(i64::from(late_ms), What::Arrive(Box::new(speech)));
        }
    }

    fn speech(&mut self, key: u8, word: Word, target: Target, due: i64) -> Speech {
        let number = usize::from(key % self.history.setup.keys);
        let partition = self.history.partitions[number % self.history.partitions.len()];
        let key = match word {
            Word::ReservedKey => BARRIER_KEY.to_vec(),
            _ => format!("k{number}").into_bytes(),
        };
        self.summary.said += 1;
        let value = format!("v{}", self.summary.said).into_bytes();
        let said =
            Said { key, word, target, due, at_ms: 0, headers: Headers::new(), value, fit: false, readable_ms: 0 };
        Speech { partition, said }
    }

    pub(super) fn arrive(&mut self, speech: &Speech) {
        let Speech { partition, said } = speech.clone();
        if said.word == Word::NoKey && self.now_ms > self.history.start_ms {
            // Refused by a compacted topic; what lies there is from before it was one.
            return;
        }
        let (stored, said) = self.stored(partition, said);
        let offset = self.history.kafka.log(Place::Schedules(partition)).end();
        let log = self.history.kafka.logs.get_mut(&Place::Schedules(partition)).expect("it is one of ours");
        log.append(stored);
        self.heard(partition, offset, said);
    }

    fn heard(&mut self, partition: Partition, offset: i64, said: Said) {
        self.trace(|| {
            let key = String::from_utf8_lossy(&said.key).into_owned();
            let (word, target) = (said.word, said.target);
            format!("user   {partition:?} {offset}: {key} {word:?} for {target:?} due {}", said.due)
        });
        self.history.said.insert((partition, offset), said);
    }

    /// The record as it lies in the log, and what is known of it.
    fn stored(&self, partition: Partition, mut said: Said) -> (Stored, Said) {
        said.at_ms = self.now_ms;
        said.readable_ms = self.now_ms;
        let key = (said.word != Word::NoKey).then(|| said.key.clone());
        let due = said.due.to_string();
        let text = |s: &str| Some(s.as_bytes().to_vec());
        let target = match said.word {
            Word::ToSchedules => names::topic(partition),
            _ => said.target.name(),
        };
        let mut headers: Headers = vec![(b"customer".to_vec(), text("c"))];
        match said.word {
            Word::NoEpoch | Word::Cancel | Word::Copied => {}
            Word::BadEpoch => headers.push((request::EPOCH.to_vec(), text("soon"))),
            _ => headers.push((request::EPOCH.to_vec(), text(&due))),
        }
        headers.push((request::TARGET_TOPIC.to_vec(), text(target)));
        headers.push((request::TARGET_KEY.to_vec(), text("to")));
        let value = (!said.is_cancel()).then(|| said.value.clone());
        if said.word == Word::Copied {
            headers = vec![(MARK_HEADER.to_vec(), Some(self.foreign_mark(partition, &said.key)))];
        }
        said.headers.clone_from(&headers);
        said.fit = said.word == Word::Schedule && self.is_in_time(&said);
        let stored = Stored { at_ms: self.now_ms, key, value, headers, transaction: None };
        (stored, said)
    }

    /// As the engine of another cluster would have written it.
    fn foreign_mark(&self, partition: Partition, key: &[u8]) -> Vec<u8> {
        let none: &[Header<'_>] = &[];
        let mark = Mark {
            place: mark::place("another", names::topic(partition), partition.number),
            offset: 0,
            timestamp: Millis(self.now_ms),
            content: mark::content(key, None, none),
        };
        mark.encode().to_vec()
    }

    fn is_in_time(&self, said: &Said) -> bool {
        let late_ms = said.at_ms - said.due * 1000;
        let over_grace = self.history.setup.grace_s.is_some_and(|s| late_ms > i64::from(s) * 1000);
        let beyond = self.history.setup.horizon_hs.is_some_and(|hs| -late_ms > i64::from(hs) * 100_000);
        said.due >= 0 && !over_grace && !beyond
    }

    pub(super) fn transaction(&mut self, key: u8, count: u8, commit: bool, for_ms: i64, in_s: i16) {
        let id = format!("user.{}", self.next_open);
        let Ok(epoch) = self.history.kafka.init(&id, self.now_ms) else { return };
        let mut said = Vec::new();
        for more in 0..count {
            let due = self.now_ms.div_euclid(1000) + i64::from(in_s);
            let speech = self.speech(key.wrapping_add(more), Word::Schedule, Target::Open, due);
            let (stored, heard) = self.stored(speech.partition, speech.said);
            let place = Place::Schedules(speech.partition);
            let Ok(offset) = self.history.kafka.produce((&id, epoch), self.now_ms, place, stored) else { continue };
            self.hit_partition(Fault::UserTransaction, speech.partition);
            said.push((speech.partition, offset, heard));
        }
        self.trace(|| format!("user   {id} is open with {said:?}"));
        self.open.insert(self.next_open, Open { id, epoch, commit, said });
        let for_ms = if self.history.calm_ms.is_some() { 0 } else { for_ms };
        self.after(for_ms, What::EndTransaction(self.next_open));
        self.next_open += 1;
    }

    pub(super) fn end_transaction(&mut self, number: u64) {
        let Some(Open { id, epoch, commit, said }) = self.open.remove(&number) else { return };
        let ended = self.history.kafka.end((&id, epoch), self.now_ms, commit);
        self.trace(|| format!("user   {id} ends: commit {commit}, {ended:?}"));
        if self.history.kafka.markers_are_late && ended.is_ok() {
            for (partition, ..) in &said {
                self.hit_partition(Fault::SlowMarkers, *partition);
            }
        }
        if commit && ended.is_ok() {
            for (partition, offset, mut said) in said {
                said.readable_ms = self.now_ms;
                self.heard(partition, offset, said);
            }
        }
    }

    /// Users write to every partition from now on.
    pub(super) fn flood(&mut self) {
        self.history.partitions.clone().into_iter().for_each(|partition| self.hit_partition(Fault::Flood, partition));
        if !self.flooded {
            self.flooded = true;
            self.after(0, What::Flow);
        }
    }

    pub(super) fn flow(&mut self) {
        if self.now_ms < self.history.start_ms + FLOOD_MS {
            self.say_everywhere("flood", FLOOD_DUE_S);
            self.after(FLOOD_EVERY_MS, What::Flow);
        }
    }

    /// A schedule for each partition, under a key of its own, due in `in_s` seconds.
    pub(crate) fn probe(&mut self, in_s: i64) {
        self.say_everywhere("probe", in_s);
    }

    fn say_everywhere(&mut self, name: &str, in_s: i64) {
        for partition in self.history.partitions.clone() {
            let due = self.now_ms.div_euclid(1000) + in_s;
            let mut speech = self.speech(0, Word::Schedule, Target::Open, due);
            speech.partition = partition;
            speech.said.key = format!("{name}{}.{}", partition.topic, partition.number).into_bytes();
            self.arrive(&speech);
        }
    }
}
