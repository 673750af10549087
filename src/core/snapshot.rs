//! Snapshots: the fold of a partition as bytes, from which a later takeover goes on.
//!
//! A snapshot is taken in steps, while records are read and schedules fire, so it holds up nothing. It names the
//! position at which it began. What its later steps find may be newer than this position; reading from there folds the
//! same records again, which changes nothing. It has what the records say, and nothing of what was decided: a batch in
//! flight may be aborted.
//!
//! The bytes have no checksum: the shell must not give damaged ones back. [`Fold::decode`] still never panics.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::bugs::{self, Bug};
use super::calendar::Calendar;
use super::due::Due;
use super::freshness::{Freshness, Known};
use super::key_table::{KeyEntry, KeyTable, NewEntry, UserRequest};
use super::partition::Stage;
use super::payload::{Parts, Payload, Stored};
use super::progress::{KnownProgress, Progress};
use super::reason::Reason;
use super::recurrence::{self, JitterSeed};
use super::start_marker::StartMarker;
use super::types::{Millis, TopicPartition};
use super::when::{self, Form, When};
use super::{Scheduler, origin};

/// A step takes no more entries once it has this many bytes.
const STEP_BYTES_MAX: usize = 256 << 10;

const OVERTAKEN: u8 = 0x80;
const EPOCH: u8 = 1;
const ONCE: u8 = 2;
const RECURRING: u8 = 3;
const CANCEL: u8 = 4;
const INVALID: u8 = 5;
const UNKNOWN: u8 = 6;
const PROGRESS: u8 = 7;
const TARGET: u8 = 8;
const END: u8 = 9;

/// How far a snapshot has come. [`Default`] begins a new one.
#[derive(Debug, Default)]
pub struct SnapshotCursor {
    /// The partition's tag when it began.
    tag: Option<i64>,
    next_slot: u32,
    /// The key of the last progress record that was written.
    after_key: Option<Box<[u8]>>,
    /// The target names that were written, by number.
    targets: BTreeMap<u32, Arc<str>>,
    /// The position when the first progress record was written.
    known_to: Option<i64>,
    is_done: bool,
}

/// There is no snapshot to take, or it cannot go on: the partition is not live, was read again or has moved its
/// entries, or its fold is too old to be used later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoSnapshot;

/// What a snapshot says of its fold as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) position: i64,
    pub(super) start_marker: StartMarker,
    pub(super) dropped_before_s: u64,
}

/// A partition's fold, read from a snapshot.
#[derive(Debug)]
pub struct Fold<P> {
    pub(super) partition_hash: u64,
    pub(super) settings_hash: u64,
    pub(super) head: Head,
    pub(super) keys: KeyTable<P>,
    pub(super) known_to: i64,
    pub(super) freshness: Freshness,
    /// Names of targets; schedules have indexes into them.
    pub(super) targets: Vec<Arc<str>>,
}

impl<P> Fold<P> {
    /// Returns the offset from which the consumer has to read.
    #[must_use]
    pub fn position(&self) -> i64 {
        self.head.position
    }
}

/// What [`Fold::decode`] needs of the engine that restores the fold.
#[derive(Clone, Copy, Debug)]
pub struct Restorer<'a> {
    /// As [`Config::hash_seed`](super::Config::hash_seed).
    pub hash_seed: u64,
    /// [`Config::dead_letter`](super::Config::dead_letter) is set.
    pub has_dead_letter_topic: bool,
    /// The scheduler's calendar.
    pub calendar: &'a dyn Calendar,
}

/// Why a partition cannot go on from a fold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoreError {
    /// The bytes are no snapshot, or one that is damaged.
    Malformed(&'static str),
    /// It is of another partition.
    OtherPartition,
    /// Settings that judge records were different.
    OtherSettings,
    /// It is older than the limit, or the limit is not known.
    TooOld,
    /// The partition was not just assigned, or has read records.
    TooLate,
}

impl std::fmt::Display for RestoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Malformed(what) => write!(f, "it is malformed: {what}"),
            Self::OtherPartition => f.write_str("it is of another cluster, topic or partition"),
            Self::OtherSettings => f.write_str("it was taken with other settings, which judge records differently"),
            Self::TooOld => f.write_str("it is older than the limit that the topic's settings give"),
            Self::TooLate => f.write_str("the partition has read records"),
        }
    }
}

