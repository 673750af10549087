//! Transactional producers: epochs, fencing, timeouts, and markers that are written after the decision.

use std::collections::{BTreeMap, BTreeSet};

use kafka_scheduler::core::io::TopicPartition;

use super::log::Stored;
use super::offsets::{METADATA_BYTES_MAX, Pending};
use super::{Event, Kafka, LogId, Refusal, TRANSACTION_TIMEOUT_MS};

/// The coordinator's state of a transactional id.
#[derive(Debug, Default)]
pub(super) struct Producer {
    epoch: u32,
    open: Option<Open>,
    /// A decided transaction that may have markers still to write.
    completing: Option<u64>,
    /// Whether the last transaction was committed.
    decided: Option<bool>,
}

impl Producer {
    /// Returns when its open transaction times out.
    pub(super) fn ends_by(&self) -> Option<i64> {
        self.open.as_ref().map(|open| open.started_ms + TRANSACTION_TIMEOUT_MS)
    }
}

#[derive(Debug)]
struct Open {
    transaction: u64,
    started_ms: i64,
    log_ids: BTreeSet<LogId>,
    offsets: BTreeMap<TopicPartition, Pending>,
}

/// A marker on its way into a log, or into the group's offsets.
#[derive(Debug)]
pub(super) struct Marker {
    pub(super) at_ms: i64,
    transaction: u64,
    commit: bool,
    target: MarkerTarget,
}

#[derive(Debug)]
enum MarkerTarget {
    Log(LogId),
    Offsets(BTreeMap<TopicPartition, Pending>),
}

impl Kafka {
    /// Does `init_transactions`: fences the id's former producer and aborts its open transaction.
    ///
    /// # Errors
    /// `Concurrent` while the last transaction's markers are being written.
    pub fn init(&mut self, id: &str, now_ms: i64) -> Result<u32, Refusal> {
        if self.is_completing(id) {
            return Err(Refusal::Concurrent);
        }
        let producer = self.producers.entry(id.to_owned()).or_default();
        producer.epoch += 1;
        let epoch = producer.epoch;
        self.events.push(Event::Init { id: id.to_owned(), epoch });
        if let Some(open) = producer.open.take() {
            producer.completing = Some(open.transaction);
            producer.decided = Some(false);
            self.decide(open, false, now_ms);
            return Err(Refusal::Concurrent);
        }
        Ok(epoch)
    }

    /// Whether the id's last transaction still has markers to write.
    #[must_use]
    pub fn is_completing(&self, id: &str) -> bool {
        let completing = self.producers.get(id).and_then(|p| p.completing);
        completing.is_some_and(|t| self.markers.iter().any(|m| m.transaction == t))
    }

