//! The entry of a key: its latest record, and what the engine does about it.

use super::super::due::Due;
use super::super::payload::Payload;
use super::super::reason::Reason;
use super::super::types::Millis;
use super::super::wait_queues::Size;

/// A schedule whose payload is larger than this fires apart from small ones while throughput is the limit.
const SMALL_BYTES_MAX: usize = 1_024;

/// An engine record for an older record of the key comes after it in the log: compaction may remove it.
pub(super) const OVERTAKEN: u8 = 1;
/// A broker rejected it, alone or together with others, without a reason of its own.
pub(super) const QUARANTINED: u8 = 2;
/// It is not tried again: it becomes a dead letter.
pub(super) const TO_DEAD_LETTER: u8 = 4;
/// The first of five bits, one for each kind of reason for which it was parked.
const FIRST_REASON: u8 = 8;

/// What the latest record of a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Request {
    /// A record at a later time.
    Schedule {
        due: Due,
        /// The number of the target topic.
        target: u32,
    },
    /// Nothing any more: the record is a tombstone.
    Cancel,
    /// The record cannot fire. It ends the key's earlier request as a cancel does, and stays in the log.
    Invalid(Reason),
}

/// A user's record that was just read.
#[derive(Debug)]
pub(in super::super) struct NewEntry<P> {
    /// Offset of the user's record, not of a copy of it.
    pub(in super::super) origin_offset: i64,
    /// Timestamp of the user's record.
    pub(in super::super) timestamp: Millis,
    pub(in super::super) request: Request,
    /// The record's bytes; of a cancel, the key alone.
    pub(in super::super) payload: P,
}

/// The latest record of a key, and what the engine does about it.
#[derive(Debug)]
pub(in super::super) struct KeyEntry<P> {
    /// Offset of the user's record, not of a copy of it.
    pub(in super::super) origin_offset: i64,
    /// Timestamp of the user's record.
    pub(in super::super) timestamp: Millis,
    pub(in super::super) request: Request,
    pub(in super::super) payload: P,
    /// The batch with the engine record that is outstanding for the key, as [`short_batch_id`] names it; 0 if there is
    /// none.
    ///
    /// [`short_batch_id`]: super::super::in_flight::short_batch_id
    pub(super) in_flight_batch: u32,
    pub(super) flags: u8,
    pub(super) waiting: Waiting,
    /// How often it has been retried, up to a bound.
    pub(super) retries: u8,
    /// Why it was last parked.
    pub(in super::super) parked_for: Option<Reason>,
}

/// The queue in which an entry waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiting {
    /// None: an engine record is outstanding, or there is nothing to wait for.
    No,
    /// Until it is due.
    Due,
    /// For a batch of quarantined schedules.
    Quarantined,
    /// For its target topic to be usable.
    Target,
    /// For a retry, since a broker rejected its firing or its dead letter.
    Retry,
    /// For a retry, since a broker rejected the record that writes it again.
    RewriteRetry,
    /// For a batch of dead letters.
    DeadLetter,
}

impl Waiting {
    pub(super) fn is_parked(self) -> bool {
        !matches!(self, Self::No | Self::Due | Self::Quarantined)
    }
}

impl<P> KeyEntry<P> {
    pub(super) fn new(new: NewEntry<P>, in_flight_batch: u32) -> Self {
        let NewEntry { origin_offset, timestamp, request, payload } = new;
        Self {
            origin_offset,
            timestamp,
            request,
            payload,
            in_flight_batch,
            flags: 0,
            waiting: Waiting::No,
            retries: 0,
            parked_for: None,
        }
    }

    /// When it is due, if it is a schedule.
    pub(in super::super) fn due(&self) -> Option<Due> {
        match self.request {
            Request::Schedule { due, .. } => Some(due),
            Request::Cancel | Request::Invalid(_) => None,
        }
    }

    pub(super) fn size(&self) -> Size
    where
        P: Payload,
    {
        if self.payload.stored().packed_bytes() > SMALL_BYTES_MAX { Size::Large } else { Size::Small }
    }

    /// Whether it waits for something else than its due time.
    pub(in super::super) fn is_parked(&self) -> bool {
        self.waiting.is_parked()
    }

    pub(in super::super) fn retries(&self) -> u8 {
        self.retries
    }

    /// Whether the engine has decided a record for the key that has not been read back.
    pub(super) fn is_outstanding(&self) -> bool {
        self.in_flight_batch != 0
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.waiting != Waiting::No
    }

    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    pub(super) fn set(&mut self, flag: u8, on: bool) {
        self.flags = if on { self.flags | flag } else { self.flags & !flag };
    }

    /// Remembers why it is parked. True the first time for each kind of reason.
    pub(super) fn remember(&mut self, reason: Reason) -> bool {
        let kind = match reason {
            Reason::UnknownTarget => 0,
            Reason::Forbidden => 1,
            Reason::TooLarge => 2,
            Reason::NoLeader => 3,
            _ => 4,
        };
        let flag = FIRST_REASON << kind;
        let is_new = !self.has(flag);
        self.set(flag, true);
        self.parked_for = Some(reason);
        is_new
    }
}
