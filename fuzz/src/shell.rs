//! Runs the scheduler with a small broker and a consumer that the input controls.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use kafka_scheduler::core::batch::Batch;
use kafka_scheduler::core::calendar::NoCalendar;
use kafka_scheduler::core::io::{Abort, Cursor, Input, Millis, Outcome, Output, TargetState, TopicPartition};
use kafka_scheduler::core::origin::START_MARKER_KEY;
use kafka_scheduler::core::ownership::{Ownership, RunId};
use kafka_scheduler::core::reason::Reason;
use kafka_scheduler::core::start_marker::StartMarker;
use kafka_scheduler::core::{Config, PartitionState, Scheduler, SchedulesTopic};

use super::kept::{Kept, NOON_S};
use super::promises::{Promises, Sent};

/// The partitions.
pub const PARTITIONS: [TopicPartition; 3] = [
    TopicPartition { topic: 0, number: 0 },
    TopicPartition { topic: 0, number: 1 },
    TopicPartition { topic: 1, number: 0 },
];

const DAY_MS: i64 = 86_400_000;

/// Longer than any schedule stays parked.
const REST_MS: i64 = 600_000;

/// A limit, because a clock that is before the start marker makes the engine read the partition again without end.
const PROCEED_MAX: usize = 1_000;

/// A partition at the broker, and the consumer's position in it. `None` is an aborted or compacted record or a control
/// marker: it takes an offset, and is never delivered.
#[derive(Clone, Debug, Default)]
struct Place {
    log: Vec<Option<Kept>>,
    committed: Option<(i64, String)>,
    held: bool,
    read: usize,
}

/// Pending schedules: partition and offset, with the key.
type Pending = BTreeMap<(TopicPartition, i64), Vec<u8>>;

/// The scheduler, its broker and its consumer.
#[derive(Debug)]
pub struct Shell {
    config: Config,
    core: Scheduler,
    pub now: Millis,
    latest: Millis,
    places: BTreeMap<TopicPartition, Place>,
    questions: VecDeque<Output>,
    in_flight: VecDeque<(Batch, Vec<Sent>)>,
    revoked: BTreeSet<TopicPartition>,
    promises: Promises,
    stopping: bool,
    stopped: bool,
    /// How many batches in flight the broker commits when the engine drops them.
    landing: usize,
}

/// Returns the settings that all inputs start from.
pub fn config() -> Config {
    Config {
        cluster: "c".into(),
        topics: vec![SchedulesTopic::new("schedules"), SchedulesTopic::new("more")],
        history: "history".into(),
        dead_letter: None,
        group: "g".into(),
        run: RunId::from_random(0xa0),
        grace_s: None,
        horizon_s: None,
        transactors: 2,
        batch_items_max: 100,
        batch_bytes_max: 1 << 20,
        adds_due_header: false,
        hash_seed: 7,
    }
}

impl Shell {
    pub fn new(config: Config) -> Self {
        Self {
            core: Scheduler::new(config.clone(), Box::new(NoCalendar)),
            promises: Promises::new(config.clone()),
            config,
            now: Millis(NOON_S * 1000),
            latest: Millis(NOON_S * 1000),
            places: PARTITIONS.iter().map(|p| (*p, Place::default())).collect(),
            questions: VecDeque::new(),
            in_flight: VecDeque::new(),
            revoked: BTreeSet::new(),
            stopping: false,
            stopped: false,
            landing: 0,
        }
    }

    /// Appends a user's record.
    pub fn append(&mut self, partition: TopicPartition, kept: Kept) {
        let log = &mut self.place(partition).log;
        log.push(Some(kept.clone()));
        let offset = log.len() as i64 - 1;
        self.promises.added(partition, offset, &kept);
    }

    /// Compacts a partition: only the last record of each key stays.
    pub fn compact(&mut self, partition: TopicPartition) {
        let log = &mut self.place(partition).log;
        let mut newer = BTreeSet::new();
        for entry in log.iter_mut().rev() {
            if entry.as_ref().is_some_and(|kept| kept.key.as_ref().is_some_and(|key| !newer.insert(key.clone()))) {
                *entry = None;
            }
        }
    }

