//! The state of one partition, from its assignment to its release.

use std::collections::VecDeque;

use super::bugs::{self, Bug};
use super::freshness::Freshness;
use super::io::RequestId;
use super::key_table::{Committed, KeyTable};
use super::ownership::Ownership;
use super::payload::Payload;
use super::progress::Repair;
use super::start_marker::StartMarker;
use super::types::{Millis, TopicPartition};

/// Interval of offset commits while nothing fires.
pub(super) const COMMIT_INTERVAL_MS: i64 = 30_000;

/// The stage of a partition. In each stage it waits for one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It waits for the metadata of the group's committed offset.
    Metadata,
    /// It waits for a batch for its barrier, a record that is committed together with our ownership.
    Barrier,
    /// It waits for the outcome of the barrier's batch.
    BarrierSent,
    /// It waits for the consumer to read past the barrier.
    Loading,
    /// It waits for the topic's `since`, the time before which schedules may be leftovers.
    Since,
    /// It waits for the topic's other partitions of this instance, whose start markers may have the `since`.
    Siblings,
    /// It waits for the answer whether the log still has the canary of its restored fold.
    CanaryCheck,
    /// It waits for a batch for its start marker.
    StartMarker(StartMarker),
    /// It waits for the outcome of the start marker's batch.
    StartMarkerSent(StartMarker),
    /// It waits for schedules to be due: the partition is live.
    Live,
    /// It waits for its batches to settle and for the commit that declares it clean.
    Releasing {
        /// When the instance gives up and rejoins instead.
        until: Millis,
        /// The clean commit is needed, because our barrier was committed.
        clean_commit_due: bool,
        /// The group waits for the release, since it has revoked the partition.
        revoked: bool,
    },
}

/// A committed batch whose records the consumer has not read past.
#[derive(Debug)]
pub(super) struct UnreadBatch {
    /// Its [`short_batch_id`](super::in_flight::short_batch_id).
    pub batch: u32,
    /// The highest offset of its records in this partition. Without a report of it, the batch is cleared only record by
    /// record, as they are read.
    pub last_offset: Option<i64>,
    /// Slot, origin offset, and what was written.
    pub items: Vec<(u32, i64, Committed)>,
    /// Slots of progress records, and their repairs.
    pub progress: Vec<(u32, Option<Repair>)>,
}

/// A partition that this instance owns.
#[derive(Debug)]
pub(super) struct OwnedPartition<P> {
    pub id: TopicPartition,
    /// Identifies it in origin headers and start markers.
    pub partition_hash: u64,
    pub stage: Stage,
    /// The fold of its log.
    pub keys: KeyTable<P>,
    /// The next offset to read.
    pub position: i64,
    /// How old the fold is.
    pub freshness: Freshness,
    /// When the next canary is written; `None` before it is live, and if none are written.
    pub next_canary_at: Option<Millis>,
    /// The fold was restored, and it is not known yet whether it may be used.
    pub is_unproven: bool,
    /// The fold was restored, and may be used.
    pub is_warm: bool,
    /// A restored fold may say more than its position: what is read below this offset was partly known.
    pub known_to: i64,
    /// Schedules of records below the start marker that are due before this second were dropped as leftovers.
    pub dropped_before_s: u64,
    /// The metadata of the next commit.
    pub ownership: Ownership,
    /// A barrier of ours was committed, so the group's metadata names us as the owner.
    pub barrier_committed: bool,
    /// The group's committed offset. Batches commit it again until the partition is loaded.
    pub committed: i64,
    /// The committed offset when it was assigned: an engine has accepted what is before it.
    pub accepted_before: i64,
    /// Due times of schedules that recur are still being computed after loading, so nothing fires.
    pub awaits_dates: bool,
    /// Until then no progress record is rewritten: a broker rejected one.
    pub repairs_after: Millis,
    /// The barrier's offset, once it is known.
    pub barrier: Option<i64>,
    /// The last start marker read or written.
    pub start_marker: Option<StartMarker>,
    /// When it went live: schedules that were due by then are *missed* ones.
    pub live_at: Millis,
    /// Committed batches whose records the consumer has not read past, in commit order.
    pub unread_batches: VecDeque<UnreadBatch>,
    /// The unanswered request to fence its former owners. A late answer to an earlier assignment's request must not
    /// drop the present owners from the metadata.
    pub fence_request: Option<RequestId>,
    /// Fencing was attempted, and the next commit drops the former owners from the metadata. Owners that could not be
    /// fenced are dropped too: their transactions time out.
    pub fence_answered: bool,
    /// When offsets are next committed if nothing fires.
    pub next_commit_at: Millis,
    /// Local midnight plus `SINCE_DELTA` days, as the shell last sent it.
    pub leftover_cutoff: Millis,
    /// Records in memory were deleted from the log's beginning: the log is read again once no batch concerns it.
    pub is_trimmed: bool,
}

