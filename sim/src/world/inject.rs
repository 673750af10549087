//! Injects the faults of a scenario.

use kafka_scheduler::core::io::Input;

use super::instance::Armed;
use super::{Task, World};
use crate::faults::{Activity, Fault};
use crate::kafka::group::SESSION_TIMEOUT_MS;
use crate::names::DAY_MS;
use crate::scenario::{Act, Point, RequestError};

impl World {
    /// Carries out an operation of the scenario. Once faults have stopped, only users go on.
    pub(super) fn inject(&mut self, act: Act) {
        match act {
            Act::Produce { .. } => self.produce_user_record(act),
            Act::Transaction { key, count, commit, for_ms, in_s } => {
                self.begin_user_transaction(key, count, commit, i64::from(for_ms), in_s);
            }
            _ if self.history.quiet_since_ms.is_some() => {}
            _ => {
                self.inject_fault(act);
                self.trace(|| format!("fault  {act:?}"));
            }
        }
    }

    fn inject_fault(&mut self, act: Act) {
        let now = self.now_ms;
        let until = |for_ms: u16| now + i64::from(for_ms);
        match act {
            Act::Produce { .. } | Act::Transaction { .. } => {}
            Act::Crash { instance, point, down_ms } => {
                self.arm(instance, point, Armed::Crash { down_ms: i64::from(down_ms) });
            }
            Act::Pause { instance, point, for_ms } => {
                self.arm(instance, point, Armed::Pause { for_ms: i64::from(for_ms) });
            }
            Act::Stall { instance, point, for_ms } => {
                self.arm(instance, point, Armed::Stall { for_ms: i64::from(for_ms) });
            }
            Act::Error { instance, error, point } => self.arm(instance, point, Armed::Error(error)),
            Act::Skew { instance, by, days } => self.skew(self.instance(instance), by, days),
            Act::Compact { partition, replica, tombstones } => self.compact(partition, replica, tombstones),
            Act::Snapshot { instance, partition, entries, gap_ms } => {
                let (number, partition) = (self.instance(instance), self.partition(partition));
                self.begin_snapshot(number, partition, entries, gap_ms);
            }
            Act::CopySnapshot { instance, partition, from, age } => {
                let (number, partition) = (self.instance(instance), self.partition(partition));
                self.copy_snapshot(number, partition, self.instance(from), age);
            }
            Act::ChangeLeader { partition } => self.change_leader(partition),
            Act::ReplicaAway { partition, replica, for_ms } => {
                self.take_replica_away(partition, replica, i64::from(for_ms));
            }
            Act::LowerRetention { for_ms, retention_ms } => {
                self.lower_retention = (until(for_ms), i64::from(retention_ms));
            }
            Act::Rewind { instance } => self.rewind(self.instance(instance)),
            Act::Outage { down_ms, expire } => self.outage(i64::from(down_ms), expire),
            Act::SlowConsumer { instance, for_ms, gap_ms } => {
                let number = self.instance(instance);
                self.instances[number].slow_consumer_until_ms = until(for_ms);
                self.instances[number].slow_consumer_ms = i64::from(gap_ms);
            }
            Act::SlowNetwork { instance, for_ms, up_to_ms } => {
                let number = self.instance(instance);
                self.instances[number].slow_network_until_ms = until(for_ms);
                self.instances[number].slow_network_ms = i64::from(up_to_ms);
            }
            Act::SlowMarkers { for_ms, up_to_ms } => {
                self.slow_markers_until_ms = until(for_ms);
                self.history.kafka.slow_markers(until(for_ms), i64::from(up_to_ms));
            }
            Act::FencesFail { for_ms } => self.fences_fail_until_ms = until(for_ms),
            Act::TargetAway { away, for_ms } => {
                self.history.was_away = true;
                self.away = Some((away, until(for_ms)));
            }
            Act::Grow { topic } => self.grow(topic),
            Act::Flood => self.flood(),
            Act::SlowRebalance { for_ms } => self.history.kafka.group.hold(until(for_ms)),
            Act::Stop { instance, down_ms } => self.stop(self.instance(instance), i64::from(down_ms)),
            Act::Unreadable { instance } => self.make_unreadable(self.instance(instance)),
        }
    }

