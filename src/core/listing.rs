//! Listings of pending schedules, in pieces of bounded size.

use std::sync::Arc;

use super::Scheduler;
use super::io::{Cursor, Millis, TopicPartition};
use super::partition::{Life, Step};
use super::payload::{Parts, Payload};
use super::words::{Meaning, Size, Word};

/// Entries examined for one page, whether they match or not: some 100 µs.
const LOOKED_AT_MAX: u32 = 10_000;
/// Payload bytes after which a page ends; one larger schedule still makes a page of its own.
const BYTES_MAX: usize = 512 << 10;
/// Bytes of a key that [`Upcoming`] shows.
pub const KEY_SHOWN_MAX: usize = 256;

/// A pending schedule in a listing.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The partition of the user's record.
    pub partition: TopicPartition,
    /// Offset of the user's record.
    pub offset: i64,
    /// The time from which it is due, in seconds since 1970.
    pub due: u64,
    /// The timestamp of the user's record.
    pub timestamp: Millis,
    /// Topic of the triggered record.
    pub target: Arc<str>,
    /// Key, target key, customer headers and value, as [`Parts::write`] packs them.
    packed: Vec<u8>,
    /// The [`super::reason::Reason::code`] of the reason why it is parked, if it is, or `unchecked-target` until it is
    /// known whether its target exists.
    pub parked: Option<&'static str>,
}

impl Listed {
    /// Packs a schedule; the arguments are its fields.
    #[must_use]
    pub fn new(
        partition: TopicPartition,
        offset: i64,
        due: u64,
        timestamp: Millis,
        target: Arc<str>,
        parts: &Parts<'_>,
        parked: Option<&'static str>,
    ) -> Self {
        let mut packed = Vec::new();
        parts.write(&mut packed);
        Self { partition, offset, due, timestamp, target, packed, parked }
    }

    /// Returns key, target key, customer headers and value.
    #[must_use]
    pub fn parts(&self) -> Parts<'_> {
        Parts::unpack(&self.packed)
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
    pub due_before: Option<u64>,
    /// Only those due after this second.
    pub due_after: Option<u64>,
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

/// The cursor's partition was revoked or is being read again: the listing has to begin from the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

/// One of the next schedules to fire.
#[derive(Clone, Debug)]
pub struct Upcoming {
    /// The partition of the user's record.
    pub partition: TopicPartition,
    /// The time from which it is due, in seconds since 1970.
    pub due: u64,
    /// Topic of the triggered record.
    pub target: Arc<str>,
    /// The schedule's key, up to [`KEY_SHOWN_MAX`] bytes.
    pub key: Vec<u8>,
}

/// A state of a partition, in the order that it passes through them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its committed metadata or its barrier is awaited.
    TakingOver,
    /// It is read up to its barrier.
    Loading,
    /// It fires.
    Live,
    /// It is being handed over.
    Releasing,
}

/// The status of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// The topic's index, and the partition of it.
    pub partition: TopicPartition,
    /// Its state.
    pub phase: Phase,
    /// The next offset to read.
    pub position: i64,
    /// The offset at which loading ends, once it is known.
    pub barrier: Option<i64>,
    /// Schedules pending.
    pub pending: usize,
    /// Schedules of these that are due and in no batch yet; parked ones are not counted.
    pub overdue: usize,
    /// Records that wait because a broker rejected them or their target cannot be produced to: schedules, and the rare
    /// cancel or invalid record that has to be written again.
    pub parked: usize,
    /// The time from which the next schedule is due, in seconds since 1970; parked ones are not counted.
    pub next_due: Option<u64>,
    /// About how many bytes of memory its records take: payloads, and a fixed sum for each record.
    pub bytes: usize,
}

impl<P: Payload> Scheduler<P> {
    /// Returns up to `limit` pending schedules from `cursor` on, in no particular order, and the cursor of the next page.
    /// It has no other bound.
    #[must_use]
    pub fn list(&self, cursor: Cursor, limit: usize) -> (Vec<Listed>, Option<Cursor>) {
        let page = self.piece(cursor, limit, &Filter::default(), usize::MAX, u32::MAX);
        page.map_or((Vec::new(), None), |page| (page.entries, page.next))
    }

    /// Returns a page of the schedules that match, of bounded size.
    ///
    /// # Errors
    /// When the cursor has expired.
    pub fn page(&self, cursor: Cursor, limit: usize, filter: &Filter) -> Result<Page, Gone> {
        self.piece(cursor, limit, filter, BYTES_MAX, LOOKED_AT_MAX)
    }

