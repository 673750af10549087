//! The scheduler with a Kafka broker in the same process, to try it out and for tests.
//!
//! The command `kafka-scheduler mini` runs it as a program; [`Mini`] runs it inside a Rust test. The embedded broker is
//! librdkafka's mock. Do not rely on it: it does not fence, so it cannot prove exactly-once; it does not compact; it
//! keeps at most 5 MB a partition; it shows aborted records; it has no topic administration; and it keeps nothing after
//! exit.
//!
//! ```
//! use std::time::Duration;
//! use kafka_scheduler::client::Schedule;
//! use kafka_scheduler::mini::Mini;
//! use rdkafka::ClientConfig;
//! use rdkafka::consumer::{BaseConsumer, Consumer};
//! use rdkafka::message::Message;
//! use rdkafka::producer::{BaseProducer, Producer};
//!
//! let mini = Mini::with_topics(["videos:1".parse()?])?;
//! let mut client = ClientConfig::new();
//! client.set("bootstrap.servers", mini.bootstrap_servers()).set("group.id", "test");
//!
//! let producer: BaseProducer = client.create()?;
//! let in_a_year = Duration::from_secs(365 * 86_400);
//! let schedule = Schedule::new("k").to("videos").value("video 1").after(in_a_year).build()?;
//! producer.send(schedule.to_base_record("schedules")).map_err(|(e, _)| e)?;
//! producer.flush(Duration::from_secs(10))?;
//!
//! // There is no need to wait: the engine's clock can be moved.
//! mini.advance(in_a_year + Duration::from_secs(1));
//!
//! let consumer: BaseConsumer = client.set("auto.offset.reset", "earliest").create()?;
//! consumer.subscribe(&["videos"])?;
//! let fired = consumer.iter().next().expect("it waits until one comes")?;
//! assert_eq!(fired.payload(), Some(&b"video 1"[..]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#[cfg(feature = "cli")]
mod demo;
#[cfg(feature = "cli")]
mod firing;
mod live;
#[cfg(feature = "cli")]
mod program;
mod topic;

use std::fmt;
use std::time::Duration;

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use crate::client::Moment;
use crate::config::Config;
#[cfg(feature = "cli")]
use crate::config::Env;
use crate::kafka::Clock;
use crate::runner::{Runner, RunnerError, Running};
use live::AllLive;
#[cfg(feature = "cli")]
pub(crate) use program::run;
pub use topic::{ParseTopicError, Topic};

/// Partitions of a topic whose number is not given.
const PARTITIONS_DEFAULT: i32 = 3;

/// How long the engine may take until all partitions fire.
const START_TIMEOUT: Duration = Duration::from_secs(60);

type Cluster = MockCluster<'static, DefaultProducerContext>;

/// Returns the environment without the variables that configure another broker.
#[cfg(feature = "cli")]
pub(crate) fn env<'a>(env: Env<'a>) -> impl Fn(&str) -> Option<String> + 'a {
    |name| (!matches!(name, "BOOTSTRAP_SERVERS" | "CONFIGURATION_FILE")).then(|| env(name)).flatten()
}

/// Why broker and engine do not run.
#[derive(Debug)]
#[non_exhaustive]
pub enum MiniError {
    /// The broker could not be started. The major version of the crate `rdkafka` is part of this API.
    Broker(rdkafka::error::KafkaError),
    /// The engine could not be started, or has ended.
    Runner(RunnerError),
    /// The engine does not fire within a minute.
    Timeout,
}

impl fmt::Display for MiniError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broker(_) => f.write_str("the embedded broker cannot be started"),
            Self::Runner(e) => e.fmt(f),
            Self::Timeout => {
                write!(f, "the engine does not fire within {} s; see its log", START_TIMEOUT.as_secs())
            }
        }
    }
}

impl std::error::Error for MiniError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Broker(e) => Some(e),
            // Its message is this error's own.
            Self::Runner(e) => e.source(),
            Self::Timeout => None,
        }
    }
}

