//! Settings from the environment and the configuration file.

mod builder;
mod file;
#[cfg(feature = "engine")]
mod rewritten;
mod secret;
mod shown;
mod value;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use builder::ConfigBuilder;
pub use file::ConfigurationFile;
use file::File;
#[cfg(feature = "engine")]
pub(crate) use rewritten::Files;
pub use secret::Secret;
#[cfg(feature = "engine")]
pub(crate) use value::is_topic;

const CONFIGURATION_FILE: &str = "CONFIGURATION_FILE";

/// Every variable that is read.
const VARIABLES: &[&str] = &[
    "BOOTSTRAP_SERVERS",
    "SCHEDULES_TOPICS",
    "SINCE_DELTA",
    "GROUP_ID",
    "METRICS_HTTP_ADDR",
    "METRICS_ADDR",
    "HISTORY_TOPIC",
    "DEAD_LETTER_TOPIC",
    "CREATE_TOPICS",
    "CREATE_TOPICS_REPLICATION_FACTOR",
    "SERVER_ADDR",
    "SESSION_TIMEOUT",
    "SCHEDULE_GRACE_INTERVAL",
    "MAX_HORIZON",
    CONFIGURATION_FILE,
    "MEMORY_WARN_BYTES",
    "STATE_DIR",
    "LOG_LEVEL",
    "LOG_FORMAT",
    "REST_TOKEN",
];

/// Settings of librdkafka that variables set.
const SERVER_KEYS: &[&str] = &["bootstrap.servers", "metadata.broker.list"];
const GROUP_KEYS: &[&str] = &["group.id"];
const SESSION_KEYS: &[&str] = &["session.timeout.ms"];

/// librdkafka's own limit.
pub(crate) const REPLICAS_MAX: i32 = 10_000;

/// etf1/kafka-message-scheduler sends its log lines to this server itself.
const GRAYLOG: &str = "GRAYLOG_SERVER is ignored: lines go to stderr. Set LOG_FORMAT=json and have a collector (such as \
    Fluent Bit, Vector or Docker's gelf driver) pass them on to Graylog";

/// Reads an environment variable: `None` if it is not set.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Reads a text file by its path.
pub type ReadFile<'a> = &'a dyn Fn(&str) -> std::io::Result<String>;

/// A setting that is not allowed. The text is one line: the variable, its value, and the values that are allowed.
#[derive(Clone, Debug)]
pub struct ConfigError {
    variable: &'static str,
    message: String,
    source: Option<Arc<std::io::Error>>,
}

impl ConfigError {
    pub(crate) fn new(variable: &'static str, message: impl Into<String>) -> Self {
        Self { variable, message: message.into(), source: None }
    }

    /// `name` is a variable, or a setting of the configuration file. The message quotes the value with escapes, so it
    /// stays one line.
    pub(crate) fn wrong(name: &str, value: &str, allowed: &str) -> Self {
        let variable = VARIABLES.iter().find(|variable| **variable == name).unwrap_or(&CONFIGURATION_FILE);
        Self::new(variable, format!("{name} is {value:?}, but must be {allowed}"))
    }

    fn caused_by(self, source: std::io::Error) -> Self {
        Self { source: Some(Arc::new(source)), ..self }
    }

    /// Returns the environment variable that is wrong: `CONFIGURATION_FILE` for a setting of that file.
    #[must_use]
    pub const fn variable(&self) -> &'static str {
        self.variable
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|error| error as _)
    }
}

