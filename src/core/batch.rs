//! One Kafka transaction: the records it writes and the offsets that fence it.

use std::sync::Arc;

use super::bugs::{self, Bug};
use super::io::{Header, Millis, Partition};
use super::mark::{self, MARK_HEADER, Mark};
use super::payload::{Parts, Payload};
use super::reason::Reason;
use super::request;

/// Topic names and the group, as the records of a batch need them.
#[derive(Debug)]
pub struct Names {
    /// Cluster id: part of what a mark names.
    pub cluster: String,
    /// Schedules topics; [`Partition::topic`] is an index into them.
    pub topics: Vec<String>,
    /// Where history records go.
    pub history: String,
    /// Where records go that cannot fire.
    pub dead_letter: Option<String>,
    /// Consumer group, as barriers name it.
    pub group: String,
}

/// A transaction to run: its records, then its offsets, then the commit.
#[derive(Debug)]
pub struct Batch {
    /// Numbers the batches of one core, without gaps, in the order in which they must commit.
    pub id: u64,
    /// In the order in which they are produced.
    pub items: Vec<Item>,
    /// Every schedules partition that the batch touches: the fence. Never empty.
    pub offsets: Vec<Position>,
    pub(super) names: Arc<Names>,
    pub(super) packed: Vec<u8>,
}

/// An element for `send_offsets_to_transaction`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// Which partition.
    pub partition: Partition,
    /// The next offset to read, never negative: librdkafka would drop the element and with it the fence.
    pub offset: i64,
    /// Who owns the partition: at most 2 KiB.
    pub metadata: String,
}

/// What a batch writes for one schedule, or for one partition.
#[derive(Clone, Debug)]
pub struct Item {
    /// The schedules partition that it concerns.
    pub partition: Partition,
    /// The word's identity: the offset of the user record that it speaks for. -1 for barriers and floors.
    pub identity: i64,
    /// What is written.
    pub kind: Kind,
    /// Where the item's payload lies in the batch's buffer.
    pub(super) span: std::ops::Range<usize>,
}

/// What is written.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Target record, history record and tombstone.
    Fire {
        /// Topic of the triggered record.
        target: Arc<str>,
        /// Seconds since 1970.
        due: u64,
        /// Of the user's record.
        timestamp: Millis,
        /// Overdue when its partition came up.
        missed: bool,
    },
    /// Dead letter and tombstone.
    DeadLetter {
        /// Why it cannot fire.
        reason: Reason,
        /// What a schedule asked for: target and second. An unfit record has all of its headers.
        request: Option<(Arc<str>, u64)>,
        /// Of the user's record.
        timestamp: Millis,
    },
    /// The schedule again, with a mark that names the original.
    Schedule {
        /// Topic of the triggered record.
        target: Arc<str>,
        /// Seconds since 1970.
        due: u64,
        /// Of the user's record.
        timestamp: Millis,
    },
    /// The unfit record again, with all of its headers and a mark that names the original.
    Unfit {
        /// Of the user's record.
        timestamp: Millis,
    },
    /// A tombstone that names the cancel.
    Cancel {
        /// Of the user's record.
        timestamp: Millis,
    },
    /// The record that ends loading.
    Barrier {
        /// Unique to this takeover.
        owner: String,
    },
    /// The record that says since when schedules are owed.
    Floor {
        /// The record's value.
        value: String,
    },
}

/// A record to produce. It gets the current time as its timestamp.
#[derive(Clone, Copy, Debug)]
pub struct OutRecord<'a> {
    /// Index into [`Batch::items`], for the delivery report.
    pub item: u32,
    /// Where to.
    pub topic: &'a str,
    /// Given for records to schedules topics, which must never be left to a partitioner; `None` means by key.
    pub schedules: Option<Partition>,
    /// `None` is null.
    pub key: Option<&'a [u8]>,
    /// `None` is null.
    pub value: Option<&'a [u8]>,
    /// In order.
    pub headers: &'a [Header<'a>],
}

/// The records of a batch are produced in this order: each kind for all of its items, before the next kind. What is
/// due is on its way before anything is written for the record's sake, so that it is as little late as it can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// To target topics, dead letters, and whatever has no record of another kind.
    Outgoing,
    /// To the history topic.
    History,
    /// Tombstones of what is fired or given up.
    Tombstone,
}

impl Pass {
    /// In order.
    pub const ALL: [Self; 3] = [Self::Outgoing, Self::History, Self::Tombstone];
}

