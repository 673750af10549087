//! The distribution of lateness.

/// The lateness of many records, in milliseconds, sorted.
pub struct Lateness(Vec<i64>);

impl Lateness {
    pub fn new(mut each_ms: Vec<i64>) -> Self {
        assert!(!each_ms.is_empty(), "there is no record to measure");
        each_ms.sort_unstable();
        Self(each_ms)
    }

    /// Returns p50, p99, p99.9 and the maximum, with their names.
    pub fn figures(&self, of: &str) -> Vec<(String, f64)> {
        let figure = |(name, share): (&str, f64)| (format!("{of}_lateness_{name}_ms"), self.at(share) as f64);
        [("p50", 0.5), ("p99", 0.99), ("p99_9", 0.999), ("max", 1.0)].map(figure).into()
    }

    /// Returns the smallest lateness that this share of all records does not exceed.
    fn at(&self, share: f64) -> i64 {
        let rank = (self.0.len() as f64 * share).ceil() as usize;
        self.0[rank.clamp(1, self.0.len()) - 1]
    }
}
