//! Queries to the engine's loop.

use std::fmt;

use crate::core::io::Cursor;
use crate::core::listing::{CursorExpired, Filter, Listed, Page, Upcoming};

/// Takes the answer to a query. Dropping it tells the caller that the engine has ended.
pub struct Reply<T>(Box<dyn FnOnce(T) + Send>);

impl<T> Reply<T> {
    /// Hands the answer to `answered`, on the loop's thread: it must not block.
    pub fn new(answered: impl FnOnce(T) + Send + 'static) -> Self {
        Self(Box::new(answered))
    }

    /// Answers. The caller may have given up meanwhile.
    pub fn send(self, answer: T) {
        (self.0)(answer);
    }
}

impl<T> fmt::Debug for Reply<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reply")
    }
}

/// A query to the loop, answered between two of its iterations.
#[derive(Debug)]
pub enum Query {
    /// A page of the pending schedules.
    Page {
        /// The first entry.
        cursor: Cursor,
        /// Entries at most.
        limit: usize,
        /// Selects schedules.
        filter: Filter,
        /// Takes the answer.
        reply: Reply<Result<Page, CursorExpired>>,
    },
    /// The pending schedules with a key.
    Find {
        /// Index of the topic.
        topic: u16,
        /// The schedule's key.
        key: Vec<u8>,
        /// Takes the answer.
        reply: Reply<Vec<Listed>>,
    },
    /// The next schedules to fire.
    Upcoming {
        /// Schedules at most.
        limit: usize,
        /// Takes the answer.
        reply: Reply<Vec<Upcoming>>,
    },
}