impl Batch {
    /// Shows each record in the order in which it is to be produced; stops at the first error.
    ///
    /// # Errors
    /// Whatever `visit` returned.
    pub fn records<E>(&self, mut visit: impl FnMut(OutRecord<'_>) -> Result<(), E>) -> Result<(), E> {
        Pass::ALL.into_iter().try_for_each(|pass| self.records_of(pass, &mut visit))
    }

    /// As [`Batch::records`], those of one kind.
    ///
    /// # Errors
    /// Whatever `visit` returned.
    pub fn records_of<E>(&self, pass: Pass, mut visit: impl FnMut(OutRecord<'_>) -> Result<(), E>) -> Result<(), E> {
        self.items.iter().enumerate().try_for_each(|(index, item)| {
            // A batch holds far fewer than 2^32 items.
            let mut out = Writer { batch: self, item, index: index as u32, visit: &mut visit };
            out.show(pass, &self.packed[item.span.clone()])
        })
    }

    /// The schedule's key, value and headers; for a line about a firing, or a handler of events.
    #[must_use]
    pub fn parts(&self, item: &Item) -> Parts<'_> {
        Parts::unpack_or_empty(&self.packed[item.span.clone()])
    }

    /// Returns the name of a schedules topic.
    ///
    /// # Panics
    /// If the partition is not one that the scheduler was assigned.
    #[must_use]
    pub fn topic(&self, partition: Partition) -> &str {
        &self.names.topics[usize::from(partition.topic)]
    }

    /// Where an item's record goes beyond the engine's own schedules and history topics, if anywhere.
    #[must_use]
    pub fn target<'a>(&'a self, item: &'a Item) -> Option<&'a str> {
        match &item.kind {
            Kind::Fire { target, .. } => Some(target),
            Kind::DeadLetter { .. } => self.names.dead_letter.as_deref(),
            _ => None,
        }
    }

    /// Bytes of payload held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.packed.len()
    }

    /// The batch with items of these kinds alone, for tests of shells.
    #[cfg(test)]
    #[must_use]
    pub fn with_kinds(mut self, kinds: impl IntoIterator<Item = Kind>) -> Self {
        let partition = Partition { topic: 0, number: 0 };
        self.items = kinds.into_iter().map(|kind| Item { partition, identity: 0, kind, span: 0..0 }).collect();
        self
    }

    pub(super) fn push<P: Payload>(&mut self, partition: Partition, identity: i64, kind: Kind, payload: Option<&P>) {
        let start = self.packed.len();
        if let Some(payload) = payload {
            payload.write(&mut self.packed);
        }
        self.items.push(Item { partition, identity, kind, span: start..self.packed.len() });
    }
}

fn request_headers<'a>(
    due: &'a str,
    target: &'a str,
    target_key: Option<&'a [u8]>,
) -> impl Iterator<Item = Header<'a>> {
    let key = target_key.map(|key| Header { name: request::TARGET_KEY, value: Some(key) });
    [
        Header { name: request::EPOCH, value: Some(due.as_bytes()) },
        Header { name: request::TARGET_TOPIC, value: Some(target.as_bytes()) },
    ]
    .into_iter()
    .chain(key)
}

struct Writer<'a, V> {
    batch: &'a Batch,
    item: &'a Item,
    index: u32,
    visit: &'a mut V,
}