impl std::error::Error for RestoreError {}

impl<P: Payload> Scheduler<P> {
    /// Returns a hash of the settings that judge records, and of the version that does. A fold counts only where it is
    /// the same.
    #[must_use]
    pub fn settings_hash(&self) -> u64 {
        let rules = format!(
            "{} {:?} {:?} {:?}",
            env!("CARGO_PKG_VERSION"),
            self.rules,
            self.names.topics,
            self.config.dead_letter
        );
        origin::content_hash(rules.as_bytes(), None, &[])
    }

    /// Returns the partitions that were given back clean when the engine stopped. They can have a last snapshot, until
    /// the scheduler is dropped.
    pub fn retired(&self) -> impl Iterator<Item = TopicPartition> {
        self.retired.keys().copied()
    }

    /// Appends the next step of a partition's snapshot. Returns whether it was the last one.
    ///
    /// # Errors
    /// If there is no snapshot to take, or it cannot go on.
    pub fn snapshot(
        &self,
        id: TopicPartition,
        cursor: &mut SnapshotCursor,
        entries_max: u32,
        out: &mut Vec<u8>,
    ) -> Result<bool, NoSnapshot> {
        let live = self.partitions.get(&id).filter(|owned| owned.stage == Stage::Live && !owned.is_trimmed);
        // A rejected generation: another owner may decide by now.
        let live = live.filter(|_| self.batches.stale_generation.is_none());
        let owned = live.or_else(|| self.retired.get(&id)).ok_or(NoSnapshot)?;
        let (time, canary, limit_ms) = owned.freshness.worth_keeping(self.now).ok_or(NoSnapshot)?;
        let start_marker = owned.start_marker.ok_or(NoSnapshot)?;
        if cursor.tag.is_none() {
            cursor.tag = owned.cursor_tag();
            let position = owned.position + i64::from(bugs::on(Bug::SnapshotPositionTooFar));
            put_u64(out, owned.partition_hash);
            put_u64(out, self.settings_hash());
            for number in [position, start_marker.since.0, start_marker.offset, time.0, canary.offset, limit_ms] {
                put_i64(out, number);
            }
            put_u64(out, owned.dropped_before_s);
            put_bytes(out, canary.label.as_bytes());
        } else if cursor.tag != owned.cursor_tag() || cursor.is_done {
            return Err(NoSnapshot);
        }
        let start = out.len();
        for _ in 0..entries_max {
            if cursor.next_slot >= owned.keys.slots() || out.len() - start >= STEP_BYTES_MAX {
                break;
            }
            if let Some(entry) = owned.keys.get(cursor.next_slot) {
                self.put_entry(entry, &mut cursor.targets, out)?;
            }
            cursor.next_slot += 1;
        }
        if cursor.next_slot < owned.keys.slots() {
            return Ok(false);
        }
        let known_to = *cursor.known_to.get_or_insert(owned.position);
        let after_key = cursor.after_key.take();
        let mut following = owned.keys.progress_after(after_key.as_deref());
        for known in following.by_ref().take(entries_max as usize) {
            put_progress(known, out);
            cursor.after_key = Some(known.key.clone());
        }
        if following.next().is_some() {
            return Ok(false);
        }
        out.push(END);
        put_i64(out, known_to);
        put_i64(out, limit_ms);
        cursor.is_done = true;
        Ok(true)
    }

