//! Records the schedules that were produced, and checks that each fired.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use crate::kit::cluster::Cluster;
use crate::kit::process::configuration;
use crate::kit::wait::now_s;
use crate::kit::{Case, Record, Scheduled};

/// Locks the machine for one test from beginning to end, because most tests measure lateness.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the shared cluster with all brokers running, or `None` without Java. The caller holds the lock of [`alone`].
pub fn cluster(_: &MutexGuard<'static, ()>) -> Option<MutexGuard<'static, Cluster>> {
    static CLUSTER: OnceLock<Option<Mutex<Cluster>>> = OnceLock::new();
    let cluster = CLUSTER.get_or_init(|| Cluster::start().map(Mutex::new)).as_ref()?;
    let mut cluster = cluster.lock().unwrap_or_else(PoisonError::into_inner);
    cluster.restore();
    Some(cluster)
}

/// Returns a configuration file with a transaction timeout of one minute: if transactions end earlier, fencing ended
/// them and not the timeout.
pub fn long_transaction_timeout() -> String {
    configuration("long_transaction_timeout", "kafka.producer.configuration:\n  transaction.timeout.ms: 60000\n")
}

/// The schedules that were produced, by key.
pub struct Ledger<'a> {
    case: &'a Case,
    keys: BTreeSet<String>,
}

impl<'a> Ledger<'a> {
    pub fn new(case: &'a Case) -> Self {
        Self { case, keys: BTreeSet::new() }
    }

    /// Produces schedules `from..to` with the due times of `due`, in seconds, and waits until all are delivered.
    pub fn schedule(&mut self, range: std::ops::Range<usize>, due: impl Fn(usize) -> i64) {
        for n in range {
            self.queue(format!("k{n}"), due(n), None);
        }
        self.case.flush();
    }

    /// Produces one schedule without waiting, to a partition if one is given.
    pub fn queue(&mut self, key: String, due: i64, partition: Option<i32>) {
        let mut schedule = Scheduled::new(&key, due.to_string(), due, &self.case.target).target_key(&key);
        schedule.partition = partition;
        self.case.queue(&schedule);
        self.keys.insert(key);
    }

    /// Returns the number of schedules that were produced.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Waits until all schedules have fired, and checks that none is lost, doubled or early, and that target, history
    /// and tombstones agree. Returns the worst lateness up to the broker's append, in milliseconds.
    pub fn settle(&self) -> i64 {
        let mut reader = self.case.target_reader();
        reader.wait("all have fired", Duration::from_secs(120), |r| r.len() >= self.keys.len());
        let fired = self.case.settled();
        let late = fired.iter().map(|record| {
            let due: i64 = record.value_text().parse().expect("the due second");
            record.timestamp - due * 1_000
        });
        let (earliest, latest) = late.fold((i64::MAX, i64::MIN), |(min, max), late| (min.min(late), max.max(late)));
        self.agree();
        assert!(earliest >= 0, "{} ms early", -earliest);
        latest
    }

    /// Checks that target, history and tombstones have each key once.
    pub fn agree(&self) {
        self.holds("the target", self.case.read_target());
        self.holds("the history", self.case.read_history());
        self.holds("the tombstones", self.case.tombstones());
    }

    fn holds(&self, what: &str, mut records: Vec<Record>) {
        records.retain(|r| !r.key_text().starts_with("probe-"));
        let keys: BTreeSet<String> = records.iter().map(Record::key_text).collect();
        let lost: Vec<&String> = self.keys.difference(&keys).take(5).collect();
        let doubled = records.len() - keys.len();
        assert!(
            lost.is_empty() && doubled == 0 && keys.len() == self.keys.len(),
            "{what}: {} records for {} schedules, {doubled} doubled, lost {lost:?}",
            records.len(),
            self.keys.len()
        );
    }

    /// Returns due times spread evenly over seconds from now, `per_s` in each.
    pub fn spread(&mut self, a_second: usize, seconds: std::ops::Range<i64>) {
        let now = now_s();
        let count = a_second * usize::try_from(seconds.end - seconds.start).expect("forward");
        let from = self.keys.len();
        self.schedule(from..from + count, |n| now + seconds.start + ((n - from) / a_second) as i64);
    }
}