    fn skew(&mut self, number: usize, by: i16, days: bool) {
        /// Several faults together set a clock wrong by a little more than a day at most.
        const SKEW_LIMIT_MS: i64 = DAY_MS + 60_000;
        let by_ms = if days { i64::from(by).signum() * DAY_MS } else { i64::from(by) };
        self.record_hit(Fault::Skew, number);
        let skew_ms = (self.instances[number].skew_ms + by_ms).clamp(-SKEW_LIMIT_MS, SKEW_LIMIT_MS);
        self.set_clock(number, skew_ms);
    }

    fn stop(&mut self, number: usize, down_ms: i64) {
        if self.instances[number].is_alive() && self.instances[number].stopping_down_ms.is_none() {
            self.record_hit(Fault::Stop, number);
            self.trace(|| format!("i{number}     is told to stop"));
            self.instances[number].stopping_down_ms = Some(down_ms);
            self.feed(number, Input::Stop);
        }
    }

    fn make_unreadable(&mut self, number: usize) {
        if self.instances[number].is_alive() {
            self.record_hit(Fault::Unreadable, number);
            self.feed(number, Input::PositionInvalid { why: "the model says so" });
        }
    }

    /// Wraps the number of an instance around.
    fn instance(&self, number: u8) -> usize {
        usize::from(number) % self.instances.len()
    }

    /// Lets a fault wait for a point of the instance's next transaction.
    fn arm(&mut self, instance: u8, point: Point, armed: Armed) {
        let number = self.instance(instance);
        match (point, armed) {
            (Point::Now, Armed::Error(_) | Armed::Stall { .. }) => {}
            (Point::Now, _) if !self.instances[number].is_alive() => {}
            (Point::Now, Armed::Crash { down_ms }) => {
                self.record_hit(Fault::Crash, number);
                self.die(number, down_ms);
            }
            (Point::Now, Armed::Pause { for_ms }) => self.pause(number, for_ms),
            _ => self.instances[number].armed.push((point, armed)),
        }
    }

    /// Crashes an instance, or all of them if this is the run's last crash.
    fn die(&mut self, number: usize, down_ms: i64) {
        if !self.last_crash {
            return self.crash(number, down_ms);
        }
        for number in 0..self.instances.len() {
            self.instances[number].armed.clear();
            if self.instances[number].is_alive() {
                self.crash(number, down_ms);
            }
        }
    }

    fn pause(&mut self, number: usize, for_ms: i64) {
        self.record_hit(if for_ms < SESSION_TIMEOUT_MS { Fault::Pause } else { Fault::Zombie }, number);
        let until_ms = self.now_ms + for_ms;
        let paused_until_ms = &mut self.instances[number].paused_until_ms;
        *paused_until_ms = until_ms.max(*paused_until_ms);
    }

