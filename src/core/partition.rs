//! The life of one partition, from its assignment to its release.

use std::collections::VecDeque;

use super::bugs::{self, Bug};
use super::key_table::KeyTable;
use super::ownership::Ownership;
use super::payload::Payload;
use super::start_marker::StartMarker;
use super::types::{Millis, TopicPartition};

/// Longest time between two commits of progress while nothing fires.
pub(super) const COMMIT_INTERVAL_MS: i64 = 30_000;

/// How far a partition has come. Each step waits for one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// For the group's committed metadata.
    Metadata,
    /// For a place in a batch for its barrier.
    Barrier,
    /// For that batch to settle.
    BarrierSent,
    /// For the record at this offset, or one after it.
    Loading(i64),
    /// For the topic's `since`.
    Since,
    /// For its siblings, whose floors may say since when.
    Siblings,
    /// For a place in a batch for its floor.
    StartMarker(StartMarker),
    /// For that batch to settle.
    StartMarkerSent(StartMarker),
    /// For schedules to be due.
    Live,
    /// For its batches to settle and its clean mark to be committed, at most until then.
    Releasing {
        /// Give up cleanly no later.
        until: Millis,
        /// The partition can be marked clean: its own barrier was committed.
        clean_commit_due: bool,
        /// The group waits for the release.
        revoked: bool,
    },
}

/// A batch whose records the consumer has not read past.
#[derive(Debug)]
pub struct Unread {
    /// The batch, as words know it.
    pub batch: u32,
    /// Its highest offset in this partition.
    pub offset: i64,
    /// Slot, identity, and whether the record ended the word.
    pub items: Vec<(u32, i64, bool)>,
}

/// A partition that this instance owns.
#[derive(Debug)]
pub struct PartitionState<P> {
    /// Which.
    pub id: TopicPartition,
    /// Its name in marks and floors.
    pub partition_hash: u64,
    /// How far it has come.
    pub stage: Stage,
    /// The fold over its log.
    pub keys: KeyTable<P>,
    /// The next offset to read.
    pub position: i64,
    /// What its committed metadata says, or will say at the next commit.
    pub ownership: Ownership,
    /// The group's metadata names us as the owner: a barrier of ours was committed.
    pub claimed: bool,
    /// The offset as committed: what is committed again until the partition is live.
    pub committed: i64,
    /// The barrier's offset, once it is known.
    pub barrier: Option<i64>,
    /// The last floor read or written.
    pub start_marker: Option<StartMarker>,
    /// When it went live: what was due by then is missed.
    pub live_at: Millis,
    /// Batches that are committed but not read, in commit order.
    pub unread: VecDeque<Unread>,
    /// The fence list has been worked off and waits to be dropped from the metadata.
    pub fence_done: bool,
    /// When progress is next committed if nothing fires.
    pub next_commit_at: Millis,
    /// Local midnight plus `SINCE_DELTA`, as last told.
    pub leftover_cutoff: Millis,
    /// Its log begins later than what was read of it. It is read again as soon as no batch touches it.
    pub is_trimmed: bool,
}

impl<P: Payload> PartitionState<P> {
    /// A partition that was just assigned.
    pub fn new(id: TopicPartition, partition_hash: u64, keys: KeyTable<P>, leftover_cutoff: Millis) -> Self {
        Self {
            id,
            partition_hash,
            stage: Stage::Metadata,
            keys,
            position: 0,
            ownership: Ownership::default(),
            claimed: false,
            committed: 0,
            barrier: None,
            start_marker: None,
            live_at: Millis(i64::MIN),
            unread: VecDeque::new(),
            fence_done: false,
            next_commit_at: Millis(i64::MAX),
            leftover_cutoff,
            is_trimmed: false,
        }
    }

    /// Forgets what was read, for a reading from the beginning up to a new barrier.
    pub fn reread(&mut self, keys: KeyTable<P>) {
        self.keys = keys;
        self.position = 0;
        self.barrier = None;
        self.start_marker = None;
        self.is_trimmed = false;
        self.unread.clear();
        self.stage = Stage::Barrier;
    }

    /// The offset to commit: never negative, and never past what a takeover has taken in.
    pub fn offset(&self) -> i64 {
        if self.is_loaded() { self.position.max(self.committed) } else { self.committed }
    }

    /// It has been read further than is committed, and it is time to say so.
    pub fn has_progress(&self, now: Millis) -> bool {
        self.may_fire() && self.next_commit_at <= now && self.offset() > self.committed
    }

    /// Everything before its barrier has been read.
    pub fn is_loaded(&self) -> bool {
        self.barrier.is_some_and(|barrier| self.position > barrier)
    }

    /// It is still reading what lies before its barrier, or has not begun.
    pub fn is_before_loaded(&self) -> bool {
        matches!(self.stage, Stage::Metadata | Stage::Barrier | Stage::BarrierSent | Stage::Loading(_) | Stage::Since)
    }

    /// Whether its words may fire.
    pub fn is_live(&self) -> bool {
        self.stage == Stage::Live || (bugs::on(Bug::FireBeforeBarrier) && matches!(self.stage, Stage::Loading(_)))
    }

    /// Changes whenever entries lie in other slots than before: then a listing cannot go on.
    pub fn cursor_tag(&self) -> Option<i64> {
        const MOVES: i64 = 64;
        // Far beyond any offset.
        self.barrier.map(|barrier| barrier | (i64::from(self.keys.moves()) % MOVES) << 56)
    }

    /// Whether batches of its words may be formed.
    pub fn may_fire(&self) -> bool {
        self.is_live() && !self.is_trimmed
    }

    /// Clears what the consumer has now read past.
    pub fn settle_read(&mut self) {
        while let Some(unread) = self.unread.front().filter(|u| u.offset < self.position) {
            let batch = unread.batch;
            for (slot, origin_offset, ended) in &unread.items {
                self.keys.read_past(*slot, *origin_offset, batch, *ended);
            }
            self.unread.pop_front();
        }
    }
}
