//! The engine's status, as [`Handle::status`](super::Handle::status) returns it.

use std::time::Duration;

use super::status_board::{EngineState, StatusBoard};
pub use crate::core::PartitionState;
use crate::core::Status;

/// The status of the engine as its loop last published it, at most some seconds ago.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EngineStatus {
    /// The engine's membership in its consumer group.
    pub state: EngineState,
    /// Whether no broker answers the group's consumer.
    pub are_brokers_unreachable: bool,
    /// The time since the last iteration of the engine's loop. While the loop is blocked, this grows and the rest of
    /// the status is that old.
    pub since_heartbeat: Duration,
    /// Problems that need an operator although the engine continues, as `/readiness` shows them.
    pub warnings: Vec<String>,
    /// The partitions that this instance holds.
    pub partitions: Vec<PartitionStatus>,
}

impl EngineStatus {
    pub(super) fn of(board: &StatusBoard, topics: &[String]) -> Self {
        let snapshot = board.snapshot();
        Self {
            state: snapshot.state.clone(),
            are_brokers_unreachable: board.is_unreachable(),
            since_heartbeat: board.since_heartbeat(),
            warnings: board.warnings(),
            partitions: snapshot.partitions.iter().map(|status| PartitionStatus::new(status, topics)).collect(),
        }
    }
}

/// The status of a partition that this instance holds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionStatus {
    /// The schedules topic of the partition.
    pub topic: String,
    /// The number of the partition in `topic`, from 0.
    pub partition: i32,
    /// How far the takeover or the handover has come.
    pub state: PartitionState,
    /// The offset of the next record to read. The partition is loaded once it is past `barrier`.
    pub position: i64,
    /// The offset at which loading ends, once it is known.
    pub barrier: Option<i64>,
    /// Number of pending schedules, parked ones included.
    pub pending: usize,
    /// Number of pending schedules that are due and in no batch yet, without parked ones.
    pub overdue: usize,
    /// Number of parked records: schedules, and the rare cancel or invalid record that the engine rewrites.
    pub parked: usize,
    /// The time from which the next schedule is due, in seconds since 1970, without parked ones.
    pub next_due_s: Option<u64>,
    /// An estimate of the memory that its records take, in bytes.
    pub held_bytes: usize,
}

impl PartitionStatus {
    fn new(status: &Status, topics: &[String]) -> Self {
        Self {
            topic: topics.get(usize::from(status.partition.topic)).cloned().unwrap_or_default(),
            partition: status.partition.number,
            state: status.state,
            position: status.position,
            barrier: status.barrier,
            pending: status.pending,
            overdue: status.overdue,
            parked: status.parked,
            next_due_s: status.next_due_s,
            held_bytes: status.bytes,
        }
    }
}
