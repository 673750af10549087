//! The entry of a key: its latest record, and what the entry waits for.

use super::super::due::Due;
use super::super::payload::Payload;
use super::super::reason::Reason;
use super::super::types::Millis;
use super::super::wait_queues::Size;
use super::super::when::{Form, Spec};

/// A schedule whose payload is larger than this fires apart from small ones while throughput is the limit.
const SMALL_BYTES_MAX: usize = 1_024;

/// The record is overtaken and must be rewritten.
pub(super) const OVERTAKEN: u8 = 1;
/// A broker rejected the record, or an unknown one of its batch, so it fires apart from the others.
pub(super) const ISOLATED: u8 = 2;
/// The schedule does not fire: it becomes a dead letter.
pub(super) const TO_DEAD_LETTER: u8 = 4;
/// The first of five bits: the kinds of reasons for which the entry was parked. All eight bits are used.
const FIRST_REASON: u8 = 8;
/// All of them.
const ALL_REASONS: u8 = !(OVERTAKEN | ISOLATED | TO_DEAD_LETTER);

/// The request of a key's latest record: what its user asked the engine to do with the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum UserRequest {
    /// It schedules a record.
    Schedule {
        due: Due,
        /// Number of the target topic in `Targets`.
        target: u32,
        /// The form in which it says when it fires. What else a form needs is in `KeyTable::timed`.
        form: Form,
    },
    /// It is a tombstone: nothing is to fire any more.
    Cancel,
    /// It cannot fire. It ends the key's earlier request as a cancel does, and stays in the log unless there is a
    /// dead-letter topic.
    Invalid(Reason),
    /// An engine has accepted it, and this version does not know its zone or its syntax. It stays parked until a user
    /// writes a newer record, or a later version runs.
    Unknown(Reason),
}

/// A user's record, as just read.
#[derive(Debug)]
pub(in super::super) struct NewEntry<P> {
    /// Offset of the user's record, not of a copy of it.
    pub(in super::super) origin_offset: i64,
    /// Timestamp of the user's record.
    pub(in super::super) timestamp: Millis,
    pub(in super::super) request: UserRequest,
    /// The record's bytes; of a cancel, the key alone.
    pub(in super::super) payload: P,
    /// The rule and the options of a schedule that has any.
    pub(in super::super) spec: Option<Box<Spec>>,
}

/// The latest record of a key, and what the entry waits for.
#[derive(Debug)]
pub(in super::super) struct KeyEntry<P> {
    /// Offset of the user's record, not of a copy of it.
    pub(in super::super) origin_offset: i64,
    /// Timestamp of the user's record.
    pub(in super::super) timestamp: Millis,
    pub(in super::super) request: UserRequest,
    pub(in super::super) payload: P,
    /// [`short_batch_id`] of the batch with the key's outstanding engine record; 0 if there is none.
    ///
    /// [`short_batch_id`]: super::super::in_flight::short_batch_id
    pub(super) outstanding_batch: u32,
    pub(super) flags: u8,
    pub(super) waiting: Waiting,
    /// Number of retries, up to a bound.
    pub(super) retries: u8,
    /// The reason for which it was last parked.
    pub(in super::super) parked_for: Option<Reason>,
}

/// What an entry waits for, which determines its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiting {
    /// It is in no queue: an engine record is outstanding, or there is nothing to wait for.
    No,
    /// It recurs, and waits for the calendar to compute when it is due.
    Date,
    /// It is due, and waits until no record for its progress key is outstanding.
    Progress,
    /// It waits for its due time.
    Due,
    /// It waits for a batch of isolated schedules.
    Isolated,
    /// It waits for its target topic to be usable.
    Target,
    /// It waits for a retry, after a broker rejected its firing or its dead letter.
    Retry,
    /// It waits for a retry, after a broker rejected its rewrite.
    RewriteRetry,
    /// It waits for a batch of dead letters.
    DeadLetter,
    /// It waits for a version that knows it.
    Unknown,
}

impl Waiting {
    pub(super) fn is_parked(self) -> bool {
        !matches!(self, Self::No | Self::Date | Self::Progress | Self::Due | Self::Isolated | Self::Unknown)
    }
}

impl<P> KeyEntry<P> {
    pub(super) fn new(new: NewEntry<P>, outstanding_batch: u32) -> Self {
        let NewEntry { origin_offset, timestamp, request, payload, .. } = new;
        Self {
            origin_offset,
            timestamp,
            request,
            payload,
            outstanding_batch,
            flags: 0,
            waiting: Waiting::No,
            retries: 0,
            parked_for: None,
        }
    }

    /// Returns the due time, if the entry is a schedule and its due time is known.
    pub(in super::super) fn due(&self) -> Option<Due> {
        match self.request {
            UserRequest::Schedule { due, .. } if self.waiting != Waiting::Date => Some(due),
            UserRequest::Schedule { .. } | UserRequest::Cancel | UserRequest::Invalid(_) | UserRequest::Unknown(_) => {
                None
            }
        }
    }

    pub(in super::super) fn is_overtaken(&self) -> bool {
        self.has(OVERTAKEN)
    }

    /// Returns whether it is a schedule that recurs.
    pub(in super::super) fn recurs(&self) -> bool {
        matches!(self.request, UserRequest::Schedule { form: Form::Recurring, .. })
    }

    pub(super) fn size(&self) -> Size
    where
        P: Payload,
    {
        if self.payload.stored().packed_bytes() > SMALL_BYTES_MAX { Size::Large } else { Size::Small }
    }

    /// Returns whether it waits for its target, for a retry or for its dead letter.
    pub(in super::super) fn is_parked(&self) -> bool {
        self.waiting.is_parked()
    }

    pub(in super::super) fn retries(&self) -> u8 {
        self.retries
    }

    /// Returns whether an engine record for the key is outstanding.
    pub(in super::super) fn is_outstanding(&self) -> bool {
        self.outstanding_batch != 0
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

    /// Forgets what was held against an occurrence that is over.
    pub(super) fn forgive(&mut self) {
        self.flags &= !(ISOLATED | TO_DEAD_LETTER | ALL_REASONS);
        self.retries = 0;
        self.parked_for = None;
    }

    /// Remembers the reason for which it is parked. Returns true the first time for each kind of reason.
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
        // A dead letter keeps its own reason, whatever becomes of its record.
        if !self.has(TO_DEAD_LETTER) || self.parked_for.is_none() {
            self.parked_for = Some(reason);
        }
        is_new
    }
}
