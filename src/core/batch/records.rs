//! Turns the items of a batch into records.

use super::super::bugs::{self, Bug};
use super::super::canary::canary_key;
use super::super::due::Due;
use super::super::headers;
use super::super::origin::{self, ORIGIN_HEADER, Origin};
use super::super::payload::Parts;
use super::super::progress::{self, Progress};
use super::super::reason::Reason;
use super::super::recurrence::due_at;
use super::super::types::{Header, Millis, TopicPartition};
use super::super::when;
use super::{AfterFiring, Batch, DeadRequest, Fired, Item, Kind};

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

fn target_headers<'a>(target: &'a str, target_key: Option<&'a [u8]>) -> impl Iterator<Item = Header<'a>> {
    let key = target_key.map(|key| Header { name: headers::TARGET_KEY, value: Some(key) });
    [Header { name: headers::TARGET_TOPIC, value: Some(target.as_bytes()) }].into_iter().chain(key)
}

/// The text of the headers that a firing of a new form adds.
struct FiredText {
    due_ms: String,
    id: String,
    occurrence: Option<(String, String)>,
}

impl FiredText {
    /// Returns the text for a firing; `None` if it adds no header.
    fn of(fired: Fired, due: Due, item: &Item, adds_due_header: bool) -> Option<Self> {
        let TopicPartition { number, .. } = item.partition;
        match fired.nominal {
            None if !adds_due_header => None,
            nominal => Some(Self {
                due_ms: nominal.unwrap_or(due).epoch_ms().to_string(),
                id: if nominal.is_some() { format!("{number}-{}", item.origin_offset) } else { String::new() },
                occurrence: fired.occurrence.map(|(number, missed)| (number.to_string(), missed.to_string())),
            }),
        }
    }

    fn headers(&self) -> impl Iterator<Item = Header<'_>> {
        let (number, missed) = self.occurrence.as_ref().map_or(("", ""), |(n, m)| (n.as_str(), m.as_str()));
        let all: [(&'static [u8], &str); 4] = [
            (headers::DUE, &self.due_ms),
            (headers::ID, &self.id),
            (headers::OCCURRENCE, number),
            (headers::MISSED, missed),
        ];
        let given = all.into_iter().filter(|(_, text)| !text.is_empty());
        given.map(|(name, text)| Header { name, value: Some(text.as_bytes()) })
    }
}

/// A firing, as its triggered and its history record tell of it.
#[derive(Clone, Copy)]
struct Firing<'a> {
    target: &'a str,
    due: Due,
    timestamp: Millis,
    fired: Fired,
}

struct RecordVisitor<'a, V> {
    batch: &'a Batch,
    item: &'a Item,
    index: u32,
    visit: &'a mut V,
}