    /// Appends a record in the id's transaction, which begins with its first record.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn produce(
        &mut self,
        (id, epoch): (&str, u32),
        now_ms: i64,
        log_id: LogId,
        mut stored: Stored,
    ) -> Result<i64, Refusal> {
        let transaction = self.open(id, epoch, now_ms)?;
        self.producers.get_mut(id).and_then(|p| p.open.as_mut()).expect("just opened").log_ids.insert(log_id);
        stored.transaction = Some(transaction);
        stored.at_ms = now_ms;
        self.written.entry(transaction).or_default().push((log_id, stored.clone()));
        let offset = self.log_mut(log_id).append(stored);
        self.written_at.entry(transaction).or_default().push(offset);
        Ok(offset)
    }

    /// Does `send_offsets_to_transaction`. Checks member and generation, never ownership, and nothing if both are
    /// blank.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn send_offsets(
        &mut self,
        (id, epoch): (&str, u32),
        now_ms: i64,
        (member, generation): (&str, i32),
        offsets: Vec<(TopicPartition, i64, String)>,
    ) -> Result<(), Refusal> {
        // The group's partition joins the transaction first, so a transaction that is refused below stays open.
        let transaction = self.open(id, epoch, now_ms)?;
        if !self.group.takes_in_transaction(member, generation) {
            return Err(Refusal::Generation);
        }
        if offsets.iter().any(|(_, _, metadata)| metadata.len() > METADATA_BYTES_MAX) {
            return Err(Refusal::Metadata);
        }
        self.generations.insert(transaction, (generation, self.group.generation()));
        self.next_taken += 1;
        let taken = self.next_taken;
        let open = self.producers.get_mut(id).and_then(|p| p.open.as_mut()).expect("just opened");
        for (partition, offset, metadata) in offsets {
            open.offsets.insert(partition, Pending { offset, metadata, taken });
        }
        Ok(())
    }

    /// Commits or aborts the open transaction of an id. The same request may be sent again; the opposite is refused.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn end(&mut self, (id, epoch): (&str, u32), now_ms: i64, commit: bool) -> Result<(), Refusal> {
        let Some(producer) = self.producers.get_mut(id).filter(|p| p.epoch == epoch) else {
            return Err(Refusal::Fenced);
        };
        let Some(open) = producer.open.take() else {
            return match producer.decided {
                Some(decided) if decided != commit => Err(Refusal::State),
                _ => Ok(()),
            };
        };
        producer.completing = Some(open.transaction);
        producer.decided = Some(commit);
        if commit {
            self.events.push(Event::Commit { transaction: open.transaction, epoch });
        }
        self.decide(open, commit, now_ms);
        Ok(())
    }

    /// Writes markers that are due, and aborts transactions that have timed out.
    pub fn tick(&mut self, now_ms: i64) {
        let late = |p: &Producer| p.open.as_ref().is_some_and(|o| o.started_ms + TRANSACTION_TIMEOUT_MS <= now_ms);
        let ids: Vec<String> = self.producers.iter().filter(|(_, p)| late(p)).map(|(id, _)| id.clone()).collect();
        for id in ids {
            // Like the coordinator, it raises the epoch, so the producer is fenced.
            let _ = self.init(&id, now_ms);
        }
        let mut due: Vec<Marker> = Vec::new();
        let mut at = 0;
        while at < self.markers.len() {
            if self.markers[at].at_ms <= now_ms { due.push(self.markers.remove(at)) } else { at += 1 }
        }
        due.sort_by_key(|marker| marker.at_ms);
        for marker in due {
            match marker.target {
                MarkerTarget::Log(log_id) => self.log_mut(log_id).mark(marker.transaction, marker.commit),
                MarkerTarget::Offsets(offsets) if marker.commit => self.take_offsets(offsets),
                MarkerTarget::Offsets(_) => {}
            }
        }
        self.group.tick(now_ms);
    }

    /// Whether a client that requires stable offsets has to wait for this partition's offset.
    #[must_use]
    pub fn has_pending_offset(&self, partition: TopicPartition) -> bool {
        let names = |offsets: &BTreeMap<TopicPartition, Pending>| offsets.contains_key(&partition);
        self.markers.iter().any(|m| matches!(&m.target, MarkerTarget::Offsets(offsets) if names(offsets)))
            || self.producers.values().any(|p| p.open.as_ref().is_some_and(|open| names(&open.offsets)))
    }

    fn open(&mut self, id: &str, epoch: u32, now_ms: i64) -> Result<u64, Refusal> {
        if self.producers.get(id).is_none_or(|p| p.epoch != epoch) {
            return Err(Refusal::Fenced);
        }
        if self.is_completing(id) {
            return Err(Refusal::Concurrent);
        }
        let next = &mut self.next_transaction;
        let writers = &mut self.writers;
        let producer = self.producers.get_mut(id).expect("looked up above");
        let open = producer.open.get_or_insert_with(|| {
            *next += 1;
            writers.insert(*next, id.to_owned());
            producer.decided = None;
            Open { transaction: *next, started_ms: now_ms, log_ids: BTreeSet::new(), offsets: BTreeMap::new() }
        });
        Ok(open.transaction)
    }

    fn decide(&mut self, open: Open, commit: bool, now_ms: i64) {
        let Open { transaction, log_ids, offsets, .. } = open;
        if commit {
            self.commits.push(transaction);
            let sent = offsets.iter().map(|(p, pending)| (*p, pending.offset, pending.metadata.clone())).collect();
            self.sent.insert(transaction, sent);
        }
        let targets = log_ids.into_iter().map(MarkerTarget::Log).chain([MarkerTarget::Offsets(offsets)]);
        let (slow_until_ms, slow_ms) = self.slow_markers;
        let slow_ms = if slow_until_ms > now_ms { slow_ms } else { 0 };
        self.markers_are_late = false;
        for target in targets {
            let slow = self.rng.chance(5);
            let usual_ms = if slow { 800 } else { 8 };
            let at_ms = now_ms + self.rng.range(0, slow_ms.max(usual_ms));
            self.markers_are_late |= at_ms > now_ms + usual_ms;
            self.markers.push(Marker { at_ms, transaction, commit, target });
        }
    }
}
