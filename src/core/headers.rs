//! Names of the record headers, which are a public contract. The origin header is in `origin`.

// The request headers: the target's two, one that says when, and its options.

/// On a schedule: when it is due, in decimal seconds since 1970. Alone, without an option, it is the *old form*.
pub const EPOCH: &[u8] = b"scheduler-epoch";
/// On a schedule: when it is due, in decimal milliseconds since 1970.
pub const EPOCH_MS: &[u8] = b"scheduler-epoch-ms";
/// On a schedule: the time from the record's own timestamp until it is due, as a span such as `90s`.
pub const DELAY: &[u8] = b"scheduler-delay";
/// On a schedule: when it is due, as a date with an offset (RFC 3339) or a zone (RFC 9557).
pub const AT: &[u8] = b"scheduler-at";
/// On a schedule: the interval at which it recurs, as a span of one second or more.
pub const EVERY: &[u8] = b"scheduler-every";
/// On a schedule: the cron expression by which it recurs.
pub const CRON: &[u8] = b"scheduler-cron";
/// With [`EVERY`] or [`CRON`]: the IANA name of its time zone. UTC without it.
pub const TIMEZONE: &[u8] = b"scheduler-timezone";
/// With [`EVERY`] or [`CRON`]: the moment of the first occurrence at the earliest.
pub const START: &[u8] = b"scheduler-start";
/// With [`EVERY`] or [`CRON`]: the moment of the last occurrence at the latest.
pub const UNTIL: &[u8] = b"scheduler-until";
/// With [`EVERY`] or [`CRON`]: the number of occurrences.
pub const COUNT: &[u8] = b"scheduler-count";
/// With [`EVERY`] or [`CRON`]: local dates without an occurrence, separated by commas.
pub const EXCEPT: &[u8] = b"scheduler-except";
/// With [`EVERY`] or [`CRON`]: what happens to missed occurrences, `once`, `skip`, `skip;10m` or `all`.
pub const MISFIRE: &[u8] = b"scheduler-misfire";
/// With [`EVERY`] or [`CRON`]: the number of occurrences that are over, of a schedule that was moved.
pub const DONE: &[u8] = b"scheduler-done";
/// With [`DONE`]: when the next occurrence is due, in decimal milliseconds since 1970.
pub const NEXT: &[u8] = b"scheduler-next";
/// With any form: the largest random delay, as a span.
pub const JITTER: &[u8] = b"scheduler-jitter";
/// With any form: until when it may fire, as a span after it is due or as a moment.
pub const EXPIRES: &[u8] = b"scheduler-expires";
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
/// On a triggered record or dead letter of any form but the old one: when it was due without jitter, in decimal
/// milliseconds since 1970.
pub const DUE: &[u8] = b"scheduler-due";
/// On a triggered record of any form but the old one: the user's record, as `partition-offset`.
pub const ID: &[u8] = b"scheduler-id";
/// On a triggered record of a schedule that recurs: the number of the occurrence, from 1.
pub const OCCURRENCE: &[u8] = b"scheduler-occurrence";
/// On a triggered record of a schedule that recurs: the number of missed occurrences that are part of this one.
pub const MISSED: &[u8] = b"scheduler-missed";
/// On a barrier: the takeover that wrote it, for people who look at the log. The engine reads only [`GROUP`].
pub const BARRIER: &[u8] = b"scheduler-barrier";
/// On a canary: its partition, its time, and how far its writer had read.
pub const CANARY: &[u8] = b"scheduler-canary";
/// On a barrier: the consumer group of the engine that wrote it.
pub const GROUP: &[u8] = b"scheduler-group";

/// The names of all headers of this page begin with it.
pub(super) const PREFIX: &[u8] = b"scheduler-";

/// The length of the longest of [`WHEN`].
pub(super) const WHEN_BYTES_MAX: usize = TIMEZONE.len();

/// The request headers but those of the target. A schedule of a new form keeps them as its user wrote them.
pub(super) const WHEN: [&[u8]; 16] = [
    EPOCH, EPOCH_MS, DELAY, AT, EVERY, CRON, TIMEZONE, START, UNTIL, COUNT, EXCEPT, MISFIRE, DONE, NEXT, JITTER,
    EXPIRES,
];

/// The headers that the engine adds to triggered records of new forms.
pub(super) const FIRED: [&[u8]; 4] = [DUE, ID, OCCURRENCE, MISSED];
