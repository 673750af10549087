//! What was asked for, and what came of it.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::kit::process::configuration;
use crate::kit::wait::now_s;
use crate::kit::{Case, Record, Scheduled};

/// Held by a test that judges lateness.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
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
            let key = format!("k{n}");
            let (value, due) = (due(n).to_string(), due(n));
            self.case.queue(&Scheduled::new(&key, value, due, &self.case.target).target_key(&key));
            self.keys.insert(key);
        }
        self.case.flush();
    }

    /// Waits until everything has fired: nothing lost, nothing doubled, nothing early; target, history and tombstones
    /// agree. Gives the latest firing's lateness, in milliseconds to the broker's append.
    pub fn settle(&self) -> i64 {
        let mut reader = self.case.target_reader();
        let patience = std::time::Duration::from_secs(120);
        reader.wait("all have fired", patience, |r| r.len() >= self.keys.len());
        let fired = self.case.settled();
        self.agrees("the target", &fired, Record::key_text);
        let late = fired.iter().map(|record| {
            let due: i64 = record.value_text().parse().expect("the due second");
            record.timestamp - due * 1_000
        });
        let (earliest, latest) = late.fold((i64::MAX, i64::MIN), |(min, max), late| (min.min(late), max.max(late)));
        assert!(earliest >= 0, "{} ms early", -earliest);
        let ours = |mut records: Vec<Record>| {
            records.retain(|r| !r.key_text().starts_with("probe-"));
            records
        };
        self.agrees("the history", &ours(self.case.read_history()), Record::key_text);
        self.agrees("the tombstones", &ours(self.case.tombstones()), Record::key_text);
        latest
    }

    fn agrees(&self, what: &str, records: &[Record], key: impl Fn(&Record) -> String) {
        let keys: BTreeSet<String> = records.iter().map(key).collect();
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
