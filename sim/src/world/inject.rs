//! Faults: what an operation of the scenario does.

use kafka_scheduler::core::io::Input;

use super::World;
use super::instance::Armed;
use crate::faults::{Doing, Fault};
use crate::kafka::group::SESSION_MS;
use crate::names::DAY_MS;
use crate::scenario::{Act, Error, Point};

impl World {
    pub(super) fn strike(&mut self, act: Act) {
        match act {
            Act::Say { .. } => return self.say(act),
            Act::Transaction { key, count, commit, for_ms, in_s } => {
                return self.transaction(key, count, commit, i64::from(for_ms), in_s);
            }
            _ if self.history.calm_ms.is_some() => return,
            _ => {}
        }
        let now = self.now_ms;
        let until = |for_ms: u16| now + i64::from(for_ms);
        match act {
            Act::Say { .. } | Act::Transaction { .. } => {}
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
            Act::Skew { instance, by, days } => {
                let number = self.instance(instance);
                let by_ms = if days { i64::from(by).signum() * DAY_MS } else { i64::from(by) };
                self.hit(Fault::Skew, number);
                // One day off at the most, whatever comes together.
                let limit = DAY_MS + 60_000;
                let skew = (self.instances[number].skew_ms + by_ms).clamp(-limit, limit);
                self.set_clock(number, skew);
            }
            Act::Compact { partition, tombstones } => self.compact(partition, tombstones),
            Act::Rewind { instance } => {
                let number = self.instance(instance);
                self.rewind(number);
            }
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
            Act::Stop { instance, down_ms } => {
                let number = self.instance(instance);
                if self.instances[number].is_alive() && self.instances[number].stopping_down_ms.is_none() {
                    self.hit(Fault::Stop, number);
                    self.trace(|| format!("i{number}     is told to stop"));
                    self.instances[number].stopping_down_ms = Some(i64::from(down_ms));
                    self.tell(number, Input::Stop);
                }
            }
            Act::Unreadable { instance } => {
                let number = self.instance(instance);
                if self.instances[number].is_alive() {
                    self.hit(Fault::Unreadable, number);
                    self.tell(number, Input::Unreadable { why: "the model says so" });
                }
            }
        }
        self.trace(|| format!("fault  {act:?}"));
    }

    fn instance(&self, number: u8) -> usize {
        usize::from(number) % self.instances.len()
    }

    fn arm(&mut self, instance: u8, point: Point, armed: Armed) {
        let number = self.instance(instance);
        match (point, armed) {
            (Point::Now, Armed::Error(_) | Armed::Stall { .. }) => {}
            (Point::Now, _) if !self.instances[number].is_alive() => {}
            (Point::Now, Armed::Crash { down_ms }) => {
                self.hit(Fault::Crash, number);
                self.die(number, down_ms);
            }
            (Point::Now, Armed::Pause { for_ms }) => self.pause(number, for_ms),
            _ => self.instances[number].armed.push((point, armed)),
        }
    }

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
        self.hit(if for_ms < SESSION_MS { Fault::Pause } else { Fault::Zombie }, number);
        let until_ms = self.now_ms + for_ms;
        let paused_until_ms = &mut self.instances[number].paused_until_ms;
        *paused_until_ms = until_ms.max(*paused_until_ms);
    }

    /// Something may strike at this point of a transaction. True if the step does not go on now.
    pub(super) fn struck(&mut self, number: usize, batch: u64, producer: (&str, u32), point: Point) -> bool {
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
                self.hit(fault, number);
                self.die(number, down_ms);
                true
            }
            Armed::Pause { for_ms } => {
                self.pause(number, for_ms);
                self.later(number, 0, super::Todo::Job(batch));
                true
            }
            Armed::Stall { for_ms } => {
                self.hit(Fault::Stall, number);
                let until_ms = self.now_ms + for_ms;
                if let Some(job) = self.instances[number].transactors.jobs.get_mut(&batch) {
                    job.stalled_until_ms = until_ms;
                }
                self.later(number, for_ms, super::Todo::Job(batch));
                true
            }
            Armed::Error(error) => {
                let fault = match error {
                    Error::Retriable => Fault::Retriable,
                    Error::Abortable => Fault::Abortable,
                    Error::Fatal => Fault::Fatal,
                    Error::RequestLost | Error::ReplyLost | Error::Late => Fault::Unanswered,
                };
                self.hit(fault, number);
                self.fault_answer(number, batch, producer, error)
            }
        }
    }

    pub(super) fn outage(&mut self, down_ms: i64, expire: bool) {
        let alive: Vec<usize> = (0..self.instances.len()).filter(|n| self.instances[*n].is_alive()).collect();
        for number in alive {
            self.hit(Fault::Outage, number);
            if expire && let Some(member) = self.instances[number].member.take() {
                // Expiry takes days, in which sessions end.
                self.history.kafka.group.leave(&member);
            }
            self.crash(number, down_ms);
        }
        if expire && self.history.kafka.expire_offsets() {
            self.summary.coverage.hit(Fault::Expiry, Doing::Nothing);
        }
    }

    /// Sets an instance's clock, which is ahead by `skew_ms` from now on.
    fn set_clock(&mut self, number: usize, skew_ms: i64) {
        self.history.ahead_ms_max = self.history.ahead_ms_max.max(skew_ms);
        self.history.behind_ms_max = self.history.behind_ms_max.min(skew_ms);
        let instance = &mut self.instances[number];
        instance.skew_ms = skew_ms;
        if !instance.is_alive() {
            return;
        }
        // The loop looks at its clock at least twice a second.
        if instance.paused_until_ms <= self.now_ms {
            instance.wake_ms = i64::MAX;
            self.tell(number, Input::Tick);
        } else {
            self.later(number, 0, super::Todo::Tick);
        }
    }

    /// Faults stop.
    pub(crate) fn calm(&mut self) {
        self.history.calm_ms = Some(self.now_ms);
        self.fences_fail_until_ms = i64::MIN;
        self.slow_markers_until_ms = i64::MIN;
        self.history.kafka.slow_markers(i64::MIN, 0);
        self.history.kafka.group.hold(i64::MIN);
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

    /// The next transaction of anybody crashes everybody, at `point`.
    pub(crate) fn arm_last_crash(&mut self, point: Point) {
        self.last_crash = true;
        for instance in &mut self.instances {
            instance.armed.push((point, Armed::Crash { down_ms: 10 }));
        }
    }

    /// Whoever still waits for the last crash crashes now.
    pub(crate) fn force_last_crash(&mut self) {
        if self.instances.iter().any(|instance| !instance.armed.is_empty()) {
            self.die(0, 10);
        }
        self.last_crash = false;
        self.history.restarted = true;
    }
}
