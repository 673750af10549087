//! The engine's state as its loop last published it, for readers that must not wait for the loop.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::core::io::Millis;
pub use crate::core::{Phase, Status};

/// How the engine stands with its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It cannot begin yet, and why.
    Starting(String),
    /// It has asked to join, and has no answer.
    Joining,
    /// It is a member, with the partitions that the group gave it.
    Member,
    /// It hands over and ends.
    Ending,
}

/// What the loop held at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// When.
    pub at: Millis,
    /// How it stands with its group.
    pub stage: Stage,
    /// Every partition held.
    pub partitions: Vec<Status>,
    /// `MEMORY_WARN_BYTES`
    pub memory_warn_bytes: Option<u64>,
}

impl Snapshot {
    /// Bytes of memory that the schedules held cost, about.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.partitions.iter().map(|status| status.bytes as u64).sum()
    }

    /// The bound, where what is held is beyond it.
    #[must_use]
    pub fn exceeded(&self) -> Option<u64> {
        self.memory_warn_bytes.filter(|bound| self.held_bytes() > *bound)
    }
}

/// What one of librdkafka's clients last said of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClientStatistics {
    /// Brokers with a connection that works.
    pub brokers_up: u64,
    /// Requests and responses that failed, over all brokers.
    pub request_errors: u64,
    /// Bytes sent to brokers.
    pub sent_bytes: u64,
    /// Bytes received from brokers.
    pub received_bytes: u64,
    /// Records that wait to be sent or acknowledged.
    pub queued_records: u64,
    /// The slowest broker's 99th percentile of round trips, in microseconds.
    pub round_trip_p99_us: u64,
    /// By topic and partition: records between what has been delivered and the last stable offset.
    pub lag: BTreeMap<(String, i32), u64>,
}

/// Written by the loop and its clients, read by anybody. Nobody holds a lock for longer than a copy takes.
#[derive(Debug)]
pub struct Board {
    begun: Instant,
    beat_ms: AtomicU64,
    unreachable: AtomicBool,
    snapshot: Mutex<Arc<Snapshot>>,
    clients: Mutex<BTreeMap<String, ClientStatistics>>,
    warnings: Mutex<BTreeMap<String, Warning>>,
}

/// A condition that an operator should look at, although the engine goes on.
#[derive(Debug)]
struct Warning {
    text: String,
    /// It counts until then, unless it is seen again.
    until: Instant,
}

impl Default for Board {
    fn default() -> Self {
        let snapshot = Snapshot {
            at: Millis::default(),
            stage: Stage::Starting("the engine has not begun".into()),
            partitions: Vec::new(),
            memory_warn_bytes: None,
        };
        Self {
            begun: Instant::now(),
            beat_ms: AtomicU64::new(0),
            unreachable: AtomicBool::new(false),
            snapshot: Mutex::new(Arc::new(snapshot)),
            clients: Mutex::default(),
            warnings: Mutex::default(),
        }
    }
}

impl Board {
    /// The loop turns.
    pub(crate) fn beat(&self) {
        let since = self.begun.elapsed().as_millis();
        self.beat_ms.store(u64::try_from(since).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// How long ago the loop last turned.
    #[must_use]
    pub fn since_beat(&self) -> Duration {
        self.begun.elapsed().saturating_sub(Duration::from_millis(self.beat_ms.load(Ordering::Relaxed)))
    }

    /// How long ago the engine was made.
    #[must_use]
    pub fn uptime(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Puts up what the loop holds now.
    pub(crate) fn publish(&self, snapshot: Snapshot) {
        *lock(&self.snapshot) = Arc::new(snapshot);
    }

    /// What the loop last held.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&lock(&self.snapshot))
    }

    /// Whether the group's consumer has a broker that answers.
    pub(crate) fn reached(&self, any: bool) {
        self.unreachable.store(!any, Ordering::Relaxed);
    }

    /// The group's consumer has no broker that answers.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        self.unreachable.load(Ordering::Relaxed)
    }

    /// Puts up a client's statistics. There are as many names as the engine has clients of its own.
    pub(crate) fn client(&self, name: &str, statistics: ClientStatistics) {
        lock(&self.clients).insert(name.to_owned(), statistics);
    }

    /// Shows a warning in `/readiness` until it has not been seen for `lasts`. Returns true if it was not shown before,
    /// which is when it belongs into the log.
    pub(crate) fn warn(&self, name: &str, text: &str, lasts: Duration) -> bool {
        let now = Instant::now();
        let mut warnings = lock(&self.warnings);
        warnings.retain(|_, warning| warning.until > now);
        let warning = Warning { text: text.to_owned(), until: now + lasts };
        warnings.insert(name.to_owned(), warning).is_none()
    }

    /// The condition has ended. Returns true if its warning was shown.
    pub(crate) fn unwarn(&self, name: &str) -> bool {
        lock(&self.warnings).remove(name).is_some_and(|warning| warning.until > Instant::now())
    }

    /// The warnings that are shown now, in the order of their names.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let now = Instant::now();
        lock(&self.warnings).values().filter(|w| w.until > now).map(|w| w.text.clone()).collect()
    }

    /// Every client's last statistics.
    #[must_use]
    pub fn clients(&self) -> BTreeMap<String, ClientStatistics> {
        lock(&self.clients).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_news_once_and_ends_when_it_is_not_seen_again() {
        let board = Board::default();
        assert!(board.warn("clock", "wrong", Duration::from_secs(60)));
        assert!(!board.warn("clock", "still wrong", Duration::from_secs(60)));
        assert_eq!(board.warnings(), ["still wrong"]);
        assert!(board.unwarn("clock") && !board.unwarn("clock"));
        assert!(board.warn("clock", "wrong again", Duration::ZERO));
        assert_eq!(board.warnings(), [""; 0]);
    }
}
