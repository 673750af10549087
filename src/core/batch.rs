//! The content of one Kafka transaction: its records, and the offsets by which the group coordinator fences it.

mod records;

use std::ops::Range;
use std::sync::Arc;

pub use records::{OutRecord, Pass};

use super::due::Due;
use super::key_table::Committed;
use super::payload::{Parts, Payload, PayloadRef, Stored};
use super::reason::Reason;
use super::recurrence::Position;
use super::types::{Millis, TopicPartition};

/// Names that appear in a batch's records.
#[derive(Debug)]
pub struct RecordNames {
    /// The cluster's id, which the partition hash in origin headers includes.
    pub cluster: String,
    /// Schedules topics; [`TopicPartition::topic`] is an index into them.
    pub topics: Vec<String>,
    /// The history topic.
    pub history: String,
    /// The dead-letter topic, if there is one.
    pub dead_letter: Option<String>,
    /// The consumer group's id, which barriers carry.
    pub group: String,
    /// As [`Config::adds_due_header`](super::Config::adds_due_header).
    pub adds_due_header: bool,
}

/// A transaction to run: its records, then its offsets, then the commit.
#[derive(Debug)]
pub struct Batch {
    /// Consecutive. Batches commit in this order, so schedules of one lane that are neither retried nor parked fire in
    /// due order, and offsets never go back.
    pub id: u64,
    /// In the order in which they are produced.
    pub items: Vec<Item>,
    /// One offset for every schedules partition that the batch concerns, never empty. `send_offsets_to_transaction`
    /// sends them with the group's metadata, so the coordinator rejects the batch if the group has a newer generation
    /// (KIP-447).
    pub offsets: Vec<OffsetCommit>,
    names: Arc<RecordNames>,
    /// The payloads of the items, each as [`Parts::write`] packs it.
    packed: Vec<u8>,
    outside_bytes: usize,
}

/// An offset to commit in the batch's transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetCommit {
    /// The schedules partition.
    pub partition: TopicPartition,
    /// The next offset to read or, until the partition is loaded, the committed offset again. It shows progress and
    /// carries the metadata: reading always starts at the log's beginning. Never negative: librdkafka would drop it,
    /// and with it the check of the generation.
    pub offset: i64,
    /// An encoded [`Ownership`](super::ownership::Ownership), at most 2 KiB.
    pub metadata: String,
}

/// What a batch writes for one entry of a key table, or for one partition.
#[derive(Clone, Debug)]
pub struct Item {
    /// The schedules partition of the entry.
    pub partition: TopicPartition,
    /// Offset of the user record that the engine writes for; -1 for barriers and start markers.
    pub origin_offset: i64,
    /// The records to write.
    pub kind: Kind,
    payload: ItemPayload,
}

#[derive(Clone, Debug)]
enum ItemPayload {
    /// A range of `Batch::packed`.
    Memory(Range<usize>),
    Outside(PayloadRef),
}