/// The settings of an engine, all of them checked.
///
/// [`Config::builder`] sets them in a program, and [`Config::from_env`] reads them from the environment. They do not
/// change afterwards: [`Config::to_builder`] begins with them, and checks again. The default has the default of every
/// setting.
#[derive(Clone)]
pub struct Config {
    bootstrap_servers: String,
    schedules_topics: Vec<String>,
    since_delta_days: i32,
    group_id: String,
    metrics_addr: SocketAddr,
    history_topic: String,
    dead_letter_topic: Option<String>,
    adds_due_header: bool,
    create_topics: bool,
    create_topics_replicas: Option<i32>,
    server_addr: SocketAddr,
    session_timeout_ms: u32,
    grace_s: Option<u64>,
    horizon_s: Option<u64>,
    memory_warn_bytes: Option<u64>,
    state_dir: Option<PathBuf>,
    /// The broker is inside this process and does not describe its topics' settings.
    #[cfg_attr(not(feature = "engine"), expect(dead_code, reason = "only the engine connects"))]
    embedded: bool,
    configuration_file: Option<ConfigurationFile>,
    kafka_common: BTreeMap<String, String>,
    kafka_producer: BTreeMap<String, String>,
    kafka_consumer: BTreeMap<String, String>,
    rest_token: Option<Secret>,
    /// Variables that are set and have no effect, with what to do instead.
    #[cfg_attr(not(feature = "cli"), expect(dead_code, reason = "only the program logs them"))]
    warnings: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self::load(&|_| None).expect("the defaults are valid settings")
    }
}

impl Config {
    /// Returns a builder that has the default of every setting.
    ///
    /// ```
    /// use kafka_scheduler::config::Config;
    ///
    /// let config = Config::builder()
    ///     .bootstrap_servers("kafka:9092")
    ///     .schedules_topics(["reminders"])
    ///     .librdkafka("security.protocol", "ssl")
    ///     .build()?;
    /// assert_eq!(config.group_id(), "scheduler-cg");
    /// # Ok::<(), kafka_scheduler::config::ConfigError>(())
    /// ```
    pub fn builder() -> ConfigBuilder {
        ConfigBuilder::default()
    }

    /// Returns a builder that begins with these settings, to change some of them.
    ///
    /// ```
    /// use kafka_scheduler::config::Config;
    ///
    /// let config = Config::builder().group_id("reminders").build()?;
    /// let other = config.to_builder().history_topic("fired").build()?;
    /// assert_eq!((other.group_id(), other.history_topic()), ("reminders", "fired"));
    /// # Ok::<(), kafka_scheduler::config::ConfigError>(())
    /// ```
    pub fn to_builder(&self) -> ConfigBuilder {
        ConfigBuilder::from_config(self.clone())
    }

    /// Reads the environment of the process, and the configuration file that it names, as the program does. An empty
    /// variable counts as not set.
    ///
    /// # Errors
    /// If a value is not allowed, or not Unicode: the error names the first one.
    pub fn from_env() -> Result<Self, ConfigError> {
        check_unicode()?;
        Self::load(&|name| std::env::var(name).ok())
    }

    /// Reads the variables from `env`, and the configuration file that they name. An empty variable counts as not set.
    ///
    /// # Errors
    /// If a value is not allowed: the error names the first one.
    pub fn load(env: Env<'_>) -> Result<Self, ConfigError> {
        Self::load_from(env, &|path| std::fs::read_to_string(path))
    }

