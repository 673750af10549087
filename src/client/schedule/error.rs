//! Why a schedule cannot be built.

use std::fmt;

use super::super::HEADER_PREFIX;
use crate::core::due::EPOCH_S_MAX;

/// Why a schedule cannot be built.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ScheduleError {
    /// The key is empty. It names the schedule, so it can be replaced or cancelled.
    NoKey,
    /// The key begins with the prefix that is reserved for the engine.
    ReservedKey,
    /// There is no target topic, or its name is empty.
    NoTarget,
    /// The target is not a valid topic name.
    BadTarget(String),
    /// There is no value, and null would cancel the key. An empty value is allowed.
    NoValue,
    /// Nothing says when it fires.
    NoDate,
    /// The date has passed. Use a delay of 0 to fire at once.
    Past {
        /// The date, in milliseconds since 1970.
        due_ms: i64,
        /// The clock, in milliseconds since 1970.
        now_ms: i64,
    },
    /// The date is too late for the engine: its milliseconds must fit into 63 bits.
    TooFar,
    /// The interval of [`every`](super::Schedule::every), in milliseconds, is less than 1 s.
    ShortInterval(i64),
    /// A duration is negative, or longer than 100 years.
    BadDuration {
        /// The header that it was meant for.
        header: &'static str,
        /// The duration in milliseconds.
        ms: i64,
    },
    /// A date, expression or zone is empty.
    EmptyText(&'static str),
    /// [`count`](super::Schedule::count) is 0.
    ZeroCount,
    /// This header is an option of schedules that recur, and this one fires once.
    StrayOption(&'static str),
    /// A header's name is reserved for the scheduler.
    ReservedHeader(String),
}

impl fmt::Display for ScheduleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoKey => f.write_str("the schedule has no key: set one that names it"),
            Self::ReservedKey => f.write_str("the key begins with \"__scheduler.\", which is reserved for the engine"),
            Self::NoTarget => {
                f.write_str("the schedule has no target topic: set the topic that the message is sent to")
            }
            Self::BadTarget(topic) => write!(
                f,
                "the target topic {topic:?} is invalid: it must be 1 to 249 of the characters a-z A-Z 0-9 . _ - \
                 (and not . or .. alone)"
            ),
            Self::NoValue => {
                f.write_str("the schedule has no value, and null would cancel the key: an empty value is allowed")
            }
            Self::NoDate => {
                f.write_str("the schedule has no date: set a date, a delay, an interval or a cron expression")
            }
            Self::Past { due_ms, now_ms } => {
                write!(
                    f,
                    "the date has passed: it is {}, and now it is {} (seconds since 1970)",
                    s(*due_ms),
                    s(*now_ms)
                )
            }
            Self::TooFar => write!(f, "the date is too late: the last one is {EPOCH_S_MAX} seconds after 1970"),
            Self::ShortInterval(ms) => write!(f, "the interval is {ms} ms, but must be 1 s or more"),
            Self::BadDuration { header, ms } => {
                write!(f, "{header} is {ms} ms, but must not be negative, and at most 100 years")
            }
            Self::EmptyText(header) => write!(f, "{header} is empty: set its text, or leave it out"),
            Self::ZeroCount => f.write_str("the number of occurrences is 0, but must be 1 or more"),
            Self::StrayOption(header) => write!(
                f,
                "{header} is an option of schedules that recur, and this one fires once: leave it out, or set an \
                 interval or a cron expression"
            ),
            Self::ReservedHeader(name) => {
                write!(
                    f,
                    "the header {name:?} is reserved for the scheduler: choose a name without the prefix \
                     {HEADER_PREFIX:?}"
                )
            }
        }
    }
}

impl std::error::Error for ScheduleError {}

/// Returns milliseconds as seconds with three decimals.
fn s(ms: i64) -> String {
    format!("{}.{:03}", ms.div_euclid(1000), ms.rem_euclid(1000))
}
