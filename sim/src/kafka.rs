//! A model of a Kafka cluster: logs, transactions and one consumer group.

pub mod group;
pub mod log;
mod transactions;

use std::collections::BTreeMap;

use kafka_scheduler::core::io::Partition;

use crate::rng::Rng;
use group::Group;
use log::{Log, Stored};
use transactions::{Marker, Producer};

/// A transaction that did not end by then is aborted by the broker.
pub const TRANSACTION_MS_MAX: i64 = 15_000;

/// A partition of any topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Of a schedules topic.
    Schedules(Partition),
    /// The only partition of every target topic.
    Target,
    /// The only partition of the history topic.
    History,
}

/// Why the broker refuses a transactional request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A newer producer has taken the transactional id, or the transaction has timed out.
    Fenced,
    /// The markers of the id's last transaction are still being written.
    Concurrent,
    /// The member or its generation is not the group's.
    Generation,
}

/// An offset as committed.
pub type Committed = BTreeMap<Partition, (i64, String)>;

/// The cluster.
#[derive(Debug)]
pub struct Kafka {
    /// Every partition's log.
    pub logs: BTreeMap<Place, Log>,
    /// The consumer group.
    pub group: Group,
    /// The group's offsets.
    pub committed: Committed,
    /// Transactions in the order in which they were committed.
    pub commits: Vec<u64>,
    /// Every transactional record ever appended, which compaction does not touch.
    written: BTreeMap<u64, Vec<(Place, Stored)>>,
    producers: BTreeMap<String, Producer>,
    markers: Vec<Marker>,
    next_transaction: u64,
    rng: Rng,
}

impl Kafka {
    /// An empty cluster with these schedules partitions.
    #[must_use]
    pub fn new(partitions: &[Partition], rng: Rng) -> Self {
        let places = partitions.iter().map(|p| Place::Schedules(*p)).chain([Place::Target, Place::History]);
        Self {
            logs: places.map(|place| (place, Log::default())).collect(),
            group: Group::new(partitions),
            committed: Committed::new(),
            commits: Vec::new(),
            written: BTreeMap::new(),
            producers: BTreeMap::new(),
            markers: Vec::new(),
            next_transaction: 1,
            rng,
        }
    }

    /// A log.
    #[must_use]
    pub fn log(&self, place: Place) -> &Log {
        &self.logs[&place]
    }

    /// The records of each committed transaction, in commit order, whatever compaction has taken since.
    pub fn journal(&self) -> impl Iterator<Item = (u64, &[(Place, Stored)])> {
        self.commits.iter().map(|t| (*t, self.written.get(t).map_or(&[][..], Vec::as_slice)))
    }

    fn log_mut(&mut self, place: Place) -> &mut Log {
        self.logs.get_mut(&place).expect("every place has a log")
    }
}
