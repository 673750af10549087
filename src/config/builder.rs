//! Settings that a program chooses.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::{CONFIGURATION_FILE, Config, ConfigError, GROUP_KEYS, SERVER_KEYS, SESSION_KEYS, value};

/// Collects the settings of an engine; see [`Config::builder`].
///
/// Each setting means the same as the variable that its documentation names, with the same default and the same limits.
/// [`build`](Self::build) returns what is wrong.
#[derive(Clone, Debug, Default)]
#[must_use = "`build` makes the settings"]
pub struct ConfigBuilder {
    config: Config,
    /// By variable: why the last value that was set for it is not allowed.
    errors: BTreeMap<&'static str, ConfigError>,
}

impl ConfigBuilder {
    pub(super) fn from_config(config: Config) -> Self {
        Self { config, errors: BTreeMap::new() }
    }

    fn set<T>(
        mut self,
        variable: &'static str,
        checked: Result<T, ConfigError>,
        set: impl FnOnce(&mut Config, T),
    ) -> Self {
        match checked {
            Ok(value) => {
                self.errors.remove(variable);
                set(&mut self.config, value);
            }
            Err(error) => drop(self.errors.insert(variable, error)),
        }
        self
    }

    /// Sets `BOOTSTRAP_SERVERS`: a comma list of `host:port`.
    pub fn bootstrap_servers(self, servers: impl Into<String>) -> Self {
        const NAME: &str = "BOOTSTRAP_SERVERS";
        let checked = text(NAME, servers).and_then(|servers| value::servers(NAME, &servers));
        self.set(NAME, checked, |config, servers| config.bootstrap_servers = servers)
    }

    /// Sets `SCHEDULES_TOPICS`: 1 to 1,000 topics, without repeats. They replace those that were set before.
    pub fn schedules_topics<T: Into<String>>(self, topics: impl IntoIterator<Item = T>) -> Self {
        const NAME: &str = "SCHEDULES_TOPICS";
        let topics: Vec<String> = topics.into_iter().map(T::into).collect();
        let checked = match topics.iter().find(|topic| topic.contains(',')) {
            Some(topic) => Err(ConfigError::wrong(NAME, topic, "names of topics, without commas")),
            None => text(NAME, topics.join(",")).and_then(|list| value::topics(NAME, &list)),
        };
        self.set(NAME, checked, |config, topics| config.schedules_topics = topics)
    }

    /// Sets `GROUP_ID`: 1 to 200 characters, none of them a control character.
    pub fn group_id(self, group: impl Into<String>) -> Self {
        const NAME: &str = "GROUP_ID";
        let checked = text(NAME, group).and_then(|group| value::group(NAME, &group));
        self.set(NAME, checked, |config, group| config.group_id = group)
    }

    /// Sets `HISTORY_TOPIC`. It must not be one of the schedules topics.
    pub fn history_topic(self, topic: impl Into<String>) -> Self {
        const NAME: &str = "HISTORY_TOPIC";
        let checked = text(NAME, topic).and_then(|topic| value::topic(NAME, &topic));
        self.set(NAME, checked, |config, topic| config.history_topic = topic)
    }

    /// Sets `DEAD_LETTER_TOPIC`. It must be neither the history topic nor one of the schedules topics.
    pub fn dead_letter_topic(self, topic: impl Into<String>) -> Self {
        const NAME: &str = "DEAD_LETTER_TOPIC";
        let checked = text(NAME, topic).and_then(|topic| value::topic(NAME, &topic));
        self.set(NAME, checked, |config, topic| config.dead_letter_topic = Some(topic))
    }

    /// Unsets `DEAD_LETTER_TOPIC`: records that cannot fire stay in their schedules topic.
    pub fn without_dead_letter_topic(self) -> Self {
        self.set("DEAD_LETTER_TOPIC", Ok(()), |config, ()| config.dead_letter_topic = None)
    }