    /// Removes the committed offset of a partition, as if it had expired.
    pub fn forget_offset(&mut self, partition: TopicPartition) {
        self.place(partition).committed = None;
    }

    pub fn assign(&mut self, wanted: impl Fn(TopicPartition) -> bool) {
        let partitions = self.chosen(|id, place| !place.held && wanted(id));
        for id in &partitions {
            let place = self.place(*id);
            (place.held, place.read) = (true, 0);
        }
        let leftover_cutoff = self.leftover_cutoff();
        self.input(Input::Assigned { partitions: &partitions, leftover_cutoff });
    }

    pub fn revoke(&mut self, wanted: impl Fn(TopicPartition) -> bool) {
        let partitions = self.chosen(|id, place| place.held && wanted(id));
        let partitions: Vec<TopicPartition> = partitions.into_iter().filter(|id| self.revoked.insert(*id)).collect();
        self.input(Input::Revoked { partitions: &partitions });
    }

    pub fn lose(&mut self, wanted: impl Fn(TopicPartition) -> bool, landing: usize) {
        let partitions = self.chosen(|id, place| place.held && wanted(id));
        for id in &partitions {
            self.place(*id).held = false;
            self.revoked.remove(id);
        }
        self.landing = landing;
        self.input(Input::Lost { partitions: &partitions });
        self.landing = 0;
    }

    /// Delivers the next record. Returns whether there was one.
    pub fn deliver(&mut self, partition: TopicPartition) -> bool {
        let place = self.place(partition);
        if !place.held || place.read >= place.log.len() {
            return false;
        }
        let offset = place.read as i64;
        let entry = place.log[place.read].clone();
        place.read += 1;
        if let Some(kept) = entry {
            self.input(Input::Record(kept.at(partition, offset, &kept.headers())));
        }
        true
    }

    /// Makes the consumer read from the start by itself, as it does after its part of the log was deleted.
    pub fn rewind(&mut self, partition: TopicPartition) {
        self.place(partition).read = 0;
    }

    /// Answers the oldest question. Returns whether there was one.
    pub fn answer(&mut self, target: TargetState, metadata: Option<&[u8]>) -> bool {
        let Some(question) = self.questions.pop_front() else { return false };
        match question {
            Output::ReadCommitted(partitions) => {
                for partition in partitions {
                    let committed = self.place(partition).committed.clone();
                    let offset = committed.as_ref().map(|(offset, _)| *offset);
                    let own = committed.map_or_else(Vec::new, |(_, metadata)| metadata.into_bytes());
                    let metadata = metadata.unwrap_or(&own);
                    self.input(Input::Committed { partition, offset, metadata });
                }
            }
            Output::Fence { request, .. } => self.input(Input::Fenced { request }),
            Output::FindSince { request, topic, known } => {
                let (since, leftover_cutoff) = (self.since(topic, &known), self.leftover_cutoff());
                self.input(Input::Since { request, since, leftover_cutoff });
            }
            Output::CheckTarget { target: number, .. } => self.input(Input::Target { target: number, state: target }),
            other => panic!("not a question: {other:?}"),
        }
        true
    }

    /// Commits the oldest batch. Returns whether there was one.
    pub fn commit(&mut self, reported: bool) -> bool {
        let Some((batch, sent)) = self.in_flight.pop_front() else { return false };
        let written = self.land(&batch, sent);
        let written = if reported { written } else { Vec::new() };
        self.input(Input::BatchEnded { batch: batch.id, outcome: Outcome::Committed { last_offsets: written } });
        true
    }

    /// Commits the oldest batch, unless it fires a schedule.
    pub fn commit_before_firing(&mut self) -> bool {
        let fires = |batch: &Batch| batch.items.iter().any(|item| item.origin_offset >= 0);
        !self.in_flight.front().is_some_and(|(batch, _)| fires(batch)) && self.commit(true)
    }

