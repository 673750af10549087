//! Random numbers from a seed.

use std::ops::Range;
use std::time::Duration;

/// SplitMix64.
pub struct Random(u64);

impl Random {
    /// Returns the `n`th of several independent streams of a seed.
    pub fn new(seed: u64, lane: u64) -> Self {
        let mut random = Self(seed ^ lane.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        random.next();
        random
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number of a range that is not empty.
    pub fn of(&mut self, range: Range<i64>) -> i64 {
        let width = u64::try_from(range.end - range.start).expect("a range that goes up");
        range.start + i64::try_from(self.next() % width).expect("below the width")
    }

    /// Returns an index.
    pub fn index(&mut self, count: usize) -> usize {
        usize::try_from(self.next() % count as u64).expect("below the count")
    }

    /// Returns true with this probability.
    pub fn percent(&mut self, percent: i64) -> bool {
        self.of(0..100) < percent
    }

    /// Returns a duration between two numbers of milliseconds.
    pub fn span(&mut self, ms: Range<i64>) -> Duration {
        Duration::from_millis(u64::try_from(self.of(ms)).expect("not negative"))
    }
}
