//! Listings of pending schedules, in pages of bounded size.

use std::sync::Arc;

use super::Scheduler;
use super::due::Due;
use super::headers;
use super::key_table::{KeyEntry, UserRequest};
use super::partition::{OwnedPartition, Stage};
use super::payload::{Parts, Payload, Stored};
use super::reason::Reason;
use super::types::{Cursor, Header, Millis, TopicPartition};
use super::wait_queues::Size;

/// Entries examined for one page, whether they match or not: some 100 µs.
const LOOKED_AT_MAX: u32 = 10_000;
/// A page takes no more schedules once it has this many payload bytes; the last one may exceed it.
const BYTES_MAX: usize = 512 << 10;
/// Bytes of a key that [`Upcoming`] shows.
pub const KEY_SHOWN_MAX: usize = 256;
/// Characters of a rule that [`Upcoming`] shows.
const RECURRENCE_SHOWN_MAX: usize = 256;

/// A pending schedule in a listing.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The partition of the user's record.
    pub partition: TopicPartition,
    /// Offset of the user's record.
    pub offset: i64,
    /// The time from which it is due, with its jitter. Of one that recurs: its next occurrence.
    pub due: Due,
    /// Of one that recurs: the number of the next occurrence, from 1.
    pub occurrence: Option<u64>,
    /// The timestamp of the user's record.
    pub timestamp: Millis,
    /// Topic of the triggered record.
    pub target: Arc<str>,
    /// Key, target key, user headers and value, as [`Parts::write`] packs them.
    packed: Vec<u8>,
    /// Why it is parked, if it is.
    pub parked: Option<ParkedFor>,
}

/// Why a schedule is parked: it waits although it may be due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParkedFor {
    /// The engine does not know yet whether the target topic exists.
    UncheckedTarget,
    /// It cannot be delivered for now, for this reason.
    Reason(Reason),
}

impl ParkedFor {
    /// Returns the code that REST and commands show: `unchecked-target`, or the [`Reason::code`].
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::UncheckedTarget => "unchecked-target",
            Self::Reason(reason) => reason.code(),
        }
    }
}

impl Listed {
    /// Packs a schedule; the arguments are its fields.
    #[must_use]
    pub fn new(
        partition: TopicPartition,
        offset: i64,
        due: Due,
        timestamp: Millis,
        target: Arc<str>,
        parts: &Parts<'_>,
        parked: Option<ParkedFor>,
    ) -> Self {
        let mut packed = Vec::new();
        parts.write(&mut packed);
        Self { partition, offset, due, occurrence: None, timestamp, target, packed, parked }
    }

    /// Sets the number of the next occurrence.
    #[must_use]
    pub fn occurrence(self, occurrence: Option<u64>) -> Self {
        Self { occurrence, ..self }
    }

    /// Returns key, target key, user headers and value; all empty if the payload is stored outside memory.
    #[must_use]
    pub fn parts(&self) -> Parts<'_> {
        Parts::unpack_or_empty(&self.packed)
    }
}

/// Selects pending schedules. The default selects all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only those of this topic, by its index.
    pub topic: Option<u16>,
    /// Only those whose key begins with these bytes.
    pub key_prefix: Vec<u8>,
    /// Only those due before this second.
    pub due_before_s: Option<u64>,
    /// Only those due from this second on.
    pub due_from_s: Option<u64>,
    /// Only those that are parked.
    pub parked: bool,
}

/// A page of a listing.
#[derive(Debug, Default)]
pub struct Page {
    /// Schedules, in no particular order. The list may be empty although more follow.
    pub entries: Vec<Listed>,
    /// The start of the next page, if there is one.
    pub next: Option<Cursor>,
}

/// The cursor's partition was revoked, is being read again, or has moved its entries: the listing has to begin from the
/// start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CursorExpired;

/// One of the next schedules to fire.
#[derive(Clone, Debug)]
pub struct Upcoming {
    /// The partition of the user's record.
    pub partition: TopicPartition,
    /// The time from which it is due, with its jitter.
    pub due: Due,
    /// Topic of the triggered record.
    pub target: Arc<str>,
    /// The schedule's key, up to [`KEY_SHOWN_MAX`] bytes.
    pub key: Vec<u8>,
    /// Of one that recurs: the number of the next occurrence, from 1.
    pub occurrence: Option<u64>,
    /// Of one that recurs: its rule as its user wrote it, such as `cron 0 9 * * 1-5 Europe/Paris` or `every 10m`.
    pub recurrence: Option<String>,
}