    fn piece(
        &self,
        cursor: Cursor,
        limit: usize,
        filter: &Filter,
        bytes_max: usize,
        looked_at_max: u32,
    ) -> Result<Page, Gone> {
        let mut page = Page::default();
        let (mut bytes, mut looked_at) = (0, 0);
        let from = cursor.partition.unwrap_or(TopicPartition { topic: 0, number: i32::MIN });
        if cursor.partition.is_some_and(|id| self.lives.get(&id).is_none_or(|life| life.cursor_tag() != cursor.barrier))
        {
            return Err(Gone);
        }
        for (id, life) in self.lives.range(from..).filter(|(id, _)| filter.topic.is_none_or(|topic| topic == id.topic))
        {
            let first = if cursor.partition == Some(*id) { cursor.entry } else { 0 };
            for slot in first..life.words.slots() {
                if page.entries.len() >= limit || bytes >= bytes_max || looked_at >= looked_at_max {
                    page.next = Some(Cursor { partition: Some(*id), entry: slot, barrier: life.cursor_tag() });
                    return Ok(page);
                }
                looked_at += 1;
                let Some(word) = life.words.get(slot).filter(|word| filter.takes(word)) else { continue };
                if let Some(listed) = self.listed(*id, word) {
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
        let lives = self.lives.values().filter(|life| life.id.topic == topic);
        lives.filter_map(|life| self.listed(life.id, life.words.of_key(key)?)).collect()
    }

    /// Returns the next `limit` schedules to fire, over all live partitions, earliest first.
    #[must_use]
    pub fn upcoming(&self, limit: usize) -> Vec<Upcoming> {
        let mut next: Vec<(TopicPartition, &Word<P>)> = Vec::new();
        for life in self.lives.values().filter(|life| life.is_live()) {
            for size in Size::ALL {
                next.extend(life.words.by_due(size).take(limit).map(|word| (life.id, word)));
            }
            // Sorting after each partition keeps no more than two partitions' share.
            next.sort_by_key(|(_, word)| word.due());
            next.truncate(limit);
        }
        next.into_iter().filter_map(|(id, word)| self.soon(id, word)).collect()
    }

    fn soon(&self, partition: TopicPartition, word: &Word<P>) -> Option<Upcoming> {
        let Meaning::Schedule { due, target } = word.meaning else { return None };
        let key = word.payload.key();
        let key = key[..key.len().min(KEY_SHOWN_MAX)].to_vec();
        Some(Upcoming { partition, due, target: self.targets.name(target), key })
    }

    fn listed(&self, partition: TopicPartition, word: &Word<P>) -> Option<Listed> {
        let Meaning::Schedule { due, target } = word.meaning else { return None };
        let mut packed = Vec::with_capacity(word.payload.size());
        word.payload.write(&mut packed);
        let why = || word.put_off.map_or("unchecked-target", |reason| reason.code());
        let parked = word.is_parked().then(why);
        Some(Listed {
            partition,
            offset: word.origin_offset,
            due,
            timestamp: word.timestamp,
            target: self.targets.name(target),
            packed,
            parked,
        })
    }

    /// Returns the status of every partition held.
    #[must_use]
    pub fn status(&self) -> Vec<Status> {
        let second = u64::try_from(self.now.0.div_euclid(1000)).ok();
        let status = |life: &Life<P>| Status {
            partition: life.id,
            phase: match life.step {
                Step::Metadata | Step::Barrier | Step::BarrierSent => Phase::TakingOver,
                Step::Loading(_) | Step::Since | Step::Siblings | Step::StartMarker(_) | Step::StartMarkerSent(_) => Phase::Loading,
                Step::Live => Phase::Live,
                Step::Releasing { .. } => Phase::Releasing,
            },
            position: life.position,
            barrier: life.barrier,
            pending: life.words.pending(),
            overdue: second.map_or(0, |second| life.words.overdue(second)),
            parked: life.words.parked(),
            next_due: life.words.next_due(&Size::ALL),
            bytes: life.words.bytes(),
        };
        self.lives.values().map(status).collect()
    }
}

impl Filter {
    fn takes<P: Payload>(&self, word: &Word<P>) -> bool {
        let Meaning::Schedule { due, .. } = word.meaning else { return false };
        self.due_before.is_none_or(|before| due < before)
            && self.due_after.is_none_or(|after| due > after)
            && (!self.parked || word.is_parked())
            && word.payload.key().starts_with(&self.key_prefix)
    }
}