    /// Aborts the oldest batch; its records take offsets all the same.
    pub fn abort(&mut self, abort: Abort) {
        let Some((batch, sent)) = self.in_flight.pop_front() else { return };
        for partition in sent.iter().filter_map(|sent| sent.schedules) {
            self.place(partition).log.push(None);
        }
        self.input(Input::BatchEnded { batch: batch.id, outcome: Outcome::Aborted(abort) });
    }

    /// Aborts the oldest batch, because the broker rejected one of its records.
    pub fn reject(&mut self, item: u32, reason: Reason) {
        let items = self.in_flight.front().map_or(0, |(batch, _)| batch.items.len() as u32);
        self.abort(Abort::Rejected(vec![(item % items.max(1), reason)]));
    }

    /// Ends the oldest batch with an unknown outcome.
    pub fn lose_outcome(&mut self, landed: bool) {
        let Some((batch, sent)) = self.in_flight.pop_front() else { return };
        if landed {
            self.land(&batch, sent);
        }
        self.input(Input::BatchEnded { batch: batch.id, outcome: Outcome::Unknown });
    }

    pub fn stop(&mut self) {
        self.stopping = true;
        self.input(Input::Stop);
    }

    /// Advances the clock to the next deadline. Returns false if there is none before `end`.
    pub fn until_deadline(&mut self, end: Millis) -> bool {
        let Some((at, _)) = self.core.poll_timeout().filter(|(at, _)| *at <= end) else { return false };
        self.now = self.now.max(at);
        self.input(Input::Tick);
        true
    }

    /// Carries out everything that can happen without time passing.
    pub fn proceed(&mut self) {
        for _ in 0..PROCEED_MAX {
            if !self.proceed_once() {
                return;
            }
        }
    }

    fn proceed_once(&mut self) -> bool {
        self.commit(true)
            || self.answer(TargetState::Exists, None)
            || PARTITIONS.iter().any(|partition| self.deliver(*partition))
    }

    /// Passes an input to the core, and carries its outputs out.
    pub fn input(&mut self, input: Input<'_>) {
        if self.stopped {
            return;
        }
        self.latest = self.latest.max(self.now);
        self.core.handle(self.now, input);
        while let Some(output) = self.core.poll() {
            match output {
                Output::Transact(batch) => {
                    let in_flight = self.in_flight.iter().map(|(batch, _)| batch);
                    let sent = self.promises.formed(&batch, in_flight, self.now);
                    self.in_flight.push_back((batch, sent));
                    assert!(self.in_flight.len() <= self.config.transactors);
                }
                Output::Seek(partition) => self.place(partition).read = 0,
                Output::Release(partitions) => {
                    for id in partitions {
                        assert!(self.revoked.remove(&id), "{id:?} is released once, and only after it was revoked");
                        self.place(id).held = false;
                    }
                }
                Output::ReplaceTransactionalIds { transactional_ids } => {
                    assert_eq!(transactional_ids.len(), self.config.transactors);
                    let landing = self.landing.min(self.in_flight.len());
                    for (batch, sent) in std::mem::take(&mut self.in_flight).into_iter().take(landing) {
                        self.land(&batch, sent);
                    }
                }
                Output::Rejoin(_) => {
                    self.places.values_mut().for_each(|place| place.held = false);
                    self.revoked.clear();
                }
                Output::Stopped => self.stopped = true,
                Output::Report(_) => {}
                question => self.questions.push_back(question),
            }
        }
    }

    /// Ends all faults and corrects the clock. Then the engine must come to rest and keep its promises, and a successor
    /// must rebuild the same state from the logs.
    pub fn finish(mut self) {
        let end = self.latest.plus(REST_MS);
        self.rest(end);
        if self.stopping {
            assert!(self.stopped, "the engine stops");
            self.succeed(0xb0);
        }
        self.now = end;
        self.input(Input::Tick);
        self.rest(end);
        // After a restart, too, the group's only member gets all partitions.
        self.assign(|_| true);
        self.rest(end);
        assert!(
            self.core.status().iter().all(|status| status.state == PartitionState::Live),
            "{:?}",
            self.core.status()
        );
        assert_eq!(self.core.status().len(), PARTITIONS.len());
        let (pending, listed) = self.pending();
        self.promises.at_rest(&pending);
        self.succeed(0xc0);
        self.assign(|_| true);
        self.rest(end);
        assert_eq!(self.pending(), (pending, listed), "a successor rebuilds the same state from the log");
    }