/// The records that an item stands for.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A triggered record, its history record, and the record that ends the schedule.
    Fire {
        /// The target topic.
        target: Arc<str>,
        /// When the schedule is due.
        due: Due,
        /// Timestamp of the user's record.
        timestamp: Millis,
        /// The schedule was due when its partition became live.
        missed: bool,
        /// What the triggered record says of the firing.
        fired: Fired,
        /// The records that follow.
        after: AfterFiring,
    },
    /// A history record of a schedule or occurrence that has expired, and the records that end it. Without a
    /// dead-letter topic, nothing else tells of it.
    Expired {
        /// The target topic.
        target: Arc<str>,
        /// When the schedule was due.
        due: Due,
        /// Timestamp of the user's record.
        timestamp: Millis,
        /// What a triggered record would have said.
        fired: Fired,
        /// The records that follow.
        after: AfterFiring,
    },
    /// The records that follow missed occurrences of which none fires.
    Skip {
        /// Timestamp of the user's record.
        timestamp: Millis,
        /// The records.
        after: AfterFiring,
    },
    /// An overtaken progress record, rewritten.
    Progress {
        /// Timestamp of the user's record.
        timestamp: Millis,
        /// An encoded [`Progress`](super::progress::Progress).
        value: String,
    },
    /// A tombstone for the progress of a schedule that is over.
    EndProgress {
        /// Timestamp of the user's record.
        timestamp: Millis,
    },
    /// A dead letter (the record, moved to the dead-letter topic) and a tombstone or, of an occurrence, its progress
    /// record.
    DeadLetter {
        /// Why the record cannot fire.
        reason: Reason,
        /// Target topic and due time of a schedule. `None` for an invalid record, whose payload has all of its headers.
        request: Option<DeadRequest>,
        /// Timestamp of the user's record.
        timestamp: Millis,
        /// The records that follow.
        after: AfterFiring,
    },
    /// A copy of an overtaken schedule, which compaction may remove (see `key_table`). Its origin header names the
    /// original.
    RewriteSchedule {
        /// The target topic.
        target: Arc<str>,
        /// When a schedule of the old form is due. Others have all headers that say when in their payload.
        due: Option<Due>,
        /// Timestamp of the user's record.
        timestamp: Millis,
    },
    /// A copy of an overtaken invalid record, with all of its headers. Its origin header names the original.
    RewriteInvalid {
        /// Timestamp of the user's record.
        timestamp: Millis,
    },
    /// A tombstone for an overtaken cancel. Its origin header names the cancel.
    RewriteCancel {
        /// Timestamp of the user's record.
        timestamp: Millis,
    },
    /// The record that a takeover commits together with its ownership; reading up to it ends loading.
    Barrier {
        /// `{run}.{incarnation}.{batch}`, the same for all barriers of a batch; for people who read the log.
        label: String,
    },
    /// A record by which folds of the partition know their age. It needs no answer.
    Canary {
        /// What follows the prefix of its key; never used again.
        label: String,
        /// An encoded [`Canary`](super::canary::Canary).
        value: String,
    },
    /// The record that tells leftovers from owed schedules.
    StartMarker {
        /// An encoded [`StartMarker`](super::start_marker::StartMarker).
        value: String,
    },
}

/// What a triggered record says of its firing, beside the user's headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fired {
    /// When it was due, without jitter. `None` for the old form.
    pub nominal: Option<Due>,
    /// The number of the occurrence of a schedule that recurs, and of those that were missed before it.
    pub occurrence: Option<(u64, u64)>,
}

impl Fired {
    /// That of a schedule of the old form.
    pub const OLD: Self = Self { nominal: None, occurrence: None };

    /// Returns how many occurrences it skips if `done` are over: it neither fires nor collapses them.
    pub(super) fn skipped(self, done: u64) -> u64 {
        self.occurrence.map_or(0, |(number, missed)| (number - 1).saturating_sub(done).saturating_sub(missed))
    }
}

/// What a dead letter says of the schedule that could not be delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadRequest {
    /// The target topic.
    pub target: Arc<str>,
    /// When it was due.
    pub due: Due,
    /// What a triggered record would have said; `None` for a schedule without any occurrence.
    pub fired: Option<Fired>,
}

/// What the engine writes to a schedule's partition together with its firing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterFiring {
    /// A tombstone: the schedule has fired for the last time.
    End {
        /// The key has a progress record, which needs a tombstone too.
        ends_progress: bool,
    },
    /// A progress record: another occurrence follows.
    Progress {
        /// How far the schedule has come.
        position: Position,
        /// The reason for which the occurrence became a dead letter.
        failed: Option<Reason>,
    },
}

impl AfterFiring {
    /// Returns the same after an occurrence that became a dead letter.
    pub(super) fn failed(self, reason: Reason) -> Self {
        match self {
            Self::End { .. } => self,
            Self::Progress { position, .. } => Self::Progress { position, failed: Some(reason) },
        }
    }

    /// Returns what it means for the key once it is committed.
    pub(super) fn written(self) -> Committed {
        match self {
            Self::End { .. } => Committed::End,
            Self::Progress { position, failed } => Committed::Progress { position, failed },
        }
    }
}