/// The state of a partition. A partition passes through the states in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PartitionState {
    /// The engine fences the former owner and commits its barrier.
    TakingOver,
    /// The engine reads the partition up to its barrier.
    Loading,
    /// The engine fires the partition's schedules.
    Live,
    /// The engine hands the partition over.
    Releasing,
}

/// The status of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// The topic's index, and the partition of it.
    pub partition: TopicPartition,
    /// Its state.
    pub state: PartitionState,
    /// The next offset to read.
    pub position: i64,
    /// The offset at which loading ends, once it is known.
    pub barrier: Option<i64>,
    /// Schedules pending.
    pub pending: usize,
    /// Schedules of these that are due and in no batch yet; parked ones are not counted.
    pub overdue: usize,
    /// Records that wait for their target or its first lookup, for a retry, or for their dead letter; not only
    /// schedules.
    pub parked: usize,
    /// The time from which the next schedule is due, in seconds since 1970; parked ones are not counted.
    pub next_due_s: Option<u64>,
    /// About how many bytes of memory its records take: payloads, and a fixed sum for each record.
    pub bytes: usize,
}

impl<P: Payload> Scheduler<P> {
    /// Returns up to `limit` pending schedules from `cursor` on, in no particular order, and the cursor of the next
    /// page. It has no other bound.
    #[must_use]
    pub fn list(&self, cursor: Cursor, limit: usize) -> (Vec<Listed>, Option<Cursor>) {
        let page = self.bounded_page(cursor, limit, &Filter::default(), usize::MAX, u32::MAX);
        page.map_or((Vec::new(), None), |page| (page.entries, page.next))
    }

    /// Returns a page of the schedules that match, of bounded size.
    ///
    /// # Errors
    /// When the cursor has expired.
    pub fn page(&self, cursor: Cursor, limit: usize, filter: &Filter) -> Result<Page, CursorExpired> {
        self.bounded_page(cursor, limit, filter, BYTES_MAX, LOOKED_AT_MAX)
    }

    fn bounded_page(
        &self,
        cursor: Cursor,
        limit: usize,
        filter: &Filter,
        bytes_max: usize,
        looked_at_max: u32,
    ) -> Result<Page, CursorExpired> {
        let mut page = Page::default();
        let (mut bytes, mut looked_at) = (0, 0);
        let from = cursor.partition.unwrap_or(TopicPartition { topic: 0, number: i32::MIN });
        if cursor
            .partition
            .is_some_and(|id| self.partitions.get(&id).is_none_or(|owned| owned.cursor_tag() != cursor.barrier))
        {
            return Err(CursorExpired);
        }
        for (id, owned) in
            self.partitions.range(from..).filter(|(id, _)| filter.topic.is_none_or(|topic| topic == id.topic))
        {
            let first = if cursor.partition == Some(*id) { cursor.entry } else { 0 };
            for slot in first..owned.keys.slots() {
                if page.entries.len() >= limit || bytes >= bytes_max || looked_at >= looked_at_max {
                    page.next = Some(Cursor { partition: Some(*id), entry: slot, barrier: owned.cursor_tag() });
                    return Ok(page);
                }
                looked_at += 1;
                let Some(entry) = owned.keys.get(slot).filter(|entry| filter.matches(entry)) else { continue };
                if let Some(listed) = self.listed(owned, slot, entry) {
                    bytes += listed.packed.len();
                    page.entries.push(listed);
                }
            }
        }
        Ok(page)
    }

    /// Returns the pending schedules of a topic with this key: at most one in each partition held.
    #[must_use]
    pub fn find(&self, topic: u16, key: &[u8]) -> Vec<Listed> {
        let partitions = self.partitions.values().filter(|owned| owned.id.topic == topic);
        let of_key = |owned: &OwnedPartition<P>| {
            let slot = owned.keys.slot_of(key)?;
            self.listed(owned, slot, owned.keys.get(slot)?)
        };
        partitions.filter_map(of_key).collect()
    }

    /// Returns the next `limit` schedules to fire, over all live partitions, earliest first.
    #[must_use]
    pub fn upcoming(&self, limit: usize) -> Vec<Upcoming> {
        let mut next: Vec<(TopicPartition, &KeyEntry<P>)> = Vec::new();
        for owned in self.partitions.values().filter(|owned| owned.is_live()) {
            for size in Size::ALL {
                next.extend(owned.keys.first_by_due(size, limit).into_iter().map(|entry| (owned.id, entry)));
            }
            // Truncating after each partition bounds the memory.
            next.sort_by_key(|(_, entry)| entry.due());
            next.truncate(limit);
        }
        next.into_iter().filter_map(|(id, entry)| self.to_upcoming(id, entry)).collect()
    }