    /// Injects the fault that waits for this point of a transaction, if there is one. Returns whether the step ends
    /// here.
    pub(super) fn inject_at(&mut self, number: usize, batch: u64, producer: (&str, u32), point: Point) -> bool {
        let armed = &mut self.instances[number].armed;
        let Some(at) = armed.iter().position(|(waits_for, _)| *waits_for == point) else { return false };
        let (_, armed) = armed.remove(at);
        self.trace(|| format!("i{number}     batch {batch}: {armed:?} at {point:?}"));
        match armed {
            Armed::Crash { down_ms } => {
                let fault = match point {
                    Point::Now => Fault::Crash,
                    Point::BeforeSend => Fault::CrashBeforeSend,
                    Point::AfterProduce => Fault::CrashAfterProduce,
                    Point::AfterOffsets => Fault::CrashAfterOffsets,
                    Point::AfterCommit => Fault::CrashAfterCommit,
                };
                self.record_hit(fault, number);
                self.die(number, down_ms);
                true
            }
            Armed::Pause { for_ms } => {
                self.pause(number, for_ms);
                self.later(number, 0, Task::Job(batch));
                true
            }
            Armed::Stall { for_ms } => {
                self.record_hit(Fault::Stall, number);
                let until_ms = self.now_ms + for_ms;
                if let Some(job) = self.instances[number].transactors.jobs.get_mut(&batch) {
                    job.stalled_until_ms = until_ms;
                }
                self.later(number, for_ms, Task::Job(batch));
                true
            }
            Armed::Error(error) => {
                let fault = match error {
                    RequestError::Retriable => Fault::Retriable,
                    RequestError::Abortable => Fault::Abortable,
                    RequestError::Fatal => Fault::Fatal,
                    RequestError::RequestLost | RequestError::ReplyLost | RequestError::Late => Fault::Unanswered,
                };
                self.record_hit(fault, number);
                self.fault_answer(number, batch, producer, error)
            }
        }
    }

    fn outage(&mut self, down_ms: i64, expire: bool) {
        let alive: Vec<usize> = (0..self.instances.len()).filter(|n| self.instances[*n].is_alive()).collect();
        for number in alive {
            self.record_hit(Fault::Outage, number);
            if expire && let Some(member) = self.instances[number].member.take() {
                // Offsets expire after days, when all sessions have ended.
                self.history.kafka.group.leave(&member);
            }
            self.crash(number, down_ms);
        }
        if expire && self.history.kafka.expire_offsets() {
            self.summary.coverage.record_hit(Fault::Expiry, Activity::Nothing);
        }
    }

    /// Sets an instance's clock ahead by `skew_ms`.
    fn set_clock(&mut self, number: usize, skew_ms: i64) {
        self.history.ahead_ms_max = self.history.ahead_ms_max.max(skew_ms);
        self.history.behind_ms_max = self.history.behind_ms_max.min(skew_ms);
        let instance = &mut self.instances[number];
        instance.skew_ms = skew_ms;
        if !instance.is_alive() {
            return;
        }
        // The engine's loop reads its clock at least twice a second.
        if instance.paused_until_ms <= self.now_ms {
            instance.wake_ms = i64::MAX;
            self.feed(number, Input::Tick);
        } else {
            self.later(number, 0, Task::Tick);
        }
    }

    /// Stops all faults and sets all clocks right.
    pub(crate) fn quiesce(&mut self) {
        self.history.quiet_since_ms = Some(self.now_ms);
        self.fences_fail_until_ms = i64::MIN;
        self.slow_markers_until_ms = i64::MIN;
        self.history.kafka.slow_markers(i64::MIN, 0);
        self.history.kafka.group.hold(i64::MIN);
        self.lower_retention = (i64::MIN, 0);
        self.away = None;
        for number in 0..self.instances.len() {
            let instance = &mut self.instances[number];
            instance.armed.clear();
            instance.slow_consumer_until_ms = i64::MIN;
            instance.slow_network_until_ms = i64::MIN;
            if instance.skew_ms != 0 {
                self.set_clock(number, 0);
            }
        }
    }

    /// Crashes all instances as soon as a transaction of one of them reaches `point`.
    pub(crate) fn arm_last_crash(&mut self, point: Point) {
        self.last_crash = true;
        for instance in &mut self.instances {
            instance.armed.push((point, Armed::Crash { down_ms: 10 }));
        }
    }

    /// Crashes all instances now if none has reached the point of the last crash.
    pub(crate) fn force_last_crash(&mut self) {
        if self.instances.iter().any(|instance| !instance.armed.is_empty()) {
            self.die(0, 10);
        }
        self.last_crash = false;
        self.history.restarted = true;
    }
}