    /// Sets `TRIGGERED_HEADERS`: whether triggered records of `scheduler-epoch` schedules have `scheduler-due` too.
    pub fn adds_due_header(mut self, adds: bool) -> Self {
        self.config.adds_due_header = adds;
        self
    }

    /// Sets `CREATE_TOPICS`: whether the engine creates those of its own topics that are missing.
    pub fn create_topics(mut self, create: bool) -> Self {
        self.config.create_topics = create;
        self
    }

    /// Sets `CREATE_TOPICS_REPLICATION_FACTOR`, 1 to 10,000. It has no effect without
    /// [`create_topics`](Self::create_topics).
    pub fn create_topics_replicas(self, replicas: i32) -> Self {
        let checked = value::replicas(&replicas.to_string());
        let set = |config: &mut Config, replicas| config.create_topics_replicas = Some(replicas);
        self.set("CREATE_TOPICS_REPLICATION_FACTOR", checked, set)
    }

    /// Unsets `CREATE_TOPICS_REPLICATION_FACTOR`: created topics have the brokers' default number of replicas.
    pub fn without_create_topics_replicas(self) -> Self {
        self.set("CREATE_TOPICS_REPLICATION_FACTOR", Ok(()), |config, ()| config.create_topics_replicas = None)
    }

    /// Sets `SINCE_DELTA`: 0 to -36,500 days.
    pub fn since_delta_days(self, days: i32) -> Self {
        let checked = value::since_delta(&days.to_string());
        self.set("SINCE_DELTA", checked, |config, days| config.since_delta_days = days)
    }

    /// Sets `SESSION_TIMEOUT`: whole milliseconds, from 1 ms to 1 h.
    pub fn session_timeout(self, timeout: Duration) -> Self {
        const NAME: &str = "SESSION_TIMEOUT";
        let checked = value::milliseconds(NAME, timeout, value::SESSION_MS);
        self.set(NAME, checked, |config, timeout_ms| config.session_timeout_ms = timeout_ms)
    }

    /// Sets `SCHEDULE_GRACE_INTERVAL`: whole seconds, from 0 to 100 years of 365 days.
    pub fn grace_interval(self, grace: Duration) -> Self {
        const NAME: &str = "SCHEDULE_GRACE_INTERVAL";
        let checked = value::seconds(NAME, grace, value::GRACE_S);
        self.set(NAME, checked, |config, grace_s| config.grace_s = Some(grace_s))
    }

    /// Unsets `SCHEDULE_GRACE_INTERVAL`: a schedule may be overdue on arrival by any time.
    pub fn without_grace_interval(self) -> Self {
        self.set("SCHEDULE_GRACE_INTERVAL", Ok(()), |config, ()| config.grace_s = None)
    }

    /// Sets `MAX_HORIZON`: whole seconds, from 1 s to 100 years of 365 days.
    pub fn max_horizon(self, horizon: Duration) -> Self {
        const NAME: &str = "MAX_HORIZON";
        let checked = value::seconds(NAME, horizon, value::HORIZON_S);
        self.set(NAME, checked, |config, horizon_s| config.horizon_s = Some(horizon_s))
    }

    /// Unsets `MAX_HORIZON`: a schedule may be due any time ahead.
    pub fn without_max_horizon(self) -> Self {
        self.set("MAX_HORIZON", Ok(()), |config, ()| config.horizon_s = None)
    }

    /// Sets `MEMORY_WARN_BYTES`: 1 to 2^50 bytes.
    pub fn memory_warn_bytes(self, bytes: u64) -> Self {
        let checked = value::memory_warn_bytes(&bytes.to_string());
        self.set("MEMORY_WARN_BYTES", checked, |config, bytes| config.memory_warn_bytes = Some(bytes))
    }

    /// Sets `STATE_DIR`: a directory of this instance alone. It is created if it is missing.
    pub fn state_dir(self, path: impl Into<PathBuf>) -> Self {
        const NAME: &str = "STATE_DIR";
        let path = path.into();
        let is_empty = path.as_os_str().is_empty();
        let checked = if is_empty { Err(ConfigError::wrong(NAME, "", "the path of a directory")) } else { Ok(path) };
        self.set(NAME, checked, |config, path| config.state_dir = Some(path))
    }

