//! Before the loop: the cluster's id, whether the topics are there, and what their settings are.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};

use super::admin::Admin;
use super::client_config::Settings;
use super::diagnostics::QueryContext;
use super::target_lookup::{self, exists};
use super::topics::{self, Entries, Layout, Role, Weight};
use crate::config::Config;
use crate::core::io::TargetState;

/// How long one request may take.
const REQUEST_MAX: Duration = Duration::from_secs(1);
/// What a client may have to say after a failure: log lines and errors.
const EVENTS_MAX: usize = 50;

/// What keeps the engine from starting.
#[derive(Debug, PartialEq, Eq)]
pub enum NotReady {
    /// No broker answers.
    Unreachable,
    /// A topic is missing, or may not be seen.
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
                write!(f, "topic {name:?} may not be used: grant {operations} on it")
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

/// What is known before the loop begins.
#[derive(Debug)]
pub struct Ready {
    /// The cluster's id.
    pub cluster: String,
    /// Settings of those of the engine's own topics whose settings may be seen.
    pub settings: BTreeMap<String, Entries>,
}

/// Asks the brokers before the loop begins. It stays the same while they are waited for, so that a slow handshake may
/// take longer than one request.
pub type Client = BaseConsumer<QueryContext>;

/// Makes that client.
///
/// # Errors
/// When librdkafka refuses its settings.
pub fn client(settings: &Settings) -> KafkaResult<Client> {
    settings.uncommitted().create_with_context(QueryContext(Arc::clone(&settings.voice)))
}

/// Looks once whether brokers answer and all topics are there; creates those that are missing where that is wanted.
/// Calls `beat` before each request.
///
/// # Errors
/// What is still missing.
pub fn look(client: &Client, config: &Config, settings: &Settings, beat: &dyn Fn()) -> Result<Ready, NotReady> {
    let asked = ask(client, config, settings, beat);
    match &asked {
        Ok(_) => settings.voice.well(),
        // Lets it say why: wrong credentials and an unknown name look the same from here.
        Err(_) => (0..EVENTS_MAX).for_each(|_| drop(client.poll(Duration::ZERO))),
    }
    asked
}

fn ask(client: &Client, config: &Config, settings: &Settings, beat: &dyn Fn()) -> Result<Ready, NotReady> {
    let mut created = Vec::new();
    for (topic, role) in topics::own(config) {
        beat();
        match exists(client, topic, REQUEST_MAX) {
            // The brokers may still be starting.
            TargetState::Exists | TargetState::Leaderless => {}
            TargetState::NoAnswer => return Err(NotReady::Unreachable),
            TargetState::Missing if config.create_topics => {
                if create(config, settings, topic, role)? {
                    created.push(topic);
                }
            }
            state => return Err(NotReady::Topic(topic.into(), role, state)),
        }
    }
    // Asked last: a client that has just been made learns the id with its first metadata only.
    let cluster = client.client().fetch_cluster_id(REQUEST_MAX).ok_or(NotReady::Unreachable)?;
    Ok(Ready { cluster, settings: describe(client, config, settings, &created, beat) })
}

fn create(config: &Config, settings: &Settings, topic: &str, role: Role) -> Result<bool, NotReady> {
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
    Admin::new(settings).map_err(failed)?.create(topic, role, None, config.create_topics_replicas).map_err(failed)
}

/// Says what has been created and what is wrong with the topics, and keeps their settings.
fn describe(
    client: &Client,
    config: &Config,
    settings: &Settings,
    created: &[&str],
    beat: &dyn Fn(),
) -> BTreeMap<String, Entries> {
    if !settings.describes {
        return BTreeMap::new();
    }
    let own: Vec<(&str, Role)> = topics::own(config).collect();
    // Created topics are waited for before their settings are asked for.
    let layout = |topic: &str| match created.contains(&topic) {
        true => target_lookup::new_layout(client, topic, beat),
        false => target_lookup::layout(client, topic, REQUEST_MAX),
    };
    let layouts: Vec<Layout> = own.iter().map(|(topic, _)| layout(topic).unwrap_or_default()).collect();
    let names: Vec<&str> = own.iter().map(|(topic, _)| *topic).collect();
    let described = Admin::new(settings).and_then(|admin| admin.settings(&names)).unwrap_or_else(|error| {
        tracing::info!(%error, "the topics' settings are not told; they are taken to be right");
        BTreeMap::new()
    });
    for ((topic, role), layout) in own.into_iter().zip(layouts) {
        let entries = described.get(topic);
        if created.contains(&topic) {
            let Layout { partitions, replicas, .. } = layout;
            let settings = entries.map(|entries| topics::told(role, entries).join(", "));
            tracing::info!(topic, partitions, replicas, settings, "the topic has been created");
        }
        if entries.is_none() {
            tracing::info!(topic, "the topic's settings may not be seen: grant DescribeConfigs to have them checked");
        }
        let found = topics::findings(role, entries.unwrap_or(&Entries::default()), layout);
        for finding in found.iter().filter(|finding| finding.weight == Weight::Warning) {
            tracing::warn!(topic, "{finding}");
        }
    }
    described
}
