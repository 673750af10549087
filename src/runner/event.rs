//! Events that a program around the engine receives.

use crate::client::RecordPosition;
use crate::core::batch::{Batch, Item, Kind};
use crate::core::due::Due;
use crate::core::io::TargetState;
use crate::core::io::{Millis, Record, Report, TopicPartition};
use crate::core::reason::Reason;
use crate::core::when::is_when;
use crate::handle::{HeaderRef, Observer};

/// An event in the life of a schedule.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A schedule was accepted as pending while its partition was live. [`Event::Live`] has the number of those that
    /// were found when the partition was loaded.
    #[non_exhaustive]
    Accepted {
        /// The position of the user's record.
        position: RecordPosition<'a>,
        /// The key that names the schedule.
        key: &'a [u8],
        /// The time from which it is due, in milliseconds since 1970. If it recurs, this is its first occurrence.
        due_ms: i64,
        /// The topic that the record will be produced to.
        target: &'a str,
    },
    /// A user cancelled a pending schedule.
    #[non_exhaustive]
    Cancelled {
        /// The position of the tombstone that cancelled it.
        position: RecordPosition<'a>,
        /// The key that names the schedule.
        key: &'a [u8],
    },
    /// A schedule fired: its transaction is committed. Those that were missed fire too: see [`Firing::is_missed`].
    #[non_exhaustive]
    Fired {
        /// The schedule, with the record that it produced.
        firing: Firing<'a>,
    },
    /// `scheduler-expires` was over before a schedule, or an occurrence of one, could fire, and there is no topic for
    /// dead letters: it does not fire. The history record is committed.
    #[non_exhaustive]
    Expired {
        /// The position of the user's record.
        position: RecordPosition<'a>,
        /// The key that names the schedule.
        key: &'a [u8],
        /// The time from which it was due, in milliseconds since 1970.
        due_ms: i64,
    },
    /// A broker rejected a record of a firing or of a rewrite: it is parked, and retried. Each schedule has one such
    /// event for each kind of reason. If a whole target topic takes no records, its schedules are parked with one
    /// [`Event::TargetChanged`] for all.
    #[non_exhaustive]
    Parked {
        /// The position of the user's record.
        position: RecordPosition<'a>,
        /// The reason why a broker rejected it.
        reason: Reason,
        /// The time of the retry, in milliseconds since 1970.
        retry_at_ms: i64,
    },
    /// A target topic became usable or unusable. Its schedules are parked while it is unusable, without an event of
    /// their own: [`Handle::page`](crate::handle::Handle::page) lists them.
    #[non_exhaustive]
    TargetChanged {
        /// The name of the target topic.
        target: &'a str,
        /// The new state.
        state: TargetState,
    },
    /// A schedule cannot be delivered, and becomes a dead letter.
    #[non_exhaustive]
    DeadLetter {
        /// The position of the user's record.
        position: RecordPosition<'a>,
        /// The reason why it cannot be delivered.
        reason: Reason,
    },
    /// A record cannot fire. It stays in the log, or moves to the dead-letter topic if there is one. Loading a
    /// partition reports only the first ones.
    #[non_exhaustive]
    Invalid {
        /// The position of the user's record.
        position: RecordPosition<'a>,
        /// The reason why it cannot fire.
        reason: Reason,
    },
    /// A partition is loaded and fires from now on.
    #[non_exhaustive]
    Live {
        /// The schedules topic of the partition.
        topic: &'a str,
        /// The number of the partition in `topic`, from 0.
        partition: i32,
        /// Number of pending schedules that loading found, overdue ones included.
        pending: usize,
        /// The number of these that are overdue.
        overdue: usize,
    },
}

/// A schedule that fired, and the record that it produced.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Firing<'a> {
    /// The position of the user's record.
    pub position: RecordPosition<'a>,
    /// The key that names the schedule.
    pub key: &'a [u8],
    /// The time from which it was due, in milliseconds since 1970: without `scheduler-jitter`, and of the last missed
    /// occurrence if several became this one.
    pub due_ms: i64,
    /// The number of this occurrence, from 1, if the schedule recurs.
    pub occurrence: Option<u64>,
    /// How many missed occurrences became part of this one.
    pub collapsed: u64,
    /// The time at which its commit was known, in milliseconds since 1970.
    pub committed_at_ms: i64,
    /// It was already due when its partition became live, for instance because no instance ran.
    pub is_missed: bool,
    /// The topic that the triggered record went to.
    pub target: &'a str,
    /// The triggered record's key; `None` is null.
    pub target_key: Option<&'a [u8]>,
    /// The triggered record's value, which may be empty.
    pub value: &'a [u8],
    /// The user's own headers, in order.
    pub headers: Vec<HeaderRef<'a>>,
}

