//! The shell of an instance: it feeds the core and carries out what the core wants.

use kafka_scheduler::core::io::{Input, Output, Report, TargetState};

use super::{Todo, What, World};
use crate::failure::Failure;
use crate::faults::Fault;
use crate::scenario::{Away, Target};

/// How long a client believes that it may not write to a topic.
const FORBIDDEN_MS: i64 = 20_000;

impl World {
    pub(super) fn start(&mut self, number: usize) {
        if self.instances[number].is_alive() {
            return;
        }
        let setup = self.setup.clone();
        self.instances[number].born(&setup);
        self.watch.forget(number);
        self.trace(|| format!("i{number}     starts"));
        self.join(number);
        self.later(number, 50, Todo::Beat);
        self.later(number, 20, Todo::Fetch);
    }

    pub(super) fn act(&mut self, number: usize, todo: Todo) {
        match todo {
            Todo::Beat => self.beat(number),
            Todo::Fetch => self.fetch(number),
            Todo::Wake => self.wake(number),
            Todo::Tick => self.tell(number, Input::Tick),
            Todo::Job(batch) => self.job(number, batch),
            Todo::Settle(batch, outcome) => self.settle(number, batch, outcome),
            Todo::ReadCommitted(partition, until) => self.read_committed(number, partition, until),
            Todo::Fence(take, ids, generation) => self.fence(number, take, ids, generation),
            Todo::FindSince(ask, topic, known) => self.find_since(number, ask, topic, known),
            Todo::Target(target, state) => self.tell(number, Input::Target { target, state }),
        }
    }

    /// Feeds the core and carries out what it wants. One that has stopped meanwhile is told nothing more.
    pub(super) fn tell(&mut self, number: usize, input: Input<'_>) {
        if !self.instances[number].is_alive() {
            return;
        }
        let now = self.instances[number].clock(self.now_ms);
        self.instances[number].told = now;
        self.instances[number].core.handle(now, input);
        while let Some(output) = self.instances[number].core.poll() {
            self.carry_out(number, output);
        }
        self.set_alarm(number);
    }

    /// Sees to it that the core is woken at its next deadline, by the clock as it is.
    pub(super) fn set_alarm(&mut self, number: usize) {
        let instance = &mut self.instances[number];
        let Some((at, _)) = instance.core.poll_timeout().filter(|_| instance.is_alive()) else { return };
        let at_ms = at.0.saturating_sub(instance.skew_ms).max(self.now_ms);
        if at_ms < instance.wake_ms {
            instance.wake_ms = at_ms;
            self.later(number, at_ms - self.now_ms, Todo::Wake);
        }
    }

    fn wake(&mut self, number: usize) {
        let instance = &mut self.instances[number];
        if instance.wake_ms > self.now_ms {
            // An earlier alarm has been set since, and went off.
            return;
        }
        instance.wake_ms = i64::MAX;
        let clock = instance.clock(self.now_ms);
        match instance.core.poll_timeout() {
            Some((at, _)) if at <= clock => self.tell(number, Input::Tick),
            _ => self.set_alarm(number),
        }
    }

    fn carry_out(&mut self, number: usize, output: Output) {
        let delay = self.instances[number].rng.range(1, 30);
        let until = self.now_ms + 1_000;
        match output {
            Output::ReadCommitted(partitions) => {
                for partition in partitions {
                    self.answer(number, delay, Todo::ReadCommitted(partition, until));
                }
            }
            Output::Fence { take, transactional_ids } => {
                self.trace(|| format!("i{number}     fences {transactional_ids:?}"));
                let generation = self.instances[number].generation;
                self.answer(number, delay, Todo::Fence(take, transactional_ids, generation));
            }
            Output::FindSince { ask, topic, known } => self.answer(number, delay, Todo::FindSince(ask, topic, known)),
            Output::CheckTarget { target, name } => {
                let state = self.look_up(number, &name);
                let delay = if state == TargetState::NoAnswer { 2_000 } else { delay };
                self.answer(number, delay, Todo::Target(target, state));
            }
            Output::Transact(batch) => self.transact(number, batch),
            Output::Seek(partition) => {
                self.watch.forget_partition(number, partition);
                if let Some(position) = self.instances[number].owned.get_mut(&partition) {
                    *position = 0;
                }
                self.instances[number].caught_up_ms.remove(&partition);
            }
            Output::Release(partitions) => self.release(number, &partitions),
            Output::Renew { transactional_ids } => {
                self.trace(|| format!("i{number}     renews: {transactional_ids:?}"));
                self.watch.forget(number);
                self.instances[number].transactors.renew(transactional_ids);
            }
            Output::Restart(why) => {
                self.trace(|| format!("i{number}     restarts: {why}"));
                self.restart(number);
            }
            Output::Stopped => self.stopped(number),
            Output::Report(report) => {
                if matches!(report, Report::Live { .. }) {
                    // Now, before users say more.
                    self.compared_ms = i64::MIN;
                }
                if report == Report::ThroughputIsLimit {
                    self.watch.held_up(number);
                }
                self.trace(|| format!("i{number}     {report:?}"));
            }
        }
    }

    /// What the cluster's metadata says of a topic.
    fn look_up(&mut self, number: usize, name: &str) -> TargetState {
        let now = self.now_ms;
        if self.instances[number].forbidden.get(name).is_some_and(|until| *until > now) {
            return TargetState::Forbidden;
        }
        let away = self.away.filter(|(_, until)| name == Target::Late.name() && *until > now);
        if let Some((Away::Missing | Away::Forbidden | Away::Silent, until_ms)) = away {
            self.bite(Fault::TargetAway, number, until_ms);
        }
        match away.map(|(away, _)| away) {
            Some(Away::Missing) => TargetState::Missing,
            Some(Away::Forbidden) => TargetState::Forbidden,
            Some(Away::Silent) => TargetState::NoAnswer,
            Some(Away::Leaderless) | None if name == Target::Missing.name() => TargetState::Missing,
            Some(Away::Leaderless) | None => TargetState::Exists,
        }
    }

    /// A record was refused for want of permission, which the metadata does not show.
    pub(super) fn forbid(&mut self, number: usize, name: &str) {
        let until = self.now_ms + FORBIDDEN_MS;
        self.instances[number].forbidden.insert(name.to_owned(), until);
    }

    fn stopped(&mut self, number: usize) {
        let Some(down_ms) = self.instances[number].stopping_down_ms else {
            return self.fail(Failure::Safety(format!("i{number} stops though nobody asked it to")));
        };
        self.trace(|| format!("i{number}     has stopped"));
        let now = self.now_ms;
        for id in self.instances[number].transactors.take_all_ids() {
            // What is open is aborted on the way out; nobody waits for the answer.
            let _ = self.kafka.init(&id, now);
        }
        self.leave(number);
        self.crash(number, down_ms);
    }

    pub(super) fn crash(&mut self, number: usize, down_ms: i64) {
        self.instances[number].kill();
        self.watch.forget(number);
        self.after(down_ms, What::Start(number));
    }
}
