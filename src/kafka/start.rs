//! Before the loop: the cluster's id, whether the topics are there, and what their settings are.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;

use super::admin::Admin;
use super::lookup::exists;
use super::settings::Settings;
use super::topics::{self, Entries, Role};
use super::voice::Asking;
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
                write!(f, "topic {name:?} does not exist and could not be created: {why}; grant Create, or create it")
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
pub type Client = BaseConsumer<Asking>;

/// Makes that client.
///
/// # Errors
/// When librdkafka refuses its settings.
pub fn client(settings: &Settings) -> KafkaResult<Client> {
    settings.uncommitted().create_with_context(Asking(Arc::clone(&settings.voice)))
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
    for (topic, role) in own_topics(config) {
        beat();
        match exists(client, topic, REQUEST_MAX) {
            // The brokers may still be starting.
            TargetState::Exists | TargetState::Leaderless => {}
            TargetState::NoAnswer => return Err(NotReady::Unreachable),
            TargetState::Missing if config.create_topics => create(settings, topic, role)?,
            state => return Err(NotReady::Topic(topic.into(), role, state)),
        }
    }
    // Asked last: a client that has just been made learns the id with its first metadata only.
    let cluster = client.client().fetch_cluster_id(REQUEST_MAX).ok_or(NotReady::Unreachable)?;
    Ok(Ready { cluster, settings: describe(config, settings) })
}

fn own_topics(config: &Config) -> impl Iterator<Item = (&str, Role)> {
    let schedules = config.schedules_topics.iter().map(|topic| (topic.as_str(), Role::Schedules));
    let history = std::iter::once((config.history_topic.as_str(), Role::History));
    schedules.chain(history).chain(config.dead_letter_topic.as_deref().map(|topic| (topic, Role::DeadLetter)))
}

fn create(settings: &Settings, topic: &str, role: Role) -> Result<(), NotReady> {
    let failed = |error: rdkafka::error::KafkaError| NotReady::Creation(topic.into(), error.to_string());
    if Admin::new(settings).map_err(failed)?.create(topic, role).map_err(failed)? {
        tracing::info!(topic, settings = ?role.settings(), "the topic has been created");
    }
    Ok(())
}

/// Says what is wrong with the topics' settings, and keeps them.
fn describe(config: &Config, settings: &Settings) -> BTreeMap<String, Entries> {
    if !settings.describes {
        return BTreeMap::new();
    }
    let topics: Vec<(&str, Role)> = own_topics(config).collect();
    let names: Vec<&str> = topics.iter().map(|(topic, _)| *topic).collect();
    let described = Admin::new(settings).and_then(|admin| admin.settings(&names)).unwrap_or_else(|error| {
        tracing::info!(%error, "the topics' settings are not told; they are taken to be right");
        BTreeMap::new()
    });
    for (topic, role) in topics {
        match described.get(topic) {
            Some(entries) => {
                for finding in topics::findings(role, entries) {
                    tracing::warn!(topic, "{finding}");
                }
            }
            None => tracing::info!(
                topic,
                "the topic's settings may not be seen: grant DescribeConfigs to have them checked"
            ),
        }
    }
    described
}