    /// Does the same as [`Config::load`], and gets the configuration file from `read`.
    ///
    /// # Errors
    /// If a value is not allowed: the error names the first one.
    pub fn load_from(env: Env<'_>, read: ReadFile<'_>) -> Result<Self, ConfigError> {
        let env = &|name: &str| set(env, name);
        let mut file = match env("CONFIGURATION_FILE") {
            Some(path) => File::read(&path, read)?,
            None => File::default(),
        };
        let (name, servers) = file.setting(env, "BOOTSTRAP_SERVERS", SERVER_KEYS)?;
        let bootstrap_servers = value::servers(&name, servers.as_deref().unwrap_or("localhost:9092"))?;
        let (name, group) = file.setting(env, "GROUP_ID", GROUP_KEYS)?;
        let group_id = value::group(&name, group.as_deref().unwrap_or("scheduler-cg"))?;
        let (name, session) = file.setting(env, "SESSION_TIMEOUT", SESSION_KEYS)?;
        let session_timeout_ms =
            value::whole(&name, session.as_deref().unwrap_or("6000"), value::SESSION_MS, "milliseconds")?;

        let schedules_topics =
            value::topics("SCHEDULES_TOPICS", &env("SCHEDULES_TOPICS").unwrap_or("schedules".into()))?;
        let history_topic = value::topic("HISTORY_TOPIC", &env("HISTORY_TOPIC").unwrap_or("history".into()))?;
        check_history(&history_topic, &schedules_topics)?;
        let dead_letter_topic =
            env("DEAD_LETTER_TOPIC").map(|text| value::topic("DEAD_LETTER_TOPIC", &text)).transpose()?;
        check_dead_letter(dead_letter_topic.as_deref(), &history_topic, &schedules_topics)?;
        let (name, metrics) = metrics(env)?;
        let metrics = metrics.as_deref().unwrap_or(":8001");
        let metrics_addr = value::address(name, metrics)?;
        let server_addr = value::address("SERVER_ADDR", &env("SERVER_ADDR").unwrap_or(":8000".into()))?;
        if metrics_addr == server_addr && server_addr.port() != 0 {
            return Err(ConfigError::wrong(name, metrics, "another address than SERVER_ADDR"));
        }
        Ok(Self {
            bootstrap_servers,
            schedules_topics,
            since_delta_days: value::since_delta(&env("SINCE_DELTA").unwrap_or("0".into()))?,
            group_id,
            metrics_addr,
            history_topic,
            dead_letter_topic,
            adds_due_header: env("TRIGGERED_HEADERS").map_or(Ok(false), |text| value::triggered_headers(&text))?,
            create_topics: env("CREATE_TOPICS").map_or(Ok(false), |text| value::flag("CREATE_TOPICS", &text))?,
            create_topics_replicas: env("CREATE_TOPICS_REPLICATION_FACTOR")
                .map(|text| value::replicas(&text))
                .transpose()?,
            server_addr,
            session_timeout_ms,
            grace_s: env("SCHEDULE_GRACE_INTERVAL")
                .map(|text| value::whole("SCHEDULE_GRACE_INTERVAL", &text, value::GRACE_S, "seconds"))
                .transpose()?,
            horizon_s: env("MAX_HORIZON").map(|text| value::horizon("MAX_HORIZON", &text)).transpose()?,
            memory_warn_bytes: env("MEMORY_WARN_BYTES").map(|text| value::memory_warn_bytes(&text)).transpose()?,
            state_dir: env("STATE_DIR").map(PathBuf::from),
            embedded: false,
            configuration_file: file.read,
            kafka_common: file.common,
            kafka_producer: file.producer,
            kafka_consumer: file.consumer,
            rest_token: env("REST_TOKEN").map(|token| Secret::token("REST_TOKEN", token)).transpose()?,
            warnings: env("GRAYLOG_SERVER").map(|_| GRAYLOG.to_owned()).into_iter().collect(),
        })
    }
}

/// Each setting as it was read, with the variable that sets it.
impl Config {
    /// Returns `BOOTSTRAP_SERVERS`: a comma list of `host:port`, without spaces.
    #[must_use]
    pub fn bootstrap_servers(&self) -> &str {
        &self.bootstrap_servers
    }

    /// Returns `SCHEDULES_TOPICS`: one or more topics that the engine reads, without repeats.
    #[must_use]
    pub fn schedules_topics(&self) -> &[String] {
        &self.schedules_topics
    }

    /// Returns `SINCE_DELTA`, 0 to -36,500 days: at the engine's first start, schedules due before today's midnight
    /// plus this do not fire.
    #[must_use]
    pub fn since_delta_days(&self) -> i32 {
        self.since_delta_days
    }

    /// Returns `GROUP_ID`: the consumer group that instances share.
    #[must_use]
    pub fn group_id(&self) -> &str {
        &self.group_id
    }

