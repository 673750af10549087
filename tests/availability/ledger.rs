//! What was asked for, and what came of it.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use crate::kit::cluster::Cluster;
use crate::kit::process::configuration;
use crate::kit::wait::now_s;
use crate::kit::{Case, Record, Scheduled};

/// Held by each test from its beginning to its end: most of them judge lateness.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The cluster of this run, whole. `None` where there can be none. Only for whom [`alone`] has let in.
pub fn cluster(_: &MutexGuard<'static, ()>) -> Option<MutexGuard<'static, Cluster>> {
    static CLUSTER: OnceLock<Option<Mutex<Cluster>>> = OnceLock::new();
    let cluster = CLUSTER.get_or_init(|| Cluster::start().map(Mutex::new)).as_ref()?;
    let mut cluster = cluster.lock().unwrap_or_else(PoisonError::into_inner);
    cluster.restore();
    Some(cluster)
}

/// A configuration file with which an open transaction hangs for a minute: what is shown then is the fence, not the
/// time-out.
pub fn patient() -> String {
    configuration("patient", "kafka.producer.configuration:\n  transaction.timeout.ms: 60000\n")
}

/// Schedules that were produced, key by key.
pub struct Ledger<'a> {
    case: &'a Case,
    keys: BTreeSet<String>,
}

impl<'a> Ledger<'a> {
    pub fn new(case: &'a Case) -> Self {
        Self { case, keys: BTreeSet::new() }
    }

    /// Hands over schedules `from..to`; each is due when `due` says, in seconds. All have arrived on return.
    pub fn schedule(&mut self, range: std::ops::Range<usize>, due: impl Fn(usize) -> i64) {
        for n in range {
            self.queue(format!("k{n}"), due(n), None);
        }
        self.case.flush();
    }

    /// Hands one over, to a partition if one is named.
    pub fn queue(&mut self, key: String, due: i64, partition: Option<i32>) {
        let mut schedule = Scheduled::new(&key, due.to_string(), due, &self.case.target).target_key(&key);
        schedule.partition = partition;
        self.case.queue(&schedule);
        self.keys.insert(key);
    }

    /// So many were handed over.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Waits until everything has fired: nothing lost, nothing doubled, nothing early; target, history and tombstones
    /// agree. Gives the latest firing's lateness, in milliseconds to the broker's append.
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

    /// Target, history and tombstones hold each key once.
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

    /// Schedules spread evenly over seconds from now, so many a second.
    pub fn spread(&mut self, a_second: usize, seconds: std::ops::Range<i64>) {
        let now = now_s();
        let count = a_second * usize::try_from(seconds.end - seconds.start).expect("forward");
        let from = self.keys.len();
        self.schedule(from..from + count, |n| now + seconds.start + ((n - from) / a_second) as i64);
    }
}
