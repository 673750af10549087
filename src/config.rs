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
use std::sync::Arc;

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

/// The settings of an engine.
///
/// [`Config::builder`] sets them in a program, and [`Config::load`] reads them from the environment. Both check every
/// value; a field that is changed afterwards is not checked again.
#[derive(Clone)]
#[non_exhaustive]
pub struct Config {
    /// `BOOTSTRAP_SERVERS`
    pub bootstrap_servers: String,
    /// `SCHEDULES_TOPICS`: not empty, no repeats.
    pub schedules_topics: Vec<String>,
    /// `SINCE_DELTA`: 0 or less, in days.
    pub since_delta_days: i32,
    /// `GROUP_ID`
    pub group_id: String,
    /// `METRICS_HTTP_ADDR`
    pub metrics_addr: SocketAddr,
    /// `HISTORY_TOPIC`
    pub history_topic: String,
    /// `DEAD_LETTER_TOPIC`
    pub dead_letter_topic: Option<String>,
    /// `CREATE_TOPICS`: whether the engine creates its missing topics.
    pub create_topics: bool,
    /// `CREATE_TOPICS_REPLICATION_FACTOR`: replicas of created topics; `None` is the brokers' default.
    pub create_topics_replicas: Option<i32>,
    /// `SERVER_ADDR`
    pub server_addr: SocketAddr,
    /// `SESSION_TIMEOUT`, in milliseconds.
    pub session_timeout_ms: u32,
    /// `SCHEDULE_GRACE_INTERVAL`, in seconds.
    pub grace_s: Option<u64>,
    /// `MAX_HORIZON`, in seconds.
    pub horizon_s: Option<u64>,
    /// `MEMORY_WARN_BYTES`: warn if pending schedules take more memory.
    pub memory_warn_bytes: Option<u64>,
    /// The broker is inside this process and does not describe its topics' settings.
    #[cfg_attr(not(feature = "engine"), expect(dead_code, reason = "only the engine connects"))]
    pub(crate) embedded: bool,
    /// `CONFIGURATION_FILE`, as it was read.
    pub configuration_file: Option<ConfigurationFile>,
    /// `kafka.common.configuration` of the file: settings that librdkafka gets unchanged.
    pub kafka_common: BTreeMap<String, String>,
    /// `kafka.producer.configuration` of the file.
    pub kafka_producer: BTreeMap<String, String>,
    /// `kafka.consumer.configuration` of the file.
    pub kafka_consumer: BTreeMap<String, String>,
    /// `REST_TOKEN`: the bearer token that clients of REST must send.
    pub rest_token: Option<Secret>,
    /// Variables that are set and have no effect, with what to do instead.
    #[cfg_attr(not(feature = "cli"), expect(dead_code, reason = "only the program logs them"))]
    pub(crate) warnings: Vec<String>,
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
    /// assert_eq!(config.group_id, "scheduler-cg");
    /// # Ok::<(), kafka_scheduler::config::ConfigError>(())
    /// ```
    pub fn builder() -> ConfigBuilder {
        ConfigBuilder::default()
    }

    /// Reads the environment and the configuration file that it names. An empty variable counts as not set.
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
            value::whole(&name, session.as_deref().unwrap_or("6000"), 1..=3_600_000, "milliseconds")?;

        let schedules_topics =
            value::topics("SCHEDULES_TOPICS", &env("SCHEDULES_TOPICS").unwrap_or("schedules".into()))?;
        let history_topic = value::topic("HISTORY_TOPIC", &env("HISTORY_TOPIC").unwrap_or("history".into()))?;
        apart("HISTORY_TOPIC", &history_topic, &schedules_topics)?;
        let dead_letter_topic = dead_letter(env, &schedules_topics, &history_topic)?;
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
            create_topics: env("CREATE_TOPICS").map_or(Ok(false), |text| value::flag("CREATE_TOPICS", &text))?,
            create_topics_replicas: env("CREATE_TOPICS_REPLICATION_FACTOR")
                .map(|text| value::whole("CREATE_TOPICS_REPLICATION_FACTOR", &text, 1..=REPLICAS_MAX, "replicas"))
                .transpose()?,
            server_addr,
            session_timeout_ms,
            grace_s: env("SCHEDULE_GRACE_INTERVAL")
                .map(|text| value::whole("SCHEDULE_GRACE_INTERVAL", &text, 0..=value::CENTURY_S, "seconds"))
                .transpose()?,
            horizon_s: env("MAX_HORIZON").map(|text| value::horizon("MAX_HORIZON", &text)).transpose()?,
            memory_warn_bytes: env("MEMORY_WARN_BYTES")
                .map(|text| value::whole("MEMORY_WARN_BYTES", &text, 1..=value::BYTES_MAX, "bytes"))
                .transpose()?,
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

/// Rejects an output topic that is also a schedules topic.
fn apart(name: &str, topic: &str, schedules_topics: &[String]) -> Result<(), ConfigError> {
    if schedules_topics.iter().any(|other| other == topic) {
        let allowed = "a topic that is not among SCHEDULES_TOPICS: its records would be taken for schedules";
        return Err(ConfigError::wrong(name, topic, allowed));
    }
    Ok(())
}

fn dead_letter(env: Env<'_>, schedules_topics: &[String], history: &str) -> Result<Option<String>, ConfigError> {
    const NAME: &str = "DEAD_LETTER_TOPIC";
    let Some(text) = env(NAME) else { return Ok(None) };
    let topic = value::topic(NAME, &text)?;
    apart(NAME, &topic, schedules_topics)?;
    if topic == history {
        return Err(ConfigError::wrong(NAME, &topic, "another topic than HISTORY_TOPIC"));
    }
    Ok(Some(topic))
}

/// Rejects variables of the process's environment that are not Unicode: reading them as text would hide them.
///
/// # Errors
/// If there is such a variable: the error names the first one.
#[cfg(feature = "engine")]
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
