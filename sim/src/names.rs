//! Names and units that the model of Kafka, the instances and the oracle share.

use kafka_scheduler::core::io::TopicPartition;

/// The schedules topics.
pub const TOPICS: [&str; 2] = ["schedules", "more"];
/// The cluster's id.
pub const CLUSTER: &str = "model";
/// The history topic.
pub const HISTORY: &str = "history";
/// The dead-letter topic.
pub const DEAD_LETTERS: &str = "dead";
/// Milliseconds of a day.
pub const DAY_MS: i64 = 86_400_000;

/// Returns the name of a partition's schedules topic.
#[must_use]
pub fn topic(partition: TopicPartition) -> &'static str {
    TOPICS[usize::from(partition.topic) % TOPICS.len()]
}

/// How long after they are due those schedules expire.
pub(crate) const EXPIRES_MS: i64 = 3_000;
