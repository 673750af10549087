//! Reasons why a record cannot fire.

use std::fmt;

/// A reason why a record is invalid or cannot be delivered. Each has a stable code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Reason {
    /// The record has no key, so no later record could replace or cancel it.
    NoKey,
    /// Its key begins with the prefix that is reserved for the engine.
    ReservedKey,
    /// The header `scheduler-epoch` is missing or empty.
    NoEpoch,
    /// `scheduler-epoch` is not a decimal number of seconds.
    BadEpoch,
    /// `scheduler-epoch` is too large: its milliseconds do not fit into 63 bits.
    EpochOverflow,
    /// The header `scheduler-target-topic` is missing or empty.
    NoTarget,
    /// `scheduler-target-topic` is not a legal topic name, or one of Kafka's own topics.
    BadTarget,
    /// The target is a schedules topic of this engine: the triggered record would replace the latest record of its key.
    TargetIsSchedules,
    /// A request header occurs twice, with different values.
    DuplicateHeader,
    /// It is due further ahead than `MAX_HORIZON` allows.
    BeyondHorizon,
    /// It was overdue at its record's timestamp by more than `SCHEDULE_GRACE_INTERVAL` allows.
    OverGrace,
    /// The target topic does not exist.
    UnknownTarget,
    /// The engine may not write to the target topic.
    Forbidden,
    /// A record of the firing is too large for its topic.
    TooLarge,
    /// A partition of the target takes no records: it has no leader, or too few replicas in sync.
    NoLeader,
    /// The target topic rejects the engine's timestamps: a clock is wrong, or the topic's bounds are too narrow.
    Timestamp,
    /// A topic of the engine's own rejects a record of the firing because of the topic's settings.
    OwnTopic,
    /// A broker rejected a record for another cause.
    Rejected,
    /// A [`BadEpoch`](Self::BadEpoch) in JSON quotes.
    QuotedEpoch,
    /// A [`BadEpoch`](Self::BadEpoch) of eight bytes that are not text, as Java serialises a long.
    LongEpoch,
    /// A [`BadEpoch`](Self::BadEpoch) of other bytes that are not text.
    BinaryEpoch,
    /// A [`BadEpoch`](Self::BadEpoch) that looks like a date.
    DateEpoch,
    /// A [`BadTarget`](Self::BadTarget) in JSON quotes.
    QuotedTarget,
}

