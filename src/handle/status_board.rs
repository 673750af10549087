//! The engine's state as its loop last published it, for readers that must not wait for the loop.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::core::Status;
use crate::core::io::Millis;

/// The engine's membership in its consumer group.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EngineState {
    /// It has not asked to join yet, for this reason.
    Starting(String),
    /// It asked to join and waits for the answer.
    Joining,
    /// It is a member, with or without partitions.
    Member,
    /// It hands over its partitions and ends.
    Ending,
}

/// The loop's state at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The time of the engine's clock.
    pub at: Millis,
    /// The engine's membership.
    pub state: EngineState,
    /// Every partition that this instance holds.
    pub partitions: Vec<Status>,
    /// `MEMORY_WARN_BYTES`, if it is set.
    pub memory_warn_bytes: Option<u64>,
}

impl Snapshot {
    /// Returns about how many bytes of memory the pending schedules take.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.partitions.iter().map(|status| status.bytes as u64).sum()
    }

    /// Returns `MEMORY_WARN_BYTES` if pending schedules take more.
    #[must_use]
    pub fn exceeded(&self) -> Option<u64> {
        self.memory_warn_bytes.filter(|bound| self.held_bytes() > *bound)
    }
}

/// The latest statistics of one of librdkafka's clients.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClientStatistics {
    /// Brokers with a working connection.
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
    /// By topic and partition: committed records that were not delivered yet.
    pub lag: BTreeMap<(String, i32), u64>,
}

/// The engine's state, written by the loop and its clients, read by any thread. Each lock is held only for a copy.
#[derive(Debug)]
pub struct StatusBoard {
    begun: Instant,
    heartbeat_ms: AtomicU64,
    unreachable: AtomicBool,
    /// Not a query: those can be rejected, and wait their turn.
    stop_requested: AtomicBool,
    snapshot: Mutex<Arc<Snapshot>>,
    clients: Mutex<BTreeMap<String, ClientStatistics>>,
    warnings: Mutex<BTreeMap<String, Warning>>,
}

/// A condition that an operator should look at, although the engine continues.
#[derive(Debug)]
struct Warning {
    text: String,
    /// It is shown until then, unless it is seen again; `None`: until it is removed.
    until: Option<Instant>,
}

impl Warning {
    fn is_shown(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| until > now)
    }
}

impl Default for StatusBoard {
    fn default() -> Self {
        let snapshot = Snapshot {
            at: Millis::default(),
            state: EngineState::Starting("the engine has not begun".into()),
            partitions: Vec::new(),
            memory_warn_bytes: None,
        };
        Self {
            begun: Instant::now(),
            heartbeat_ms: AtomicU64::new(0),
            unreachable: AtomicBool::new(false),
            stop_requested: AtomicBool::new(false),
            snapshot: Mutex::new(Arc::new(snapshot)),
            clients: Mutex::default(),
            warnings: Mutex::default(),
        }
    }
}

impl StatusBoard {
    /// Asks the loop to hand its partitions over and end.
    pub(crate) fn request_stop(&self) {
        self.stop_requested.store(true, Ordering::Release);
    }

    pub(crate) fn is_stop_requested(&self) -> bool {
        self.stop_requested.load(Ordering::Acquire)
    }

    /// Records an iteration of the loop.
    pub(crate) fn heartbeat(&self) {
        let since = self.begun.elapsed().as_millis();
        self.heartbeat_ms.store(u64::try_from(since).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Returns the time since the loop's last iteration.
    #[must_use]
    pub fn since_heartbeat(&self) -> Duration {
        self.begun.elapsed().saturating_sub(Duration::from_millis(self.heartbeat_ms.load(Ordering::Relaxed)))
    }

    /// Returns the time since the engine was made.
    #[must_use]
    pub fn uptime(&self) -> Duration {
        self.begun.elapsed()
    }

    pub(crate) fn publish(&self, snapshot: Snapshot) {
        *lock(&self.snapshot) = Arc::new(snapshot);
    }

    /// Returns the most recent snapshot.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&lock(&self.snapshot))
    }

    pub(crate) fn reached(&self, any: bool) {
        self.unreachable.store(!any, Ordering::Relaxed);
    }

    /// Returns whether none of the brokers answers the group's consumer.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        self.unreachable.load(Ordering::Relaxed)
    }

    /// Publishes a client's statistics.
    pub(crate) fn client(&self, name: &str, statistics: ClientStatistics) {
        lock(&self.clients).insert(name.to_owned(), statistics);
    }

    /// Shows a warning in `/readiness` until it has not been seen for `lasts`. Returns true if it was not shown before,
    /// which is when it is logged.
    pub(crate) fn warn(&self, name: &str, text: &str, lasts: Option<Duration>) -> bool {
        let now = Instant::now();
        let mut warnings = lock(&self.warnings);
        warnings.retain(|_, warning| warning.is_shown(now));
        let warning = Warning { text: text.to_owned(), until: lasts.map(|lasts| now + lasts) };
        warnings.insert(name.to_owned(), warning).is_none()
    }

    /// Ends a warning. Returns whether it was shown.
    pub(crate) fn unwarn(&self, name: &str) -> bool {
        lock(&self.warnings).remove(name).is_some_and(|warning| warning.is_shown(Instant::now()))
    }

    /// Returns the current warnings.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let now = Instant::now();
        lock(&self.warnings)
            .values()
            .filter(|warning| warning.is_shown(now))
            .map(|warning| warning.text.clone())
            .collect()
    }

    /// Returns the latest statistics of each client, by its name.
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
        let board = StatusBoard::default();
        assert!(board.warn("clock", "wrong", Some(Duration::from_secs(60))));
        assert!(!board.warn("clock", "still wrong", Some(Duration::from_secs(60))));
        assert_eq!(board.warnings(), ["still wrong"]);
        assert!(board.unwarn("clock") && !board.unwarn("clock"));
        assert!(board.warn("clock", "wrong again", Some(Duration::ZERO)));
        assert_eq!(board.warnings(), [""; 0]);
    }
}
