//! Pending schedules, as queries return them.

use std::fmt;
use std::sync::Arc;

use crate::core::io;
use crate::core::listing::{Listed, ParkedFor, Upcoming};
use crate::core::when;

/// A header of a record, borrowed from it. Names need not be text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeaderRef<'a> {
    /// The header's name, as the producer sent it.
    pub name: &'a [u8],
    /// The header's value; `None` is Kafka's null, which differs from empty.
    pub value: Option<&'a [u8]>,
}

/// A schedule that is pending in a partition of this instance.
#[derive(Clone)]
pub struct PendingSchedule {
    listed: Listed,
    topics: Arc<[String]>,
}

impl PendingSchedule {
    pub(super) fn new(listed: Listed, topics: Arc<[String]>) -> Self {
        Self { listed, topics }
    }

    /// Returns the schedules topic that holds the user's record.
    #[must_use]
    pub fn topic(&self) -> &str {
        self.topics.get(usize::from(self.listed.partition.topic)).map_or("", String::as_str)
    }

    /// Returns the partition of [`topic`](Self::topic) that holds the user's record.
    #[must_use]
    pub fn partition(&self) -> i32 {
        self.listed.partition.number
    }

    /// Returns the offset of the user's record.
    #[must_use]
    pub fn offset(&self) -> i64 {
        self.listed.offset
    }

    /// Returns the key that names the schedule: a later record with it replaces or cancels the schedule.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        self.listed.parts().key
    }

    /// Returns the time from which the schedule is due, in milliseconds since 1970. If it recurs, this is its next
    /// occurrence.
    #[must_use]
    pub fn due_ms(&self) -> i64 {
        self.listed.due.at().0
    }

    /// Returns the number of the next occurrence, from 1, if the schedule recurs.
    #[must_use]
    pub fn occurrence(&self) -> Option<u64> {
        self.listed.occurrence
    }

    /// Returns the headers that say when the schedule fires, such as `scheduler-cron`. A schedule that has only
    /// `scheduler-epoch` returns none: [`due_ms`](Self::due_ms) is all that it says.
    #[must_use]
    pub fn when(&self) -> Vec<HeaderRef<'_>> {
        self.headers_of(true)
    }

    /// Returns the timestamp of the user's record, in milliseconds since 1970.
    #[must_use]
    pub fn timestamp_ms(&self) -> i64 {
        self.listed.timestamp.0
    }

    /// Returns the topic of the triggered record.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.listed.target
    }

    /// Returns the key of the triggered record; `None` is null.
    #[must_use]
    pub fn target_key(&self) -> Option<&[u8]> {
        self.listed.parts().target_key
    }

    /// Returns the value of the triggered record.
    #[must_use]
    pub fn value(&self) -> &[u8] {
        self.listed.parts().value
    }

    /// Returns the user's own headers in order.
    #[must_use]
    pub fn headers(&self) -> Vec<HeaderRef<'_>> {
        self.headers_of(false)
    }

    fn headers_of(&self, is_when: bool) -> Vec<HeaderRef<'_>> {
        let headers = self.listed.parts().headers.into_iter().filter(|header| when::is_when(header.name) == is_when);
        headers.map(|header| HeaderRef { name: header.name, value: header.value }).collect()
    }

    /// Returns why the schedule is parked, if it is.
    #[must_use]
    pub fn parked(&self) -> Option<ParkedFor> {
        self.listed.parked
    }
}

/// Leaves out value and headers, which may be long and confidential.
impl fmt::Debug for PendingSchedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingSchedule")
            .field("topic", &self.topic())
            .field("partition", &self.partition())
            .field("offset", &self.offset())
            .field("due_ms", &self.due_ms())
            .field("target", &self.target())
            .field("parked", &self.parked())
            .finish_non_exhaustive()
    }
}

/// One of the next schedules to fire.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UpcomingSchedule {
    /// The schedules topic that holds the user's record.
    pub topic: String,
    /// The partition of `topic` that holds the user's record.
    pub partition: i32,
    /// The time from which the schedule is due, in milliseconds since 1970.
    pub due_ms: i64,
    /// The topic of the triggered record.
    pub target: String,
    /// The schedule's key, up to its first 256 bytes.
    pub key: Vec<u8>,
}

impl UpcomingSchedule {
    pub(super) fn new(next: Upcoming, topics: &[String]) -> Self {
        Self {
            topic: topics.get(usize::from(next.partition.topic)).cloned().unwrap_or_default(),
            partition: next.partition.number,
            due_ms: next.due.at().0,
            target: next.target.to_string(),
            key: next.key,
        }
    }
}

/// Selects pending schedules. The default selects all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Filter {
    pub(super) topic: Option<String>,
    pub(super) key_prefix: Vec<u8>,
    pub(super) due_before_s: Option<u64>,
    pub(super) due_from_s: Option<u64>,
    pub(super) parked: bool,
}

impl Filter {
    /// Selects all pending schedules.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Selects only those of a schedules topic.
    #[must_use]
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.topic = Some(topic.into());
        self
    }

    /// Selects only those whose key begins with `prefix`.
    #[must_use]
    pub fn key_prefix(mut self, prefix: impl Into<Vec<u8>>) -> Self {
        self.key_prefix = prefix.into();
        self
    }

    /// Selects only those due from this second since 1970 on.
    #[must_use]
    pub fn due_from_s(mut self, epoch_s: u64) -> Self {
        self.due_from_s = Some(epoch_s);
        self
    }

    /// Selects only those due before this second since 1970.
    #[must_use]
    pub fn due_before_s(mut self, epoch_s: u64) -> Self {
        self.due_before_s = Some(epoch_s);
        self
    }

    /// Selects only those that are [parked](PendingSchedule::parked).
    #[must_use]
    pub fn parked(mut self) -> Self {
        self.parked = true;
        self
    }
}

/// The place in a listing at which its next page begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor(pub(super) io::Cursor);

/// A page of pending schedules, with at most [`PAGE_ENTRIES_MAX`](super::PAGE_ENTRIES_MAX) of them.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Page {
    /// The schedules, in no particular order. A page may be empty although more follow.
    pub schedules: Vec<PendingSchedule>,
    /// The start of the next page, if there is one.
    pub next: Option<Cursor>,
}