impl From<RunnerError> for MiniError {
    fn from(e: RunnerError) -> Self {
        Self::Runner(e)
    }
}

/// A broker and an engine for one test. Several can run side by side. Dropping it stops both.
pub struct Mini {
    running: Option<Running>,
    clock: Clock,
    bootstrap_servers: String,
    // Dropped last: clients must not outlive it.
    _cluster: Cluster,
}

impl fmt::Debug for Mini {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mini").field("bootstrap_servers", &self.bootstrap_servers).finish_non_exhaustive()
    }
}

impl Mini {
    /// Starts with the topics `schedules` and `history`, three partitions each. Returns when the engine fires.
    ///
    /// # Errors
    /// If the broker or the engine cannot be started.
    pub fn start() -> Result<Self, MiniError> {
        Self::with_topics([])
    }

    /// Starts with further topics.
    ///
    /// # Errors
    /// If the broker or the engine cannot be started.
    pub fn with_topics(topics: impl IntoIterator<Item = Topic>) -> Result<Self, MiniError> {
        Self::with_runner(topics, Runner::new(Config::default()))
    }

    /// Starts with a runner of your own, for other settings or a handler of events. The `bootstrap_servers` of its
    /// settings are ignored.
    ///
    /// ```
    /// use kafka_scheduler::config::Config;
    /// use kafka_scheduler::mini::Mini;
    /// use kafka_scheduler::Runner;
    ///
    /// let config = Config::builder().schedules_topics(["reminders"]).build()?;
    /// let mini = Mini::with_runner([], Runner::new(config).on_event(|event| println!("{event:?}")))?;
    /// mini.close()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// If the broker or the engine cannot be started.
    pub fn with_runner(topics: impl IntoIterator<Item = Topic>, runner: Runner) -> Result<Self, MiniError> {
        let cluster = Cluster::new(1).map_err(MiniError::Broker)?;
        let bootstrap_servers = cluster.bootstrap_servers();
        let runner = runner.embedded(bootstrap_servers.clone());
        let topics = topic::with_needed(topics, runner.config());
        topic::create(&cluster, &topics).map_err(MiniError::Broker)?;
        let (live, waiting) = AllLive::new(topic::partitions(&topics, runner.config().schedules_topics()));
        let clock = Clock::default();
        let running = runner.clock(clock.clone()).observer(Box::new(live)).start()?;
        let mini = Self { running: Some(running), clock, bootstrap_servers, _cluster: cluster };
        match waiting.recv_timeout(START_TIMEOUT) {
            Ok(()) => Ok(mini),
            Err(_) if mini.running.as_ref().is_some_and(Running::is_finished) => {
                mini.close()?;
                Err(MiniError::Timeout)
            }
            Err(_) => Err(MiniError::Timeout),
        }
    }

    /// Returns the broker's address, `host:port`, for the clients of a test.
    #[must_use]
    pub fn bootstrap_servers(&self) -> &str {
        &self.bootstrap_servers
    }

    /// Moves the engine's clock forward, and returns its new time: schedules that are due by then fire at once. Kafka's
    /// own timestamps do not move.
    pub fn advance(&self, by: Duration) -> Moment {
        Moment::from_epoch_ms(self.clock.advance(by).0)
    }

    /// Returns the time of the engine's clock.
    #[must_use]
    pub fn now(&self) -> Moment {
        Moment::from_epoch_ms(self.clock.now().0)
    }

    /// Returns the engine.
    #[must_use]
    pub fn running(&self) -> &Running {
        // It does not panic: the engine runs until this value is closed.
        self.running.as_ref().expect("it is only taken by close")
    }

    /// Stops the engine and the broker.
    ///
    /// # Errors
    /// If the engine had ended before, and why.
    pub fn close(mut self) -> Result<(), MiniError> {
        match self.running.take() {
            Some(running) => Ok(running.close()?),
            None => Ok(()),
        }
    }
}