    /// Unsets `STATE_DIR`: every takeover reads the whole log.
    pub fn without_state_dir(self) -> Self {
        self.set("STATE_DIR", Ok(()), |config, ()| config.state_dir = None)
    }

    /// Unsets `MEMORY_WARN_BYTES`: the engine never warns about memory.
    pub fn without_memory_warn_bytes(self) -> Self {
        self.set("MEMORY_WARN_BYTES", Ok(()), |config, ()| config.memory_warn_bytes = None)
    }

    /// Sets a setting of librdkafka for all of the engine's clients, such as `security.protocol`. The address of the
    /// brokers, the group and the session timeout have methods of their own.
    pub fn librdkafka(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.config.kafka_common.insert(name.into(), value.into());
        self
    }

    /// Removes a setting of librdkafka from all clients.
    pub fn without_librdkafka(mut self, name: &str) -> Self {
        let Config { kafka_common, kafka_producer, kafka_consumer, .. } = &mut self.config;
        for settings in [kafka_common, kafka_producer, kafka_consumer] {
            settings.remove(name);
        }
        self
    }

    /// Does the same as [`librdkafka`](Self::librdkafka) for producers alone.
    pub fn librdkafka_producer(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.config.kafka_producer.insert(name.into(), value.into());
        self
    }

