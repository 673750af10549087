//! Asks the brokers for topics' settings, and creates topics.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigSource, NewTopic, OwnedResourceSpecifier, ResourceSpecifier, TopicReplication,
};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};

use super::client_config::Settings;
use super::diagnostics::QueryContext;
use super::topics::{Entries, Role};

/// How long one request may take.
const REQUEST_MAX: Duration = Duration::from_secs(2);

/// The brokers' default number of partitions, or of replicas.
const DEFAULT: i32 = -1;

/// A client for topics' settings.
pub struct Admin(AdminClient<QueryContext>);

impl Admin {
    /// Connects when it is first asked.
    ///
    /// # Errors
    /// When librdkafka refuses its settings.
    pub fn new(settings: &Settings) -> KafkaResult<Self> {
        let asking = QueryContext(Arc::clone(&settings.voice));
        Ok(Self(settings.uncommitted().create_with_context(asking)?))
    }

    /// The settings of those topics whose settings may be seen.
    ///
    /// # Errors
    /// When no broker answers.
    pub fn settings(&self, topics: &[&str]) -> KafkaResult<BTreeMap<String, Entries>> {
        let wanted: Vec<_> = topics.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
        let answers = pollster::block_on(self.0.describe_configs(&wanted, &options()))?;
        let told = answers.into_iter().flatten().filter_map(|resource| {
            let OwnedResourceSpecifier::Topic(name) = resource.specifier else { return None };
            let mut entries = Entries::default();
            for entry in resource.entries {
                let is_inherited = !matches!(entry.source, ConfigSource::DynamicTopic | ConfigSource::Unknown);
                if let Some(value) = entry.value {
                    entries.insert(entry.name, value, is_inherited);
                }
            }
            // The wrapper shows a refusal as a topic without settings.
            (!entries.is_empty()).then_some((name, entries))
        });
        Ok(told.collect())
    }

    /// Creates a topic, with these numbers of partitions and replicas or the brokers' defaults. True if it was not there
    /// before.
    ///
    /// # Errors
    /// When no broker answers, or the brokers refuse.
    pub fn create(&self, topic: &str, role: Role, partitions: Option<i32>, replicas: Option<i32>) -> KafkaResult<bool> {
        let new = |newer: &[(&'static str, &'static str)]| {
            let replication = TopicReplication::Fixed(replicas.unwrap_or(DEFAULT));
            let mut new = NewTopic::new(topic, partitions.unwrap_or(DEFAULT), replication);
            let in_sync = replicas.and_then(Role::in_sync_min).map(|least| ("min.insync.replicas", least));
            new.config.extend(role.settings().iter().chain(newer).copied().chain(in_sync));
            new
        };
        match self.made(&new(role.newer_settings())) {
            Err(KafkaError::AdminOp(Code::InvalidConfig)) if !role.newer_settings().is_empty() => self.made(&new(&[])),
            made => made,
        }
    }

    fn made(&self, new: &NewTopic<'_>) -> KafkaResult<bool> {
        let answers = pollster::block_on(self.0.create_topics([new], &options()))?;
        match answers.into_iter().next() {
            Some(Err((_, Code::TopicAlreadyExists))) => Ok(false),
            Some(Err((_, code))) => Err(KafkaError::AdminOp(code)),
            Some(Ok(_)) | None => Ok(true),
        }
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(REQUEST_MAX)).operation_timeout(Some(REQUEST_MAX))
}
