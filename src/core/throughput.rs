//! How large batches may be while the brokers take less in time than is due.
//!
//! A batch that does not get through before its records time out is tried again whole, and would time out again. So its
//! successors are smaller, until one fits. They grow again as soon as batches of the present size commit quickly.

/// A batch that commits within this shows that a larger one would fit.
const QUICK_MS: i64 = 1_000;

/// The part of a timed-out batch that is tried again, if its records were not acknowledged at all.
const NONE_DELIVERED_SHARE: usize = 4;

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

    /// A batch with so many payload bytes ran out of time, when `delivered` of `sent` bytes were acknowledged. True if
    /// throughput is known to be the limit.
    #[must_use]
    pub fn timed_out(&mut self, batch_bytes: usize, delivered: u64, sent: u64) -> bool {
        let fits = if delivered == 0 {
            // An outage, or a link on which not even the first request gets through in time.
            batch_bytes / NONE_DELIVERED_SHARE
        } else {
            self.large_apart = true;
            // Half of it, since the next batch may share the link with another one.
            let share = u128::from(delivered.min(sent)) * batch_bytes as u128 / u128::from(sent.max(1)) / 2;
            usize::try_from(share).unwrap_or(batch_bytes)
        };
        self.bytes_max = self.bytes_max.min(fits).max(1);
        delivered > 0
    }

    /// A batch with so many payload bytes was committed, `took_ms` after it was formed. True if throughput is known to be
    /// the limit.
    #[must_use]
    pub fn committed(&mut self, batch_bytes: usize, took_ms: i64) -> bool {
        let is_limit = self.bytes_max < self.full_bytes_max && took_ms >= QUICK_MS;
        self.large_apart |= is_limit;
        // A small batch says nothing of how a large one would do.
        if took_ms < QUICK_MS && batch_bytes >= self.bytes_max / 2 {
            self.bytes_max = self.bytes_max.max(batch_bytes).saturating_mul(2).min(self.full_bytes_max);
        }
        is_limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_shrink_to_what_gets_through_and_grow_when_that_is_quick() {
        let mut throughput = Throughput::new(16_000);
        assert!(throughput.timed_out(16_000, 500, 2_000));
        assert_eq!((throughput.bytes_max(), throughput.is_large_apart()), (2_000, true));
        assert!(throughput.committed(2_000, 1_500));
        assert!(!throughput.committed(100, 10));
        assert_eq!(throughput.bytes_max(), 2_000, "one was slow, and the other says nothing");
        for _ in 0..3 {
            assert!(!throughput.committed(throughput.bytes_max(), 10));
        }
        assert_eq!(throughput.bytes_max(), 16_000, "no more than at first");
    }

    #[test]
    fn an_outage_leaves_batches_that_grow_back_within_moments() {
        let mut throughput = Throughput::new(16 << 20);
        for _ in 0..100 {
            assert!(!throughput.timed_out(throughput.bytes_max(), 0, 1_000));
        }
        assert_eq!((throughput.bytes_max(), throughput.is_large_apart()), (1, false));
        // One schedule of 300 bytes makes a batch, whatever the bound.
        let mut commits = 0;
        while throughput.bytes_max() < 16 << 20 {
            assert!(!throughput.committed(throughput.bytes_max().max(300), 10));
            commits += 1;
        }
        assert!(commits <= 16, "{commits}");
    }
}
