//! How the rest of a program talks to the engine: [`Handle`] asks for pending schedules and its status, and stops it.

pub(crate) mod observer;
mod pending;
pub(crate) mod query;
mod status;
pub(crate) mod status_board;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};

use crate::core::io;
use crate::core::listing;
pub use crate::core::listing::ParkedFor;
pub use crate::core::reason::Reason;
pub(crate) use observer::Observer;
pub use pending::{Cursor, Filter, HeaderRef, Page, PendingSchedule, UpcomingSchedule};
pub(crate) use query::{Query, Reply};
pub use status::{EngineStatus, PartitionState, PartitionStatus};
pub use status_board::EngineState;
use status_board::StatusBoard;

/// Queries that may wait for the loop at once; a further one is rejected.
const WAITING_MAX: usize = 64;

/// Most entries of a page, so one page never holds up the loop. A larger limit counts as this one.
pub const PAGE_ENTRIES_MAX: usize = 1_000;

/// How long a query waits for the loop's answer.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The reason why a query has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum QueryError {
    /// The engine has ended, and takes no more queries.
    Ended,
    /// The engine is busy: 64 queries wait already, or it did not answer within 10 s.
    Busy,
    /// The cursor's partition was revoked or is being read again: begin from the start.
    CursorExpired,
    /// The engine does not read this topic: it is not one of `SCHEDULES_TOPICS`.
    UnknownTopic,
}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ended => "the engine has ended",
            Self::Busy => "the engine is busy; try again",
            Self::CursorExpired => "the partition was revoked or is being read again: begin from the start",
            Self::UnknownTopic => "the engine does not read this topic",
        })
    }
}

impl std::error::Error for QueryError {}

/// Wakes the loop's thread.
pub(crate) type Wake = Arc<dyn Fn() + Send + Sync>;

/// Talks to a running engine from any thread. Clones are cheap.
///
/// Queries block until the loop answers, usually for less than a millisecond and for at most 10 s. Within an async
/// runtime, call them where blocking is allowed (such as tokio's `spawn_blocking`).
#[derive(Clone)]
pub struct Handle {
    queries: Sender<Query>,
    wake: Wake,
    board: Arc<StatusBoard>,
    topics: Arc<[String]>,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}

impl Handle {
    /// Returns a handle on an engine of these schedules topics, and the end that its loop reads from.
    pub(crate) fn new(wake: Wake, topics: &[String]) -> (Self, Receiver<Query>) {
        let (queries, waiting) = bounded(WAITING_MAX);
        (Self { queries, wake, board: Arc::default(), topics: topics.into() }, waiting)
    }

    /// Returns the engine's status as its loop last published it, at most some seconds ago. It does not wait for the
    /// loop.
    #[must_use]
    pub fn status(&self) -> EngineStatus {
        EngineStatus::of(&self.board, &self.topics)
    }

    pub(crate) fn board(&self) -> &Arc<StatusBoard> {
        &self.board
    }

    /// Returns a page of the pending schedules that match, in no particular order: up to `limit` of them (at most
    /// [`PAGE_ENTRIES_MAX`]), from the start or from the [`Page::next`] of an earlier page. It covers the partitions
    /// that this instance holds.
    ///
    /// # Errors
    /// If the cursor has expired, the filter's topic is unknown, or the engine does not answer.
    pub fn page(&self, cursor: Option<Cursor>, limit: usize, filter: &Filter) -> Result<Page, QueryError> {
        let filter = listing::Filter {
            topic: filter.topic.as_deref().map(|topic| self.topic_index(topic)).transpose()?,
            key_prefix: filter.key_prefix.clone(),
            due_before_s: filter.due_before_s,
            due_from_s: filter.due_from_s,
            parked: filter.parked,
        };
        let (cursor, limit) = (cursor.map_or_else(io::Cursor::default, |cursor| cursor.0), limit.min(PAGE_ENTRIES_MAX));
        let page = self.wait(|reply| Query::Page { cursor, limit, filter, reply })?;
        let page = page.map_err(|listing::CursorExpired| QueryError::CursorExpired)?;
        Ok(Page { schedules: self.named(page.entries), next: page.next.map(Cursor) })
    }

    /// Returns the pending schedules of a schedules topic with this key: at most one in each partition that this
    /// instance holds.
    ///
    /// # Errors
    /// If the topic is unknown, or the engine does not answer.
    pub fn find(&self, topic: &str, key: &[u8]) -> Result<Vec<PendingSchedule>, QueryError> {
        let topic = self.topic_index(topic)?;
        let found = self.wait(|reply| Query::Find { topic, key: key.to_vec(), reply })?;
        Ok(self.named(found))
    }

