//! Pseudo-random numbers: splitmix64.

/// A generator; the same seed gives the same numbers on every machine.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// Starts from a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns an independent generator for a part of the run, so one part's draws do not change another's.
    pub fn split(&mut self) -> Self {
        Self(self.bits())
    }

    /// Returns a number from `low` to `high`, both included.
    pub fn range(&mut self, low: i64, high: i64) -> i64 {
        assert!(low <= high);
        low + (self.bits() % (high - low + 1) as u64) as i64
    }

    /// Returns true with a probability of `percent`.
    pub fn chance(&mut self, percent: i64) -> bool {
        self.range(0, 99) < percent
    }

    /// Returns one of `0..count`.
    pub fn index(&mut self, count: usize) -> usize {
        self.range(0, count as i64 - 1) as usize
    }
}