    /// Does the same as [`librdkafka`](Self::librdkafka) for consumers alone.
    pub fn librdkafka_consumer(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.config.kafka_consumer.insert(name.into(), value.into());
        self
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// If a value is not allowed, or two of them exclude each other. The error names one variable that is wrong, its
    /// value, and what is allowed.
    pub fn build(mut self) -> Result<Config, ConfigError> {
        if let Some((_, error)) = self.errors.pop_first() {
            return Err(error);
        }
        let Config { schedules_topics, history_topic, dead_letter_topic, .. } = &self.config;
        super::check_history(history_topic, schedules_topics)?;
        super::check_dead_letter(dead_letter_topic.as_deref(), history_topic, schedules_topics)?;
        for settings in [&self.config.kafka_common, &self.config.kafka_producer, &self.config.kafka_consumer] {
            settings.iter().try_for_each(|(name, value)| check_librdkafka(name, value))?;
        }
        Ok(self.config)
    }
}

/// Returns a text without the spaces around it, as variables are read; there must be something left.
fn text(variable: &'static str, value: impl Into<String>) -> Result<String, ConfigError> {
    let value = value.into();
    match value.trim() {
        "" => Err(ConfigError::wrong(variable, &value, "a value, or left at its default")),
        trimmed => Ok(trimmed.to_owned()),
    }
}

fn check_librdkafka(name: &str, value: &str) -> Result<(), ConfigError> {
    let wrong = |why: &str| Err(ConfigError::new(CONFIGURATION_FILE, format!("{name:?} {why}")));
    if name.contains('\0') || value.contains('\0') {
        return wrong("holds a null character");
    }
    if [SERVER_KEYS, GROUP_KEYS, SESSION_KEYS].concat().contains(&name) {
        return wrong("is no setting for librdkafka: the builder has a method for it");
    }
    Ok(())
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
        assert_eq!((config.bootstrap_servers(), config.group_id()), ("a:1,b:2", "scheduler-cg"));
        assert_eq!((config.schedules_topics(), config.session_timeout_ms), (&["one".into(), "two".into()][..], 10_000));
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
            (new().librdkafka_producer("bootstrap.servers", "a:1"), "CONFIGURATION_FILE"),
            (new().librdkafka_consumer("session.timeout.ms", "1"), "CONFIGURATION_FILE"),
            (new().group_id("g").group_id(""), "GROUP_ID"),
        ] {
            let shown = format!("{wrong:?}");
            assert_eq!(wrong.build().expect_err(&shown).variable(), variable);
        }
    }
    #[test]
    fn a_duration_that_is_not_whole_or_out_of_range_is_wrong() {
        let new = Config::builder;
        let (ms, century_s) = (Duration::from_millis, Duration::from_secs(100 * 365 * 86_400));
        for (wrong, message) in [
            (
                new().session_timeout(Duration::from_micros(1_500)),
                "SESSION_TIMEOUT is \"1.5ms\", but must be a whole number of milliseconds from 1 to 3600000: round it",
            ),
            (
                new().session_timeout(Duration::ZERO),
                "SESSION_TIMEOUT is \"0ns\", but must be a whole number of milliseconds from 1 to 3600000",
            ),
            (
                new().session_timeout(ms(3_600_001)),
                "SESSION_TIMEOUT is \"3600.001s\", but must be a whole number of milliseconds from 1 to 3600000",
            ),
            (
                new().grace_interval(ms(500)),
                "SCHEDULE_GRACE_INTERVAL is \"500ms\", but must be a whole number of seconds from 0 to 3153600000: \
                 round it",
            ),
            (
                new().max_horizon(Duration::ZERO),
                "MAX_HORIZON is \"0ns\", but must be a whole number of seconds from 1 to 3153600000",
            ),
            (
                new().max_horizon(century_s + Duration::from_secs(1)),
                "MAX_HORIZON is \"3153600001s\", but must be a whole number of seconds from 1 to 3153600000",
            ),
        ] {
            assert_eq!(wrong.build().expect_err(message).to_string(), message);
        }
        let config = new().grace_interval(Duration::ZERO).max_horizon(century_s).session_timeout(ms(1)).build();
        let config = config.expect("the ends of the ranges are allowed");
        assert_eq!((config.grace_interval(), config.max_horizon()), (Some(Duration::ZERO), Some(century_s)));
        assert_eq!(config.session_timeout(), ms(1));
    }

    #[test]
    fn changed_settings_are_checked_again_and_the_others_stay() {
        let env = |name: &str| {
            let all = [("REST_TOKEN", "abc"), ("SERVER_ADDR", "127.0.0.1:1"), ("DEAD_LETTER_TOPIC", "dead")];
            all.iter().find(|(variable, _)| *variable == name).map(|(_, value)| (*value).to_owned())
        };
        let config = Config::load(&env).expect("it is allowed");
        let changed = config.to_builder().group_id("").group_id("g").build().expect("the last value counts");
        assert_eq!((changed.group_id(), changed.dead_letter_topic()), ("g", Some("dead")));
        assert_eq!(changed.server_addr(), config.server_addr());
        assert!(changed.rest_token().is_some_and(|token| token.matches(b"abc")));
        let error = config.to_builder().schedules_topics(["dead"]).build().expect_err("its own dead letters");
        assert_eq!(error.variable(), "DEAD_LETTER_TOPIC");
        assert!(config.to_builder().history_topic("dead").build().is_err());
    }

    #[test]
    fn what_is_optional_can_be_unset() {
        let set = Config::builder()
            .dead_letter_topic("dead")
            .grace_interval(Duration::from_secs(1))
            .max_horizon(Duration::from_secs(1))
            .create_topics_replicas(3)
            .memory_warn_bytes(1)
            .librdkafka("linger.ms", "5")
            .librdkafka_producer("linger.ms", "6")
            .build()
            .expect("it is valid");
        let builder = set.to_builder().without_dead_letter_topic().without_grace_interval().without_max_horizon();
        let builder = builder.without_create_topics_replicas().without_memory_warn_bytes();
        let unset = builder.without_librdkafka("linger.ms").build().expect("it is valid");
        assert_eq!((unset.dead_letter_topic(), unset.grace_s, unset.horizon_s), (None, None, None));
        assert_eq!((unset.create_topics_replicas(), unset.memory_warn_bytes()), (None, None));
        assert!(unset.kafka_common.is_empty() && unset.kafka_producer.is_empty());
        let unset = Config::builder().dead_letter_topic("").without_dead_letter_topic().build();
        assert!(unset.is_ok(), "the last value counts");
    }
}