impl Batch {
    pub(super) fn new(id: u64, names: Arc<RecordNames>) -> Self {
        Self { id, items: Vec::new(), offsets: Vec::new(), names, packed: Vec::new(), outside_bytes: 0 }
    }

    /// Reads payloads that are stored outside memory into the batch, before anything else is read from it. No shell of
    /// this crate stores payloads outside memory yet. `read` appends a payload's bytes to its second argument.
    ///
    /// # Errors
    /// Returns the first error of `read`; the caller may try again.
    pub fn resolve<E>(&mut self, mut read: impl FnMut(PayloadRef, &mut Vec<u8>) -> Result<(), E>) -> Result<(), E> {
        for item in &mut self.items {
            let ItemPayload::Outside(reference) = item.payload else { continue };
            let start = self.packed.len();
            if let Err(error) = read(reference, &mut self.packed) {
                self.packed.truncate(start);
                return Err(error);
            }
            item.payload = ItemPayload::Memory(start..self.packed.len());
            self.outside_bytes -= reference.packed_bytes as usize;
        }
        Ok(())
    }

    /// Returns the item's key, value and headers; empty for barriers and start markers.
    ///
    /// # Panics
    /// If the payload is stored outside memory and was not [resolved](Self::resolve).
    #[must_use]
    pub fn parts(&self, item: &Item) -> Parts<'_> {
        Parts::unpack_or_empty(self.packed(item))
    }

    fn packed(&self, item: &Item) -> &[u8] {
        match &item.payload {
            ItemPayload::Memory(span) => &self.packed[span.clone()],
            ItemPayload::Outside(reference) => panic!("a batch is resolved before it is read: {reference:?}"),
        }
    }

    /// Returns the name of a schedules topic.
    ///
    /// # Panics
    /// If the topic's index is not one of [`Config::topics`](super::Config::topics).
    #[must_use]
    pub fn topic(&self, partition: TopicPartition) -> &str {
        &self.names.topics[usize::from(partition.topic)]
    }

    /// Returns the topic of an item's triggered record or dead letter; `None` if it has neither.
    #[must_use]
    pub fn target<'a>(&'a self, item: &'a Item) -> Option<&'a str> {
        match &item.kind {
            Kind::Fire { target, .. } => Some(target),
            Kind::DeadLetter { .. } => self.names.dead_letter.as_deref(),
            _ => None,
        }
    }

    /// Returns the length of all packed payloads, in memory or outside.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        self.packed.len() + self.outside_bytes
    }

    /// Returns the batch with items of these kinds alone, for tests of the shell.
    #[cfg(test)]
    #[must_use]
    pub fn with_kinds(mut self, kinds: impl IntoIterator<Item = Kind>) -> Self {
        let partition = TopicPartition { topic: 0, number: 0 };
        let item = |kind| Item { partition, origin_offset: 0, kind, payload: ItemPayload::Memory(0..0) };
        self.items = kinds.into_iter().map(item).collect();
        self
    }

    /// Adds an item that writes nothing of an entry but its key.
    pub(super) fn push_key(&mut self, partition: TopicPartition, origin_offset: i64, kind: Kind, key: &[u8]) {
        let start = self.packed.len();
        Parts { key, ..Parts::default() }.write(&mut self.packed);
        let payload = ItemPayload::Memory(start..self.packed.len());
        self.items.push(Item { partition, origin_offset, kind, payload });
    }

    pub(super) fn push<P: Payload>(
        &mut self,
        partition: TopicPartition,
        origin_offset: i64,
        kind: Kind,
        payload: Option<&P>,
    ) {
        let payload = match payload.map(Payload::stored) {
            None => ItemPayload::Memory(0..0),
            Some(Stored::Memory(packed)) => {
                let start = self.packed.len();
                self.packed.extend_from_slice(packed);
                ItemPayload::Memory(start..self.packed.len())
            }
            Some(Stored::Outside(reference)) => {
                self.outside_bytes += reference.packed_bytes as usize;
                ItemPayload::Outside(reference)
            }
        };
        self.items.push(Item { partition, origin_offset, kind, payload });
    }
}
