//! Finds out whether topics can be produced to.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::types::RDKafkaRespErr;

use super::admin::Admin;
use super::clients::{Clients, QueryConsumer};
use super::ffi::admin::{TopicDescription, describe_topics};
use super::topics::{self, Layout};
use crate::core::io::TargetState;

/// Targets in one request.
pub(crate) const TARGETS_MAX: usize = 100;

const TARGET_LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);

/// How long, and at which interval, a topic that has just been created is looked up.
const NEW_TOPIC_TIMEOUT: Duration = Duration::from_secs(2);
const NEW_TOPIC_INTERVAL: Duration = Duration::from_millis(100);

/// Looks up target topics, with clients that it keeps.
pub(crate) struct TargetLookup {
    clients: Arc<Clients>,
    consumer: Option<QueryConsumer>,
    admin: Option<Admin>,
}

impl TargetLookup {
    pub(crate) fn new(clients: Arc<Clients>) -> Self {
        Self { clients, consumer: None, admin: None }
    }

    /// Returns the state of each of these topics.
    pub(crate) fn states(&mut self, names: &[&str]) -> Vec<TargetState> {
        if self.consumer.is_none() {
            self.consumer = self.clients.read_uncommitted_consumer().ok();
        }
        let Some(consumer) = &self.consumer else { return vec![TargetState::NoAnswer; names.len()] };
        if !self.clients.can_describe {
            return names.iter().map(|name| exists(consumer, name, TARGET_LOOKUP_TIMEOUT)).collect();
        }
        let mut found = describe_topics(consumer.client(), names, TARGET_LOOKUP_TIMEOUT).unwrap_or_default();
        found.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        let position = |name: &&&str| found.binary_search_by(|topic| topic.name.as_str().cmp(name)).ok();
        let mut states: Vec<TargetState> =
            names.iter().map(|name| position(&name).map_or(TargetState::NoAnswer, |at| state(&found[at]))).collect();
        let usable: Vec<&str> = names
            .iter()
            .zip(&states)
            .filter(|(_, state)| **state == TargetState::Exists)
            .map(|(name, _)| *name)
            .collect();
        let short = self.read_settings(&usable, |name, in_sync_min| {
            position(&&name).is_some_and(|at| is_short(&found[at].in_sync, in_sync_min))
        });
        for (name, state) in names.iter().zip(&mut states) {
            if short.iter().any(|short| short == name) {
                *state = TargetState::Leaderless;
            }
        }
        states
    }

    /// Reads the limits of topics before they are used, as far as that is permitted. Returns topics with fewer in-sync
    /// replicas than `min.insync.replicas`: a whole batch would wait for them.
    fn read_settings(&mut self, names: &[&str], is_short: impl Fn(&str, usize) -> bool) -> Vec<String> {
        if names.is_empty() {
            return Vec::new();
        }
        if self.admin.is_none() {
            self.admin = Admin::new(&self.clients).ok();
        }
        let described = self.admin.as_ref().and_then(|admin| admin.settings(names).ok()).unwrap_or_default();
        let mut short = Vec::new();
        for (name, entries) in described {
            if let Some(bytes) = topics::batch_bytes_max(&entries) {
                self.clients.topic_limits.set_batch_bytes_max(&name, bytes);
            }
            if topics::in_sync_min(&entries).is_some_and(|in_sync_min| is_short(&name, in_sync_min)) {
                short.push(name);
            }
        }
        short
    }
}

/// Metadata alone does not show whether writing is permitted.
fn state(topic: &TopicDescription) -> TargetState {
    match topic.error {
        Some(error) => state_of(error),
        None if topic.in_sync.is_empty() => TargetState::NoAnswer,
        None if topic.is_write_denied => TargetState::Forbidden,
        None if !topic.has_leaders => TargetState::Leaderless,
        None => TargetState::Exists,
    }
}

/// Returns whether a partition has fewer in-sync replicas than a record needs. Since Kafka 3.7, a partition that has
/// fewer replicas than `min.insync.replicas` needs all of them.
fn is_short(in_sync: &[(usize, usize)], in_sync_min: usize) -> bool {
    in_sync.iter().any(|(in_sync, all)| *in_sync < in_sync_min.min(*all))
}

fn state_of(error: RDKafkaRespErr) -> TargetState {
    match Code::from(error) {
        Code::TopicAuthorizationFailed => TargetState::Forbidden,
        Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::InvalidTopic => TargetState::Missing,
        _ => TargetState::NoAnswer,
    }
}

/// Returns a topic's state by its metadata alone.
pub(crate) fn exists(client: &QueryConsumer, name: &str, timeout: Duration) -> TargetState {
    let Ok(metadata) = client.fetch_metadata(Some(name), timeout) else {
        return TargetState::NoAnswer;
    };
    let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == name) else {
        return TargetState::Missing;
    };
    match topic.error() {
        None if topic.partitions().is_empty() => TargetState::NoAnswer,
        None if topic.partitions().iter().any(|partition| partition.leader() < 0) => TargetState::Leaderless,
        None => TargetState::Exists,
        Some(error) => state_of(error),
    }
}

/// Returns a topic's layout; `None` while the metadata is incomplete.
pub(crate) fn layout<C: ConsumerContext>(client: &BaseConsumer<C>, name: &str, timeout: Duration) -> Option<Layout> {
    let metadata = client.fetch_metadata(Some(name), timeout).ok()?;
    let topic = metadata.topics().iter().find(|topic| topic.name() == name && topic.error().is_none())?;
    let replicas = topic.partitions().iter().map(|partition| partition.replicas().len()).min()?;
    Some(Layout { partitions: topic.partitions().len(), replicas, brokers: metadata.brokers().len() })
}

/// Returns the layout of a topic that has just been created, which each broker learns of a moment later.
pub(crate) fn new_layout<C: ConsumerContext>(client: &BaseConsumer<C>, name: &str, beat: &dyn Fn()) -> Option<Layout> {
    let started = Instant::now();
    loop {
        beat();
        let found = layout(client, name, NEW_TOPIC_TIMEOUT);
        if found.is_some() || started.elapsed() > NEW_TOPIC_TIMEOUT {
            return found;
        }
        std::thread::sleep(NEW_TOPIC_INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::is_short;

    #[test]
    fn a_topic_with_few_replicas_needs_all_of_them_in_sync() {
        assert!(!is_short(&[(1, 1)], 2));
        assert!(is_short(&[(0, 1)], 2));
        assert!(!is_short(&[(2, 3), (3, 3)], 2));
        assert!(is_short(&[(2, 3), (1, 3)], 2));
    }
}
