//! The shell of an instance: feeds the core with inputs and carries out its outputs.

use kafka_scheduler::core::io::{Input, Output, Report, TargetState, TopicPartition};

use super::broker::CANARY_LIMIT_MS;
use super::{Event, Task, World};
use crate::faults::Fault;
use crate::history::Entry;
use crate::scenario::{Away, Target};

/// How long a client remembers that it may not write to a topic.
const FORBIDDEN_TIMEOUT_MS: i64 = 20_000;

impl World {
    pub(super) fn start(&mut self, number: usize) {
        if self.instances[number].is_alive() {
            return;
        }
        let setup = self.history.setup.clone();
        self.instances[number].start(&setup);
        self.forget(number);
        self.trace(|| format!("i{number}     starts"));
        for topic in 0..u16::from(setup.topics) {
            self.feed(number, Input::CanaryLimit { topic, limit_ms: CANARY_LIMIT_MS });
        }
        self.join(number);
        self.later(number, 50, Task::Beat);
        self.later(number, 20, Task::Fetch);
    }

    pub(super) fn act(&mut self, number: usize, task: Task) {
        match task {
            Task::Beat => self.beat(number),
            Task::Fetch => self.fetch(number),
            Task::Wake => self.wake(number),
            Task::Tick => self.feed(number, Input::Tick),
            Task::Job(batch) => self.job(number, batch),
            Task::Settle(batch, outcome) => self.settle(number, batch, outcome),
            Task::ReadCommitted(partition, until) => self.read_committed(number, partition, until),
            Task::Fence(request, ids, generation) => self.fence(number, request, ids, generation),
            Task::FindSince(request, topic, known) => self.find_since(number, request, topic, known),
            Task::Snapshot(taking) => self.go_on_snapshot(number, taking),
            Task::CheckCanary(partition, offset, key) => self.check_canary(number, partition, offset, &key),
            Task::Target(target, state) => self.feed(number, Input::Target { target, state }),
        }
    }

    /// Passes an input to the core and carries out the outputs. A core that has stopped gets no more inputs.
    pub(super) fn feed(&mut self, number: usize, input: Input<'_>) {
        if !self.instances[number].is_alive() {
            return;
        }
        let now = self.instances[number].clock(self.now_ms);
        self.instances[number].last_input = now;
        self.instances[number].core.handle(now, input);
        while let Some(output) = self.instances[number].core.poll() {
            self.carry_out(number, output);
        }
        self.set_alarm(number);
    }

    /// Sets the alarm for the core's next deadline, by its current clock.
    pub(super) fn set_alarm(&mut self, number: usize) {
        let instance = &mut self.instances[number];
        let Some((at, _)) = instance.core.poll_timeout().filter(|_| instance.is_alive()) else { return };
        let at_ms = at.0.saturating_sub(instance.skew_ms).max(self.now_ms);
        if at_ms < instance.wake_ms {
            instance.wake_ms = at_ms;
            self.later(number, at_ms - self.now_ms, Task::Wake);
        }
    }

    fn wake(&mut self, number: usize) {
        let instance = &mut self.instances[number];
        if instance.wake_ms > self.now_ms {
            // An earlier alarm was set since, and has gone off.
            return;
        }
        instance.wake_ms = i64::MAX;
        let clock = instance.clock(self.now_ms);
        match instance.core.poll_timeout() {
            Some((at, _)) if at <= clock => self.feed(number, Input::Tick),
            _ => self.set_alarm(number),
        }
    }

