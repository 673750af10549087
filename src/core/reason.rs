//! Why a record cannot fire.

/// A stable code for each way in which a record can be unfit or undeliverable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The record has no key, so that nothing could ever replace or delete it.
    NoKey,
    /// Its key begins with the prefix that is kept for the engine's own records.
    ReservedKey,
    /// No `scheduler-epoch` header.
    NoEpoch,
    /// `scheduler-epoch` is not a decimal number of seconds.
    BadEpoch,
    /// `scheduler-epoch` is beyond what milliseconds in 63 bits can hold.
    EpochOverflow,
    /// No `scheduler-target-topic` header, or an empty one.
    NoTarget,
    /// `scheduler-target-topic` is not a legal topic name.
    BadTarget,
    /// The target is a schedules topic of this engine: firing would change that topic's last word for the key.
    TargetIsSchedules,
    /// One of the request headers occurs twice.
    DuplicateHeader,
    /// Due further ahead than `MAX_HORIZON` allows.
    BeyondHorizon,
    /// Overdue on arrival by more than `SCHEDULE_GRACE_INTERVAL` allows.
    OverGrace,
    /// The target topic does not exist.
    UnknownTarget,
    /// The engine may not write to the target topic.
    Forbidden,
    /// A record of the firing is too large for a topic it goes to.
    TooLarge,
    /// The target partition has no leader.
    NoLeader,
    /// The broker refused a record for another cause.
    Refused,
}

impl Reason {
    /// The code used in metrics, logs and headers. Codes never change.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::NoKey => "no-key",
            Self::ReservedKey => "reserved-key",
            Self::NoEpoch => "no-epoch",
            Self::BadEpoch => "bad-epoch",
            Self::EpochOverflow => "epoch-overflow",
            Self::NoTarget => "no-target",
            Self::BadTarget => "bad-target",
            Self::TargetIsSchedules => "target-is-schedules",
            Self::DuplicateHeader => "duplicate-header",
            Self::BeyondHorizon => "beyond-horizon",
            Self::OverGrace => "over-grace",
            Self::UnknownTarget => "unknown-target",
            Self::Forbidden => "forbidden",
            Self::TooLarge => "too-large",
            Self::NoLeader => "no-leader",
            Self::Refused => "refused",
        }
    }
}
