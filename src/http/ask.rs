//! Queries to the engine's loop that do not block the servers' only thread.

use tokio::sync::oneshot;

use crate::core::io::Cursor;
use crate::core::listing::{CursorExpired, Filter, Listed, Page, Upcoming};
use crate::handle::{ANSWER_TIMEOUT, Handle, PAGE_ENTRIES_MAX, Query, QueryError, Reply};

/// Entries that a list takes from the loop at a time: more than a page, as each chunk of a long list waits for an
/// iteration of the loop and for a pause.
pub(super) const CHUNK_MAX: usize = 2_000;

/// Returns a chunk of the pending schedules that match: up to `limit` (at most [`CHUNK_MAX`]), from `cursor` on.
pub(super) async fn page(handle: &Handle, cursor: Cursor, limit: usize, filter: Filter) -> Result<Page, QueryError> {
    let page = ask(handle, |reply| Query::Page { cursor, limit: limit.min(CHUNK_MAX), filter, reply }).await?;
    page.map_err(|CursorExpired| QueryError::CursorExpired)
}

/// Returns the pending schedules of a topic with this key.
pub(super) async fn find(handle: &Handle, topic: u16, key: Vec<u8>) -> Result<Vec<Listed>, QueryError> {
    ask(handle, |reply| Query::Find { topic, key, reply }).await
}

/// Returns the next `limit` schedules to fire (at most [`PAGE_ENTRIES_MAX`]).
pub(super) async fn upcoming(handle: &Handle, limit: usize) -> Result<Vec<Upcoming>, QueryError> {
    ask(handle, |reply| Query::Upcoming { limit: limit.min(PAGE_ENTRIES_MAX), reply }).await
}

async fn ask<T: Send + 'static>(handle: &Handle, query: impl FnOnce(Reply<T>) -> Query) -> Result<T, QueryError> {
    let (reply, answer) = oneshot::channel();
    handle.send(query(Reply::new(move |answer| drop(reply.send(answer)))))?;
    match tokio::time::timeout(ANSWER_TIMEOUT, answer).await {
        Ok(answer) => answer.map_err(|_| QueryError::Ended),
        Err(_) => Err(QueryError::Busy),
    }
}