    /// Carries out everything that can happen before `end`.
    fn rest(&mut self, end: Millis) {
        const STEPS_MAX: usize = 100_000;
        self.input(Input::Generation(1_000));
        for _ in 0..STEPS_MAX {
            if self.stopped || !(self.proceed_once() || self.until_deadline(end)) {
                return;
            }
        }
        panic!("the engine does not come to rest: {:?}", self.core.poll_timeout());
    }

    /// Replaces the process by a successor.
    fn succeed(&mut self, run: u64) {
        self.core =
            Scheduler::new(Config { run: RunId::from_random(run), ..self.config.clone() }, Box::new(NoCalendar));
        self.promises.successor();
        self.questions.clear();
        self.revoked.clear();
        self.places.values_mut().for_each(|place| place.held = false);
        (self.stopping, self.stopped) = (false, false);
    }

    fn pending(&self) -> (Pending, Vec<(Millis, u64, String)>) {
        let (mut listed, next) = self.core.list(Cursor::default(), usize::MAX);
        assert_eq!(next, None);
        assert_eq!(listed.len(), self.core.status().iter().map(|status| status.pending).sum::<usize>());
        listed.sort_by_key(|listed| (listed.partition, listed.offset));
        let keys = listed.iter().map(|l| ((l.partition, l.offset), l.parts().key.to_vec())).collect();
        (keys, listed.into_iter().map(|l| (l.timestamp, l.due.epoch_ms(), l.target.to_string())).collect())
    }

    /// Returns the highest offset in each schedules partition.
    fn land(&mut self, batch: &Batch, sent: Vec<Sent>) -> Vec<(TopicPartition, i64)> {
        self.promises.committed(batch);
        let mut written = BTreeMap::new();
        for Sent { schedules, kept, .. } in sent {
            let Some(partition) = schedules else { continue };
            let log = &mut self.place(partition).log;
            log.push(Some(kept));
            written.insert(partition, log.len() as i64 - 1);
        }
        for position in &batch.offsets {
            let place = self.place(position.partition);
            place.committed = Some((position.offset, position.metadata.clone()));
            // The control marker.
            place.log.push(None);
        }
        written.into_iter().collect()
    }

    fn since(&self, topic: u16, known: &[i32]) -> Option<Millis> {
        let of_topic = || self.places.iter().filter(|(id, _)| id.topic == topic);
        let metadata = |place: &Place| Ownership::decode(place.committed.as_ref()?.1.as_bytes())?.since;
        let start_marker = |(id, place): (&TopicPartition, &Place)| {
            let mut start_markers =
                place.log.iter().flatten().filter(|kept| kept.key.as_deref() == Some(START_MARKER_KEY));
            Some(
                StartMarker::decode(start_markers.next_back()?.value.as_deref()?, self.promises.partition_hash(*id))?
                    .since,
            )
        };
        of_topic()
            .filter_map(|(_, place)| metadata(place))
            .min()
            .or_else(|| of_topic().filter(|(id, _)| !known.contains(&id.number)).filter_map(start_marker).min())
    }

    fn leftover_cutoff(&self) -> Millis {
        Millis(self.now.0.div_euclid(DAY_MS) * DAY_MS)
    }

    fn chosen(&self, wanted: impl Fn(TopicPartition, &Place) -> bool) -> Vec<TopicPartition> {
        self.places.iter().filter(|(id, place)| wanted(**id, place)).map(|(id, _)| *id).collect()
    }

    fn place(&mut self, partition: TopicPartition) -> &mut Place {
        self.places.get_mut(&partition).expect("one of PARTITIONS")
    }
}
