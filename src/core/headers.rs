//! Names of the record headers, which are a public contract. The origin header is in `origin`.

// The request headers: the next three.

/// On a schedule: when it is due, in decimal seconds since 1970.
pub const EPOCH: &[u8] = b"scheduler-epoch";
/// On a schedule: the topic of the triggered record.
pub const TARGET_TOPIC: &[u8] = b"scheduler-target-topic";
/// On a schedule: the key of the triggered record.
pub const TARGET_KEY: &[u8] = b"scheduler-target-key";
/// On a triggered record: the schedule record's own timestamp in whole seconds.
pub const TIMESTAMP: &[u8] = b"scheduler-timestamp";
/// On a triggered record: the schedule record's key.
pub const KEY: &[u8] = b"scheduler-key";
/// On a triggered record or dead letter: the schedules topic it came from.
pub const TOPIC: &[u8] = b"scheduler-topic";
/// On a dead letter: the reason's code.
pub const ERROR: &[u8] = b"scheduler-error";
/// On a dead letter: the reason in words.
pub const ERROR_DETAIL: &[u8] = b"scheduler-error-detail";
/// On a dead letter: the partition it came from.
pub const PARTITION: &[u8] = b"scheduler-partition";
/// On a dead letter: the offset of the user's record in that partition.
pub const OFFSET: &[u8] = b"scheduler-offset";
/// On a barrier: the takeover that wrote it, for people who look at the log. The engine reads only [`GROUP`].
pub const BARRIER: &[u8] = b"scheduler-barrier";
/// On a barrier: the consumer group of the engine that wrote it.
pub const GROUP: &[u8] = b"scheduler-group";
