//! Checks firings that were raced by a newer record for their key.

use std::collections::BTreeMap;

use kafka_scheduler::core::batch::Kind;

use crate::history::{Decision, History};
use crate::kafka::group::SESSION_TIMEOUT_MS;

/// A newer record that was readable for this long must have stopped a firing: an owner may pause for at most its
/// session before its commits are refused, and reads as soon as it wakes.
const RACE_TIMEOUT_MS: i64 = SESSION_TIMEOUT_MS + 1_000;
/// A slow consumer takes this long to catch up.
const CATCH_UP_TIMEOUT_MS: i64 = 5_000;

/// The firings of each batch that were raced, and for how long the newer record could have been read: `None` if the
/// instance was not reading at the end of the log.
#[derive(Debug, Default)]
pub(super) struct Races {
    by_batch: BTreeMap<(usize, u64), Vec<Option<i64>>>,
    count: u64,
    ms_max: i64,
}

impl Races {
    pub(super) fn decide(&mut self, history: &History, decision: &Decision) {
        let slow = decision.slow_consumer_until_ms + CATCH_UP_TIMEOUT_MS > decision.at_ms;
        let mut races = Vec::new();
        for item in decision.batch.items.iter().filter(|item| matches!(item.kind, Kind::Fire { .. })) {
            let Some(record) = history.produced.get(&(item.partition, item.origin_offset)) else { continue };
            let mut newer =
                history.produced.range((item.partition, item.origin_offset + 1)..=(item.partition, i64::MAX));
            if let Some((_, newer)) = newer.find(|(_, newer)| newer.can_be_latest() && newer.key == record.key) {
                let caught_up_ms = decision.caught_up_ms.get(&item.partition).filter(|_| !slow);
                races.push(caught_up_ms.map(|at| decision.at_ms - newer.readable_ms.max(*at)));
            }
        }
        self.by_batch.insert((decision.instance, decision.batch.id), races);
    }

    pub(super) fn commit(&mut self, instance: usize, batch: u64) -> Result<(), String> {
        let races = self.by_batch.remove(&(instance, batch)).unwrap_or_default();
        self.count += races.len() as u64;
        let Some(longest_ms) = races.iter().flatten().max().copied() else { return Ok(()) };
        self.ms_max = self.ms_max.max(longest_ms);
        if longest_ms > RACE_TIMEOUT_MS {
            return Err(format!(
                "i{instance} fired a schedule that a newer record had replaced {longest_ms} ms before"
            ));
        }
        Ok(())
    }

    pub(super) fn total(&self) -> (u64, i64) {
        (self.count, self.ms_max)
    }
}
