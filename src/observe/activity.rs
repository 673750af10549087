//! Recent activity for the status page: a few minutes by the second, and the last firings and rejections.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::core::batch::{Batch, Kind};
use crate::core::due::Due;
use crate::core::io::Millis;
use crate::metrics::late_ms;

/// Seconds kept.
pub(crate) const SECONDS_MAX: i64 = 300;
/// Firings and rejections kept.
pub(crate) const LAST_MAX: usize = 50;
/// Bytes of a key kept.
const KEY_MAX: usize = 256;

/// Upper bounds of the lateness buckets, in milliseconds; one more bucket counts anything later.
pub(crate) const LATE_MS: [u64; 11] = [10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 60_000];

/// What fired in one second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerSecond {
    /// Seconds since 1970.
    pub at_s: i64,
    /// Schedules fired that were not missed.
    pub live: u64,
    /// Schedules fired that were.
    pub missed: u64,
    /// The latest of those that were not missed, in milliseconds.
    pub late_max_ms: u64,
    /// Those that were not missed, by how late they were.
    pub late: [u64; LATE_MS.len() + 1],
}

/// A firing.
#[derive(Clone, Debug)]
pub struct Firing {
    /// The time at which its commit was known.
    pub at: Millis,
    /// The schedule's topic.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// Its key, at most 256 bytes of it.
    pub key: Vec<u8>,
    /// The target topic.
    pub target: std::sync::Arc<str>,
    /// The time from which it was due, with its jitter.
    pub due: Due,
    /// Overdue when its partition became live.
    pub missed: bool,
}

/// A record that could not fire.
#[derive(Clone, Debug)]
pub struct Rejection {
    /// The time at which that was seen.
    pub at: Millis,
    /// The record's topic.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Why: a [`crate::core::reason::Reason::code`].
    pub reason: &'static str,
    /// It will be tried again.
    pub parked: bool,
}

#[derive(Clone, Debug, Default)]
pub struct RecentActivity {
    /// Seconds with firings, oldest first, at most the last 300.
    pub seconds: VecDeque<PerSecond>,
    /// Newest first.
    pub firings: VecDeque<Firing>,
    /// Newest first.
    pub rejections: VecDeque<Rejection>,
}

/// Written by the loop, read by the status page.
#[derive(Debug, Default)]
pub struct Activity(Mutex<RecentActivity>);

impl Activity {
    /// Returns a copy of it.
    #[must_use]
    pub fn recent(&self) -> RecentActivity {
        self.lock().clone()
    }

    /// Adds a batch with firings that was committed at `at`.
    pub fn fired(&self, batch: &Batch, at: Millis) {
        let mut recent = self.lock();
        let second = recent.second(at);
        let mut count = 0;
        for item in &batch.items {
            let Kind::Fire { due, missed, .. } = &item.kind else { continue };
            second.add(late_ms(*due, at), *missed);
            count += 1;
        }
        let fires = batch.items.iter().filter(|item| matches!(item.kind, Kind::Fire { .. }));
        for item in fires.skip(usize::saturating_sub(count, LAST_MAX)) {
            let Kind::Fire { target, due, missed, .. } = &item.kind else { continue };
            let key = batch.parts(item).key;
            let firing = Firing {
                at,
                topic: batch.topic(item.partition).to_owned(),
                partition: item.partition.number,
                key: key[..key.len().min(KEY_MAX)].to_vec(),
                target: target.clone(),
                due: *due,
                missed: *missed,
            };
            push(&mut recent.firings, firing);
        }
    }

    /// Adds a record that could not fire.
    pub fn rejected(&self, rejection: Rejection) {
        push(&mut self.lock().rejections, rejection);
    }

    fn lock(&self) -> MutexGuard<'_, RecentActivity> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn push<T>(last: &mut VecDeque<T>, new: T) {
    last.truncate(LAST_MAX - 1);
    last.push_front(new);
}

impl RecentActivity {
    fn second(&mut self, at: Millis) -> &mut PerSecond {
        let at_s = at.0.div_euclid(1000);
        while self.seconds.front().is_some_and(|second| second.at_s <= at_s - SECONDS_MAX) {
            self.seconds.pop_front();
        }
        // The clock was set back: later seconds would break the order.
        if self.seconds.back().is_some_and(|second| second.at_s > at_s) {
            self.seconds.clear();
        }
        if self.seconds.back().is_none_or(|second| second.at_s < at_s) {
            self.seconds.push_back(PerSecond { at_s, ..PerSecond::default() });
        }
        self.seconds.back_mut().expect("one was just pushed if there was none")
    }
}

impl PerSecond {
    fn add(&mut self, late_ms: u64, missed: bool) {
        if missed {
            self.missed += 1;
            return;
        }
        self.live += 1;
        self.late_max_ms = self.late_max_ms.max(late_ms);
        self.late[LATE_MS.iter().position(|end| late_ms <= *end).unwrap_or(LATE_MS.len())] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_counts_by_class_and_old_ones_go() {
        let mut recent = RecentActivity::default();
        recent.second(Millis(1_000_000)).add(10, false);
        recent.second(Millis(1_000_999)).add(11, false);
        recent.second(Millis(1_000_500)).add(70_000, false);
        recent.second(Millis(1_000_500)).add(5, true);
        let first = recent.seconds[0];
        assert_eq!((first.live, first.missed, first.late_max_ms), (3, 1, 70_000));
        assert_eq!((first.late[0], first.late[1], first.late[LATE_MS.len()]), (1, 1, 1));
        recent.second(Millis(1_001_000)).add(0, false);
        recent.second(Millis(1_300_000)).add(0, false);
        assert_eq!(recent.seconds.iter().map(|second| second.at_s).collect::<Vec<_>>(), [1_001, 1_300]);
        recent.second(Millis(900_000)).add(0, false);
        assert_eq!(recent.seconds.len(), 1);
    }

    #[test]
    fn only_the_last_are_kept() {
        let mut last = VecDeque::new();
        (0..200).for_each(|n| push(&mut last, n));
        assert_eq!((last.len(), last[0], last[LAST_MAX - 1]), (LAST_MAX, 199, 150));
    }
}
