//! Batches on their way through the transactors.

use std::collections::BTreeMap;
use std::time::Instant;

use crossbeam_channel::{Receiver, unbounded};

use super::{EngineLoop, STALE_GENERATION_TICK_INTERVAL};
use crate::core::batch::{Batch, Kind};
use crate::core::io::{Abort, Input, Outcome};
use crate::handle::Wake;
use crate::kafka::ffi;
use crate::kafka::job::{Done, Job, Membership, Results};
use crate::kafka::transactor::Transactors;

/// The transactors of this incarnation, and the batches that they run.
pub(super) struct RunningBatches {
    /// `None` if they could not be started.
    pub transactors: Option<Transactors>,
    results: Results,
    pub done: Receiver<Done>,
    pub formed_at: BTreeMap<u64, Instant>,
}

impl RunningBatches {
    pub(super) fn new(wake: Wake) -> Self {
        let (sender, done) = unbounded();
        Self { transactors: None, results: Results { sender, wake }, done, formed_at: BTreeMap::new() }
    }
}

impl EngineLoop {
    pub(super) fn transact(&mut self, batch: Batch) {
        // Read here, while the batch's partitions are owned and before any of them can be given away.
        let membership = self.group.consumer.as_ref().and_then(|consumer| ffi::membership(consumer.base()));
        let membership = membership.map(|(metadata, generation, member)| Membership { metadata, generation, member });
        self.running_batches.formed_at.insert(batch.id, Instant::now());
        match &self.running_batches.transactors {
            Some(transactors) => transactors.run(Job { batch, membership }),
            // They could not be started. After an unknown outcome, the core has them replaced.
            None => self.running_batches.results.send(Done { batch, outcome: Outcome::Unknown }),
        }
    }

    pub(super) fn replace_transactors(&mut self, ids: &[String]) {
        self.running_batches.transactors =
            Transactors::start(&self.clients, ids, &self.topics, &self.running_batches.results)
                .inspect_err(|error| tracing::error!(%error, "no transactor could be started"))
                .ok();
    }

    pub(super) fn on_batch_done(&mut self, Done { batch, outcome }: Done) {
        let id = batch.id;
        if let Some(formed_at) = self.running_batches.formed_at.remove(&id) {
            self.reporter.observer.settled(&batch, label(&outcome), formed_at.elapsed());
        }
        tracing::debug!(batch = id, items = batch.items.len(), ?outcome, "a batch has ended");
        if matches!(outcome, Outcome::Committed { .. }) {
            self.on_committed(&batch);
        }
        self.group.is_generation_stale = matches!(outcome, Outcome::Aborted(Abort::StaleGeneration { .. }));
        self.input(Input::BatchEnded { batch: id, outcome });
        if self.group.is_generation_stale {
            // Reports the generation again even if it is unchanged: the core waits for one that was not rejected.
            self.group.generation = None;
            let next_tick = Instant::now() + STALE_GENERATION_TICK_INTERVAL;
            self.timers.next_tick = self.timers.next_tick.min(next_tick);
        }
    }

    fn on_committed(&mut self, batch: &Batch) {
        self.group.reset_rejoin_delay();
        self.clients.diagnostics.on_recovery();
        if batch.items.iter().any(|item| matches!(item.kind, Kind::Fire { .. })) {
            let config = &self.config;
            self.clients.diagnostics.on_accepted(|topic| {
                let is_own =
                    topic == config.history_topic() || config.schedules_topics().iter().any(|own| own == topic);
                is_own || batch.items.iter().any(|item| batch.target(item) == Some(topic))
            });
            self.reporter.observer.fired(batch, self.clock.now());
        }
    }

    /// Gives up a transactor whose call does not return. The takeover that follows fences its transaction.
    pub(super) fn check_offsets_calls(&mut self) {
        if let Some(batch) = self.running_batches.transactors.as_ref().and_then(Transactors::stuck) {
            tracing::warn!(batch, "a call to librdkafka does not return");
            self.input(Input::BatchEnded { batch, outcome: Outcome::Unknown });
        }
    }
}

/// The label of an outcome in metrics.
const fn label(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Committed { .. } => "committed",
        Outcome::Aborted(Abort::Retry | Abort::TimedOut(_)) => "aborted",
        Outcome::Aborted(Abort::StaleGeneration { .. }) => "fenced",
        Outcome::Aborted(Abort::Rejected(_) | Abort::RejectedUnnamed) => "rejected",
        Outcome::Unknown => "unknown",
    }
}
