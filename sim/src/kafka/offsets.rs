//! The group's offsets: transactional ones, plain ones, and their expiry.

use std::collections::BTreeMap;

use kafka_scheduler::core::io::TopicPartition;

use super::{Kafka, Refusal};

/// The broker refuses longer metadata.
pub(super) const METADATA_BYTES_MAX: usize = 4_096;

/// What librdkafka sends of these: negative offsets are dropped, and where none is left nobody is asked.
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
    /// When it was sent, in the order of the group's offsets topic.
    pub taken: u64,
}

impl Kafka {
    /// Commits offsets outside of any transaction. Whether the member owns the partitions is not asked, and offsets
    /// that a transaction has sent before this but commits after it vanish.
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

    /// The group's offsets are dropped, as they are some time after its last member has left. False if it has members.
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
