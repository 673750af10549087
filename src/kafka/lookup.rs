//! Whether topics can be produced to.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::types::RDKafkaRespErr;

use super::admin::Admin;
use super::native::{self, Description};
use super::settings::Settings;
use super::topics::{self, Layout};
use super::voice::Asking;
use crate::core::io::TargetState;

/// Targets looked at with one request.
pub const TOGETHER_MAX: usize = 100;

/// How long an answer about targets may take.
const TARGET_MAX: Duration = Duration::from_secs(2);

/// How long, and at which intervals, a topic that has just been created is looked for.
const NEW_MAX: Duration = Duration::from_secs(2);
const NEW_PAUSE: Duration = Duration::from_millis(100);

/// Looks at target topics, with clients that it keeps.
pub struct Lookup {
    settings: Arc<Settings>,
    client: Option<BaseConsumer<Asking>>,
    admin: Option<Admin>,
}

impl Lookup {
    /// Connects when it is first asked.
    pub fn new(settings: Arc<Settings>) -> Self {
        Self { settings, client: None, admin: None }
    }

    /// What the cluster says of each of these topics.
    pub fn states(&mut self, names: &[&str]) -> Vec<TargetState> {
        if self.client.is_none() {
            let asking = Asking(Arc::clone(&self.settings.voice));
            self.client = self.settings.uncommitted().create_with_context(asking).ok();
        }
        let Some(client) = &self.client else { return vec![TargetState::NoAnswer; names.len()] };
        if !self.settings.describes {
            return names.iter().map(|name| exists(client, name, TARGET_MAX)).collect();
        }
        let mut found = native::describe(client.client(), names, TARGET_MAX).unwrap_or_default();
        found.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        let of = |name: &&&str| found.binary_search_by(|topic| topic.name.as_str().cmp(name)).ok();
        let mut states: Vec<TargetState> =
            names.iter().map(|name| of(&name).map_or(TargetState::NoAnswer, |at| state(&found[at]))).collect();
        let usable: Vec<&str> = names
            .iter()
            .zip(&states)
            .filter(|(_, state)| **state == TargetState::Exists)
            .map(|(name, _)| *name)
            .collect();
        let few = self.learn(&usable, |name, least| of(&&name).is_some_and(|at| is_short(&found[at].in_sync, least)));
        for (name, state) in names.iter().zip(&mut states) {
            if few.iter().any(|few| few == name) {
                *state = TargetState::Leaderless;
            }
        }
        states
    }

    /// Before targets are used: how large their sets may be, where that may be seen. Gives those with fewer replicas in
    /// sync than they want for a record: they would keep a whole batch waiting.
    fn learn(&mut self, names: &[&str], is_short: impl Fn(&str, usize) -> bool) -> Vec<String> {
        if names.is_empty() {
            return Vec::new();
        }
        if self.admin.is_none() {
            self.admin = Admin::new(&self.settings).ok();
        }
        let told = self.admin.as_ref().and_then(|admin| admin.settings(names).ok()).unwrap_or_default();
        let mut few = Vec::new();
        for (name, entries) in told {
            if let Some(bytes) = topics::set_bytes_max(&entries) {
                self.settings.limits.learn(&name, bytes);
            }
            if topics::in_sync_min(&entries).is_some_and(|least| is_short(&name, least)) {
                few.push(name);
            }
        }
        few
    }
}

/// Metadata alone shows topics that may be described, though not written to.
fn state(topic: &Description) -> TargetState {
    match topic.error {
        Some(error) => of_error(error),
        None if topic.in_sync.is_empty() => TargetState::NoAnswer,
        None if topic.is_denied => TargetState::Forbidden,
        None if !topic.is_led => TargetState::Leaderless,
        None => TargetState::Exists,
    }
}

/// Whether a partition has fewer replicas in sync than a record needs. A partition that has fewer replicas than
/// `min.insync.replicas` needs all of them, since Kafka 3.7.
fn is_short(in_sync: &[(usize, usize)], least: usize) -> bool {
    in_sync.iter().any(|(synced, all)| *synced < least.min(*all))
}

fn of_error(error: RDKafkaRespErr) -> TargetState {
    match Code::from(error) {
        Code::TopicAuthorizationFailed => TargetState::Forbidden,
        Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::InvalidTopic => TargetState::Missing,
        _ => TargetState::NoAnswer,
    }
}

/// What the metadata says of a topic.
pub fn exists(client: &BaseConsumer<Asking>, name: &str, limit: Duration) -> TargetState {
    let Ok(metadata) = client.fetch_metadata(Some(name), limit) else {
        return TargetState::NoAnswer;
    };
    let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == name) else {
        return TargetState::Missing;
    };
    match topic.error() {
        None if topic.partitions().is_empty() => TargetState::NoAnswer,
        None if topic.partitions().iter().any(|partition| partition.leader() < 0) => TargetState::Leaderless,
        None => TargetState::Exists,
        Some(error) => of_error(error),
    }
}

/// How a topic lies on the brokers; `None` while the metadata does not show all of it.
pub fn layout<C: ConsumerContext>(client: &BaseConsumer<C>, name: &str, limit: Duration) -> Option<Layout> {
    let metadata = client.fetch_metadata(Some(name), limit).ok()?;
    let topic = metadata.topics().iter().find(|topic| topic.name() == name && topic.error().is_none())?;
    let replicas = topic.partitions().iter().map(|partition| partition.replicas().len()).min()?;
    Some(Layout { partitions: topic.partitions().len(), replicas, brokers: metadata.brokers().len() })
}

/// The same of a topic that has just been created: each broker learns of it a moment later.
pub fn new_layout<C: ConsumerContext>(client: &BaseConsumer<C>, name: &str, beat: &dyn Fn()) -> Option<Layout> {
    let begun = Instant::now();
    loop {
        beat();
        let found = layout(client, name, NEW_MAX);
        if found.is_some() || begun.elapsed() > NEW_MAX {
            return found;
        }
        std::thread::sleep(NEW_PAUSE);
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