    /// Returns `METRICS_HTTP_ADDR`, where the program serves metrics. Without the program it has no effect.
    #[must_use]
    pub fn metrics_addr(&self) -> SocketAddr {
        self.metrics_addr
    }

    /// Returns `HISTORY_TOPIC`, which gets a copy of each triggered record. It is not a schedules topic.
    #[must_use]
    pub fn history_topic(&self) -> &str {
        &self.history_topic
    }

    /// Returns `DEAD_LETTER_TOPIC`, which gets records that cannot fire. Without it they stay in their schedules topic.
    #[must_use]
    pub fn dead_letter_topic(&self) -> Option<&str> {
        self.dead_letter_topic.as_deref()
    }

    /// Returns whether `TRIGGERED_HEADERS` has `due`: triggered records of the form `scheduler-epoch` have the header
    /// `scheduler-due` too.
    #[must_use]
    pub fn adds_due_header(&self) -> bool {
        self.adds_due_header
    }

    /// Returns `CREATE_TOPICS`: whether the engine creates those of its own topics that are missing.
    #[must_use]
    pub fn create_topics(&self) -> bool {
        self.create_topics
    }

    /// Returns `CREATE_TOPICS_REPLICATION_FACTOR`: replicas of created topics, 1 to 10,000. `None` is the brokers'
    /// default.
    #[must_use]
    pub fn create_topics_replicas(&self) -> Option<i32> {
        self.create_topics_replicas
    }

    /// Returns `SERVER_ADDR`, where the program serves REST. Without the program it has no effect.
    #[must_use]
    pub fn server_addr(&self) -> SocketAddr {
        self.server_addr
    }

    /// Returns `SESSION_TIMEOUT`: after this time without a heartbeat the group takes an instance's partitions away.
    #[must_use]
    pub fn session_timeout(&self) -> Duration {
        Duration::from_millis(self.session_timeout_ms.into())
    }

    /// Returns `SCHEDULE_GRACE_INTERVAL`: a schedule that was overdue by more than this when it was produced is
    /// invalid. `None`: no limit.
    #[must_use]
    pub fn grace_interval(&self) -> Option<Duration> {
        self.grace_s.map(Duration::from_secs)
    }

    /// Returns `MAX_HORIZON`: a schedule that was due further ahead than this when it was produced is invalid. `None`:
    /// no limit.
    #[must_use]
    pub fn max_horizon(&self) -> Option<Duration> {
        self.horizon_s.map(Duration::from_secs)
    }

    /// Returns `MEMORY_WARN_BYTES`: the engine warns if pending schedules take more memory than this. `None`: never.
    #[must_use]
    pub fn memory_warn_bytes(&self) -> Option<u64> {
        self.memory_warn_bytes
    }

    /// Returns `STATE_DIR`: the directory of this instance's snapshots. `None`: there are none, and every takeover
    /// reads the whole log.
    #[must_use]
    pub fn state_dir(&self) -> Option<&Path> {
        self.state_dir.as_deref()
    }

    /// Returns `CONFIGURATION_FILE`, as it was read; `None` if it is not set, or the settings are from a builder.
    #[must_use]
    pub fn configuration_file(&self) -> Option<&ConfigurationFile> {
        self.configuration_file.as_ref()
    }

    /// Returns the settings of librdkafka for all clients: `kafka.common.configuration` of the file. Names are
    /// librdkafka's; values may be secrets.
    #[must_use]
    pub fn kafka_common(&self) -> &BTreeMap<String, String> {
        &self.kafka_common
    }

    /// Returns the settings of librdkafka for producers alone: `kafka.producer.configuration` of the file. They win
    /// over those for all clients.
    #[must_use]
    pub fn kafka_producer(&self) -> &BTreeMap<String, String> {
        &self.kafka_producer
    }

    /// Returns the settings of librdkafka for consumers alone: `kafka.consumer.configuration` of the file. They win
    /// over those for all clients.
    #[must_use]
    pub fn kafka_consumer(&self) -> &BTreeMap<String, String> {
        &self.kafka_consumer
    }