    fn to_upcoming(&self, partition: TopicPartition, entry: &KeyEntry<P>) -> Option<Upcoming> {
        let UserRequest::Schedule { due, target, .. } = entry.request else { return None };
        let key = key(&entry.payload);
        let owned = self.partitions.get(&partition)?;
        let occurrence = owned.keys.slot_of(key).and_then(|slot| occurrence(owned, slot, entry));
        let parts = if entry.recurs() { Parts::unpack_or_empty(packed(&entry.payload)) } else { Parts::default() };
        let key = key[..key.len().min(KEY_SHOWN_MAX)].to_vec();
        let (target, recurrence) = (self.targets.name(target), recurrence(&parts.headers));
        Some(Upcoming { partition, due, target, key, occurrence, recurrence })
    }

    fn listed(&self, owned: &OwnedPartition<P>, slot: u32, entry: &KeyEntry<P>) -> Option<Listed> {
        let UserRequest::Schedule { due, target, .. } = entry.request else { return None };
        let packed = packed(&entry.payload).to_vec();
        let why = || entry.parked_for.map_or(ParkedFor::UncheckedTarget, ParkedFor::Reason);
        let parked = entry.is_parked().then(why);
        Some(Listed {
            partition: owned.id,
            offset: entry.origin_offset,
            due,
            occurrence: occurrence(owned, slot, entry),
            timestamp: entry.timestamp,
            target: self.targets.name(target),
            packed,
            parked,
        })
    }

    /// Returns the status of every partition held.
    #[must_use]
    pub fn status(&self) -> Vec<Status> {
        let status = |owned: &OwnedPartition<P>| Status {
            partition: owned.id,
            state: match owned.stage {
                Stage::Metadata | Stage::Barrier | Stage::BarrierSent => PartitionState::TakingOver,
                Stage::Loading
                | Stage::CanaryCheck
                | Stage::Since
                | Stage::Siblings
                | Stage::StartMarker(_)
                | Stage::StartMarkerSent(_) => PartitionState::Loading,
                Stage::Live => PartitionState::Live,
                Stage::Releasing { .. } => PartitionState::Releasing,
            },
            position: owned.position,
            barrier: owned.barrier,
            pending: owned.keys.pending(),
            overdue: owned.keys.overdue(self.now),
            parked: owned.keys.parked(),
            next_due_s: owned.keys.next_due(&Size::ALL).map(Due::epoch_s),
            bytes: owned.keys.bytes(),
        };
        self.partitions.values().map(status).collect()
    }
}

impl Filter {
    fn matches<P: Payload>(&self, entry: &KeyEntry<P>) -> bool {
        let UserRequest::Schedule { due, .. } = entry.request else { return false };
        self.due_before_s.is_none_or(|before| due.epoch_s() < before)
            && self.due_from_s.is_none_or(|from| due.epoch_s() >= from)
            && (!self.parked || entry.is_parked())
            && key(&entry.payload).starts_with(&self.key_prefix)
    }
}

/// Returns the number of the next occurrence of a schedule that recurs, once it is known.
fn occurrence<P: Payload>(owned: &OwnedPartition<P>, slot: u32, entry: &KeyEntry<P>) -> Option<u64> {
    let timed = owned.keys.timed(slot).filter(|_| entry.recurs())?;
    timed.position.map(|position| position.done.saturating_add(1))
}

/// Returns the rule of a schedule that recurs as its user wrote it, up to [`RECURRENCE_SHOWN_MAX`] characters.
fn recurrence(headers: &[Header<'_>]) -> Option<String> {
    let text = |name: &[u8]| {
        let value = headers.iter().find(|header| header.name == name)?.value.filter(|value| !value.is_empty())?;
        Some(String::from_utf8_lossy(value))
    };
    let rule = match (text(headers::EVERY), text(headers::CRON), text(headers::TIMEZONE)) {
        (Some(every), ..) => format!("every {}", every.trim()),
        (None, Some(cron), Some(zone)) => format!("cron {} {}", cron.trim(), zone.trim()),
        (None, Some(cron), None) => format!("cron {}", cron.trim()),
        (None, None, _) => return None,
    };
    Some(rule.chars().take(RECURRENCE_SHOWN_MAX).collect())
}

/// Returns the packed bytes; none if they are outside memory.
fn packed<P: Payload>(payload: &P) -> &[u8] {
    match payload.stored() {
        Stored::Memory(packed) => packed,
        Stored::Outside(_) => &[],
    }
}

fn key<P: Payload>(payload: &P) -> &[u8] {
    let packed = packed(payload);
    if packed.is_empty() { packed } else { Parts::key_of(packed) }
}