    fn carry_out(&mut self, number: usize, output: Output) {
        let delay = self.instances[number].rng.range(1, 30);
        let until = self.now_ms + 1_000;
        match output {
            Output::ReadCommitted(partitions) => {
                for partition in partitions {
                    self.answer(number, delay, Task::ReadCommitted(partition, until));
                }
            }
            Output::Fence { request, transactional_ids } => {
                self.trace(|| format!("i{number}     fences {transactional_ids:?}"));
                let generation = self.instances[number].generation;
                self.answer(number, delay, Task::Fence(request, transactional_ids, generation));
            }
            Output::FindSince { request, topic, known } => {
                self.answer(number, delay, Task::FindSince(request, topic, known))
            }
            Output::CheckTarget { target, name } => {
                let state = self.look_up(number, &name);
                let delay = if state == TargetState::NoAnswer { 2_000 } else { delay };
                self.answer(number, delay, Task::Target(target, state));
            }
            Output::CheckCanary { partition, offset, key } => {
                self.answer(number, delay, Task::CheckCanary(partition, offset, key));
            }
            Output::Transact(batch) => self.transact(number, batch),
            Output::Seek(partition) => {
                self.forget_partition(number, partition);
                if let Some(position) = self.instances[number].owned.get_mut(&partition) {
                    *position = 0;
                }
                self.instances[number].caught_up_ms.remove(&partition);
            }
            Output::Release(partitions) => self.release(number, &partitions),
            Output::ReplaceTransactionalIds { transactional_ids } => {
                self.trace(|| format!("i{number}     renews: {transactional_ids:?}"));
                self.forget(number);
                self.instances[number].transactors.replace_ids(transactional_ids);
            }
            Output::Rejoin(why) => {
                self.trace(|| format!("i{number}     restarts: {why}"));
                self.rejoin(number);
            }
            Output::Stopped => self.stopped(number),
            Output::Report(report) => {
                if let Report::Reread { partition, .. } = report {
                    self.discard_snapshots(number, partition);
                }
                if matches!(report, Report::Live { .. }) {
                    self.history.add(Entry::WentLive);
                }
                if report == Report::ThroughputIsLimit {
                    self.history.add(Entry::ThroughputIsLimit { instance: number });
                }
                self.trace(|| format!("i{number}     {report:?}"));
            }
        }
    }

    /// Returns a target's state in the cluster's metadata.
    fn look_up(&mut self, number: usize, name: &str) -> TargetState {
        let now = self.now_ms;
        if self.instances[number].forbidden.get(name).is_some_and(|until| *until > now) {
            return TargetState::Forbidden;
        }
        let away = self.away.filter(|(_, until)| name == Target::Late.name() && *until > now);
        if let Some((Away::Missing | Away::Forbidden | Away::Silent, until_ms)) = away {
            self.record_hit_once(Fault::TargetAway, number, until_ms);
        }
        match away.map(|(away, _)| away) {
            Some(Away::Missing) => TargetState::Missing,
            Some(Away::Forbidden) => TargetState::Forbidden,
            Some(Away::Silent) => TargetState::NoAnswer,
            Some(Away::Leaderless) | None if name == Target::Missing.name() => TargetState::Missing,
            Some(Away::Leaderless) | None => TargetState::Exists,
        }
    }

    /// Remembers that a record was rejected for lack of permission, which the metadata does not show.
    pub(super) fn forbid(&mut self, number: usize, name: &str) {
        let until = self.now_ms + FORBIDDEN_TIMEOUT_MS;
        self.instances[number].forbidden.insert(name.to_owned(), until);
    }

    fn stopped(&mut self, number: usize) {
        let Some(down_ms) = self.instances[number].stopping_down_ms else {
            return self.violation(format!("i{number} stops without being told to"));
        };
        self.trace(|| format!("i{number}     has stopped"));
        let now = self.now_ms;
        for id in self.instances[number].transactors.take_all_ids() {
            // Open transactions are aborted on the way out, without waiting for an answer.
            let _ = self.history.kafka.init(&id, now);
        }
        let instance = &self.instances[number];
        // The others were given back before, and forgotten.
        let held: Vec<_> = instance.core.retired().filter(|partition| instance.owned.contains_key(partition)).collect();
        for partition in held {
            self.take_last_snapshot(number, partition);
        }
        self.leave(number);
        self.crash(number, down_ms);
    }

    /// Records that an instance has forgotten everything that it had read.
    pub(super) fn forget(&mut self, number: usize) {
        self.history.add(Entry::Forgot { instance: number, partition: None });
    }

    /// Records that an instance reads a partition from its beginning, or no longer.
    pub(super) fn forget_partition(&mut self, number: usize, partition: TopicPartition) {
        self.history.add(Entry::Forgot { instance: number, partition: Some(partition) });
    }

    pub(super) fn crash(&mut self, number: usize, down_ms: i64) {
        self.instances[number].kill();
        self.forget(number);
        self.after(down_ms, Event::Start(number));
    }
}