impl<P: Payload> OwnedPartition<P> {
    /// Returns the state of a partition that was just assigned.
    pub(super) fn new(
        id: TopicPartition,
        partition_hash: u64,
        keys: KeyTable<P>,
        leftover_cutoff: Millis,
        limit_ms: i64,
    ) -> Self {
        Self {
            id,
            partition_hash,
            stage: Stage::Metadata,
            keys,
            position: 0,
            freshness: Freshness::cold(limit_ms),
            next_canary_at: None,
            is_unproven: false,
            is_warm: false,
            known_to: 0,
            dropped_before_s: 0,
            ownership: Ownership::default(),
            barrier_committed: false,
            committed: 0,
            accepted_before: 0,
            awaits_dates: false,
            repairs_after: Millis(i64::MIN),
            barrier: None,
            start_marker: None,
            live_at: Millis(i64::MIN),
            unread_batches: VecDeque::new(),
            fence_request: None,
            fence_answered: false,
            next_commit_at: Millis(i64::MAX),
            leftover_cutoff,
            is_trimmed: false,
        }
    }

    /// Forgets the log, which is read again from its beginning up to a new barrier.
    pub(super) fn reread(&mut self, keys: KeyTable<P>, limit_ms: i64) {
        self.keys = keys;
        self.position = 0;
        self.freshness = Freshness::cold(limit_ms);
        self.next_canary_at = None;
        self.is_unproven = false;
        self.is_warm = false;
        self.known_to = 0;
        self.dropped_before_s = 0;
        self.barrier = None;
        self.start_marker = None;
        self.is_trimmed = false;
        self.unread_batches.clear();
        self.stage = Stage::Barrier;
    }

    /// Returns the offset to commit: never negative, and unchanged until the partition is loaded.
    pub(super) fn offset(&self) -> i64 {
        if self.is_loaded() { self.position.max(self.committed) } else { self.committed }
    }

    /// Returns whether the consumer is past the committed offset and the next commit is due.
    pub(super) fn has_progress(&self, now: Millis) -> bool {
        self.may_fire() && self.next_commit_at <= now && self.offset() > self.committed
    }

    /// Returns whether everything up to its barrier has been read.
    pub(super) fn is_loaded(&self) -> bool {
        self.barrier.is_some_and(|barrier| self.position > barrier)
    }

    /// Returns whether it is still before [`Stage::Siblings`], so its start marker may be unknown.
    pub(super) fn is_before_siblings(&self) -> bool {
        matches!(
            self.stage,
            Stage::Metadata | Stage::Barrier | Stage::BarrierSent | Stage::Loading | Stage::CanaryCheck | Stage::Since
        )
    }

    /// Returns whether its schedules fire.
    pub(super) fn is_live(&self) -> bool {
        self.stage == Stage::Live || (bugs::on(Bug::FireBeforeBarrier) && matches!(self.stage, Stage::Loading))
    }

    /// Returns a tag that changes whenever entries move to other slots, which makes cursors of listings expire.
    pub(super) fn cursor_tag(&self) -> Option<i64> {
        const MOVES: i64 = 64;
        // Offsets stay below 2^56.
        self.barrier.map(|barrier| barrier | (i64::from(self.keys.moves()) % MOVES) << 56)
    }

    /// Returns whether it may join batches of firings.
    pub(super) fn may_fire(&self) -> bool {
        self.may_fire_once_dated() && !self.awaits_dates
    }

    /// Returns whether it may join batches of firings once the due times of schedules that recur are known.
    pub(super) fn may_fire_once_dated(&self) -> bool {
        self.is_live() && !self.is_trimmed
    }

    /// Returns the time before which the record at an offset has no occurrence: none, unless the record may be a
    /// leftover.
    pub(super) fn owed_since(&self, origin_offset: i64) -> Millis {
        match self.start_marker {
            Some(marker) if origin_offset < marker.offset => marker.since.min(self.leftover_cutoff),
            _ => Millis(i64::MIN),
        }
    }

    /// Clears the outstanding records of batches that the consumer has read past.
    pub(super) fn clear_read(&mut self) {
        let mut at = 0;
        while let Some(next) = self.unread_batches.get(at) {
            // Batches of several transactors end in any order.
            let is_read = next.last_offset.is_some_and(|last| last < self.position);
            let Some(read) = is_read.then(|| self.unread_batches.remove(at)).flatten() else {
                at += 1;
                continue;
            };
            let batch = read.batch;
            for (slot, origin_offset, written) in &read.items {
                self.keys.read_past(*slot, *origin_offset, batch, *written);
            }
            for (slot, repair) in &read.progress {
                self.keys.progress_settled(*slot, batch, *repair);
            }
        }
    }
}
