//! Before the loop: the cluster's id, and whether the topics are there.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};

use super::settings::Settings;
use super::worker::exists;
use crate::core::io::TargetState;

/// How long one request may take.
const REQUEST_MAX: Duration = Duration::from_secs(1);

/// What keeps the engine from starting.
#[derive(Debug, PartialEq, Eq)]
pub enum NotReady {
    /// No broker answers.
    Unreachable,
    /// A topic is missing, or may not be seen.
    Topic(String, TargetState),
}

impl std::fmt::Display for NotReady {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreachable => f.write_str("no broker of BOOTSTRAP_SERVERS answers"),
            Self::Topic(name, TargetState::Forbidden) => {
                write!(f, "topic {name:?} may not be described: grant this user Describe, Read and Write on it")
            }
            Self::Topic(name, _) => write!(
                f,
                "topic {name:?} does not exist: create it (schedules topics with cleanup.policy=compact), or name \
                 another in SCHEDULES_TOPICS or HISTORY_TOPIC"
            ),
        }
    }
}

/// The cluster's id, once all topics are there.
pub fn cluster(settings: &Settings, topics: &[&str]) -> Result<String, NotReady> {
    let client: BaseConsumer = settings.uncommitted().create().map_err(|_| NotReady::Unreachable)?;
    for topic in topics {
        match exists(&client, topic) {
            TargetState::Exists => {}
            TargetState::NoAnswer => return Err(NotReady::Unreachable),
            state => return Err(NotReady::Topic((*topic).into(), state)),
        }
    }
    // Asked last: a client that has just been made learns the id with its first metadata only.
    client.client().fetch_cluster_id(REQUEST_MAX).ok_or(NotReady::Unreachable)
}