pub(super) struct Handler<F>(F);

impl<F: FnMut(&Event<'_>) + Send> Handler<F> {
    pub(super) fn new(handler: F) -> Self {
        Self(handler)
    }
}

impl<F: FnMut(&Event<'_>) + Send> Observer for Handler<F> {
    fn fired(&mut self, batch: &Batch, at: Millis) {
        for item in &batch.items {
            match &item.kind {
                Kind::Fire { .. } => {
                    if let Some(firing) = firing(batch, item, at) {
                        (self.0)(&Event::Fired { firing });
                    }
                }
                Kind::Expired { due, .. } => {
                    let (position, key) = (position_of(batch, item), batch.parts(item).key);
                    (self.0)(&Event::Expired { position, key, due_ms: due.at().0 });
                }
                _ => {}
            }
        }
    }

    fn accepted(&mut self, record: &Record<'_>, due: Due, target: &str, topics: &[String]) {
        let (position, key) = (position(topics, record.partition, record.offset), record.key.unwrap_or_default());
        (self.0)(&Event::Accepted { position, key, due_ms: due.at().0, target });
    }

    fn cancelled(&mut self, record: &Record<'_>, topics: &[String]) {
        let position = position(topics, record.partition, record.offset);
        (self.0)(&Event::Cancelled { position, key: record.key.unwrap_or_default() });
    }

    fn report(&mut self, report: &Report, topics: &[String]) {
        match report {
            Report::Invalid { partition, offset, reason } => {
                (self.0)(&Event::Invalid { position: position(topics, *partition, *offset), reason: *reason });
            }
            Report::Parked { partition, offset, reason, retry_at } => {
                let position = position(topics, *partition, *offset);
                (self.0)(&Event::Parked { position, reason: *reason, retry_at_ms: retry_at.0 });
            }
            Report::ToDeadLetter { partition, offset, reason } => {
                (self.0)(&Event::DeadLetter { position: position(topics, *partition, *offset), reason: *reason });
            }
            Report::TargetChanged { name, state } => {
                (self.0)(&Event::TargetChanged { target: name, state: *state });
            }
            Report::Live { partition, pending, overdue, .. } => {
                let RecordPosition { topic, partition, .. } = position(topics, *partition, 0);
                (self.0)(&Event::Live { topic, partition, pending: *pending, overdue: *overdue });
            }
            _ => {}
        }
    }
}

fn firing<'a>(batch: &'a Batch, item: &'a Item, at: Millis) -> Option<Firing<'a>> {
    let Kind::Fire { target, due, missed, fired, .. } = &item.kind else { return None };
    let parts = batch.parts(item);
    let own = parts.headers.iter().filter(|header| !is_when(header.name));
    Some(Firing {
        position: position_of(batch, item),
        key: parts.key,
        due_ms: fired.nominal.unwrap_or(*due).at().0,
        occurrence: fired.occurrence.map(|(number, _)| number),
        collapsed: fired.occurrence.map_or(0, |(_, collapsed)| collapsed),
        committed_at_ms: at.0,
        is_missed: *missed,
        target,
        target_key: parts.target_key,
        value: parts.value,
        headers: own.map(|header| HeaderRef { name: header.name, value: header.value }).collect(),
    })
}

fn position_of<'a>(batch: &'a Batch, item: &Item) -> RecordPosition<'a> {
    RecordPosition { topic: batch.topic(item.partition), partition: item.partition.number, offset: item.origin_offset }
}

fn position(topics: &[String], partition: TopicPartition, offset: i64) -> RecordPosition<'_> {
    let topic = topics.get(usize::from(partition.topic)).map_or("", String::as_str);
    RecordPosition { topic, partition: partition.number, offset }
}
