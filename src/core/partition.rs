//! The life of one partition, from its assignment to its release.

use std::collections::VecDeque;

use super::bugs::{self, Bug};
use super::floor::Floor;
use super::io::{Millis, Partition};
use super::owner::Ownership;
use super::payload::Payload;
use super::words::Words;

/// How far a partition has come. Each step waits for one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
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
    Floor(Floor),
    /// For that batch to settle.
    FloorSent(Floor),
    /// For schedules to be due.
    Live,
    /// For its batches to settle and its clean mark to be committed, at most until then.
    Releasing {
        /// Give up cleanly no later.
        until: Millis,
        /// The partition can be marked clean: its own barrier was committed.
        marked: bool,
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
pub struct Life<P> {
    /// Which.
    pub id: Partition,
    /// Its name in marks and floors.
    pub place: u64,
    /// How far it has come.
    pub step: Step,
    /// The fold over its log.
    pub words: Words<P>,
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
    pub floor: Option<Floor>,
    /// When it went live: what was due by then is missed.
    pub live_at: Millis,
    /// Batches that are committed but not read, in commit order.
    pub unread: VecDeque<Unread>,
    /// The fence list has been worked off and waits to be dropped from the metadata.
    pub fence_done: bool,
    /// When progress is next committed if nothing fires.
    pub mark_at: Millis,
    /// Local midnight plus `SINCE_DELTA`, as last told.
    pub today: Millis,
    /// Its log begins later than what was read of it. It is read again as soon as no batch touches it.
    pub is_trimmed: bool,
}

impl<P: Payload> Life<P> {
    /// A partition that was just assigned.
    pub fn new(id: Partition, place: u64, words: Words<P>, today: Millis) -> Self {
        Self {
            id,
            place,
            step: Step::Metadata,
            words,
            position: 0,
            ownership: Ownership::default(),
            claimed: false,
            committed: 0,
            barrier: None,
            floor: None,
            live_at: Millis(i64::MIN),
            unread: VecDeque::new(),
            fence_done: false,
            mark_at: Millis(i64::MAX),
            today,
            is_trimmed: false,
        }
    }

    /// Forgets what was read, for a reading from the beginning up to a new barrier.
    pub fn reread(&mut self, words: Words<P>) {
        self.words = words;
        self.position = 0;
        self.barrier = None;
        self.floor = None;
        self.is_trimmed = false;
        self.unread.clear();
        self.step = Step::Barrier;
    }

    /// The offset to commit: never negative, and never past what a takeover has taken in.
    pub fn offset(&self) -> i64 {
        if self.is_loaded() { self.position.max(self.committed) } else { self.committed }
    }

    /// It has been read further than is committed, and it is time to say so.
    pub fn has_progress(&self, now: Millis) -> bool {
        self.may_fire() && self.mark_at <= now && self.offset() > self.committed
    }

    /// Everything before its barrier has been read.
    pub fn is_loaded(&self) -> bool {
        self.barrier.is_some_and(|barrier| self.position > barrier)
    }

    /// It is still reading what lies before its barrier, or has not begun.
    pub fn is_before_loaded(&self) -> bool {
        matches!(self.step, Step::Metadata | Step::Barrier | Step::BarrierSent | Step::Loading(_) | Step::Since)
    }

    /// Whether its words may fire.
    pub fn is_live(&self) -> bool {
        self.step == Step::Live || (bugs::on(Bug::FireBeforeBarrier) && matches!(self.step, Step::Loading(_)))
    }

    /// Changes whenever entries lie in other slots than before: then a listing cannot go on.
    pub fn cursor_tag(&self) -> Option<i64> {
        const MOVES: i64 = 64;
        // Far beyond any offset.
        self.barrier.map(|barrier| barrier | (i64::from(self.words.moves()) % MOVES) << 56)
    }

    /// Whether batches of its words may be formed.
    pub fn may_fire(&self) -> bool {
        self.is_live() && !self.is_trimmed
    }

    /// Clears what the consumer has now read past.
    pub fn settle_read(&mut self) {
        while let Some(unread) = self.unread.front().filter(|u| u.offset < self.position) {
            let batch = unread.batch;
            for (slot, identity, ended) in &unread.items {
                self.words.read_past(*slot, *identity, batch, *ended);
            }
            self.unread.pop_front();
        }
    }
}
