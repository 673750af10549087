//! The scheduler as a state machine: no I/O, no clock, no randomness, no threads.

pub mod batch;
pub mod io;
pub mod mark;
pub mod payload;
pub mod reason;
pub mod request;

use std::marker::PhantomData;
use std::sync::Arc;

use io::{Counters, Cursor, Input, Millis, Output, Partition};
use payload::Packed;

/// What a scheduler is told once.
#[derive(Clone, Debug)]
pub struct Config {
    /// The Kafka cluster's id.
    pub cluster: String,
    /// Schedules topics, without repeats.
    pub topics: Vec<String>,
    /// Where history records go.
    pub history: String,
    /// Consumer group.
    pub group: String,
    /// Unique to this run of the process: 1 to 32 characters of `0-9a-f`. Transactional ids are
    /// `{group}.{run}.{incarnation}.{number}`.
    pub run: String,
    /// How long a schedule may be overdue on arrival, in seconds.
    pub grace_s: Option<u64>,
    /// How far ahead a schedule may be due on arrival, in seconds.
    pub horizon_s: Option<u64>,
    /// Transactors: 1 or 2. That many batches may be in flight.
    pub transactors: usize,
    /// Schedules a batch, at most.
    pub batch_items_max: usize,
    /// Payload bytes a batch; one larger schedule still makes a batch of its own.
    pub batch_bytes_max: usize,
    /// Seeds the index's hash, against keys chosen to collide.
    pub hash_seed: u64,
}

/// Fires schedules when they are due. See [`handle`](Self::handle).
#[derive(Debug)]
pub struct Scheduler<P = Packed> {
    _payload: PhantomData<P>,
}

/// A pending schedule, as listings show it.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Where it lies.
    pub partition: Partition,
    /// Offset of the user's record.
    pub offset: i64,
    /// Seconds since 1970.
    pub due: u64,
    /// The user's record's timestamp.
    pub timestamp: Millis,
    /// Topic of the triggered record.
    pub target: Arc<str>,
    /// Key, target key, customer headers and value: read with [`payload::Parts::unpack`].
    pub packed: Vec<u8>,
}

/// How far a partition has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Waiting for its committed metadata or its barrier.
    TakingOver,
    /// Reading up to its barrier.
    Loading,
    /// Firing.
    Live,
    /// Being given back.
    Releasing,
}

/// A partition, as a status shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Which.
    pub partition: Partition,
    /// How far it has come.
    pub phase: Phase,
    /// The next offset to read.
    pub position: i64,
    /// The offset at which loading ends, once it is known.
    pub barrier: Option<i64>,
    /// Schedules held.
    pub pending: usize,
}

impl<P: payload::Payload> Scheduler<P> {
    /// A scheduler that owns nothing yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let _ = config;
        todo!()
    }

    /// The ids that the shell's transactors start with; [`Output::Renew`] replaces them.
    #[must_use]
    pub fn transactional_ids(&self) -> Vec<String> {
        todo!()
    }

    /// Takes in what happened at `now`. Drain [`poll`](Self::poll) afterwards.
    pub fn handle(&mut self, now: Millis, input: Input<'_>) {
        let _ = (now, input);
        todo!()
    }

    /// The next thing to do, until there is none.
    #[must_use]
    pub fn poll(&mut self) -> Option<Output> {
        todo!()
    }

    /// When to send [`Input::Tick`] if nothing else happens before, and what for.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Millis, &'static str)> {
        todo!()
    }

    /// Events so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        todo!()
    }

    /// Up to `limit` pending schedules from `cursor` on, in no particular order, and where to go on if there are more.
    #[must_use]
    pub fn list(&self, cursor: Cursor, limit: usize) -> (Vec<Listed>, Option<Cursor>) {
        let _ = (cursor, limit);
        todo!()
    }

    /// Every partition held.
    #[must_use]
    pub fn status(&self) -> Vec<Status> {
        todo!()
    }
}
