//! Plain values that most of the core's modules share.

/// Milliseconds since 1970-01-01T00:00:00Z, by the clock of whoever passed it in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub i64);

impl Millis {
    /// This moment moved by `delta` milliseconds, stopping at the ends of the range.
    #[must_use]
    pub const fn plus(self, delta: i64) -> Self {
        Self(self.0.saturating_add(delta))
    }
}

/// One partition of one schedules topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// Index into [`Config::topics`](super::Config::topics).
    pub topic: u16,
    /// Partition number within the topic.
    pub number: i32,
}

/// A header as Kafka carries it. Names repeat, and order matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// UTF-8 by the protocol's rules, but no broker checks it.
    pub name: &'a [u8],
    /// `None` is Kafka's null, which differs from empty.
    pub value: Option<&'a [u8]>,
}

/// A record delivered by a read_committed consumer.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Where it lies.
    pub partition: TopicPartition,
    /// Its offset there.
    pub offset: i64,
    /// The record's timestamp, whatever its type; -1 where it has none.
    pub timestamp: Millis,
    /// `None` is Kafka's null.
    pub key: Option<&'a [u8]>,
    /// `None` is Kafka's null: a tombstone.
    pub value: Option<&'a [u8]>,
    /// In the record's order.
    pub headers: &'a [Header<'a>],
}

/// Where a listing goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The last partition seen.
    pub(crate) partition: Option<TopicPartition>,
    /// The next entry in it.
    pub(crate) entry: u32,
    /// The barrier that its entries were read up to, and how often they have moved since: else they lie elsewhere.
    pub(crate) barrier: Option<i64>,
}
