//! The latest record of each key of a partition, and the schedules among them in due order.
//!
//! A user's record is the latest of its key until a newer one replaces it or an engine tombstone ends it. An engine
//! record is *outstanding* from the decision to write it until it is known to be aborted or the consumer has read past
//! it; a key has at most one. If an engine record comes after the latest record in the log, but was written for an
//! older one, it has *overtaken* the latest record: compaction keeps only the last record of a key and may remove it,
//! so the engine must *rewrite* it: write a copy of it, or of a cancel a tombstone.

mod entry;
mod store;
mod timed;
mod waiting;

use std::collections::{BTreeMap, VecDeque};

pub(super) use entry::{KeyEntry, NewEntry, UserRequest};
pub(super) use timed::Committed;

use super::bugs::{self, Bug};
use super::due::Due;
use super::fold::{Effect, Writer, effect};
use super::key_index::KeyIndex;
use super::payload::Payload;
use super::progress::ProgressTable;
use super::reason::Reason;
use super::types::Millis;
use super::wait_queues::{Queue, RetryGroup, Size, WaitQueues};
use entry::OVERTAKEN;
use timed::Timed;

/// Schedules of one second that [`KeyTable::first_by_due`] compares at most.
const GROUP_LOOKED_AT_MAX: usize = 10_000;

/// The entries of one partition, each in a slot that it keeps until the table shrinks.
#[derive(Debug)]
pub(super) struct KeyTable<P> {
    slots: Vec<Option<KeyEntry<P>>>,
    free: Vec<u32>,
    index: KeyIndex,
    queues: WaitQueues,
    /// By slot: what schedules of new forms have beside a due time.
    timed: BTreeMap<u32, Timed>,
    progress: ProgressTable,
    /// The first due times of schedules that recur are not all known yet, so nothing fires: missed schedules fire
    /// first.
    awaits_dates: bool,
    /// When the entries of each retry group are next retried.
    retry_times: BTreeMap<RetryGroup, Millis>,
    /// Slots that may hold an overtaken entry; checked again when taken.
    rewrites: VecDeque<u32>,
    /// Slots that may hold a cancel, until loading ends or no engine record can overtake it any more.
    cancels: Vec<u32>,
    /// Slots that may hold an invalid record or an overtaken cancel; checked when loading ends.
    non_schedules: Vec<u32>,
    /// How often entries have moved to other slots.
    moves: u8,
    /// Cancels and invalid records are kept too, until the partition goes live.
    keeps_all: bool,
    pending: usize,
    parked: usize,
    bytes: usize,
    /// Invalid records are kept until they are moved to the dead-letter topic.
    has_dead_letter_topic: bool,
    hash_seed: u64,
}