    fn put_entry(
        &self,
        entry: &KeyEntry<P>,
        targets: &mut BTreeMap<u32, Arc<str>>,
        out: &mut Vec<u8>,
    ) -> Result<(), NoSnapshot> {
        let Stored::Memory(packed) = entry.payload.stored() else { return Err(NoSnapshot) };
        if bugs::on(Bug::DecisionsInSnapshot) && entry.is_outstanding() {
            return Ok(());
        }
        let overtaken = if entry.is_overtaken() { OVERTAKEN } else { 0 };
        match entry.request {
            UserRequest::Schedule { due, target, form } => {
                let name = self.targets.name(target);
                if name.is_empty() {
                    return Err(NoSnapshot);
                }
                if targets.get(&target) != Some(&name) {
                    out.push(TARGET);
                    put_u64(out, u64::from(target));
                    put_bytes(out, name.as_bytes());
                    targets.insert(target, name);
                }
                let kind = match form {
                    Form::Epoch => EPOCH,
                    Form::Once => ONCE,
                    Form::Recurring => RECURRING,
                };
                out.push(kind | overtaken);
                put_u64(out, u64::from(target));
                if form == Form::Epoch {
                    put_u64(out, due.epoch_ms());
                }
            }
            UserRequest::Cancel => out.push(CANCEL | overtaken),
            UserRequest::Invalid(reason) => out.extend([INVALID | overtaken, reason as u8]),
            UserRequest::Unknown(reason) => out.extend([UNKNOWN | overtaken, reason as u8]),
        }
        put_i64(out, entry.origin_offset);
        put_i64(out, entry.timestamp.0);
        put_bytes(out, packed);
        Ok(())
    }
}

fn put_progress(known: &KnownProgress, out: &mut Vec<u8>) {
    out.push(PROGRESS | if known.is_overtaken() { OVERTAKEN } else { 0 });
    put_i64(out, known.origin_offset);
    put_i64(out, known.timestamp.0);
    put_bytes(out, &known.key);
    put_bytes(out, known.progress.encode().as_bytes());
}

impl<P: Payload> Fold<P> {
    /// Reads a snapshot's bytes. The payloads go to `store`.
    ///
    /// # Errors
    /// If the bytes are no snapshot.
    pub fn decode(bytes: &[u8], restorer: &Restorer<'_>, store: &mut P::Store) -> Result<Self, RestoreError> {
        let mut reader = Reader(bytes);
        let (partition_hash, settings_hash) = (reader.u64()?, reader.u64()?);
        let position = reader.offset()?;
        let start_marker = StartMarker { since: Millis(reader.i64()?), offset: reader.offset()? };
        let (time, canary, limit_ms) = (Millis(reader.i64()?), reader.offset()?, reader.i64()?);
        let dropped_before_s = reader.u64()?;
        let label = reader.text()?.into();
        let mut fold = Self {
            partition_hash,
            settings_hash,
            head: Head { position, start_marker, dropped_before_s },
            keys: KeyTable::new(restorer.hash_seed, restorer.has_dead_letter_topic),
            known_to: position,
            freshness: Freshness::restored(time, Known { offset: canary, label }, limit_ms),
            targets: Vec::new(),
        };
        let mut targets = BTreeMap::new();
        loop {
            let tag = reader.u8()?;
            match tag & !OVERTAKEN {
                TARGET => {
                    let number = reader.u64()?;
                    targets.insert(number, fold.targets.len() as u32);
                    let name = reader.text()?;
                    if name.is_empty() {
                        return Err(RestoreError::Malformed("a target without a name"));
                    }
                    fold.targets.push(name.into());
                }
                PROGRESS => fold.take_progress(&mut reader, tag & OVERTAKEN != 0)?,
                END => {
                    fold.known_to = reader.offset()?;
                    fold.freshness.limit(reader.i64()?);
                    break;
                }
                kind => fold.take_entry(&mut reader, kind, tag & OVERTAKEN != 0, &targets, restorer, store)?,
            }
        }
        if reader.0.is_empty() { Ok(fold) } else { Err(RestoreError::Malformed("bytes after its end")) }
    }

