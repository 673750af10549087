//! Reads topics' configurations, and creates topics.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigSource, NewTopic, OwnedResourceSpecifier, ResourceSpecifier, TopicReplication,
};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};

use super::clients::{Clients, QueryContext};
use super::topics::{Cleaning, Entries, Role, Source};

const ADMIN_REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// The brokers' default number of partitions, or of replicas.
const DEFAULT: i32 = -1;

/// An admin client.
pub(crate) struct Admin(AdminClient<QueryContext>);

impl Admin {
    /// Makes a client that connects with its first request.
    ///
    /// # Errors
    /// If librdkafka rejects the configuration.
    pub(crate) fn new(clients: &Clients) -> KafkaResult<Self> {
        Ok(Self(clients.configs.read_uncommitted_consumer().create_with_context(clients.query_context())?))
    }

    /// Returns the settings of each topic that permits it (DescribeConfigs).
    ///
    /// # Errors
    /// If no broker answers.
    pub(crate) fn settings(&self, topics: &[&str]) -> KafkaResult<BTreeMap<String, Entries>> {
        let wanted: Vec<_> = topics.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
        let answers = pollster::block_on(self.0.describe_configs(&wanted, &options()))?;
        let described = answers.into_iter().flatten().filter_map(|resource| {
            let OwnedResourceSpecifier::Topic(name) = resource.specifier else { return None };
            let mut entries = Entries::default();
            for entry in resource.entries {
                let source = match entry.source {
                    ConfigSource::DynamicTopic => Source::Topic,
                    ConfigSource::Unknown => Source::Unknown,
                    _ => Source::Inherited,
                };
                if let Some(value) = entry.value {
                    entries.insert(entry.name, value, source);
                }
            }
            // rust-rdkafka returns a topic without settings if reading them is not permitted.
            (!entries.is_empty()).then_some((name, entries))
        });
        Ok(described.collect())
    }

    /// Returns when the cleaner may remove records of a schedules topic. What cannot be read is unknown.
    ///
    /// # Errors
    /// If no broker answers.
    pub(crate) fn cleaning(&self, topic: &str) -> KafkaResult<Cleaning> {
        Ok(self.settings(&[topic])?.get(topic).map(Cleaning::of).unwrap_or_default())
    }

    /// Creates a topic, with these numbers of partitions and replicas or the brokers' defaults. Returns false if it
    /// exists.
    ///
    /// # Errors
    /// If no broker answers, or if the brokers reject the request.
    pub(crate) fn create(
        &self,
        topic: &str,
        role: Role,
        partitions: Option<i32>,
        replicas: Option<i32>,
    ) -> KafkaResult<bool> {
        let new = |newer: &[(&'static str, &'static str)]| {
            let replication = TopicReplication::Fixed(replicas.unwrap_or(DEFAULT));
            let mut new = NewTopic::new(topic, partitions.unwrap_or(DEFAULT), replication);
            let in_sync = replicas.and_then(Role::in_sync_min).map(|least| ("min.insync.replicas", least));
            new.config.extend(role.settings().iter().chain(newer).copied().chain(in_sync));
            new
        };
        match self.create_topic(&new(role.newer_settings())) {
            Err(KafkaError::AdminOp(Code::InvalidConfig)) if !role.newer_settings().is_empty() => {
                self.create_topic(&new(&[]))
            }
            created => created,
        }
    }

    fn create_topic(&self, new: &NewTopic<'_>) -> KafkaResult<bool> {
        let answers = pollster::block_on(self.0.create_topics([new], &options()))?;
        match answers.into_iter().next() {
            Some(Err((_, Code::TopicAlreadyExists))) => Ok(false),
            Some(Err((_, code))) => Err(KafkaError::AdminOp(code)),
            Some(Ok(_)) | None => Ok(true),
        }
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(ADMIN_REQUEST_TIMEOUT)).operation_timeout(Some(ADMIN_REQUEST_TIMEOUT))
}
