//! Warm takeovers: a partition goes on from a fold that was restored, instead of reading its whole log.
//!
//! Nothing of the takeover changes but the offset from which it reads. After the barrier has been read, the fold must
//! prove that it has missed no tombstone ([`freshness`](super::freshness)), and that the log is still the one that it
//! was read from: a second reader finds its canary. Otherwise the partition is read again from its beginning.

use super::batch::Kind;
use super::canary::{Canary, canary_key};
use super::freshness::{self, Known};
use super::in_flight::Purpose;
use super::io::Output;
use super::origin::CANARY_PREFIX;
use super::partition::Stage;
use super::payload::Payload;
use super::snapshot::{Fold, RestoreError};
use super::types::Record;
use super::{Millis, OwnedPartition, Scheduler, TopicPartition, headers, origin};

/// Why a partition whose fold was restored is read from its beginning.
const TOO_OLD: &str = "its snapshot is too old: a tombstone may be gone that it needs";
const OTHER_LOG: &str = "the log has not got the canary of its snapshot";

impl<P: Payload> Scheduler<P> {
    /// Lets a partition that was just assigned go on from a fold, before its first record: the consumer has to read it
    /// from [`Fold::position`] on.
    ///
    /// # Errors
    /// If it cannot: then the consumer has to read it from its beginning.
    pub fn restore(&mut self, id: TopicPartition, mut fold: Fold<P>) -> Result<(), RestoreError> {
        fold.freshness.limit(self.canary_limit_ms(id.topic));
        self.check_fold(self.now, id, &fold)?;
        let untouched = |owned: &OwnedPartition<P>| owned.stage == Stage::Metadata && owned.position == 0;
        if !self.partitions.get(&id).is_some_and(untouched) {
            return Err(RestoreError::TooLate);
        }
        let mut targets = Vec::with_capacity(fold.targets.len());
        for name in &fold.targets {
            let (target, is_new) = self.targets.intern(name);
            if is_new {
                self.check_target(target);
            }
            targets.push(target);
        }
        let owned = self.partitions.get_mut(&id).ok_or(RestoreError::TooLate)?;
        let Fold { mut keys, head, known_to, freshness, .. } = fold;
        keys.map_targets(&targets);
        owned.keys = keys;
        owned.position = head.position;
        owned.known_to = known_to;
        owned.start_marker = Some(head.start_marker);
        owned.dropped_before_s = head.dropped_before_s;
        owned.freshness = freshness;
        owned.is_unproven = true;
        Ok(())
    }

    /// Checks whether a partition could go on from a fold at `now`, before it is assigned. Its age is checked again
    /// once everything has been read.
    ///
    /// # Errors
    /// If it could not.
    pub fn check_fold(&self, now: Millis, id: TopicPartition, fold: &Fold<P>) -> Result<(), RestoreError> {
        let topic = self.names.topics.get(usize::from(id.topic)).ok_or(RestoreError::OtherPartition)?;
        if fold.partition_hash != origin::partition_hash(&self.names.cluster, topic, id.number) {
            return Err(RestoreError::OtherPartition);
        }
        if fold.settings_hash != self.settings_hash() {
            return Err(RestoreError::OtherSettings);
        }
        let mut freshness = fold.freshness.clone();
        freshness.limit(self.canary_limit_ms(id.topic));
        if freshness.is_young(now) { Ok(()) } else { Err(RestoreError::TooOld) }
    }

    pub(super) fn canary_limit_ms(&self, topic: u16) -> i64 {
        self.canary_limits_ms.get(&topic).copied().unwrap_or(0)
    }

    pub(super) fn on_canary_limit(&mut self, topic: u16, limit_ms: i64) {
        self.canary_limits_ms.insert(topic, limit_ms);
        let interval_ms = freshness::canary_interval_ms(limit_ms);
        let now = self.now;
        for owned in self.partitions.values_mut().filter(|owned| owned.id.topic == topic) {
            owned.freshness.limit(limit_ms);
            if owned.stage == Stage::Live {
                let soonest = interval_ms.map(|interval_ms| now.plus(interval_ms));
                owned.next_canary_at = soonest.map(|soonest| owned.next_canary_at.unwrap_or(now).min(soonest));
            }
        }
    }

