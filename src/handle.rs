//! How the rest of the program talks to the engine's loop, and the loop to it.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use crate::core::batch::Batch;
use crate::core::io::{Counters, Cursor, Millis, Report};
use crate::core::{Listed, Status};

/// Requests that may wait for the loop at once; a further one is refused.
const WAITING_MAX: usize = 64;

/// Entries a page of a listing holds at most, so that one page never holds up the loop.
pub const PAGE_MAX: usize = 1_000;

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

    /// Something worth a line in the log. `topics` are the names that partitions refer to.
    fn report(&mut self, report: &Report, topics: &[String]) {
        let _ = (report, topics);
    }
}

/// A question to the loop, answered between two of its turns.
#[derive(Debug)]
pub enum Ask {
    /// Pending schedules from a cursor on.
    Page {
        /// Where to begin.
        cursor: Cursor,
        /// Entries, at most [`PAGE_MAX`].
        limit: usize,
        /// Takes the answer.
        reply: Sender<Page>,
    },
    /// The state of each partition held.
    Status {
        /// Takes the answer.
        reply: Sender<Vec<Status>>,
    },
    /// Hand over and end.
    Stop,
}

/// A piece of a listing.
#[derive(Debug)]
pub struct Page {
    /// Schedules, in no particular order.
    pub entries: Vec<Listed>,
    /// Where to go on, if there is more.
    pub next: Option<Cursor>,
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
        (Self { asks, wake }, waiting)
    }

    /// Up to `limit` pending schedules (at most [`PAGE_MAX`]), from `cursor` on.
    ///
    /// # Errors
    /// When the loop has ended or does not answer.
    pub fn page(&self, cursor: Cursor, limit: usize) -> Result<Page, Unanswered> {
        self.ask(|reply| Ask::Page { cursor, limit: limit.min(PAGE_MAX), reply })
    }

    /// The state of each partition held.
    ///
    /// # Errors
    /// When the loop has ended or does not answer.
    pub fn status(&self) -> Result<Vec<Status>, Unanswered> {
        self.ask(|reply| Ask::Status { reply })
    }

    /// Asks the engine to hand over its partitions and end; returns at once.
    pub fn stop(&self) {
        // A full channel means that the loop is behind, not gone: the question waits its turn.
        let _ = self.asks.send_timeout(Ask::Stop, ANSWER_TIMEOUT);
        (self.wake)();
    }

    fn ask<T>(&self, question: impl FnOnce(Sender<T>) -> Ask) -> Result<T, Unanswered> {
        let (reply, answer) = bounded(1);
        self.asks.try_send(question(reply)).map_err(|e| match e {
            TrySendError::Full(_) => Unanswered::Busy,
            TrySendError::Disconnected(_) => Unanswered::Ended,
        })?;
        (self.wake)();
        answer.recv_timeout(ANSWER_TIMEOUT).map_err(|e| match e {
            crossbeam_channel::RecvTimeoutError::Timeout => Unanswered::Busy,
            crossbeam_channel::RecvTimeoutError::Disconnected => Unanswered::Ended,
        })
    }
}
