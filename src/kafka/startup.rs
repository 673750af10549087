//! The checks before the loop starts: the cluster id, the topics, and their settings.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use super::admin::Admin;
use super::clients::{Clients, QueryConsumer};
use super::target_lookup::{self, exists};
use super::topics::{self, Entries, Layout, Role, Weight};
use crate::config::Config;
use crate::core::io::TargetState;

const STARTUP_REQUEST_TIMEOUT: Duration = Duration::from_secs(1);
/// Log lines and errors that a client may report after a failure.
const EVENTS_MAX: usize = 50;

/// Why the engine cannot start yet.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotReady {
    /// No broker answers.
    Unreachable,
    /// A topic is missing, or using it is not permitted.
    Topic(String, Role, TargetState),
    /// A missing topic could not be created.
    Creation(String, String),
}

impl std::fmt::Display for NotReady {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreachable => f.write_str("no broker of BOOTSTRAP_SERVERS answers"),
            Self::Topic(name, role, TargetState::Forbidden) => {
                let operations = if *role == Role::Schedules { "Read and Write" } else { "Write" };
                write!(f, "using topic {name:?} is not permitted: grant {operations} on it")
            }
            Self::Topic(name, ..) => write!(
                f,
                "topic {name:?} does not exist: create it (schedules topics with cleanup.policy=compact), set \
                 CREATE_TOPICS=true, or name another in SCHEDULES_TOPICS, HISTORY_TOPIC or DEAD_LETTER_TOPIC"
            ),
            Self::Creation(name, why) => {
                write!(f, "topic {name:?} does not exist and could not be created: {why}")
            }
        }
    }
}

/// The facts that the loop starts with.
#[derive(Debug)]
pub(super) struct Ready {
    pub cluster_id: String,
    /// Settings of the engine's own topics, as far as reading them is permitted.
    pub topic_settings: BTreeMap<String, Entries>,
}

/// Checks once whether brokers answer and all topics exist; creates missing ones if configured. Calls `heartbeat`
/// before each request.
///
/// # Errors
/// If the engine cannot start: the first reason.
pub(super) fn check(
    consumer: &QueryConsumer,
    config: &Config,
    clients: &Clients,
    heartbeat: &dyn Fn(),
) -> Result<Ready, NotReady> {
    let checked = check_topics(consumer, config, clients, heartbeat);
    match &checked {
        Ok(_) => clients.diagnostics.on_recovery(),
        // Lets the client report why: wrong credentials and an unknown host name look the same from here.
        Err(_) => (0..EVENTS_MAX).for_each(|_| drop(consumer.poll(Duration::ZERO))),
    }
    checked
}

fn check_topics(
    consumer: &QueryConsumer,
    config: &Config,
    clients: &Clients,
    heartbeat: &dyn Fn(),
) -> Result<Ready, NotReady> {
    let mut created = Vec::new();
    for (topic, role) in topics::own(config) {
        heartbeat();
        match exists(consumer, topic, STARTUP_REQUEST_TIMEOUT) {
            // The brokers may still be starting.
            TargetState::Exists | TargetState::Leaderless => {}
            TargetState::NoAnswer => return Err(NotReady::Unreachable),
            TargetState::Missing if config.create_topics() => {
                if create(config, clients, topic, role)? {
                    created.push(topic);
                }
            }
            state => return Err(NotReady::Topic(topic.into(), role, state)),
        }
    }
    // Last: a new client learns the id only with its first metadata.
    let cluster_id = consumer.client().fetch_cluster_id(STARTUP_REQUEST_TIMEOUT).ok_or(NotReady::Unreachable)?;
    Ok(Ready { cluster_id, topic_settings: describe(consumer, config, clients, &created, heartbeat) })
}

fn create(config: &Config, clients: &Clients, topic: &str, role: Role) -> Result<bool, NotReady> {
    let failed = |error: KafkaError| {
        let hint = match error.rdkafka_error_code() {
            Some(Code::InvalidReplicationFactor) => {
                "; CREATE_TOPICS_REPLICATION_FACTOR must not be larger than the number of brokers"
            }
            Some(Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed) => "; grant Create, or create it",
            _ => "; create it yourself, or try again",
        };
        NotReady::Creation(topic.into(), format!("{error}{hint}"))
    };
    Admin::new(clients).map_err(failed)?.create(topic, role, None, config.create_topics_replicas()).map_err(failed)
}

/// Reads the topics' settings. Logs which topics were created, and warnings about their settings.
fn describe(
    consumer: &QueryConsumer,
    config: &Config,
    clients: &Clients,
    created: &[&str],
    heartbeat: &dyn Fn(),
) -> BTreeMap<String, Entries> {
    if !clients.can_describe {
        return BTreeMap::new();
    }
    let own: Vec<(&str, Role)> = topics::own(config).collect();
    // A created topic's settings can be read once the brokers know the topic.
    let layout = |topic: &str| match created.contains(&topic) {
        true => target_lookup::new_layout(consumer, topic, heartbeat),
        false => target_lookup::layout(consumer, topic, STARTUP_REQUEST_TIMEOUT),
    };
    let layouts: Vec<Layout> = own.iter().map(|(topic, _)| layout(topic).unwrap_or_default()).collect();
    let names: Vec<&str> = own.iter().map(|(topic, _)| *topic).collect();
    let described = Admin::new(clients).and_then(|admin| admin.settings(&names)).unwrap_or_else(|error| {
        tracing::info!(%error, "the topics' settings cannot be read, and are not checked");
        BTreeMap::new()
    });
    for ((topic, role), layout) in own.into_iter().zip(layouts) {
        let entries = described.get(topic);
        if created.contains(&topic) {
            let Layout { partitions, replicas, .. } = layout;
            let settings = entries.map(|entries| topics::created_with(role, entries).join(", "));
            tracing::info!(topic, partitions, replicas, settings, "the topic has been created");
        }
        if entries.is_none() {
            tracing::info!(topic, "the topic's settings cannot be read: grant DescribeConfigs to have them checked");
        }
        let found = topics::findings(role, entries.unwrap_or(&Entries::default()), layout);
        for finding in found.iter().filter(|finding| finding.weight == Weight::Warning) {
            tracing::warn!(topic, "{finding}");
        }
    }
    described
}
