//! Settings that a program chooses.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{CONFIGURATION_FILE, Config, ConfigError, GROUP_KEYS, SERVER_KEYS, SESSION_KEYS};

/// Collects the settings of an engine; see [`Config::builder`].
///
/// Each setting means the same as the variable that its documentation names, with the same default.
#[derive(Clone, Default)]
#[must_use = "`build` makes the settings"]
pub struct ConfigBuilder {
    variables: BTreeMap<&'static str, String>,
    topics: Vec<String>,
    librdkafka: BTreeMap<String, String>,
}

impl std::fmt::Debug for ConfigBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConfigBuilder").field("variables", &self.variables).finish_non_exhaustive()
    }
}

impl ConfigBuilder {
    fn set(mut self, variable: &'static str, value: impl ToString) -> Self {
        self.variables.insert(variable, value.to_string());
        self
    }

    /// Sets `BOOTSTRAP_SERVERS`: a comma list of `host:port`.
    pub fn bootstrap_servers(self, servers: impl Into<String>) -> Self {
        self.set("BOOTSTRAP_SERVERS", servers.into())
    }

    /// Sets `SCHEDULES_TOPICS`.
    pub fn schedules_topics<T: Into<String>>(mut self, topics: impl IntoIterator<Item = T>) -> Self {
        self.topics = topics.into_iter().map(T::into).collect();
        let list = self.topics.join(",");
        self.set("SCHEDULES_TOPICS", list)
    }

    /// Sets `GROUP_ID`.
    pub fn group_id(self, group: impl Into<String>) -> Self {
        self.set("GROUP_ID", group.into())
    }

    /// Sets `HISTORY_TOPIC`.
    pub fn history_topic(self, topic: impl Into<String>) -> Self {
        self.set("HISTORY_TOPIC", topic.into())
    }

    /// Sets `DEAD_LETTER_TOPIC`.
    pub fn dead_letter_topic(self, topic: impl Into<String>) -> Self {
        self.set("DEAD_LETTER_TOPIC", topic.into())
    }

    /// Sets `CREATE_TOPICS`.
    pub fn create_topics(self, create: bool) -> Self {
        self.set("CREATE_TOPICS", create)
    }

    /// Sets `CREATE_TOPICS_REPLICATION_FACTOR`.
    pub fn create_topics_replicas(self, replicas: i32) -> Self {
        self.set("CREATE_TOPICS_REPLICATION_FACTOR", replicas)
    }

    /// Sets `SINCE_DELTA`: 0 or less, in days.
    pub fn since_delta_days(self, days: i32) -> Self {
        self.set("SINCE_DELTA", days)
    }

    /// Sets `SESSION_TIMEOUT`, to the millisecond.
    pub fn session_timeout(self, timeout: Duration) -> Self {
        self.set("SESSION_TIMEOUT", timeout.as_millis())
    }

    /// Sets `SCHEDULE_GRACE_INTERVAL`, to the second.
    pub fn grace_interval(self, grace: Duration) -> Self {
        self.set("SCHEDULE_GRACE_INTERVAL", grace.as_secs())
    }

    /// Sets `MAX_HORIZON`, to the second.
    pub fn max_horizon(self, horizon: Duration) -> Self {
        self.set("MAX_HORIZON", horizon.as_secs())
    }

    /// Sets `MEMORY_WARN_BYTES`.
    pub fn memory_warn_bytes(self, bytes: u64) -> Self {
        self.set("MEMORY_WARN_BYTES", bytes)
    }

    /// Sets a setting of librdkafka for all of the engine's clients, such as `security.protocol`.
    pub fn librdkafka(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.librdkafka.insert(name.into(), value.into());
        self
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// If a value is not allowed. [`ConfigError::variable`] names the first one.
    pub fn build(self) -> Result<Config, ConfigError> {
        self.check()?;
        let mut config = Config::load(&|name| self.variables.get(name).cloned())?;
        config.kafka_common = self.librdkafka;
        Ok(config)
    }

    /// Checks what the environment cannot hold, or reads in another way.
    fn check(&self) -> Result<(), ConfigError> {
        if let Some(topic) = self.topics.iter().find(|topic| topic.contains(',')) {
            return Err(ConfigError::wrong("SCHEDULES_TOPICS", topic, "names of topics, without commas"));
        }
        if let Some((variable, value)) = self.variables.iter().find(|(_, value)| value.trim().is_empty()) {
            return Err(ConfigError::wrong(variable, value, "a value, or left at its default"));
        }
        let wrong = |name: &str, why: &str| Err(ConfigError::new(CONFIGURATION_FILE, format!("{name:?} {why}")));
        for (name, value) in &self.librdkafka {
            if name.contains('\0') || value.contains('\0') {
                return wrong(name, "holds a null character");
            }
            if [SERVER_KEYS, GROUP_KEYS, SESSION_KEYS].concat().contains(&name.as_str()) {
                return wrong(name, "is no setting for librdkafka: the builder has a method for it");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_is_checked_as_variables_are() {
        let config = Config::builder()
            .bootstrap_servers("a:1, b:2")
            .schedules_topics(["one", "two"])
            .session_timeout(Duration::from_secs(10))
            .librdkafka("security.protocol", "ssl")
            .build()
            .expect("it is allowed");
        assert_eq!((&*config.bootstrap_servers, &*config.group_id), ("a:1,b:2", "scheduler-cg"));
        assert_eq!((config.schedules_topics, config.session_timeout_ms), (vec!["one".into(), "two".into()], 10_000));
        assert_eq!(config.kafka_common["security.protocol"], "ssl");
        let new = Config::builder;
        for (wrong, variable) in [
            (new().group_id(" "), "GROUP_ID"),
            (new().schedules_topics(["a,b"]), "SCHEDULES_TOPICS"),
            (new().schedules_topics([""; 0]), "SCHEDULES_TOPICS"),
            (new().schedules_topics(["history"]), "HISTORY_TOPIC"),
            (new().since_delta_days(1), "SINCE_DELTA"),
            (new().session_timeout(Duration::from_micros(1)), "SESSION_TIMEOUT"),
            (new().create_topics_replicas(0), "CREATE_TOPICS_REPLICATION_FACTOR"),
            (new().librdkafka("group.id", "g"), "CONFIGURATION_FILE"),
            (new().librdkafka("client.id", "\0"), "CONFIGURATION_FILE"),
        ] {
            let shown = format!("{wrong:?}");
            assert_eq!(wrong.build().expect_err(&shown).variable(), variable);
        }
    }
}
