//! Turns the items of a batch into records.

use std::sync::Arc;

use super::super::bugs::{self, Bug};
use super::super::due::Due;
use super::super::headers;
use super::super::origin::{self, ORIGIN_HEADER, Origin};
use super::super::payload::Parts;
use super::super::reason::Reason;
use super::super::types::{Header, Millis, TopicPartition};
use super::{AfterFiring, Batch, Item, Kind};

/// A record to produce. The producer sets its timestamp to the current time.
#[derive(Clone, Copy, Debug)]
pub struct OutRecord<'a> {
    /// Index into [`Batch::items`], by which the delivery report finds the item.
    pub item: u32,
    /// Name of the topic.
    pub topic: &'a str,
    /// The partition, if the topic is a schedules topic; `None` leaves it to the partitioner.
    pub partition: Option<TopicPartition>,
    /// `None` is null.
    pub key: Option<&'a [u8]>,
    /// `None` is null.
    pub value: Option<&'a [u8]>,
    /// Headers in order.
    pub headers: &'a [Header<'a>],
}

/// The order in which the records of a batch are produced: the first pass for all items, then the next. Triggered
/// records are sent before the engine's own, to minimize lateness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// Triggered records and dead letters, and the records of items that have only one.
    Outgoing,
    /// History records.
    History,
    /// Tombstones of fired schedules and of dead letters.
    FollowUp,
}

impl Pass {
    /// All passes in order.
    pub const ALL: [Self; 3] = [Self::Outgoing, Self::History, Self::FollowUp];
}

impl Batch {
    /// Visits the records in the order in which they are to be produced, and stops at the first error.
    ///
    /// # Errors
    /// Returns the error of `visit`.
    ///
    /// # Panics
    /// If a payload is stored outside memory and was not [resolved](Self::resolve).
    pub fn records<E>(&self, mut visit: impl FnMut(OutRecord<'_>) -> Result<(), E>) -> Result<(), E> {
        Pass::ALL.into_iter().try_for_each(|pass| self.records_of(pass, &mut visit))
    }

    /// Visits the records of one pass, as [`Batch::records`] does.
    ///
    /// # Errors
    /// Returns the error of `visit`.
    pub fn records_of<E>(&self, pass: Pass, mut visit: impl FnMut(OutRecord<'_>) -> Result<(), E>) -> Result<(), E> {
        self.items.iter().enumerate().try_for_each(|(index, item)| {
            // A batch holds far fewer than 2^32 items.
            let mut visitor = RecordVisitor { batch: self, item, index: index as u32, visit: &mut visit };
            visitor.visit_pass(pass, self.packed(item))
        })
    }
}

fn request_headers<'a>(
    due: &'a str,
    target: &'a str,
    target_key: Option<&'a [u8]>,
) -> impl Iterator<Item = Header<'a>> {
    let key = target_key.map(|key| Header { name: headers::TARGET_KEY, value: Some(key) });
    [
        Header { name: headers::EPOCH, value: Some(due.as_bytes()) },
        Header { name: headers::TARGET_TOPIC, value: Some(target.as_bytes()) },
    ]
    .into_iter()
    .chain(key)
}

struct RecordVisitor<'a, V> {
    batch: &'a Batch,
    item: &'a Item,
    index: u32,
    visit: &'a mut V,
}