    /// Returns the next `limit` schedules to fire (at most [`PAGE_ENTRIES_MAX`]), earliest first.
    ///
    /// # Errors
    /// If the engine does not answer.
    pub fn upcoming(&self, limit: usize) -> Result<Vec<UpcomingSchedule>, QueryError> {
        let next = self.wait(|reply| Query::Upcoming { limit: limit.min(PAGE_ENTRIES_MAX), reply })?;
        Ok(next.into_iter().map(|next| UpcomingSchedule::new(next, &self.topics)).collect())
    }

    /// Asks the engine to hand over its partitions and end. Returns at once, however many queries wait.
    pub fn stop(&self) {
        self.board.request_stop();
        (self.wake)();
    }

    /// Hands a query to the loop, without waiting for its answer.
    pub(crate) fn send(&self, query: Query) -> Result<(), QueryError> {
        self.queries.try_send(query).map_err(|e| match e {
            TrySendError::Full(_) => QueryError::Busy,
            TrySendError::Disconnected(_) => QueryError::Ended,
        })?;
        (self.wake)();
        Ok(())
    }

    fn wait<T: Send + 'static>(&self, query: impl FnOnce(Reply<T>) -> Query) -> Result<T, QueryError> {
        let (reply, answer) = bounded(1);
        self.send(query(Reply::new(move |answer| drop(reply.send(answer)))))?;
        answer.recv_timeout(ANSWER_TIMEOUT).map_err(|e| match e {
            RecvTimeoutError::Timeout => QueryError::Busy,
            RecvTimeoutError::Disconnected => QueryError::Ended,
        })
    }

    fn topic_index(&self, topic: &str) -> Result<u16, QueryError> {
        let index = self.topics.iter().position(|name| name == topic).and_then(|index| u16::try_from(index).ok());
        index.ok_or(QueryError::UnknownTopic)
    }

    fn named(&self, entries: Vec<listing::Listed>) -> Vec<PendingSchedule> {
        entries.into_iter().map(|listed| PendingSchedule::new(listed, Arc::clone(&self.topics))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::due::Due;
    use crate::core::io::{Header, Millis, TopicPartition};
    use crate::core::payload::Parts;

    /// A handle whose loop answers each query by `answer`.
    fn handle(answer: impl Fn(Query) + Send + 'static) -> Handle {
        let (handle, queries) = Handle::new(Arc::new(|| ()), &["one".into(), "two".into()]);
        std::thread::spawn(move || queries.iter().for_each(answer));
        handle
    }

    fn listed(topic: u16) -> listing::Listed {
        let headers = vec![Header { name: b"h", value: None }];
        let parts = Parts { key: b"k", target_key: Some(b"t"), headers, value: b"v" };
        listing::Listed::new(
            TopicPartition { topic, number: 3 },
            7,
            Due::from_epoch_s(60).expect("a minute"),
            Millis(5),
            "target".into(),
            &parts,
            None,
        )
    }

    #[test]
    fn topics_have_names_and_what_is_pending_is_decoded() {
        let handle = handle(|query| match query {
            Query::Find { topic, reply, .. } => reply.send(vec![listed(topic)]),
            Query::Page { filter, reply, .. } => {
                reply.send(Ok(listing::Page { entries: vec![listed(filter.topic.unwrap_or(0))], next: None }));
            }
            _ => {}
        });
        let found = handle.find("two", b"k").expect("an answer").remove(0);
        assert_eq!((found.topic(), found.partition(), found.offset()), ("two", 3, 7));
        assert_eq!((found.due_ms(), found.timestamp_ms(), found.target()), (60_000, 5, "target"));
        assert_eq!((found.key(), found.target_key(), found.value()), (&b"k"[..], Some(&b"t"[..]), &b"v"[..]));
        assert_eq!((found.headers(), found.parked()), (vec![HeaderRef { name: b"h", value: None }], None));
        let filter = Filter::new().topic("two").parked();
        assert_eq!(handle.page(None, 1, &filter).expect("a page").schedules[0].topic(), "two");
        assert_eq!(handle.find("three", b"k").err(), Some(QueryError::UnknownTopic));
    }

    #[test]
    fn a_query_without_an_answer_says_why() {
        let expired = handle(|query| match query {
            Query::Page { reply, .. } => reply.send(Err(listing::CursorExpired)),
            other => drop(other),
        });
        assert_eq!(expired.page(None, 1, &Filter::default()).err(), Some(QueryError::CursorExpired));
        assert_eq!(expired.find("one", b"k").err(), Some(QueryError::Ended), "the loop dropped the query");
        let (busy, _queries) = Handle::new(Arc::new(|| ()), &["one".into()]);
        while busy.send(Query::Upcoming { limit: 1, reply: Reply::new(drop) }).is_ok() {}
        assert_eq!(busy.find("one", b"k").err(), Some(QueryError::Busy));
        assert!(!busy.board.is_stop_requested());
        busy.stop();
        assert!(busy.board.is_stop_requested(), "it does not wait for the queries");
    }
}