impl<P: Payload> KeyTable<P> {
    /// Returns an empty table of a partition that is not live yet.
    pub(super) fn new(hash_seed: u64, has_dead_letter_topic: bool) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            index: KeyIndex::default(),
            queues: WaitQueues::default(),
            timed: BTreeMap::new(),
            progress: ProgressTable::default(),
            awaits_dates: false,
            retry_times: BTreeMap::new(),
            rewrites: VecDeque::new(),
            cancels: Vec::new(),
            non_schedules: Vec::new(),
            moves: 0,
            keeps_all: true,
            pending: 0,
            parked: 0,
            bytes: 0,
            has_dead_letter_topic,
            hash_seed,
        }
    }

    /// Returns the number of schedules in memory.
    pub(super) fn pending(&self) -> usize {
        self.pending
    }

    /// Returns the estimated memory of all entries and progress records, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes + self.progress.bytes()
    }

    /// Returns the number of *parked* entries: they wait for their target, for a retry or for their dead letter.
    pub(super) fn parked(&self) -> usize {
        self.parked
    }

    /// Returns offset and reason of the schedules whose zone or syntax this version does not know, by offset.
    pub(super) fn unknown(&self) -> Vec<(i64, Reason)> {
        // They are in no queue.
        let mut unknown: Vec<_> = self
            .slots
            .iter()
            .flatten()
            .filter_map(|entry| match entry.request {
                UserRequest::Unknown(reason) => Some((entry.origin_offset, reason)),
                UserRequest::Schedule { .. } | UserRequest::Cancel | UserRequest::Invalid(_) => None,
            })
            .collect();
        unknown.sort_unstable();
        unknown
    }

    /// Returns the first schedules of one size by due time, without parked ones: `limit` of them, or more:
    /// none that is due earlier is left out.
    pub(super) fn first_by_due(&self, size: Size, limit: usize) -> Vec<&KeyEntry<P>> {
        let mut first = Vec::new();
        for group in self.queues.due_groups(size) {
            if first.len() >= limit {
                break;
            }
            first.extend(group.map(|slot| self.entry(slot)).take(GROUP_LOOKED_AT_MAX));
        }
        first
    }

    /// Iterates over the schedules that are due from a second since 1970 on: small ones, then large ones, each in due
    /// order.
    pub(super) fn due_from(&self, epoch_s: u64) -> impl Iterator<Item = &KeyEntry<P>> {
        self.queues.due_from(epoch_s).map(|slot| self.entry(slot))
    }

    pub(super) fn slot_of(&self, key: &[u8]) -> Option<u32> {
        self.find(key)
    }

    /// Returns the earliest due time of a schedule of these sizes, without parked ones. It may be earlier by less than
    /// a second, until that second has begun.
    pub(super) fn next_due(&self, sizes: &[Size]) -> Option<Due> {
        self.queues.next_due(sizes)
    }

    /// Returns the number of schedules that are due by `now` and wait for a batch.
    pub(super) fn overdue(&self, now: Millis) -> usize {
        let due = u64::try_from(now.0).map_or(0, |now_ms| self.queues.count_due(now_ms));
        due + self.queues.count(Queue::Isolated)
    }

    /// Returns the number of slots, free ones included.
    pub(super) fn slots(&self) -> u32 {
        self.slots.len() as u32
    }

    pub(super) fn get(&self, slot: u32) -> Option<&KeyEntry<P>> {
        self.slots.get(slot as usize)?.as_ref()
    }

    /// Iterates over the targets of all schedules, with repeats.
    pub(super) fn targets(&self) -> impl Iterator<Item = u32> {
        self.slots.iter().flatten().filter_map(|entry| match entry.request {
            UserRequest::Schedule { target, .. } => Some(target),
            _ => None,
        })
    }

    /// Returns whether some entry's user record has an offset below `offset`.
    pub(super) fn reaches_below(&self, offset: i64) -> bool {
        self.slots.iter().flatten().any(|entry| entry.origin_offset < offset)
    }

    /// Folds a user's record. Returns true if it replaced or cancelled a schedule for which no engine record was
    /// outstanding (a firing, a copy or a dead letter).
    pub(super) fn user_record(&mut self, key: &[u8], new: NewEntry<P>) -> bool {
        let Some(slot) = self.find(key) else {
            let is_kept = match new.request {
                UserRequest::Schedule { .. } | UserRequest::Unknown(_) => true,
                UserRequest::Cancel => self.keeps_all,
                UserRequest::Invalid(_) => self.keeps_all || self.has_dead_letter_topic,
            };
            if is_kept {
                let slot = self.insert(new);
                self.enqueue_or_drop(slot);
                self.apply_progress(key);
            }
            return false;
        };
        let entry = self.entry(slot);
        let ended_pending = matches!(entry.request, UserRequest::Schedule { .. }) && !entry.is_outstanding();
        self.replace(slot, new);
        self.enqueue_or_drop(slot);
        // After a restore its progress may be known before the record is read again.
        self.apply_progress(key);
        if !self.keeps_all {
            self.check_progress(key);
        }
        ended_pending
    }

    /// Folds an engine record: a tombstone, which has no `read`, or a copy.
    pub(super) fn engine_record(&mut self, key: &[u8], writer: &Writer, read: Option<NewEntry<P>>) {
        let found = self.find(key);
        if let Some(slot) = found {
            // After loading, an engine record in the log is ours, and a key has at most one outstanding.
            self.entry_mut(slot).outstanding_batch = 0;
        }
        let known = found.map(|slot| self.entry(slot).origin_offset);
        let mut effect = effect(known, writer, read.is_some());
        if bugs::on(Bug::CopyRevivesCancelled)
            && read.is_some()
            && effect == Effect::Overtakes
            && found.is_some_and(|slot| self.entry(slot).request == UserRequest::Cancel)
        {
            effect = Effect::Replaces;
        }
        match (effect, found, read) {
            (Effect::Replaces, None, Some(new)) => {
                let slot = self.insert(new);
                self.enqueue_or_drop(slot);
                self.apply_progress(key);
            }
            (Effect::Replaces, Some(slot), Some(new)) => {
                self.replace(slot, new);
                self.enqueue_or_drop(slot);
                self.apply_progress(key);
            }
            (Effect::Confirms, Some(slot), read) => {
                self.entry_mut(slot).set(OVERTAKEN, false);
                if let Some(new) = read {
                    self.take_content(slot, new);
                }
                self.enqueue_or_drop(slot);
                self.apply_progress(key);
            }
            (Effect::Ends, Some(slot), _) => self.remove(slot),
            (Effect::Overtakes, Some(slot), _) => self.overtaken(slot),
            _ => {}
        }
        if !self.keeps_all {
            self.check_progress(key);
        }
    }

    /// Forgets cancels before a barrier of our group at `offset`, to save memory. During loading a cancel is kept
    /// because a later engine copy of the schedule that it cancelled would revive the key. After the barrier no such
    /// copy can follow for a cancel before it: the barrier's writer had read that cancel before it decided any record,
    /// and no record of a former owner is after the barrier.
    pub(super) fn passed_barrier(&mut self, offset: i64) {
        if !self.keeps_all {
            return;
        }
        for slot in std::mem::take(&mut self.cancels) {
            let Some(entry) = self.get(slot).filter(|entry| entry.request == UserRequest::Cancel) else { continue };
            if entry.has(OVERTAKEN) {
                self.non_schedules.push(slot);
            } else if entry.origin_offset < offset && !entry.is_outstanding() {
                self.remove(slot);
            } else {
                self.cancels.push(slot);
            }
        }
    }

    /// Ends loading: from now on, cancels and invalid records are kept only while they must be rewritten or moved
    /// to the dead-letter topic. Returns offset and reason of the invalid ones.
    pub(super) fn finish_loading(&mut self) -> Vec<(i64, Reason)> {
        self.keeps_all = false;
        self.awaits_dates = true;
        self.check_all_progress();
        let mut invalid = Vec::new();
        let cancels = std::mem::take(&mut self.cancels);
        for slot in std::mem::take(&mut self.non_schedules).into_iter().chain(cancels) {
            let Some(entry) = self.get(slot) else { continue };
            if let UserRequest::Invalid(reason) = entry.request {
                invalid.push((entry.origin_offset, reason));
            }
            self.enqueue_or_drop(slot);
        }
        // A slot that was reused is in the list twice.
        invalid.sort_unstable_by_key(|(origin_offset, _)| *origin_offset);
        invalid.dedup();
        invalid
    }

    /// Drops leftovers: schedules that are below `offset` and due before `end` seconds since 1970. Returns their
    /// number.
    pub(super) fn drop_leftovers(&mut self, offset: i64, end: u64) -> u64 {
        let mut dropped = 0;
        for slot in self.queues.due_before(end).collect::<Vec<_>>() {
            if self.entry(slot).origin_offset < offset && !self.entry(slot).recurs() {
                self.remove(slot);
                dropped += 1;
            }
        }
        dropped
    }

    /// Remembers that `batch` has an engine record for this entry, which the caller has removed from its queue.
    pub(super) fn mark_outstanding(&mut self, slot: u32, batch: u32) {
        let entry = self.entry_mut(slot);
        debug_assert!(!entry.is_outstanding() && !entry.is_waiting(), "one engine record for a key at a time");
        entry.outstanding_batch = batch;
    }

    /// Queues the entry again after its batch was aborted: no engine record is outstanding.
    pub(super) fn aborted(&mut self, slot: u32, batch: u32) {
        if self.get(slot).is_some_and(|entry| entry.outstanding_batch == batch) {
            self.entry_mut(slot).outstanding_batch = 0;
            if self.entry(slot).has(OVERTAKEN) {
                self.rewrites.push_back(slot);
            }
            self.check_progress_of(slot);
            self.enqueue_or_drop(slot);
        }
    }

    /// Clears the entry's outstanding record after the consumer has read past the batch. If that did not deliver the
    /// record, compaction has removed it: there is a newer record for the key, or it is a tombstone older than
    /// `delete.retention.ms`.
    pub(super) fn read_past(&mut self, slot: u32, origin_offset: i64, batch: u32, written: Committed) {
        let Some(entry) = self.get(slot).filter(|entry| entry.outstanding_batch == batch) else { return };
        let is_latest = entry.origin_offset == origin_offset;
        self.entry_mut(slot).outstanding_batch = 0;
        self.check_progress_of(slot);
        match written {
            Committed::End if is_latest => self.remove(slot),
            Committed::Progress { position, failed } if is_latest => {
                self.advance(slot, position, failed.map(|reason| reason.code().into()));
                self.remember_progress(slot);
            }
            Committed::Nothing | Committed::End | Committed::Progress { .. } => {
                if self.entry(slot).has(OVERTAKEN) {
                    self.rewrites.push_back(slot);
                }
                self.enqueue_or_drop(slot);
            }
        }
    }

    /// Returns whether the first due times of schedules that recur are still being computed after loading.
    pub(super) fn awaits_dates(&mut self) -> bool {
        self.awaits_dates = self.awaits_dates && self.first_undated().is_some();
        self.awaits_dates
    }

    fn overtaken(&mut self, slot: u32) {
        if !bugs::on(Bug::NoRewrite) {
            self.entry_mut(slot).set(OVERTAKEN, true);
            self.rewrites.push_back(slot);
        }
        self.enqueue_or_drop(slot);
    }
}
