//! A process: the core, and the state of its shell.

use std::collections::{BTreeMap, BTreeSet};

use kafka_scheduler::core::io::{Cursor, Millis, TopicPartition};
use kafka_scheduler::core::{Listed, PartitionState, Scheduler};

use super::transactors::Transactors;
use crate::engine::{calendar, config, leftover_cutoff_ms};
use crate::faults::Activity;
use crate::kafka::{Kafka, LogId};
use crate::rng::Rng;
use crate::scenario::{Point, RequestError, Setup};

/// A fault that waits for a point of a transaction.
#[derive(Clone, Copy, Debug)]
pub(super) enum Armed {
    Crash { down_ms: i64 },
    Pause { for_ms: i64 },
    Stall { for_ms: i64 },
    Error(RequestError),
}

#[derive(Debug)]
pub(super) struct Instance {
    pub(super) number: usize,
    /// Counts starts. Tasks of an earlier run are dropped.
    pub(super) run: u64,
    pub(super) alive: bool,
    pub(super) paused_until_ms: i64,
    pub(super) core: Scheduler,
    pub(super) member: Option<String>,
    pub(super) generation: i32,
    pub(super) joins: u64,
    /// Assigned partitions, with the next offset to read.
    pub(super) owned: BTreeMap<TopicPartition, i64>,
    pub(super) releasing: BTreeSet<TopicPartition>,
    /// When the instance had last read each partition to its last stable offset.
    pub(super) caught_up_ms: BTreeMap<TopicPartition, i64>,
    pub(super) transactors: Transactors,
    /// The last batch that was committed.
    pub(super) last_committed: u64,
    pub(super) wake_ms: i64,
    /// It does not join the group before this.
    pub(super) rejoin_ms: i64,
    /// Set if it was told to stop: how long it stays down.
    pub(super) stopping_down_ms: Option<i64>,
    pub(super) rng: Rng,
    pub(super) skew_ms: i64,
    /// Its clock at the core's last input.
    pub(super) last_input: Millis,
    pub(super) armed: Vec<(Point, Armed)>,
    pub(super) slow_network_until_ms: i64,
    pub(super) slow_network_ms: i64,
    pub(super) slow_consumer_until_ms: i64,
    pub(super) slow_consumer_ms: i64,
    /// When its link will have sent everything that it was given, in microseconds.
    pub(super) link_free_us: i64,
    /// Targets that it believes it may not write to, and until when.
    pub(super) forbidden: BTreeMap<String, i64>,
}

impl Instance {
    pub(super) fn new(number: usize, setup: &Setup, mut rng: Rng) -> Self {
        let core = Scheduler::new(config(number, 0, setup, rng.bits()), calendar());
        let transactors = Transactors::new(core.transactional_ids());
        Self {
            number,
            run: 0,
            alive: false,
            paused_until_ms: i64::MIN,
            core,
            member: None,
            generation: -1,
            joins: 0,
            owned: BTreeMap::new(),
            releasing: BTreeSet::new(),
            caught_up_ms: BTreeMap::new(),
            transactors,
            last_committed: 0,
            wake_ms: i64::MAX,
            rejoin_ms: i64::MIN,
            stopping_down_ms: None,
            rng,
            skew_ms: 0,
            last_input: Millis(i64::MIN),
            armed: Vec::new(),
            slow_network_until_ms: i64::MIN,
            slow_network_ms: 0,
            slow_consumer_until_ms: i64::MIN,
            slow_consumer_ms: 0,
            link_free_us: i64::MIN,
            forbidden: BTreeMap::new(),
        }
    }

    /// Starts with an empty memory. The machine's clock and network stay as they are, and so do armed faults.
    pub(super) fn start(&mut self, setup: &Setup) {
        self.run += 1;
        self.core = Scheduler::new(config(self.number, self.run, setup, self.rng.bits()), calendar());
        self.transactors = Transactors::new(self.core.transactional_ids());
        self.alive = true;
        self.paused_until_ms = i64::MIN;
        self.member = None;
        self.generation = -1;
        self.joins = 0;
        self.owned.clear();
        self.releasing.clear();
        self.caught_up_ms.clear();
        self.last_committed = 0;
        self.wake_ms = i64::MAX;
        self.rejoin_ms = i64::MIN;
        self.stopping_down_ms = None;
        self.last_input = Millis(i64::MIN);
        self.link_free_us = i64::MIN;
        self.forbidden.clear();
    }

    pub(super) fn is_alive(&self) -> bool {
        self.alive
    }

    pub(super) fn kill(&mut self) {
        self.alive = false;
        self.transactors.forget();
    }

    pub(super) fn clock(&self, now_ms: i64) -> Millis {
        Millis(now_ms + self.skew_ms)
    }

    /// Returns local midnight plus `SINCE_DELTA`.
    pub(super) fn leftover_cutoff(&self, now_ms: i64, setup: &Setup) -> Millis {
        Millis(leftover_cutoff_ms(now_ms + self.skew_ms, setup))
    }

    /// Returns the same by the clock that the core was last told: a paused core has not seen that it was set back.
    pub(super) fn core_leftover_cutoff(&self, now_ms: i64, setup: &Setup) -> Millis {
        Millis(leftover_cutoff_ms(self.clock(now_ms).max(self.last_input).0, setup))
    }

    /// Whether no batch is in flight and all assigned logs are read to their ends.
    pub(super) fn is_idle(&self, kafka: &Kafka) -> bool {
        let read = |(p, next): (&TopicPartition, &i64)| *next == kafka.log(LogId::Schedules(*p)).end();
        !self.transactors.is_busy() && self.owned.iter().all(read)
    }

    pub(super) fn listed(&self) -> Vec<Listed> {
        self.core.list(Cursor::default(), usize::MAX).0
    }

    pub(super) fn live(&self) -> Vec<TopicPartition> {
        self.core.status().iter().filter(|s| s.state == PartitionState::Live).map(|s| s.partition).collect()
    }

    /// Returns the activity on the busiest of its partitions.
    pub(super) fn activity(&self) -> Activity {
        let status = self.core.status();
        let any = |state| status.iter().any(|s| s.state == state);
        match () {
            () if !self.alive => Activity::Nothing,
            () if any(PartitionState::Releasing) => Activity::Releasing,
            () if any(PartitionState::TakingOver) => Activity::TakingOver,
            () if any(PartitionState::Loading) => Activity::Loading,
            () if !any(PartitionState::Live) => Activity::Nothing,
            () if self.transactors.is_busy() => Activity::Firing,
            () => Activity::Idle,
        }
    }

    pub(super) fn activity_on(&self, partition: TopicPartition) -> Activity {
        let status = self.core.status().into_iter().find(|s| s.partition == partition);
        match status.map(|s| s.state) {
            None => Activity::Nothing,
            Some(PartitionState::TakingOver) => Activity::TakingOver,
            Some(PartitionState::Loading) => Activity::Loading,
            Some(PartitionState::Releasing) => Activity::Releasing,
            Some(PartitionState::Live) if self.transactors.is_busy() => Activity::Firing,
            Some(_) => Activity::Idle,
        }
    }

    pub(super) fn describe(&self) -> String {
        let Self { number, alive, member, generation, core, transactors, .. } = self;
        let status = core.status();
        format!("i{number} alive {alive} {member:?} generation {generation} {status:?} {}", transactors.describe())
    }
}
