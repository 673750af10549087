//! Bounds the size of batches while the brokers take records more slowly than schedules are due.
//!
//! If the records of a batch are not acknowledged within `message.timeout.ms`, the batch is aborted, and at the same
//! size it would time out again. So the next ones are smaller, until one commits. They grow again once batches of the
//! present size commit quickly.

/// If a batch commits within this time, one of twice its size would commit too: records time out after 5 s by default.
const QUICK_MS: i64 = 2_000;
/// The same for batches of up to [`SMALL_BYTES`]: distant brokers need time for each transaction, however small.
const SMALL_QUICK_MS: i64 = 4_000;
const SMALL_BYTES: usize = 64 << 10;

/// The next batch is smaller by this factor if acknowledgements stopped or none came.
const STALLED_DIVISOR: usize = 4;
/// Smallest size after a batch that stalled halfway: some partition may have no leader, and a smaller batch does not
/// help.
const STALLED_BYTES_MIN: usize = 256 << 10;

/// How a batch timed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchTimeout {
    /// No record was acknowledged: an outage, or a link too slow even for the first request.
    Silent,
    /// Acknowledgements stopped halfway: some partition may take no records.
    Stalled,
    /// The brokers took records until the end: throughput is the limit.
    Taking {
        /// Acknowledged bytes.
        delivered: u64,
        /// Bytes of the whole batch.
        sent: u64,
    },
}

/// The bound on the size of batches.
#[derive(Debug)]
pub(super) struct Throughput {
    bytes_max: usize,
    /// The bound without timeouts.
    full_bytes_max: usize,
    large_apart: bool,
    one_at_a_time: bool,
}

impl Throughput {
    /// Returns a bound of `full_bytes_max` payload bytes.
    pub(super) fn new(full_bytes_max: usize) -> Self {
        Self { bytes_max: full_bytes_max, full_bytes_max, large_apart: false, one_at_a_time: false }
    }

    /// Returns the payload bytes after which a batch is full.
    pub(super) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Returns whether throughput is the limit, so large schedules get batches of their own and small ones need not
    /// wait for them.
    pub(super) fn is_large_apart(&self) -> bool {
        self.large_apart
    }

    /// Ends separate batches for large schedules, because none is due any more.
    pub(super) fn none_large_due(&mut self) {
        self.large_apart = false;
    }

    /// Returns whether a lane has at most one batch in flight: throughput is the limit, so a second one brings nothing,
    /// and its records could be written among those of the first, out of due order.
    pub(super) fn is_one_at_a_time(&self) -> bool {
        self.one_at_a_time
    }

    /// Nothing is due any more.
    pub(super) fn caught_up(&mut self) {
        self.one_at_a_time = false;
    }

    /// Shrinks the bound after a batch of `batch_bytes` payload bytes timed out. Returns true if throughput is
    /// certainly the limit.
    #[must_use]
    pub(super) fn timed_out(&mut self, batch_bytes: usize, timeout: BatchTimeout) -> bool {
        let fits = match timeout {
            BatchTimeout::Silent => batch_bytes / STALLED_DIVISOR,
            BatchTimeout::Stalled => (batch_bytes / STALLED_DIVISOR).max(STALLED_BYTES_MIN),
            BatchTimeout::Taking { delivered, sent } => {
                self.large_apart = true;
                self.one_at_a_time = true;
                // Half of what was delivered, since the next batch may share the link with another one.
                let half = u128::from(delivered.min(sent)) * batch_bytes as u128 / u128::from(sent.max(1)) / 2;
                usize::try_from(half).unwrap_or(batch_bytes)
            }
        };
        self.bytes_max = self.bytes_max.min(fits).max(1);
        matches!(timeout, BatchTimeout::Taking { .. })
    }

    /// Grows the bound if a batch was committed quickly, `took_ms` after it was formed. Returns true if throughput is
    /// certainly the limit.
    #[must_use]
    pub(super) fn committed(&mut self, batch_bytes: usize, took_ms: i64) -> bool {
        let quick_ms = if self.bytes_max <= SMALL_BYTES { SMALL_QUICK_MS } else { QUICK_MS };
        let is_quick = took_ms < quick_ms;
        let is_limit = self.bytes_max < self.full_bytes_max && !is_quick;
        self.large_apart |= is_limit;
        self.one_at_a_time |= is_limit;
        // A quick small batch does not show that a large one would be quick.
        if is_quick && batch_bytes >= self.bytes_max / 2 {
            self.bytes_max = self.bytes_max.max(batch_bytes).saturating_mul(2).min(self.full_bytes_max);
        }
        self.one_at_a_time &= self.bytes_max < self.full_bytes_max;
        is_limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_shrink_on_timeouts_and_grow_on_fast_commits() {
        let mut throughput = Throughput::new(16 << 20);
        assert!(throughput.timed_out(16 << 20, BatchTimeout::Taking { delivered: 500, sent: 2_000 }));
        assert_eq!((throughput.bytes_max(), throughput.is_large_apart()), (2 << 20, true));
        assert!(throughput.is_one_at_a_time());
        assert!(throughput.committed(2 << 20, 2_500));
        assert!(!throughput.committed(100, 10));
        assert_eq!(throughput.bytes_max(), 2 << 20, "one was slow, and the other says nothing");
        for _ in 0..3 {
            assert!(!throughput.committed(throughput.bytes_max(), 1_500));
        }
        assert_eq!(throughput.bytes_max(), 16 << 20, "no more than at first");
        assert!(!throughput.is_one_at_a_time());
    }

    #[test]
    fn an_outage_leaves_batches_that_grow_back_within_moments() {
        for took_ms in [10, 1_500] {
            let mut throughput = Throughput::new(16 << 20);
            for _ in 0..100 {
                assert!(!throughput.timed_out(throughput.bytes_max(), BatchTimeout::Silent));
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
            assert!(!throughput.timed_out(throughput.bytes_max(), BatchTimeout::Stalled));
        }
        assert_eq!((throughput.bytes_max(), throughput.is_large_apart()), (STALLED_BYTES_MIN, false));
    }
}