    /// Returns `REST_TOKEN`: the bearer token that clients of REST must send. `None`: no token is needed.
    #[must_use]
    pub fn rest_token(&self) -> Option<&Secret> {
        self.rest_token.as_ref()
    }

    /// Returns whether the broker is inside this process: it does not describe its topics' settings.
    #[cfg(feature = "engine")]
    pub(crate) fn is_embedded(&self) -> bool {
        self.embedded
    }

    /// Connects to a broker inside this process, instead of `BOOTSTRAP_SERVERS`.
    #[cfg(feature = "engine")]
    #[must_use]
    pub(crate) fn with_embedded_broker(self, bootstrap_servers: String) -> Self {
        Self { bootstrap_servers, embedded: true, ..self }
    }

    /// Returns settings of librdkafka that no builder and no file lets through, beside the defaults.
    #[cfg(all(test, feature = "engine"))]
    pub(crate) fn with_unchecked_librdkafka(
        kafka_common: BTreeMap<String, String>,
        kafka_consumer: BTreeMap<String, String>,
        kafka_producer: BTreeMap<String, String>,
    ) -> Self {
        Self { kafka_common, kafka_consumer, kafka_producer, ..Self::default() }
    }
}

/// Rejects an output topic that is also a schedules topic.
fn apart(name: &str, topic: &str, schedules_topics: &[String]) -> Result<(), ConfigError> {
    if schedules_topics.iter().any(|other| other == topic) {
        let allowed = "a topic that is not among SCHEDULES_TOPICS: its records would be taken for schedules";
        return Err(ConfigError::wrong(name, topic, allowed));
    }
    Ok(())
}

fn check_history(topic: &str, schedules_topics: &[String]) -> Result<(), ConfigError> {
    apart("HISTORY_TOPIC", topic, schedules_topics)
}

fn check_dead_letter(topic: Option<&str>, history: &str, schedules_topics: &[String]) -> Result<(), ConfigError> {
    const NAME: &str = "DEAD_LETTER_TOPIC";
    let Some(topic) = topic else { return Ok(()) };
    apart(NAME, topic, schedules_topics)?;
    if topic == history {
        return Err(ConfigError::wrong(NAME, topic, "another topic than HISTORY_TOPIC"));
    }
    Ok(())
}

/// Rejects variables of the process's environment that are not Unicode: reading them as text would hide them.
///
/// # Errors
/// If there is such a variable: the error names the first one.
pub(crate) fn check_unicode() -> Result<(), ConfigError> {
    for name in VARIABLES {
        if let Some(value) = std::env::var_os(name)
            && value.to_str().is_none()
        {
            // A token must not be shown, not even a wrong one.
            let value = if *name == "REST_TOKEN" { "set".to_owned() } else { format!("{value:?}") };
            return Err(ConfigError::new(name, format!("{name} is {value}, but must be UTF-8 text")));
        }
    }
    Ok(())
}

/// Returns a variable's value without the spaces around it; an empty one is not set.
pub(crate) fn set(env: Env<'_>, name: &str) -> Option<String> {
    let value = env(name)?.trim().to_owned();
    (!value.is_empty()).then_some(value)
}

/// The metrics address by its two names, and the name that it came from.
fn metrics(env: Env<'_>) -> Result<(&'static str, Option<String>), ConfigError> {
    match (env("METRICS_HTTP_ADDR"), env("METRICS_ADDR")) {
        (Some(address), Some(alias)) if address != alias => Err(ConfigError::new(
            "METRICS_HTTP_ADDR",
            format!(
                "METRICS_HTTP_ADDR is {address:?} and METRICS_ADDR is {alias:?}, but they mean the same: \
                 set one of them"
            ),
        )),
        (None, Some(alias)) => Ok(("METRICS_ADDR", Some(alias))),
        (address, _) => Ok(("METRICS_HTTP_ADDR", address)),
    }
}
