//! What the settings of the engine's topics must be, and what is wrong with those they have.

use std::collections::BTreeMap;
use std::fmt;

/// A topic's settings as the broker names them, defaults included.
pub type Entries = BTreeMap<String, String>;

/// What a topic is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Holds pending schedules.
    Schedules,
    /// Holds a copy of each triggered record.
    History,
    /// Holds what could not fire.
    DeadLetter,
}

const DAY_MS: i64 = 86_400_000;

/// Shorter than this, an outage over lunch is enough to lose a word.
const LAG_MS_MIN: i64 = 3_600_000;

impl Role {
    /// The settings that a topic of this kind is created with, beside the brokers' defaults.
    #[must_use]
    pub const fn settings(self) -> &'static [(&'static str, &'static str)] {
        match self {
            // Schedules live until they fire, and tombstones longer than any outage.
            Self::Schedules => &[
                ("cleanup.policy", "compact"),
                ("min.compaction.lag.ms", "86400000"),
                ("delete.retention.ms", "172800000"),
            ],
            Self::History => &[("cleanup.policy", "delete")],
            Self::DeadLetter => &[("cleanup.policy", "delete"), ("retention.ms", "-1")],
        }
    }
}

/// A setting that can cost schedules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The setting.
    pub setting: &'static str,
    /// Its value.
    pub value: String,
    /// What can happen, and what to set.
    pub text: &'static str,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}: {}", self.setting, self.value, self.text)
    }
}

/// What is wrong with a topic's settings. A setting that is not among `entries` is not judged.
#[must_use]
pub fn findings(role: Role, entries: &Entries) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut judge = |setting: &'static str, is_wrong: &dyn Fn(&str) -> bool, text| {
        if let Some(value) = entries.get(setting).filter(|value| is_wrong(value)) {
            found.push(Finding { setting, value: value.clone(), text });
        }
    };
    let below = |least: i64| move |value: &str| value.parse::<i64>().is_ok_and(|value| value < least);
    let finite = |value: &str| value.parse::<i64>().is_ok_and(|value| value >= 0);
    let policy = entries.get("cleanup.policy").map(|policy| policies(policy)).unwrap_or_default();
    match role {
        Role::Schedules => {
            judge(
                "cleanup.policy",
                &|value| !policies(value).contains(&"compact"),
                "what has fired is never removed, and what is pending is when it is old: set compact",
            );
            if policy.contains(&"delete") {
                let text =
                    "the broker deletes schedules that are still pending: set cleanup.policy=compact alone, or -1";
                judge("retention.ms", &finite, text);
                judge("retention.bytes", &finite, text);
            }
            judge(
                "min.compaction.lag.ms",
                &below(LAG_MS_MIN),
                "an update made in the moment of firing can be compacted away while no instance runs: set a day or more",
            );
            judge(
                "delete.retention.ms",
                &below(LAG_MS_MIN),
                "a tombstone can vanish before an instance that was away has read it: set a day or more",
            );
            judge(
                "unclean.leader.election.enable",
                &|value| value == "true",
                "a broker's death can take acknowledged schedules with it: set false",
            );
        }
        Role::History | Role::DeadLetter => judge(
            "cleanup.policy",
            &|value| policies(value).contains(&"compact"),
            "only the last record of each key is kept: set delete",
        ),
    }
    if role == Role::DeadLetter && !policy.contains(&"compact") {
        judge("retention.ms", &|value| finite(value) && below(DAY_MS)(value), "dead letters are deleted within a day");
    }
    found
}

/// The largest record set that the topic takes, in bytes as they are sent.
#[must_use]
pub fn set_bytes_max(entries: &Entries) -> Option<usize> {
    entries.get("max.message.bytes")?.parse().ok()
}

/// How many replicas must be in sync for the topic to take a record.
#[must_use]
pub fn in_sync_min(entries: &Entries) -> Option<usize> {
    entries.get("min.insync.replicas")?.parse().ok()
}

fn policies(value: &str) -> Vec<&str> {
    value.split(',').map(str::trim).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(changed: &[(&str, &str)]) -> Entries {
        let good = [
            ("cleanup.policy", "compact"),
            ("retention.ms", "604800000"),
            ("retention.bytes", "-1"),
            ("min.compaction.lag.ms", "86400000"),
            ("delete.retention.ms", "86400000"),
            ("unclean.leader.election.enable", "false"),
        ];
        good.iter().chain(changed).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn every_setting_that_can_lose_schedules_is_found() {
        let found = |changed: &[(&str, &str)]| -> Vec<&str> {
            findings(Role::Schedules, &entries(changed)).iter().map(|finding| finding.setting).collect()
        };
        assert_eq!(found(&[]), [""; 0]);
        assert_eq!(found(&[("cleanup.policy", "delete")]), ["cleanup.policy", "retention.ms"]);
        assert_eq!(found(&[("cleanup.policy", "compact, delete")]), ["retention.ms"]);
        assert_eq!(found(&[("cleanup.policy", "compact,delete"), ("retention.ms", "-1")]), [""; 0]);
        let bytes = [("cleanup.policy", "compact,delete"), ("retention.ms", "-1"), ("retention.bytes", "1")];
        assert_eq!(found(&bytes), ["retention.bytes"]);
        assert_eq!(found(&[("min.compaction.lag.ms", "0")]), ["min.compaction.lag.ms"]);
        assert_eq!(found(&[("delete.retention.ms", "1000")]), ["delete.retention.ms"]);
        assert_eq!(found(&[("unclean.leader.election.enable", "true")]), ["unclean.leader.election.enable"]);
    }

    #[test]
    fn what_is_created_has_no_findings() {
        for role in [Role::Schedules, Role::History, Role::DeadLetter] {
            assert_eq!(findings(role, &entries(role.settings())), [], "{role:?}");
        }
    }

    #[test]
    fn a_compacted_history_forgets() {
        assert_eq!(findings(Role::History, &entries(&[])).len(), 1);
        assert_eq!(
            findings(Role::DeadLetter, &entries(&[("cleanup.policy", "delete"), ("retention.ms", "1")])).len(),
            1
        );
    }
}
