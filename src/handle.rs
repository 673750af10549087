//! How the rest of the program talks to the engine's loop, and the loop to it.

pub mod board;

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use tokio::sync::oneshot;

use crate::core::batch::Batch;
use crate::core::io::{Counters, Cursor, Millis, Record, Report};
use crate::core::listing::{Filter, Gone, Listed, Page, Upcoming};
use board::{Board, Snapshot};

/// Requests that may wait for the loop at once; a further one is refused.
const WAITING_MAX: usize = 64;

/// Entries a page of a listing holds at most, so that one page never holds up the loop.
pub const PAGE_MAX: usize = 1_000;

/// Entries that a list takes from the loop at a time: more than a page, as each piece of a long list waits for a turn of
/// the loop and for a pause.
pub const PIECE_MAX: usize = 2_000;

/// How long a request waits for the loop's answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Told what the engine does, on the loop's thread: it must not block.
pub trait Observer: Send {
    /// The counters have moved.
    fn counters(&mut self, counters: &Counters) {
        let _ = counters;
    }

    /// A batch with firings has been committed, and when that was known.
    fn fired(&mut self, batch: &Batch, at: Millis) {
        let _ = (batch, at);
    }

    /// A schedule has been accepted as pending, on a partition that fires already.
    fn planned(&mut self, record: &Record<'_>, topics: &[String]) {
        let _ = (record, topics);
    }

    /// A user has cancelled a pending schedule, on a partition that fires already.
    fn deleted(&mut self, record: &Record<'_>, topics: &[String]) {
        let _ = (record, topics);
    }

    /// A batch has ended: how, and how long after it was formed.
    fn settled(&mut self, batch: &Batch, outcome: &'static str, took: Duration) {
        let _ = (batch, outcome, took);
    }

    /// The loop has turned once, and what it did between two sleeps took so long.
    fn turned(&mut self, took: Duration) {
        let _ = took;
    }

    /// What is held has been looked at, as it is some times a second.
    fn held(&mut self, snapshot: &Snapshot) {
        let _ = snapshot;
    }

    /// The group has given or taken partitions.
    fn rebalanced(&mut self) {}

    /// Something worth a line in the log. `topics` are the names that partitions refer to.
    fn report(&mut self, report: &Report, topics: &[String]) {
        let _ = (report, topics);
    }
}

/// Takes the answer to a question. Whoever asked may have given up.
pub type Reply<T> = oneshot::Sender<T>;

/// A question to the loop, answered between two of its turns.
#[derive(Debug)]
pub enum Ask {
    /// A piece of the pending schedules.
    Page {
        /// Where to begin.
        cursor: Cursor,
        /// Entries, at most [`PIECE_MAX`].
        limit: usize,
        /// Which.
        filter: Filter,
        /// Takes the answer.
        reply: Reply<Result<Page, Gone>>,
    },
    /// The pending schedules with a key.
    Find {
        /// Index of the topic.
        topic: u16,
        /// The key.
        key: Vec<u8>,
        /// Takes the answer.
        reply: Reply<Vec<Listed>>,
    },
    /// The next schedules to fire.
    Upcoming {
        /// How many, at most [`PAGE_MAX`].
        limit: usize,
        /// Takes the answer.
        reply: Reply<Vec<Upcoming>>,
    },
    /// Hand over and end.
    Stop,
}

/// Why a question has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// The engine has ended.
    Ended,
    /// The engine is busy: too many questions wait, or it took longer than 10 s.
    Busy,
}

impl std::fmt::Display for Unanswered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Ended => "the engine has ended",
            Self::Busy => "the engine is busy; try again",
        })
    }
}

impl std::error::Error for Unanswered {}

/// Wakes the loop's thread.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// Talks to a running engine from any thread.
#[derive(Clone)]
pub struct Handle {
    asks: Sender<Ask>,
    wake: Wake,
    board: Arc<Board>,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}

impl Handle {
    /// A handle and the end that the loop reads from.
    #[must_use]
    pub fn new(wake: Wake) -> (Self, Receiver<Ask>) {
        let (asks, waiting) = bounded(WAITING_MAX);
        (Self { asks, wake, board: Arc::default() }, waiting)
    }

    /// What the loop has last said of itself, which is there even while it does not turn.
    #[must_use]
    pub fn board(&self) -> &Arc<Board> {
        &self.board
    }

    /// A piece of the pending schedules that match: up to `limit` (at most [`PIECE_MAX`]), from `cursor` on. Call it
    /// within a tokio runtime with a timer.
    ///
    /// # Errors
    /// When the loop has ended or does not answer.
    pub async fn page(&self, cursor: Cursor, limit: usize, filter: Filter) -> Result<Result<Page, Gone>, Unanswered> {
        self.ask(|reply| Ask::Page { cursor, limit: limit.min(PIECE_MAX), filter, reply }).await
    }

    /// The pending schedules of a topic with this key.
    ///
    /// # Errors
    /// When the loop has ended or does not answer.
    pub async fn find(&self, topic: u16, key: Vec<u8>) -> Result<Vec<Listed>, Unanswered> {
        self.ask(|reply| Ask::Find { topic, key, reply }).await
    }

    /// The next `limit` schedules to fire (at most [`PAGE_MAX`]).
    ///
    /// # Errors
    /// When the loop has ended or does not answer.
    pub async fn upcoming(&self, limit: usize) -> Result<Vec<Upcoming>, Unanswered> {
        self.ask(|reply| Ask::Upcoming { limit: limit.min(PAGE_MAX), reply }).await
    }

    /// Asks the engine to hand over its partitions and end; returns at once.
    pub fn stop(&self) {
        // A full channel means that the loop is behind, not gone: the question waits its turn.
        let _ = self.asks.send_timeout(Ask::Stop, ANSWER_TIMEOUT);
        (self.wake)();
    }

    async fn ask<T>(&self, question: impl FnOnce(Reply<T>) -> Ask) -> Result<T, Unanswered> {
        let (reply, answer) = oneshot::channel();
        self.asks.try_send(question(reply)).map_err(|e| match e {
            TrySendError::Full(_) => Unanswered::Busy,
            TrySendError::Disconnected(_) => Unanswered::Ended,
        })?;
        (self.wake)();
        match tokio::time::timeout(ANSWER_TIMEOUT, answer).await {
            Ok(answer) => answer.map_err(|_| Unanswered::Ended),
            Err(_) => Err(Unanswered::Busy),
        }
    }
}