impl Reason {
    /// All reasons, in the order of their numbers. Reasons that share another one's code come last.
    pub const ALL: &'static [Self] = &[
        Self::NoKey,
        Self::ReservedKey,
        Self::NoEpoch,
        Self::BadEpoch,
        Self::EpochOverflow,
        Self::NoTarget,
        Self::BadTarget,
        Self::TargetIsSchedules,
        Self::DuplicateHeader,
        Self::BeyondHorizon,
        Self::OverGrace,
        Self::UnknownTarget,
        Self::Forbidden,
        Self::TooLarge,
        Self::NoLeader,
        Self::Timestamp,
        Self::OwnTopic,
        Self::Rejected,
        Self::QuotedEpoch,
        Self::LongEpoch,
        Self::BinaryEpoch,
        Self::DateEpoch,
        Self::QuotedTarget,
    ];

    /// Returns a description for the author of the producer. It describes the shape of a bad value, never its bytes,
    /// which may be secret.
    #[must_use]
    pub const fn detail(self) -> &'static str {
        match self {
            Self::NoKey => "the record has no key, so no later record could replace or cancel it",
            Self::ReservedKey => "the key begins with __scheduler., which is reserved for the engine's own records",
            Self::NoEpoch => "the header scheduler-epoch is missing or empty",
            Self::BadEpoch => {
                "scheduler-epoch must be decimal digits: seconds since 1970, without sign, space or fraction"
            }
            Self::QuotedEpoch => "scheduler-epoch is in JSON quotes: send the digits without them",
            Self::LongEpoch => {
                "scheduler-epoch is 8 bytes that are not text, as Java serialises a long: send decimal digits"
            }
            Self::BinaryEpoch => "scheduler-epoch is bytes that are not text: send decimal digits",
            Self::DateEpoch => "scheduler-epoch looks like a date: send seconds since 1970 as decimal digits",
            Self::EpochOverflow => {
                "scheduler-epoch is too large: it counts seconds since 1970, not milliseconds or nanoseconds"
            }
            Self::NoTarget => "the header scheduler-target-topic is missing or empty",
            Self::BadTarget => {
                "scheduler-target-topic is not a topic name, or one of Kafka's own: 1 to 249 of a-z A-Z 0-9 . _ - are allowed"
            }
            Self::QuotedTarget => "scheduler-target-topic is in JSON quotes: send the name without them",
            Self::TargetIsSchedules => "the target is a schedules topic of this engine",
            Self::DuplicateHeader => {
                "scheduler-epoch, scheduler-target-topic or scheduler-target-key occurs twice, with different values"
            }
            Self::BeyondHorizon => "due further ahead than MAX_HORIZON allows",
            Self::OverGrace => "overdue on arrival by more than SCHEDULE_GRACE_INTERVAL allows",
            Self::UnknownTarget => "the target topic does not exist",
            Self::Forbidden => "the engine may not write to the target topic",
            Self::TooLarge => "a record of the firing is larger than its topic takes (max.message.bytes)",
            Self::NoLeader => {
                "a partition of the target takes no records: it has no leader, or too few replicas in sync"
            }
            Self::Timestamp => {
                "the target topic rejects the engine's timestamps: a clock is wrong, or message.timestamp.after.max.ms or \
                 message.timestamp.before.max.ms of the topic is too small"
            }
            Self::OwnTopic => "the history, schedules or dead-letter topic rejects the record because of its settings",
            Self::Rejected => "the broker rejects the record",
        }
    }

    /// Returns the code in metrics, logs and headers. Codes never change.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::NoKey => "no-key",
            Self::ReservedKey => "reserved-key",
            Self::NoEpoch => "no-epoch",
            Self::BadEpoch | Self::QuotedEpoch | Self::LongEpoch | Self::BinaryEpoch | Self::DateEpoch => "bad-epoch",
            Self::EpochOverflow => "epoch-overflow",
            Self::NoTarget => "no-target",
            Self::BadTarget | Self::QuotedTarget => "bad-target",
            Self::TargetIsSchedules => "target-is-schedules",
            Self::DuplicateHeader => "duplicate-header",
            Self::BeyondHorizon => "beyond-horizon",
            Self::OverGrace => "over-grace",
            Self::UnknownTarget => "unknown-target",
            Self::Forbidden => "forbidden",
            Self::TooLarge => "too-large",
            Self::NoLeader => "no-leader",
            Self::Timestamp => "timestamp",
            Self::OwnTopic => "own-topic",
            Self::Rejected => "rejected",
        }
    }
}

impl fmt::Display for Reason {
    /// Writes [`detail`](Self::detail).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.detail())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_number_and_a_detail_of_its_own() {
        let details: std::collections::BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.detail()).collect();
        assert_eq!(details.len(), Reason::ALL.len());
        assert_eq!(Reason::Forbidden.to_string(), Reason::Forbidden.detail());
        assert!(Reason::ALL.iter().enumerate().all(|(number, reason)| *reason as usize == number));
        assert_eq!(Reason::QuotedTarget as usize + 1, Reason::ALL.len());
    }

    #[test]
    fn each_code_is_one_reasons_own_and_others_only_say_more_of_it() {
        let own = &Reason::ALL[..=Reason::Rejected as usize];
        let codes: std::collections::BTreeSet<_> = own.iter().map(|reason| reason.code()).collect();
        assert_eq!(codes.len(), own.len());
        assert!(Reason::ALL[own.len()..].iter().all(|reason| codes.contains(reason.code())));
    }
}