impl<E, V: FnMut(OutRecord<'_>) -> Result<(), E>> Writer<'_, V> {
    /// Shows the item's record of one kind, if it has one.
    fn show(&mut self, pass: Pass, packed: &[u8]) -> Result<(), E> {
        match (&self.item.kind, pass) {
            (Kind::Fire { target, timestamp, .. }, Pass::Outgoing) => self.triggered(packed, target, *timestamp, None),
            (Kind::Fire { target, due, timestamp, .. }, Pass::History) => {
                let (batch, due) = (self.batch, due.to_string());
                self.triggered(packed, &batch.names.history, *timestamp, Some((&due, target)))
            }
            (Kind::Fire { .. }, Pass::Tombstone) if bugs::on(Bug::TombstoneNamesNothing) => {
                self.schedules(Parts::key_of(packed), None, &[])
            }
            (Kind::DeadLetter { reason, request, .. }, Pass::Outgoing) => {
                self.dead_letter(packed, *reason, request.as_ref())
            }
            (Kind::Fire { timestamp, .. } | Kind::DeadLetter { timestamp, .. }, Pass::Tombstone)
            | (Kind::Cancel { timestamp }, Pass::Outgoing) => {
                self.marked(Parts::key_of(packed), None, Vec::new(), *timestamp)
            }
            (Kind::Schedule { target, due, timestamp }, Pass::Outgoing) => {
                let (due, parts) = (due.to_string(), Parts::unpack(packed));
                let mut headers = parts.headers;
                headers.extend(request_headers(&due, target, parts.target_key));
                self.marked(parts.key, Some(parts.value), headers, *timestamp)
            }
            (Kind::Unfit { timestamp }, Pass::Outgoing) => {
                let parts = Parts::unpack(packed);
                self.marked(parts.key, Some(parts.value), parts.headers, *timestamp)
            }
            (Kind::Barrier { owner }, Pass::Outgoing) => {
                let header = Header { name: request::BARRIER, value: Some(owner.as_bytes()) };
                let group = Header { name: request::GROUP, value: Some(self.batch.names.group.as_bytes()) };
                self.schedules(mark::BARRIER_KEY, None, &[header, group])
            }
            (Kind::Floor { value }, Pass::Outgoing) => self.schedules(mark::FLOOR_KEY, Some(value.as_bytes()), &[]),
            (_, Pass::History | Pass::Tombstone) => Ok(()),
        }
    }

    /// The triggered record; with the second and the target that were asked for, its copy for the history.
    fn triggered(
        &mut self,
        packed: &[u8],
        topic: &str,
        timestamp: Millis,
        asked: Option<(&str, &str)>,
    ) -> Result<(), E> {
        let parts = Parts::unpack(packed);
        let seconds = timestamp.0.div_euclid(1000).max(0).to_string();
        let mut headers = parts.headers;
        headers.push(Header { name: request::TIMESTAMP, value: Some(seconds.as_bytes()) });
        headers.push(Header { name: request::KEY, value: Some(parts.key) });
        headers.push(Header { name: request::TOPIC, value: Some(self.batch.topic(self.item.partition).as_bytes()) });
        if let Some((due, target)) = asked {
            headers.extend(request_headers(due, target, parts.target_key));
        }
        self.send(topic, None, parts.target_key, Some(parts.value), &headers)
    }

    fn dead_letter(&mut self, packed: &[u8], reason: Reason, request: Option<&(Arc<str>, u64)>) -> Result<(), E> {
        let parts = Parts::unpack(packed);
        let (batch, Item { partition, identity, .. }) = (self.batch, self.item);
        let due = request.map(|(_, due)| due.to_string()).unwrap_or_default();
        let (number, offset) = (partition.number.to_string(), identity.to_string());
        let own = [
            Header { name: request::ERROR, value: Some(reason.code().as_bytes()) },
            Header { name: request::ERROR_DETAIL, value: Some(reason.detail().as_bytes()) },
            Header { name: request::TOPIC, value: Some(batch.topic(*partition).as_bytes()) },
            Header { name: request::PARTITION, value: Some(number.as_bytes()) },
            Header { name: request::OFFSET, value: Some(offset.as_bytes()) },
        ];
        let mut headers = parts.headers;
        headers.retain(|header| own.iter().all(|own| own.name != header.name));
        if let Some((target, _)) = request {
            headers.extend(request_headers(&due, target, parts.target_key));
        }
        headers.extend(own);
        let topic = batch.names.dead_letter.as_deref().unwrap_or_default();
        self.send(topic, None, Some(parts.key), Some(parts.value), &headers)
    }

    /// A record in the schedule's own partition that names the user record it speaks for.
    fn marked(
        &mut self,
        key: &[u8],
        value: Option<&[u8]>,
        headers: Vec<Header<'_>>,
        timestamp: Millis,
    ) -> Result<(), E> {
        let Partition { number, .. } = self.item.partition;
        let place = mark::place(&self.batch.names.cluster, self.batch.topic(self.item.partition), number);
        debug_assert!(headers.iter().all(|h| h.name != MARK_HEADER), "marks are dropped on intake");
        let content = mark::content(key, value, &headers);
        let mark = Mark { place, offset: self.item.identity, timestamp, content }.encode();
        let mut headers: Vec<Header<'_>> = headers;
        headers.push(Header { name: MARK_HEADER, value: Some(&mark) });
        self.schedules(key, value, &headers)
    }

    fn schedules(&mut self, key: &[u8], value: Option<&[u8]>, headers: &[Header<'_>]) -> Result<(), E> {
        let batch = self.batch;
        self.send(batch.topic(self.item.partition), Some(self.item.partition), Some(key), value, headers)
    }

    fn send(
        &mut self,
        topic: &str,
        schedules: Option<Partition>,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header<'_>],
    ) -> Result<(), E> {
        (self.visit)(OutRecord { item: self.index, topic, schedules, key, value, headers })
    }
}
