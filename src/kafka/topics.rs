//! The engine's own topics, and the settings that they need.

mod cleaning;
mod findings;

use std::collections::BTreeMap;

use crate::config::Config;
pub(crate) use cleaning::Cleaning;
pub(crate) use findings::{Weight, findings};

/// What sets a topic's setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The topic itself.
    Topic,
    /// The broker returned its own default.
    Inherited,
    /// The broker does not say.
    Unknown,
}

/// A topic's settings as the broker names them, defaults included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entries {
    values: BTreeMap<String, String>,
    sources: BTreeMap<String, Source>,
}

impl Entries {
    /// Adds a setting.
    pub(crate) fn insert(&mut self, name: String, value: String, source: Source) {
        self.sources.insert(name.clone(), source);
        self.values.insert(name, value);
    }

    /// Returns true if reading the settings is not permitted.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Returns the value of a setting.
    #[must_use]
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// Returns what sets a setting.
    #[must_use]
    pub(crate) fn source(&self, name: &str) -> Option<Source> {
        self.sources.get(name).copied()
    }

    fn number(&self, name: &str) -> Option<i64> {
        self.get(name)?.parse().ok()
    }
}

/// A topic's partitions and replicas, by the cluster's metadata.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Partitions of the topic.
    pub partitions: usize,
    /// Replicas of the partition that has the fewest.
    pub replicas: usize,
    /// Brokers of the cluster.
    pub brokers: usize,
}

/// The purpose of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// Holds pending schedules.
    Schedules,
    /// Holds a copy of each triggered record.
    History,
    /// Holds records that could not fire.
    DeadLetter,
}

/// With this many replicas, a topic can lose one and still have every acknowledged record on two.
const REPLICAS_SAFE: usize = 3;

impl Role {
    /// Returns the settings that a topic of this kind is created with, beside the brokers' defaults.
    #[must_use]
    pub(crate) const fn settings(self) -> &'static [(&'static str, &'static str)] {
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

    /// Returns settings that Kafka knows from 3.6 on. If a broker rejects them, the topic is created without them.
    #[must_use]
    pub(crate) const fn newer_settings(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Schedules => &[("message.timestamp.after.max.ms", "3600000")],
            Self::History | Self::DeadLetter => &[],
        }
    }

    /// Returns `min.insync.replicas` for a topic that is created with this many replicas.
    #[must_use]
    pub(crate) fn in_sync_min(replicas: i32) -> Option<&'static str> {
        usize::try_from(replicas).is_ok_and(|replicas| replicas >= REPLICAS_SAFE).then_some("2")
    }
}

/// Returns the engine's own topics, by its configuration.
pub(crate) fn own(config: &Config) -> impl Iterator<Item = (&str, Role)> {
    let schedules = config.schedules_topics().iter().map(|topic| (topic.as_str(), Role::Schedules));
    let history = std::iter::once((config.history_topic(), Role::History));
    schedules.chain(history).chain(config.dead_letter_topic().map(|topic| (topic, Role::DeadLetter)))
}

/// Returns the settings that a topic is created with, with the values that the broker returned.
#[must_use]
pub(crate) fn created_with(role: Role, entries: &Entries) -> Vec<String> {
    let names = role.settings().iter().chain(role.newer_settings()).map(|(name, _)| *name);
    let all = names.chain(["min.insync.replicas"]);
    all.filter_map(|name| Some(format!("{name}={}", entries.get(name)?))).collect()
}

/// Returns the size of the largest record batch that the topic accepts, in bytes as sent.
#[must_use]
pub(crate) fn batch_bytes_max(entries: &Entries) -> Option<usize> {
    entries.get("max.message.bytes")?.parse().ok()
}

/// Returns how many replicas must be in sync for the topic to accept a record.
#[must_use]
pub(crate) fn in_sync_min(entries: &Entries) -> Option<usize> {
    entries.get("min.insync.replicas")?.parse().ok()
}
