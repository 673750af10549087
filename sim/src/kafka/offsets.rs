//! The group's offsets: transactional commits, plain commits, and expiry.

use std::collections::BTreeMap;

use kafka_scheduler::core::io::TopicPartition;

use super::{Kafka, Refusal};

/// `offset.metadata.max.bytes`.
pub(super) const METADATA_BYTES_MAX: usize = 4_096;

/// Returns the offsets that librdkafka sends: it drops negative ones, and sends no request if none is left.
#[must_use]
pub fn sent_by_librdkafka(
    mut offsets: Vec<(TopicPartition, i64, String)>,
) -> Option<Vec<(TopicPartition, i64, String)>> {
    offsets.retain(|(_, offset, _)| *offset >= 0);
    (!offsets.is_empty()).then_some(offsets)
}

/// An offset that a transaction will commit.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub offset: i64,
    pub metadata: String,
    /// Its place in the order in which offsets were sent.
    pub taken: u64,
}

impl Kafka {
    /// Commits offsets outside of any transaction. It does not check ownership, and discards offsets that a transaction
    /// has sent before this but commits after it.
    ///
    /// # Errors
    /// [`Refusal::Generation`] or [`Refusal::Metadata`].
    pub fn commit_plain(
        &mut self,
        (member, generation): (&str, i32),
        offsets: Vec<(TopicPartition, i64, String)>,
    ) -> Result<(), Refusal> {
        if offsets.iter().any(|(_, _, metadata)| metadata.len() > METADATA_BYTES_MAX) {
            return Err(Refusal::Metadata);
        }
        if !self.group.takes_plain(member, generation) {
            return Err(Refusal::Generation);
        }
        self.next_taken += 1;
        let taken = self.next_taken;
        let plain = |(p, offset, metadata)| (p, Pending { offset, metadata, taken });
        self.take_offsets(offsets.into_iter().map(plain).collect());
        Ok(())
    }

    /// Drops the group's offsets, as brokers do some time after its last member has left. Returns false if it has
    /// members.
    pub fn expire_offsets(&mut self) -> bool {
        let expires = self.group.is_empty();
        if expires {
            self.committed.clear();
        }
        expires
    }

    pub(super) fn take_offsets(&mut self, offsets: BTreeMap<TopicPartition, Pending>) {
        for (partition, Pending { offset, metadata, taken }) in offsets {
            let newest = self.taken.entry(partition).or_default();
            if *newest < taken {
                *newest = taken;
                self.committed.insert(partition, (offset, metadata));
            }
        }
    }
}