impl<E, V: FnMut(OutRecord<'_>) -> Result<(), E>> RecordVisitor<'_, V> {
    /// Visits the item's records of one pass, if it has any.
    fn visit_pass(&mut self, pass: Pass, packed: &[u8]) -> Result<(), E> {
        match (&self.item.kind, pass) {
            (Kind::Fire { target, due, timestamp, fired, .. }, Pass::Outgoing) => {
                self.triggered(packed, Firing { target, due: *due, timestamp: *timestamp, fired: *fired }, None)
            }
            (Kind::Fire { target, due, timestamp, fired, .. }, Pass::History) => {
                let firing = Firing { target, due: *due, timestamp: *timestamp, fired: *fired };
                self.triggered(packed, firing, Some(None))
            }
            (Kind::Expired { target, due, timestamp, fired, .. }, Pass::History) => {
                let firing = Firing { target, due: *due, timestamp: *timestamp, fired: *fired };
                self.triggered(packed, firing, Some(Some(Reason::Expired)))
            }
            (Kind::Fire { .. }, Pass::FollowUp) if bugs::on(Bug::TombstoneNamesNothing) => {
                self.send_to_own_partition(Parts::key_of(packed), None, &[])
            }
            (Kind::DeadLetter { reason, request, .. }, Pass::Outgoing) => {
                self.dead_letter(packed, *reason, request.as_ref())
            }
            (
                Kind::Fire { timestamp, after, .. }
                | Kind::DeadLetter { timestamp, after, .. }
                | Kind::Expired { timestamp, after, .. },
                Pass::FollowUp,
            )
            | (Kind::Skip { timestamp, after }, Pass::Outgoing) => {
                self.follow_up(Parts::key_of(packed), *timestamp, *after)
            }
            (Kind::RewriteCancel { timestamp }, Pass::Outgoing) => {
                self.send_with_origin(Parts::key_of(packed), None, Vec::new(), *timestamp)
            }
            (Kind::RewriteSchedule { target, due, timestamp }, Pass::Outgoing) => {
                let (due, parts) = (due.map(|due| due.epoch_s().to_string()), Parts::unpack(packed));
                let mut headers = parts.headers;
                headers.extend(due.as_ref().map(|due| Header { name: headers::EPOCH, value: Some(due.as_bytes()) }));
                headers.extend(target_headers(target, parts.target_key));
                self.send_with_origin(parts.key, Some(parts.value), headers, *timestamp)
            }
            (Kind::RewriteInvalid { timestamp }, Pass::Outgoing) => {
                let parts = Parts::unpack(packed);
                self.send_with_origin(parts.key, Some(parts.value), parts.headers, *timestamp)
            }
            (Kind::Progress { timestamp, value }, Pass::Outgoing) => {
                let key = progress::progress_key(Parts::key_of(packed));
                self.send_with_origin(&key, Some(value.as_bytes()), Vec::new(), *timestamp)
            }
            (Kind::EndProgress { timestamp }, Pass::Outgoing) => {
                let key = progress::progress_key(Parts::key_of(packed));
                self.send_with_origin(&key, None, Vec::new(), *timestamp)
            }
            (Kind::Barrier { label }, Pass::Outgoing) => {
                let header = Header { name: headers::BARRIER, value: Some(label.as_bytes()) };
                let group = Header { name: headers::GROUP, value: Some(self.batch.names.group.as_bytes()) };
                self.send_to_own_partition(origin::BARRIER_KEY, None, &[header, group])
            }
            (Kind::Canary { label, value }, Pass::Outgoing) => {
                let header = Header { name: headers::CANARY, value: Some(value.as_bytes()) };
                self.send_to_own_partition(&canary_key(label), None, &[header])
            }
            (Kind::StartMarker { value }, Pass::Outgoing) => {
                self.send_to_own_partition(origin::START_MARKER_KEY, Some(value.as_bytes()), &[])
            }
            (_, Pass::Outgoing | Pass::History | Pass::FollowUp) => Ok(()),
        }
    }

    /// Sends what follows a firing: a tombstone for the key, or a progress record under a key of its own.
    fn follow_up(&mut self, key: &[u8], timestamp: Millis, after: AfterFiring) -> Result<(), E> {
        match after {
            AfterFiring::End { ends_progress } => {
                self.send_with_origin(key, None, Vec::new(), timestamp)?;
                if ends_progress {
                    self.send_with_origin(&progress::progress_key(key), None, Vec::new(), timestamp)?;
                }
                Ok(())
            }
            AfterFiring::Progress { .. } if bugs::on(Bug::ProgressNotWritten) => Ok(()),
            AfterFiring::Progress { position, failed } => {
                let failed = failed.map(|reason| reason.code().into());
                let next = due_at(position.next);
                let progress = Progress { done: position.done, next, failed, other: Box::default() };
                let key = progress::progress_key(key);
                self.send_with_origin(&key, Some(progress.encode().as_bytes()), Vec::new(), timestamp)
            }
        }
    }

    /// Sends the triggered record or, if `history` is given, its history record; that of a schedule that has not fired
    /// has the reason.
    fn triggered(&mut self, packed: &[u8], firing: Firing<'_>, history: Option<Option<Reason>>) -> Result<(), E> {
        let Firing { target, due, timestamp, fired } = firing;
        let (batch, parts) = (self.batch, Parts::unpack(packed));
        let seconds = timestamp.0.div_euclid(1000).max(0).to_string();
        let text = FiredText::of(fired, due, self.item, batch.names.adds_due_header);
        let epoch_s = fired.nominal.unwrap_or(due).epoch_s().to_string();
        let is_new = fired.nominal.is_some();
        let mut headers = parts.headers;
        if is_new {
            let has_epoch = |header: &Header<'_>| header.name == headers::EPOCH;
            headers.retain(|header| !when::is_when(header.name) || history.is_some() && !has_epoch(header));
        } else if text.is_some() {
            headers.retain(|header| header.name != headers::DUE);
        }
        headers.push(Header { name: headers::TIMESTAMP, value: Some(seconds.as_bytes()) });
        headers.push(Header { name: headers::KEY, value: Some(parts.key) });
        headers.push(Header { name: headers::TOPIC, value: Some(batch.topic(self.item.partition).as_bytes()) });
        headers.extend(text.iter().flat_map(FiredText::headers));
        let mut topic = target;
        if let Some(reason) = history {
            topic = &batch.names.history;
            // Also of new forms, for older readers.
            headers.push(Header { name: headers::EPOCH, value: Some(epoch_s.as_bytes()) });
            headers.extend(target_headers(target, parts.target_key));
            headers.extend(reason.map(|reason| Header { name: headers::ERROR, value: Some(reason.code().as_bytes()) }));
        }
        self.send(topic, None, parts.target_key, Some(parts.value), &headers)
    }

    fn dead_letter(&mut self, packed: &[u8], reason: Reason, request: Option<&DeadRequest>) -> Result<(), E> {
        let parts = Parts::unpack(packed);
        let (batch, Item { partition, origin_offset, .. }) = (self.batch, self.item);
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
        // It asks for this one firing: the old form as it was, and others by milliseconds.
        let (mut epoch, mut text) = (None, None);
        if let Some(DeadRequest { due, fired: Some(fired), .. }) = request {
            let is_new = fired.nominal.is_some();
            headers.retain(|header| !is_new || !when::is_when(header.name));
            epoch = Some(if is_new {
                (headers::EPOCH_MS, due.epoch_ms().to_string())
            } else {
                (headers::EPOCH, due.epoch_s().to_string())
            });
            text = is_new.then(|| FiredText::of(*fired, *due, self.item, false)).flatten();
        }
        headers.extend(epoch.as_ref().map(|(name, text)| Header { name, value: Some(text.as_bytes()) }));
        headers.extend(text.iter().flat_map(FiredText::headers));
        if let Some(DeadRequest { target, .. }) = request {
            headers.extend(target_headers(target, parts.target_key));
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
