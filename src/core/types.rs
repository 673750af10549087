//! Plain values that most modules of the core share.

/// Milliseconds since 1970-01-01T00:00:00Z: a time of the shell's clock, or a record's timestamp.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub i64);

impl Millis {
    /// Returns this time plus `delta` milliseconds, saturating at the ends of the range.
    #[must_use]
    pub const fn plus(self, delta: i64) -> Self {
        Self(self.0.saturating_add(delta))
    }
}

/// A partition of a schedules topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic's index in [`Config::topics`](super::Config::topics).
    pub topic: u16,
    /// The partition's number in the topic.
    pub number: i32,
}

/// A record header. Names may repeat, and order matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// UTF-8 by Kafka's protocol, but no broker checks that.
    pub name: &'a [u8],
    /// `None` is Kafka's null, which differs from empty.
    pub value: Option<&'a [u8]>,
}

/// A record delivered by a read_committed consumer.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The record's partition.
    pub partition: TopicPartition,
    /// The record's offset.
    pub offset: i64,
    /// The record's timestamp, of either type; -1 if it has none.
    pub timestamp: Millis,
    /// `None` is Kafka's null.
    pub key: Option<&'a [u8]>,
    /// `None` is Kafka's null: a tombstone.
    pub value: Option<&'a [u8]>,
    /// Headers in the record's order.
    pub headers: &'a [Header<'a>],
}

/// The position of the next page in a listing. The default is its beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    pub(crate) partition: Option<TopicPartition>,
    /// The next slot of the partition's key table.
    pub(crate) entry: u32,
    /// Identifies the table: its barrier, and how often its entries have moved. In another table the slot is
    /// meaningless.
    pub(crate) barrier: Option<i64>,
}
