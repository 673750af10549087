//! When the log cleaner may remove records of a schedules topic, and for how long a fold of it stays true.

use super::{Entries, Source};

/// The settings that the topic itself has. What it inherits is unknown: brokers may have different defaults, and only
/// the default of one broker can be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cleaning {
    /// `delete.retention.ms`: how long a tombstone stays, after the cleaner first kept it.
    pub delete_retention_ms: Option<u64>,
    /// `min.compaction.lag.ms`: how long any record stays.
    pub min_compaction_lag_ms: Option<u64>,
}

impl Cleaning {
    /// Reads the settings of a topic.
    #[must_use]
    pub(crate) fn of(entries: &Entries) -> Self {
        let number = |name| {
            let is_set_by_topic = entries.source(name) == Some(Source::Topic);
            entries.get(name).filter(|_| is_set_by_topic)?.parse().ok()
        };
        Self {
            delete_retention_ms: number("delete.retention.ms"),
            min_compaction_lag_ms: number("min.compaction.lag.ms"),
        }
    }

    /// Returns how old a fold may be: no tombstone that it lacks can have been removed before that. It is half of
    /// `delete.retention.ms`, and at most `min.compaction.lag.ms`, of which 0 sets no bound. `None` if one of them is
    /// unknown.
    #[must_use]
    pub(crate) fn limit_ms(self) -> Option<u64> {
        let half_ms = self.delete_retention_ms? / 2;
        match self.min_compaction_lag_ms? {
            0 => Some(half_ms),
            lag_ms => Some(half_ms.min(lag_ms)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_half_the_retention_and_at_most_the_lag() {
        const DAY_MS: u64 = 86_400_000;
        for (delete_retention_ms, min_compaction_lag_ms, limit_ms) in [
            (Some(2 * DAY_MS), Some(DAY_MS), Some(DAY_MS)),
            (Some(2 * DAY_MS), Some(2 * DAY_MS), Some(DAY_MS)),
            (Some(2 * DAY_MS), Some(DAY_MS - 1), Some(DAY_MS - 1)),
            (Some(2 * DAY_MS), Some(0), Some(DAY_MS)),
            (Some(2 * DAY_MS), Some(1), Some(1)),
            (Some(7), Some(100), Some(3)),
            (Some(1), Some(100), Some(0)),
            (Some(0), Some(0), Some(0)),
            (Some(u64::MAX), Some(u64::MAX), Some(u64::MAX / 2)),
            (Some(2 * DAY_MS), None, None),
            (None, Some(DAY_MS), None),
            (None, Some(0), None),
            (None, None, None),
        ] {
            let cleaning = Cleaning { delete_retention_ms, min_compaction_lag_ms };
            assert_eq!(cleaning.limit_ms(), limit_ms, "{cleaning:?}");
        }
    }

    #[test]
    fn only_what_the_topic_sets_is_known() {
        let read = |value: &str, source| {
            let mut entries = Entries::default();
            entries.insert("delete.retention.ms".into(), value.into(), source);
            entries.insert("min.compaction.lag.ms".into(), "5".into(), Source::Topic);
            Cleaning::of(&entries)
        };
        let with = |delete_retention_ms| Cleaning { delete_retention_ms, min_compaction_lag_ms: Some(5) };
        assert_eq!(read("10", Source::Topic), with(Some(10)));
        assert_eq!(read("10", Source::Inherited), with(None));
        assert_eq!(read("10", Source::Unknown), with(None), "the broker may have another default");
        for value in ["-1", "", "many", "18446744073709551616"] {
            assert_eq!(read(value, Source::Topic), with(None), "{value:?}");
        }
        assert_eq!(Cleaning::of(&Entries::default()), Cleaning::default());
    }
}
