//! Decides whether a fold may be used later: whether a tombstone may have been removed from the log before it was read.
//!
//! A fold at position p is worthless if a tombstone at or after p was removed before it was read: it would revive what
//! the tombstone ended. Nothing that is found in the log proves that this did not happen, since each replica is
//! compacted by itself. Time proves it: brokers keep a tombstone for `delete.retention.ms` after it was appended.

use super::bugs::{self, Bug};
use super::types::Millis;

/// A fold's time may be this far in the future, because clocks differ; a tenth of the limit, if that is less.
const AHEAD_MS_MAX: i64 = 60_000;

/// Below this limit no canary is written, and every takeover reads the whole log.
pub(super) const LIMIT_MS_MIN: i64 = 4_000;

/// Longest interval between two canaries.
const CANARY_INTERVAL_MS_MAX: i64 = 6 * 3_600_000;
/// Shortest interval.
const CANARY_INTERVAL_MS_MIN: i64 = 1_000;

/// The last canary that a fold has read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) offset: i64,
    /// What follows the prefix of its key.
    pub(super) label: Box<str>,
}

/// How old a fold is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Freshness {
    /// All records after the fold's position were appended after this time. `None` until it is known: the fold is cold.
    time: Option<Millis>,
    canary: Option<Known>,
    /// The canary of a restored fold: that it is still in the log proves that this is the same log.
    proof: Option<Known>,
    /// The smallest limit since that time, in milliseconds: 0 if a setting is not known.
    limit_ms: i64,
    /// It was too old once, so it is worthless for good.
    is_dead: bool,
}

impl Freshness {
    /// Returns that of a fold that begins at the log's beginning.
    pub(super) fn cold(limit_ms: i64) -> Self {
        Self { time: None, canary: None, proof: None, limit_ms, is_dead: false }
    }

    /// Returns that of a fold that was restored.
    pub(super) fn restored(time: Millis, canary: Known, limit_ms: i64) -> Self {
        Self { time: Some(time), canary: Some(canary.clone()), proof: Some(canary), limit_ms, is_dead: false }
    }

    /// Takes in the present limit.
    pub(super) fn limit(&mut self, limit_ms: i64) {
        self.limit_ms = self.limit_ms.min(limit_ms);
    }

    /// Takes in a canary that was read at `now`. `limit_ms` is the present limit. `is_own`: this owner has written it.
    pub(super) fn read(&mut self, canary: Known, at: Millis, is_own: bool, now: Millis, limit_ms: i64) {
        self.canary = Some(canary);
        match self.time {
            // A fold that was read from the beginning is as old as the first canary of its own reader.
            None if !is_own => return,
            Some(time) if at < time => return,
            Some(_) if !self.is_young(now) => {
                self.is_dead = true;
                return;
            }
            None | Some(_) => {}
        }
        self.time = Some(at);
        self.limit_ms = limit_ms;
    }

    /// Returns whether no tombstone after the fold's position can have been removed by `now`.
    pub(super) fn is_young(&self, now: Millis) -> bool {
        if bugs::on(Bug::AgeNotChecked) {
            return true;
        }
        let ahead_ms_max = AHEAD_MS_MAX.min(self.limit_ms / 10);
        !self.is_dead
            && self.limit_ms >= LIMIT_MS_MIN
            && self.time.is_some_and(|time| {
                let age_ms = now.0.saturating_sub(time.0);
                (-ahead_ms_max..self.limit_ms).contains(&age_ms)
            })
    }

    /// Returns time, canary and limit of a fold that is worth keeping at `now`.
    pub(super) fn worth_keeping(&self, now: Millis) -> Option<(Millis, &Known, i64)> {
        if !self.is_young(now) {
            return None;
        }
        Some((self.time?, self.canary.as_ref()?, self.limit_ms))
    }

    pub(super) fn proof(&self) -> Option<&Known> {
        self.proof.as_ref()
    }

    /// Notes that the fold must never be used later.
    pub(super) fn kill(&mut self) {
        self.is_dead = true;
    }
}

/// Returns the interval of canaries; `None` if none are written.
pub(super) fn canary_interval_ms(limit_ms: i64) -> Option<i64> {
    let interval_ms = (limit_ms / 4).clamp(CANARY_INTERVAL_MS_MIN, CANARY_INTERVAL_MS_MAX);
    (limit_ms >= LIMIT_MS_MIN).then_some(interval_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT_MS: i64 = 100_000;

    fn known(offset: i64) -> Known {
        Known { offset, label: format!("ab.0.{offset}").into() }
    }

    fn restored() -> Freshness {
        Freshness::restored(Millis(1_000_000), known(5), LIMIT_MS)
    }

    #[test]
    fn a_fold_is_young_for_less_than_the_limit() {
        for (now_ms, is_young) in [
            (1_000_000 - 10_001, false),
            (1_000_000 - 10_000, true),
            (1_000_000, true),
            (1_000_000 + LIMIT_MS - 1, true),
            (1_000_000 + LIMIT_MS, false),
        ] {
            assert_eq!(restored().is_young(Millis(now_ms)), is_young, "at {now_ms}");
        }
    }

    #[test]
    fn a_fold_of_an_unknown_or_short_limit_is_cold() {
        for limit_ms in [0, LIMIT_MS_MIN - 1] {
            let mut fold = restored();
            fold.limit(limit_ms);
            // The setting is raised again, and counts with its smallest value.
            fold.limit(LIMIT_MS);
            assert!(!fold.is_young(Millis(1_000_000)));
            assert_eq!(canary_interval_ms(limit_ms), None);
        }
    }

    #[test]
    fn a_later_canary_counts_only_while_the_fold_is_young() {
        let mut fold = restored();
        fold.read(known(9), Millis(1_050_000), false, Millis(1_060_000), LIMIT_MS);
        assert!(fold.is_young(Millis(1_149_999)) && !fold.is_young(Millis(1_150_000)));
        // The fold has lagged: a tombstone before this canary may have been removed.
        fold.read(known(12), Millis(1_160_000), false, Millis(1_160_001), LIMIT_MS);
        assert!(!fold.is_young(Millis(1_160_001)), "it is dead for good");
        fold.read(known(13), Millis(1_160_002), true, Millis(1_160_003), LIMIT_MS);
        assert_eq!(fold.worth_keeping(Millis(1_160_003)), None);
    }

    #[test]
    fn an_older_canary_moves_no_time() {
        let mut fold = restored();
        fold.read(known(9), Millis(999_000), false, Millis(1_000_001), LIMIT_MS);
        assert_eq!(fold.worth_keeping(Millis(1_000_001)), Some((Millis(1_000_000), &known(9), LIMIT_MS)));
    }

    #[test]
    fn a_cold_fold_is_as_old_as_its_readers_own_canary() {
        let mut fold = Freshness::cold(LIMIT_MS);
        fold.read(known(9), Millis(1_000_000), false, Millis(1_000_001), LIMIT_MS);
        assert_eq!(fold.worth_keeping(Millis(1_000_001)), None);
        fold.read(known(12), Millis(1_000_002), true, Millis(1_000_003), LIMIT_MS);
        assert_eq!(fold.worth_keeping(Millis(1_000_003)), Some((Millis(1_000_002), &known(12), LIMIT_MS)));
    }

    #[test]
    fn canaries_are_written_four_times_in_a_limit() {
        for (limit_ms, interval_ms) in
            [(4_000, 1_000), (60_000, 15_000), (86_400_000, 21_600_000), (i64::MAX, 21_600_000)]
        {
            assert_eq!(canary_interval_ms(limit_ms), Some(interval_ms));
        }
    }
}