    fn take_entry(
        &mut self,
        reader: &mut Reader<'_>,
        kind: u8,
        is_overtaken: bool,
        targets: &BTreeMap<u64, u32>,
        restorer: &Restorer<'_>,
        store: &mut P::Store,
    ) -> Result<(), RestoreError> {
        let mut target = || {
            let number = reader.u64()?;
            targets.get(&number).copied().ok_or(RestoreError::Malformed("a target without a name"))
        };
        let mut request = match kind {
            EPOCH => {
                let target = target()?;
                UserRequest::Schedule { due: reader.due()?, target, form: Form::Epoch }
            }
            ONCE => UserRequest::Schedule { due: Due::LAST, target: target()?, form: Form::Once },
            RECURRING => UserRequest::Schedule { due: Due::LAST, target: target()?, form: Form::Recurring },
            CANCEL => UserRequest::Cancel,
            INVALID => UserRequest::Invalid(reader.reason()?),
            UNKNOWN => UserRequest::Unknown(reader.reason()?),
            _ => return Err(RestoreError::Malformed("an entry of an unknown kind")),
        };
        let (origin_offset, timestamp) = (reader.offset()?, Millis(reader.i64()?));
        let packed = reader.bytes()?;
        let parts = Parts::try_unpack(packed).ok_or(RestoreError::Malformed("a payload"))?;
        let mut spec = None;
        if let UserRequest::Schedule { due, form: form @ (Form::Once | Form::Recurring), .. } = &mut request {
            let jitter_seed = JitterSeed { partition_hash: self.partition_hash, offset: origin_offset };
            match when::parse(&parts.headers, timestamp, restorer.calendar) {
                Ok(When::Once { due: nominal, options, .. }) if *form == Form::Once => {
                    let jitter_ms = options.as_ref().map_or(0, |spec| spec.jitter_ms);
                    *due = recurrence::jittered(nominal, jitter_ms, jitter_seed);
                    spec = options;
                }
                Ok(When::Recurring(rule)) if *form == Form::Recurring => spec = Some(rule),
                _ => return Err(RestoreError::Malformed("a schedule that does not say when")),
            }
        }
        let payload = P::from_packed(packed, store);
        let new = NewEntry { origin_offset, timestamp, request, payload, spec };
        self.keys.restore(parts.key, new, is_overtaken);
        Ok(())
    }

    fn take_progress(&mut self, reader: &mut Reader<'_>, is_overtaken: bool) -> Result<(), RestoreError> {
        let (origin_offset, timestamp) = (reader.offset()?, Millis(reader.i64()?));
        let (key, value) = (reader.bytes()?, reader.bytes()?);
        let progress = Progress::decode(value).ok_or(RestoreError::Malformed("a progress record"))?;
        self.keys.progress_record(KnownProgress::new(key, origin_offset, timestamp, progress));
        if is_overtaken {
            self.keys.foreign_progress(key);
        }
        Ok(())
    }
}

/// Unsigned numbers are LEB128.
fn put_u64(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Signed numbers are zigzag-encoded.
fn put_i64(out: &mut Vec<u8>, number: i64) {
    put_u64(out, ((number << 1) ^ (number >> 63)) as u64);
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u64(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

struct Reader<'a>(&'a [u8]);

const TRUNCATED: RestoreError = RestoreError::Malformed("it ends too early");

impl<'a> Reader<'a> {
    fn u8(&mut self) -> Result<u8, RestoreError> {
        let (first, rest) = self.0.split_first().ok_or(TRUNCATED)?;
        self.0 = rest;
        Ok(*first)
    }

    fn u64(&mut self) -> Result<u64, RestoreError> {
        let (mut number, mut shift) = (0_u64, 0);
        loop {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift > 63 || (bits << shift) >> shift != bits {
                return Err(RestoreError::Malformed("a number that is too large"));
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
            shift += 7;
        }
    }

    fn i64(&mut self) -> Result<i64, RestoreError> {
        let number = self.u64()?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    fn offset(&mut self) -> Result<i64, RestoreError> {
        let offset = self.i64()?;
        // Offsets stay below 2^56.
        if (0..1 << 56).contains(&offset) { Ok(offset) } else { Err(RestoreError::Malformed("an impossible offset")) }
    }

    fn due(&mut self) -> Result<Due, RestoreError> {
        Due::from_epoch_ms(self.u64()?).ok_or(RestoreError::Malformed("an impossible due time"))
    }

    fn reason(&mut self) -> Result<Reason, RestoreError> {
        Reason::ALL.get(usize::from(self.u8()?)).copied().ok_or(RestoreError::Malformed("an unknown reason"))
    }

    fn bytes(&mut self) -> Result<&'a [u8], RestoreError> {
        let length = usize::try_from(self.u64()?).map_err(|_| TRUNCATED)?;
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(TRUNCATED)?;
        self.0 = rest;
        Ok(bytes)
    }

    fn text(&mut self) -> Result<&'a str, RestoreError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| RestoreError::Malformed("a name that is not UTF-8"))
    }
}
