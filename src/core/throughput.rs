//! How large batches may be while the brokers take less in time than is due.
//!
//! A batch that does not get through before its records time out is tried again whole, and would time out again. So its
//! successors are smaller, until one fits. They grow again as soon as batches of the present size commit quickly.

/// A batch that commits within this shows that one of twice its size would get through in time: records have 5 s by default.
const QUICK_MS: i64 = 2_000;
/// The same for batches of up to [`SMALL_BYTES`]: brokers that are far away need time for each transaction, however small.
const SMALL_QUICK_MS: i64 = 4_000;
const SMALL_BYTES: usize = 64 << 10;

/// The part of a batch that is tried again, if none of its records were acknowledged, or no more of them for long.
const STALLED_SHARE: usize = 4;
/// A batch that stalled halfway is not made smaller than this: some partition may be without a leader, which no size mends.
const STALLED_BYTES_MIN: usize = 256 << 10;

/// How a batch ran out of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Late {
    /// No record was acknowledged: an outage, or a link on which not even the first request gets through in time.
    Silent,
    /// Some records were acknowledged at first, and no more of them: a partition may take none.
    Stalled,
    /// The brokers took records until the end: throughput is the limit.
    Taking {
        /// Bytes that were acknowledged.
        delivered: u64,
        /// Bytes of the whole batch.
        sent: u64,
    },
}

/// The size of batches, as time allows.
#[derive(Debug)]
pub struct Throughput {
    bytes_max: usize,
    /// The bound while time is no issue.
    full_bytes_max: usize,
    large_apart: bool,
}

impl Throughput {
    /// With batches of up to so many payload bytes.
    pub fn new(full_bytes_max: usize) -> Self {
        Self { bytes_max: full_bytes_max, full_bytes_max, large_apart: false }
    }

    /// Payload bytes a batch.
    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Throughput is the limit: large schedules have batches of their own, so small ones need not wait for them.
    pub fn is_large_apart(&self) -> bool {
        self.large_apart
    }

    /// No large schedule is due any more.
    pub fn none_large_due(&mut self) {
        self.large_apart = false;
    }

    /// A batch with so many payload bytes ran out of time. True if throughput is known to be the limit.
    #[must_use]
    pub fn ran_late(&mut self, batch_bytes: usize, late: Late) -> bool {
        let fits = match late {
            Late::Silent => batch_bytes / STALLED_SHARE,
            Late::Stalled => (batch_bytes / STALLED_SHARE).max(STALLED_BYTES_MIN),
            Late::Taking { delivered, sent } => {
                self.large_apart = true;
                // Half of it, since the next batch may share the link with another one.
                let jitter_slot = u128::from(delivered.min(sent)) * batch_bytes as u128 / u128::from(sent.max(1)) / 2;
                usize::try_from(jitter_slot).unwrap_or(batch_bytes)
            }
        };
        self.bytes_max = self.bytes_max.min(fits).max(1);
        matches!(late, Late::Taking { .. })
    }

    /// A batch with so many payload bytes was committed, `took_ms` after it was formed. True if throughput is known to be
    /// the limit.
    #[must_use]
    pub fn committed(&mut self, batch_bytes: usize, took_ms: i64) -> bool {
        let quick_ms = if self.bytes_max <= SMALL_BYTES { SMALL_QUICK_MS } else { QUICK_MS };
        let is_quick = took_ms < quick_ms;
        let is_limit = self.bytes_max < self.full_bytes_max && !is_quick;
        self.large_apart |= is_limit;
        // A small batch says nothing of how a large one would do.
        if is_quick && batch_bytes >= self.bytes_max / 2 {
            self.bytes_max = self.bytes_max.max(batch_bytes).saturating_mul(2).min(self.full_bytes_max);
        }
        is_limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_shrink_on_timeouts_and_grow_on_fast_commits() {
        let mut throughput = Throughput::new(16 << 20);
        assert!(throughput.ran_late(16 << 20, Late::Taking { delivered: 500, sent: 2_000 }));
        assert_eq!((throughput.bytes_max(), throughput.is_large_apart()), (2 << 20, true));
        assert!(throughput.committed(2 << 20, 2_500));
        assert!(!throughput.committed(100, 10));
        assert_eq!(throughput.bytes_max(), 2 << 20, "one was slow, and the other says nothing");
        for _ in 0..3 {
            assert!(!throughput.committed(throughput.bytes_max(), 1_500));
        }
        assert_eq!(throughput.bytes_max(), 16 << 20, "no more than at first");
    }

    #[test]
    fn an_outage_leaves_batches_that_grow_back_within_moments() {
        for took_ms in [10, 1_500] {
            let mut throughput = Throughput::new(16 << 20);
            for _ in 0..100 {
                assert!(!throughput.ran_late(throughput.bytes_max(), Late::Silent));
            }
            assert_eq!((throughput.bytes_max(), throughput.is_large_apart()), (1, false));
            // One schedule of 300 bytes makes a batch, whatever the bound.
            let mut commits = 0;
            while throughput.bytes_max() < 16 << 20 {
                assert!(!throughput.committed(throughput.bytes_max().max(300), took_ms));
                commits += 1;
            }
            assert!(commits <= 16, "{commits}");
        }
    }

    #[test]
    fn a_stalled_partition_keeps_batches_above_a_minimum() {
        let mut throughput = Throughput::new(16 << 20);
        for _ in 0..100 {
            assert!(!throughput.ran_late(throughput.bytes_max(), Late::Stalled));
        }
        assert_eq!((throughput.bytes_max(), throughput.is_large_apart()), (STALLED_BYTES_MIN, false));
    }
}
