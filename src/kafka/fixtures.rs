//! For tests.

use crate::core::batch::Batch;
use crate::core::calendar::NoCalendar;
use crate::core::io::{Input, Millis, Output, TopicPartition};
use crate::core::ownership::RunId;
use crate::core::{Config, Scheduler, SchedulesTopic};

/// A barrier's batch.
pub(crate) fn a_batch() -> Batch {
    let config = Config {
        cluster: "c".into(),
        topics: vec![SchedulesTopic::new("schedules")],
        history: "history".into(),
        dead_letter: None,
        group: "g".into(),
        run: RunId::from_random(7),
        grace_s: None,
        horizon_s: None,
        transactors: 1,
        batch_items_max: 1,
        batch_bytes_max: 1,
        adds_due_header: false,
        hash_seed: 0,
    };
    let mut core: Scheduler = Scheduler::new(config, Box::new(NoCalendar));
    let partition = TopicPartition { topic: 0, number: 0 };
    core.handle(Millis(0), Input::Assigned { partitions: &[partition], leftover_cutoff: Millis(0) });
    core.handle(Millis(0), Input::Committed { partition, offset: None, metadata: b"" });
    let batch = |output| match output {
        Output::Transact(batch) => Some(batch),
        _ => None,
    };
    std::iter::from_fn(|| core.poll()).find_map(batch).expect("a takeover begins with a barrier")
}