impl<E, V: FnMut(OutRecord<'_>) -> Result<(), E>> RecordVisitor<'_, V> {
    /// Visits the item's record of one pass, if it has one.
    fn visit_pass(&mut self, pass: Pass, packed: &[u8]) -> Result<(), E> {
        match (&self.item.kind, pass) {
            (Kind::Fire { target, timestamp, .. }, Pass::Outgoing) => self.triggered(packed, target, *timestamp, None),
            (Kind::Fire { target, due, timestamp, .. }, Pass::History) => {
                let (batch, due) = (self.batch, due.epoch_s().to_string());
                self.triggered(packed, &batch.names.history, *timestamp, Some((&due, target)))
            }
            (Kind::Fire { .. }, Pass::FollowUp) if bugs::on(Bug::TombstoneNamesNothing) => {
                self.send_to_own_partition(Parts::key_of(packed), None, &[])
            }
            (Kind::DeadLetter { reason, request, .. }, Pass::Outgoing) => {
                self.dead_letter(packed, *reason, request.as_ref())
            }
            (
                Kind::Fire { timestamp, after: AfterFiring::End, .. } | Kind::DeadLetter { timestamp, .. },
                Pass::FollowUp,
            )
            | (Kind::RewriteCancel { timestamp }, Pass::Outgoing) => {
                self.send_with_origin(Parts::key_of(packed), None, Vec::new(), *timestamp)
            }
            (Kind::RewriteSchedule { target, due, timestamp }, Pass::Outgoing) => {
                let (due, parts) = (due.epoch_s().to_string(), Parts::unpack(packed));
                let mut headers = parts.headers;
                headers.extend(request_headers(&due, target, parts.target_key));
                self.send_with_origin(parts.key, Some(parts.value), headers, *timestamp)
            }
            (Kind::RewriteInvalid { timestamp }, Pass::Outgoing) => {
                let parts = Parts::unpack(packed);
                self.send_with_origin(parts.key, Some(parts.value), parts.headers, *timestamp)
            }
            (Kind::Barrier { label }, Pass::Outgoing) => {
                let header = Header { name: headers::BARRIER, value: Some(label.as_bytes()) };
                let group = Header { name: headers::GROUP, value: Some(self.batch.names.group.as_bytes()) };
                self.send_to_own_partition(origin::BARRIER_KEY, None, &[header, group])
            }
            (Kind::StartMarker { value }, Pass::Outgoing) => {
                self.send_to_own_partition(origin::START_MARKER_KEY, Some(value.as_bytes()), &[])
            }
            (_, Pass::History | Pass::FollowUp) => Ok(()),
        }
    }

    /// Sends the triggered record or, if `history` has the due second and the target topic, its history record.
    fn triggered(
        &mut self,
        packed: &[u8],
        topic: &str,
        timestamp: Millis,
        history: Option<(&str, &str)>,
    ) -> Result<(), E> {
        let parts = Parts::unpack(packed);
        let seconds = timestamp.0.div_euclid(1000).max(0).to_string();
        let mut headers = parts.headers;
        headers.push(Header { name: headers::TIMESTAMP, value: Some(seconds.as_bytes()) });
        headers.push(Header { name: headers::KEY, value: Some(parts.key) });
        headers.push(Header { name: headers::TOPIC, value: Some(self.batch.topic(self.item.partition).as_bytes()) });
        if let Some((due, target)) = history {
            headers.extend(request_headers(due, target, parts.target_key));
        }
        self.send(topic, None, parts.target_key, Some(parts.value), &headers)
    }

    fn dead_letter(&mut self, packed: &[u8], reason: Reason, request: Option<&(Arc<str>, Due)>) -> Result<(), E> {
        let parts = Parts::unpack(packed);
        let (batch, Item { partition, origin_offset, .. }) = (self.batch, self.item);
        let due = request.map(|(_, due)| due.epoch_s().to_string()).unwrap_or_default();
        let (number, offset) = (partition.number.to_string(), origin_offset.to_string());
        let own = [
            Header { name: headers::ERROR, value: Some(reason.code().as_bytes()) },
            Header { name: headers::ERROR_DETAIL, value: Some(reason.detail().as_bytes()) },
            Header { name: headers::TOPIC, value: Some(batch.topic(*partition).as_bytes()) },
            Header { name: headers::PARTITION, value: Some(number.as_bytes()) },
            Header { name: headers::OFFSET, value: Some(offset.as_bytes()) },
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

    /// Sends a record to the schedule's own partition, with an origin header that names the user record it is written
    /// for.
    fn send_with_origin(
        &mut self,
        key: &[u8],
        value: Option<&[u8]>,
        headers: Vec<Header<'_>>,
        timestamp: Millis,
    ) -> Result<(), E> {
        let TopicPartition { number, .. } = self.item.partition;
        let partition_hash =
            origin::partition_hash(&self.batch.names.cluster, self.batch.topic(self.item.partition), number);
        debug_assert!(headers.iter().all(|h| h.name != ORIGIN_HEADER), "origin headers are dropped on arrival");
        let content_hash = origin::content_hash(key, value, &headers);
        let origin = Origin { partition_hash, offset: self.item.origin_offset, timestamp, content_hash }.encode();
        let mut headers: Vec<Header<'_>> = headers;
        headers.push(Header { name: ORIGIN_HEADER, value: Some(&origin) });
        self.send_to_own_partition(key, value, &headers)
    }

    fn send_to_own_partition(&mut self, key: &[u8], value: Option<&[u8]>, headers: &[Header<'_>]) -> Result<(), E> {
        let batch = self.batch;
        self.send(batch.topic(self.item.partition), Some(self.item.partition), Some(key), value, headers)
    }

    fn send(
        &mut self,
        topic: &str,
        partition: Option<TopicPartition>,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header<'_>],
    ) -> Result<(), E> {
        (self.visit)(OutRecord { item: self.index, topic, partition, key, value, headers })
    }
}
