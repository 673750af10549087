//! `/readiness`: whether everything that the group has given to this instance fires.

use serde::Serialize;

use crate::core::{Phase, Status};
use crate::handle::board::{Board, Stage};
use crate::metrics::held::{progress, state};

/// A loop that has not turned for so long is taken to be stuck. Its longest rightful pauses are well below a second.
pub const STUCK: std::time::Duration = std::time::Duration::from_secs(10);

/// Partitions that an answer names at the most.
const NAMED_MAX: usize = 100;

/// As clients see it.
#[derive(Debug, Serialize)]
pub struct Readiness {
    /// Everything fires.
    pub ready: bool,
    /// Why not, if not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What an operator should look at although everything fires.
    pub warnings: Vec<String>,
    /// Partitions held.
    pub assigned: usize,
    /// Of these, how many fire.
    pub live: usize,
    /// Those that do not, at most 100 of them.
    pub waiting: Vec<Waiting>,
}

/// A partition that does not fire yet, or not any more.
#[derive(Debug, Serialize)]
pub struct Waiting {
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
            state: state(status.phase),
            progress: progress(status),
            position: status.position,
            end: status.barrier,
        }
    }
}

impl Readiness {
    /// What the board says.
    pub fn of(board: &Board, topics: &[String]) -> Self {
        let snapshot = board.snapshot();
        let not_live = || snapshot.partitions.iter().filter(|status| status.phase != Phase::Live);
        let missing = not_live().count();
        let reason = if board.since_beat() > STUCK {
            Some("the engine's loop does not turn".to_owned())
        } else {
            match &snapshot.stage {
                Stage::Starting(why) => Some(why.clone()),
                Stage::Ending => Some("the engine is ending".to_owned()),
                _ if board.is_unreachable() => Some("no broker answers".to_owned()),
                Stage::Joining => Some("the consumer group has not answered yet".to_owned()),
                Stage::Member if missing > 0 => Some(format!("{missing} partitions do not fire yet")),
                Stage::Member => None,
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
            waiting: not_live().take(NAMED_MAX).map(|status| Waiting::new(status, topics)).collect(),
        }
    }
}

fn memory(held: u64, bound: u64) -> String {
    format!("the schedules held cost about {held} bytes of memory, more than MEMORY_WARN_BYTES ({bound})")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::io::{Millis, TopicPartition};
    use crate::handle::board::Snapshot;

    fn status(number: i32, phase: Phase) -> Status {
        let partition = TopicPartition { topic: 0, number };
        let (pending, overdue, parked, next_due, bytes) = (0, 0, 0, None, 600);
        Status { partition, phase, position: 5, barrier: Some(10), pending, overdue, parked, next_due, bytes }
    }

    fn of(stage: Stage, partitions: Vec<Status>, reached: bool) -> Readiness {
        let board = Board::default();
        board.beat();
        board.reached(reached);
        board.publish(Snapshot { at: Millis(0), stage, partitions, memory_warn_bytes: Some(1_000) });
        Readiness::of(&board, &["schedules".into()])
    }

    #[test]
    fn a_member_is_ready_when_all_it_has_is_live() {
        assert!(of(Stage::Member, Vec::new(), true).ready);
        let one = of(Stage::Member, vec![status(0, Phase::Live)], true);
        assert!(one.ready && one.warnings.is_empty());
        let loading = of(Stage::Member, vec![status(0, Phase::Live), status(1, Phase::Loading)], true);
        assert!(!loading.ready);
        assert_eq!((loading.assigned, loading.live, loading.waiting.len()), (2, 1, 1));
        let waiting = &loading.waiting[0];
        assert_eq!((waiting.partition, waiting.state, waiting.progress), (1, "loading", 0.5));
    }

    #[test]
    fn memory_use_is_a_warning_and_does_not_affect_readiness() {
        let two = of(Stage::Member, vec![status(0, Phase::Live), status(1, Phase::Live)], true);
        assert!(two.ready);
        let message = "the schedules held cost about 1200 bytes of memory, more than MEMORY_WARN_BYTES (1000)";
        assert_eq!(two.warnings, [message]);
    }

    #[test]
    fn nobody_else_is() {
        assert!(!of(Stage::Starting("no broker".into()), Vec::new(), true).ready);
        assert!(!of(Stage::Joining, Vec::new(), true).ready);
        assert!(!of(Stage::Ending, vec![status(0, Phase::Live)], true).ready);
        assert!(!of(Stage::Member, vec![status(0, Phase::Live)], false).ready);
        let many = (0..500).map(|n| status(n, Phase::Loading)).collect();
        assert_eq!(of(Stage::Member, many, true).waiting.len(), NAMED_MAX);
    }
}