    /// Takes in a canary, or any other record under such a key.
    pub(super) fn canary(&mut self, record: &Record<'_>, label: &[u8]) {
        let owner = self.owner();
        let (now, limit_ms) = (self.now, self.canary_limit_ms(record.partition.topic));
        let Some(owned) = self.partitions.get_mut(&record.partition) else { return };
        let mut values = record.headers.iter().filter(|header| header.name == headers::CANARY);
        let canary = values.next().and_then(|header| Canary::decode(header.value?, owned.partition_hash));
        let (Some(canary), Ok(label)) = (canary.filter(|_| record.value.is_none()), std::str::from_utf8(label)) else {
            return;
        };
        // One that it wrote when it last had the partition is older than this fold.
        let is_of_takeover = owned.barrier.is_some_and(|barrier| barrier < record.offset);
        let is_own = is_of_takeover && label.rsplit_once('.').is_some_and(|(writer, _)| writer == owner);
        let known = Known { offset: record.offset, label: label.into() };
        owned.freshness.read(known, canary.at, is_own, now, limit_ms);
    }

    /// Returns true if a partition that was just loaded has to wait for a proof of its fold, or is read again.
    pub(super) fn must_prove_fold(&mut self, id: TopicPartition) -> bool {
        let now = self.now;
        let Some(owned) = self.partitions.get_mut(&id).filter(|owned| owned.is_unproven) else { return false };
        if !owned.freshness.is_young(now) {
            self.reread(id, TOO_OLD);
            return true;
        }
        let Some(Known { offset, label }) = owned.freshness.proof().cloned() else {
            self.reread(id, TOO_OLD);
            return true;
        };
        owned.stage = Stage::CanaryCheck;
        self.outputs.push_back(Output::CheckCanary { partition: id, offset, key: canary_key(&label) });
        true
    }

    pub(super) fn on_canary_checked(&mut self, id: TopicPartition, found: bool) {
        let now = self.now;
        let Some(owned) = self.partitions.get_mut(&id).filter(|owned| owned.stage == Stage::CanaryCheck) else {
            return;
        };
        if !found {
            return self.reread(id, OTHER_LOG);
        }
        if !owned.freshness.is_young(now) {
            return self.reread(id, TOO_OLD);
        }
        owned.is_unproven = false;
        owned.is_warm = true;
        self.loaded(id);
    }

    /// Writes the canaries that are due.
    pub(super) fn canaries(&mut self) -> bool {
        let now = self.now;
        let ids = self.ids(|owned| owned.may_fire() && owned.next_canary_at.is_some_and(|at| at <= now));
        let mut batch = self.new_batch();
        for id in &ids {
            let interval_ms = freshness::canary_interval_ms(self.canary_limit_ms(id.topic));
            let read_to = self.decided_from(*id);
            let label = format!("{}.{}", self.owner(), batch.id);
            let Some(owned) = self.partitions.get_mut(id) else { continue };
            owned.next_canary_at = interval_ms.map(|interval_ms| now.plus(interval_ms));
            let value = Canary { at: now, read_to }.encode(owned.partition_hash);
            batch.push::<P>(*id, -1, Kind::Canary { label, value }, None);
        }
        self.send(batch, Purpose::Canary, ids, Vec::new())
    }

    /// Returns the offset up to which a partition had been read when its oldest batch in flight was formed.
    fn decided_from(&self, id: TopicPartition) -> i64 {
        let in_flight = self.batches.in_flight.iter().flat_map(|batch| &batch.offsets);
        let formed = in_flight.filter(|(partition, _)| *partition == id).map(|(_, offset)| *offset).min();
        let position = self.partitions.get(&id).map_or(0, |owned| owned.position);
        formed.map_or(position, |formed| formed.min(position))
    }
}

/// Returns the label of a canary's key, if it is one.
pub(super) fn canary_label(key: &[u8]) -> Option<&[u8]> {
    key.strip_prefix(CANARY_PREFIX)
}
