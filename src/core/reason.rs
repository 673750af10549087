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
    /// No header says when it is due, or `scheduler-epoch` is empty.
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
    /// The record says in more than one way when it is due.
    ConflictingTime,
    /// `scheduler-epoch-ms` is not a decimal number of milliseconds, or too large.
    BadEpochMs,
    /// `scheduler-delay` is not a span, or ends too late.
    BadDelay,
    /// `scheduler-at` is not a moment from 1970 on.
    BadAt,
    /// `scheduler-every` is not a span of one second or more.
    BadEvery,
    /// `scheduler-cron` is not a cron expression that this version knows.
    BadCron,
    /// `scheduler-timezone` is not a zone that this version knows.
    BadTimezone,
    /// `scheduler-start` is not a moment.
    BadStart,
    /// `scheduler-until` is not a moment.
    BadUntil,
    /// `scheduler-count` is not a decimal number from 1 on.
    BadCount,
    /// `scheduler-except` is not a list of dates.
    BadExcept,
    /// `scheduler-misfire` is not a policy.
    BadMisfire,
    /// `scheduler-jitter` is not a span.
    BadJitter,
    /// `scheduler-expires` is neither a span nor a moment.
    BadExpires,
    /// `scheduler-done` and `scheduler-next` are not both numbers.
    BadDone,
    /// It counts from the record's timestamp, and the record has none.
    NoTimestamp,
    /// It recurs, and has no occurrence in the next 100 years.
    NeverDue,
    /// It was not fired before it expired.
    Expired,
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
    /// A [`ConflictingTime`](Self::ConflictingTime): an option that belongs to another form.
    StrayOption,
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
        Self::ConflictingTime,
        Self::BadEpochMs,
        Self::BadDelay,
        Self::BadAt,
        Self::BadEvery,
        Self::BadCron,
        Self::BadTimezone,
        Self::BadStart,
        Self::BadUntil,
        Self::BadCount,
        Self::BadExcept,
        Self::BadMisfire,
        Self::BadJitter,
        Self::BadExpires,
        Self::BadDone,
        Self::NoTimestamp,
        Self::NeverDue,
        Self::Expired,
        Self::QuotedEpoch,
        Self::LongEpoch,
        Self::BinaryEpoch,
        Self::DateEpoch,
        Self::QuotedTarget,
        Self::StrayOption,
    ];

    /// Returns a description for the author of the producer. It describes the shape of a bad value, never its bytes,
    /// which may be secret.
    #[must_use]
    pub const fn detail(self) -> &'static str {
        match self {
            Self::NoKey => "the record has no key, so no later record could replace or cancel it",
            Self::ReservedKey => "the key begins with __scheduler., which is reserved for the engine's own records",
            Self::NoEpoch => {
                "no header says when it is due: scheduler-epoch is missing or empty, and so are scheduler-epoch-ms, \
                 scheduler-delay, scheduler-at, scheduler-every and scheduler-cron"
            }
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
                "a header that says when or where the record fires occurs twice, with different values"
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
            _ => self.detail_of_when(),
        }
    }

    /// Returns the description of a reason that concerns the headers of the new forms.
    const fn detail_of_when(self) -> &'static str {
        match self {
            Self::ConflictingTime => {
                "more than one of scheduler-epoch, scheduler-epoch-ms, scheduler-delay, scheduler-at, scheduler-every and scheduler-cron: send one"
            }
            Self::BadEpochMs => {
                "scheduler-epoch-ms must be decimal digits: milliseconds since 1970, without sign, space or fraction, below 2^63"
            }
            Self::BadDelay => {
                "scheduler-delay must be a span such as 90s, 1h30m or PT10M, not negative, without months and years"
            }
            Self::BadAt => {
                "scheduler-at must be a date from 1970 on with an offset or a zone, such as 2027-03-28T09:00:00Z or 2027-03-28T09:00:00[Europe/Paris]"
            }
            Self::BadEvery => {
                "scheduler-every must be a span of one second or more, such as 10s, 1h30m or PT10M, without months and years"
            }
            Self::BadCron => {
                "scheduler-cron must have five fields, or six with seconds first, or be @hourly and the like; kafka-scheduler preview explains an expression"
            }
            Self::BadTimezone => {
                "scheduler-timezone must be the IANA name of a time zone that this version knows, such as Europe/Paris"
            }
            Self::BadStart => {
                "scheduler-start must be a date with an offset or a zone, such as 2027-03-28T09:00:00Z or 2027-03-28T09:00:00[Europe/Paris]"
            }
            Self::BadUntil => {
                "scheduler-until must be a date with an offset or a zone, such as 2027-03-28T09:00:00Z or 2027-03-28T09:00:00[Europe/Paris]"
            }
            Self::BadCount => "scheduler-count must be decimal digits: the number of occurrences, 1 or more",
            Self::BadExcept => {
                "scheduler-except must be up to 366 dates separated by commas, such as 2027-12-25,2028-01-01"
            }
            Self::BadMisfire => "scheduler-misfire must be once, skip, skip;10m or all",
            Self::BadJitter => {
                "scheduler-jitter must be a span such as 30s or PT10M, not negative, without months and years"
            }
            Self::BadExpires => "scheduler-expires must be a span such as 10m, or a date with an offset or a zone",
            Self::BadDone => {
                "scheduler-done and scheduler-next belong together: a number of occurrences, and milliseconds since 1970, in decimal digits"
            }
            Self::NoTimestamp => {
                "scheduler-delay, and scheduler-every without scheduler-start, count from the record's timestamp, and the record has none"
            }
            Self::NeverDue => {
                "the schedule has no occurrence within 100 years of its record's timestamp, or none before scheduler-until"
            }
            Self::Expired => "scheduler-expires was over before the schedule could fire",
            Self::StrayOption => {
                "an option that this form does not have: scheduler-timezone, -start, -until, -count, \
                 -except, -misfire, -done and -next belong to scheduler-cron and scheduler-every"
            }
            _ => "",
        }
    }

    /// Returns whether a record with this reason may be written for a later version, or for one with other zone data.
    /// Such a record is kept once an engine has accepted it.
    #[must_use]
    pub const fn may_be_of_later_version(self) -> bool {
        matches!(
            self,
            Self::BadCron | Self::BadTimezone | Self::BadAt | Self::BadStart | Self::BadUntil | Self::BadExpires
        )
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
            Self::ConflictingTime | Self::StrayOption => "conflicting-time",
            Self::BadEpochMs => "bad-epoch-ms",
            Self::BadDelay => "bad-delay",
            Self::BadAt => "bad-at",
            Self::BadEvery => "bad-every",
            Self::BadCron => "bad-cron",
            Self::BadTimezone => "bad-timezone",
            Self::BadStart => "bad-start",
            Self::BadUntil => "bad-until",
            Self::BadCount => "bad-count",
            Self::BadExcept => "bad-except",
            Self::BadMisfire => "bad-misfire",
            Self::BadJitter => "bad-jitter",
            Self::BadExpires => "bad-expires",
            Self::BadDone => "bad-done",
            Self::NoTimestamp => "no-timestamp",
            Self::NeverDue => "never-due",
            Self::Expired => "expired",
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
        assert_eq!(Reason::StrayOption as usize + 1, Reason::ALL.len());
    }

    #[test]
    fn each_code_is_one_reasons_own_and_others_only_say_more_of_it() {
        let own = &Reason::ALL[..=Reason::Expired as usize];
        let codes: std::collections::BTreeSet<_> = own.iter().map(|reason| reason.code()).collect();
        assert_eq!(codes.len(), own.len());
        assert!(Reason::ALL[own.len()..].iter().all(|reason| codes.contains(reason.code())));
    }
}
