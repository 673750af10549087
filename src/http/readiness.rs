//! `/readiness`: whether all partitions assigned to this instance fire.

use serde::Serialize;

use crate::core::{PartitionState, Status};
use crate::handle::status_board::{EngineState, StatusBoard};
use crate::metrics::partitions::{progress, state};

/// A loop that has not run for so long is stuck: normally it never pauses for as long as a second.
pub(super) const LOOP_STUCK_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// The most partitions that a response names.
const WAITING_MAX: usize = 100;

/// The response.
#[derive(Debug, Serialize)]
pub(super) struct Readiness {
    pub ready: bool,
    /// Why the instance is not ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Problems for an operator, also of an instance that is ready.
    pub warnings: Vec<String>,
    /// Partitions held.
    pub assigned: usize,
    /// Partitions that fire.
    pub live: usize,
    /// Partitions that do not fire, at most 100 of them.
    pub waiting: Vec<Waiting>,
}

/// A partition that does not fire yet, or no longer.
#[derive(Debug, Serialize)]
pub(super) struct Waiting {
    topic: String,
    partition: i32,
    state: &'static str,
    /// 0 to 1.
    progress: f64,
    /// The next offset to read.
    position: i64,
    /// The offset at which loading ends, once it is known.
    end: Option<i64>,
}

impl Waiting {
    fn new(status: &Status, topics: &[String]) -> Self {
        Self {
            topic: topics.get(usize::from(status.partition.topic)).cloned().unwrap_or_default(),
            partition: status.partition.number,
            state: state(status.state),
            progress: progress(status),
            position: status.position,
            end: status.barrier,
        }
    }
}

impl Readiness {
    /// Reads the board.
    pub(super) fn of(board: &StatusBoard, topics: &[String]) -> Self {
        let snapshot = board.snapshot();
        let not_live = || snapshot.partitions.iter().filter(|status| status.state != PartitionState::Live);
        let missing = not_live().count();
        let reason = if board.since_heartbeat() > LOOP_STUCK_TIMEOUT {
            Some("the engine's loop does not run".to_owned())
        } else {
            match &snapshot.state {
                EngineState::Starting(why) => Some(why.clone()),
                EngineState::Ending => Some("the engine is stopping".to_owned()),
                _ if board.is_unreachable() => Some("no broker answers".to_owned()),
                EngineState::Joining => Some("the consumer group has not answered yet".to_owned()),
                EngineState::Member if missing > 0 => Some(format!("{missing} partitions do not fire")),
                EngineState::Member => None,
            }
        };
        Self {
            ready: reason.is_none(),
            reason,
            warnings: snapshot
                .exceeded()
                .map(|bound| memory(snapshot.held_bytes(), bound))
                .into_iter()
                .chain(board.warnings())
                .collect(),
            assigned: snapshot.partitions.len(),
            live: snapshot.partitions.len() - missing,
            waiting: not_live().take(WAITING_MAX).map(|status| Waiting::new(status, topics)).collect(),
        }
    }
}

fn memory(held: u64, bound: u64) -> String {
    format!("pending schedules use about {held} bytes of memory, more than MEMORY_WARN_BYTES ({bound})")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::io::{Millis, TopicPartition};
    use crate::handle::status_board::Snapshot;

    fn status(number: i32, state: PartitionState) -> Status {
        let partition = TopicPartition { topic: 0, number };
        let (pending, overdue, parked, next_due_s, bytes) = (0, 0, 0, None, 600);
        Status { partition, state, position: 5, barrier: Some(10), pending, overdue, parked, next_due_s, bytes }
    }

    fn of(state: EngineState, partitions: Vec<Status>, reached: bool) -> Readiness {
        let board = StatusBoard::default();
        board.heartbeat();
        board.reached(reached);
        board.publish(Snapshot { at: Millis(0), state, partitions, memory_warn_bytes: Some(1_000) });
        Readiness::of(&board, &["schedules".into()])
    }

    #[test]
    fn a_member_is_ready_if_all_its_partitions_are_live() {
        assert!(of(EngineState::Member, Vec::new(), true).ready);
        let one = of(EngineState::Member, vec![status(0, PartitionState::Live)], true);
        assert!(one.ready && one.warnings.is_empty());
        let loading =
            of(EngineState::Member, vec![status(0, PartitionState::Live), status(1, PartitionState::Loading)], true);
        assert!(!loading.ready);
        assert_eq!((loading.assigned, loading.live, loading.waiting.len()), (2, 1, 1));
        let waiting = &loading.waiting[0];
        assert_eq!((waiting.partition, waiting.state, waiting.progress), (1, "loading", 0.5));
    }

    #[test]
    fn memory_use_is_a_warning_and_does_not_affect_readiness() {
        let two = of(EngineState::Member, vec![status(0, PartitionState::Live), status(1, PartitionState::Live)], true);
        assert!(two.ready);
        let message = "pending schedules use about 1200 bytes of memory, more than MEMORY_WARN_BYTES (1000)";
        assert_eq!(two.warnings, [message]);
    }

    #[test]
    fn an_instance_that_is_not_a_live_member_is_not_ready() {
        assert!(!of(EngineState::Starting("no broker".into()), Vec::new(), true).ready);
        assert!(!of(EngineState::Joining, Vec::new(), true).ready);
        assert!(!of(EngineState::Ending, vec![status(0, PartitionState::Live)], true).ready);
        assert!(!of(EngineState::Member, vec![status(0, PartitionState::Live)], false).ready);
        let many = (0..500).map(|n| status(n, PartitionState::Loading)).collect();
        assert_eq!(of(EngineState::Member, many, true).waiting.len(), WAITING_MAX);
    }
}
