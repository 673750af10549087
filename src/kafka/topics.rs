//! What the engine's topics are, and what their settings must be.

mod findings;

use std::collections::{BTreeMap, BTreeSet};

use crate::config::Config;
pub use findings::{Weight, findings};

/// A topic's settings as the broker names them, defaults included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entries {
    values: BTreeMap<String, String>,
    inherited: BTreeSet<String>,
}

impl Entries {
    /// Adds a setting. It is inherited if the topic does not set it, and the broker told its own default instead.
    pub fn insert(&mut self, name: String, value: String, is_inherited: bool) {
        if is_inherited {
            self.inherited.insert(name.clone());
        }
        self.values.insert(name, value);
    }

    /// Whether no setting may be seen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The value of a setting.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    fn number(&self, name: &str) -> Option<i64> {
        self.get(name)?.parse().ok()
    }
}

/// How a topic lies on the brokers, by the cluster's metadata.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Partitions of the topic.
    pub partitions: usize,
    /// Replicas of the partition that has the fewest.
    pub replicas: usize,
    /// Brokers of the cluster.
    pub brokers: usize,
}

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

/// So many replicas, and a topic can lose one of them and still have an acknowledged record twice.
const REPLICAS_SAFE: usize = 3;

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
                ("segment.ms", "86400000"),
                ("unclean.leader.election.enable", "false"),
            ],
            Self::History => &[("cleanup.policy", "delete")],
            Self::DeadLetter => &[("cleanup.policy", "delete"), ("retention.ms", "-1")],
        }
    }

    /// Settings that not every broker knows: Kafka does from 3.6 on. A broker that refuses them gets the topic created
    /// without.
    #[must_use]
    pub const fn newer_settings(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Schedules => &[("message.timestamp.after.max.ms", "3600000")],
            Self::History | Self::DeadLetter => &[],
        }
    }

    /// How many replicas must be in sync in a topic that is created with so many.
    #[must_use]
    pub fn in_sync_min(replicas: i32) -> Option<&'static str> {
        usize::try_from(replicas).is_ok_and(|replicas| replicas >= REPLICAS_SAFE).then_some("2")
    }
}

/// The engine's own topics, by the settings.
pub fn own(config: &Config) -> impl Iterator<Item = (&str, Role)> {
    let schedules = config.schedules_topics.iter().map(|topic| (topic.as_str(), Role::Schedules));
    let history = std::iter::once((config.history_topic.as_str(), Role::History));
    schedules.chain(history).chain(config.dead_letter_topic.as_deref().map(|topic| (topic, Role::DeadLetter)))
}

/// The settings that a topic is created with, with the values that the broker answers.
#[must_use]
pub fn told(role: Role, entries: &Entries) -> Vec<String> {
    let asked = role.settings().iter().chain(role.newer_settings()).map(|(name, _)| *name);
    let all = asked.chain(["min.insync.replicas"]);
    all.filter_map(|name| Some(format!("{name}={}", entries.get(name)?))).collect()
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
