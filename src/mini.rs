//! The scheduler with a broker in the same process, to try it out.

mod demo;
mod firing;

use std::fmt;
use std::io::Write;
use std::str::FromStr;

use rdkafka::mocking::MockCluster;

use crate::app::{self, Error, Stopper};
use crate::config::{Config, Env, is_topic};
use crate::http::Listeners;
use demo::Demos;
use firing::Firings;

/// Where the demo schedules fire to.
const DEMO_TARGET: &str = "mini-demo";

/// Enough to see that a topic has several.
const PARTITIONS: i32 = 3;

/// What the embedded broker allows a topic at most; far more than anybody tries out.
const PARTITIONS_MAX: i32 = 1_000;

/// A topic of the embedded broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    name: String,
    partitions: i32,
}

/// Why a `--topic` is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadTopic;

impl fmt::Display for BadTopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "must be a topic's name, a colon, and a number of partitions from 1 to {PARTITIONS_MAX}")
    }
}

impl std::error::Error for BadTopic {}

impl FromStr for Topic {
    type Err = BadTopic;

    fn from_str(text: &str) -> Result<Self, BadTopic> {
        let (name, partitions) = text.rsplit_once(':').ok_or(BadTopic)?;
        let partitions = partitions.parse().map_err(|_| BadTopic)?;
        if !is_topic(name) || !(1..=PARTITIONS_MAX).contains(&partitions) {
            return Err(BadTopic);
        }
        Ok(Self { name: name.to_owned(), partitions })
    }
}

/// The environment without what leads to another broker.
pub fn env<'a>(env: Env<'a>) -> impl Fn(&str) -> Option<String> + 'a {
    |name| (!matches!(name, "BOOTSTRAP_SERVERS" | "CONFIGURATION_FILE")).then(|| env(name)).flatten()
}

/// Runs broker, engine and demo until a signal.
///
/// # Errors
/// When one of them cannot start or go on.
pub fn run(mut config: Config, topics: &[Topic]) -> Result<(), Error> {
    let stopper = Stopper::start()?;
    let listeners = Listeners::bind(&config)?;
    // Declared first, and so dropped last: clients must not outlive it.
    let cluster = MockCluster::new(1).map_err(Error::Mini)?;
    config.bootstrap_servers = cluster.bootstrap_servers();
    for topic in all_topics(&config, topics) {
        cluster.create_topic(&topic.name, topic.partitions, 1).map_err(Error::Mini)?;
    }
    greet(&config, &listeners, topics).map_err(|e| Error::System("stdout", e))?;
    let demos = Demos::start(&config.bootstrap_servers, &config.schedules_topics[0])?;
    let firings = Firings::start(demos.fired())?;
    let ended = app::run(config, listeners, &stopper, Some(Box::new(firings)));
    demos.stop();
    ended?;
    // A closed terminal is no reason to fail at the very end.
    let _ = writeln!(std::io::stdout(), "Stopped. The embedded broker and all it held are gone.");
    Ok(())
}

/// The given topics, and those that are needed and not given.
fn all_topics(config: &Config, given: &[Topic]) -> Vec<Topic> {
    let mut all: Vec<Topic> = Vec::new();
    let history = Topic { name: config.history_topic.clone(), partitions: PARTITIONS };
    let demo = Topic { name: DEMO_TARGET.into(), partitions: 1 };
    let schedules = config.schedules_topics.iter().map(|name| Topic { name: name.clone(), partitions: PARTITIONS });
    for topic in given.iter().cloned().chain(schedules).chain([history, demo]) {
        if all.iter().all(|other| other.name != topic.name) {
            all.push(topic);
        }
    }
    all
}

fn greet(config: &Config, listeners: &Listeners, topics: &[Topic]) -> std::io::Result<()> {
    let (rest, metrics) = listeners.addresses()?;
    let names: Vec<String> =
        all_topics(config, topics).iter().map(|t| format!("{}:{}", t.name, t.partitions)).collect();
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "A scheduler with a Kafka broker inside this process. Ctrl-C ends both.

  bootstrap server  {}
  topics            {}
  REST              http://localhost:{}/schedules (also /info, /liveness)
  metrics           http://localhost:{}/metrics

The embedded broker is for trying things out, not for production: it does not fence, so that nothing here
proves exactly-once; it does not compact; it keeps at most 5 MB a partition and drops the oldest records
beyond; it shows aborted records; and it keeps nothing after exit.

Three demo schedules fire every 5, 10 and 30 s:
",
        config.bootstrap_servers,
        names.join(", "),
        rest.port(),
        metrics.port(),
    )?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_of_the_command_line() {
        assert_eq!("videos:3".parse(), Ok(Topic { name: "videos".into(), partitions: 3 }));
        for bad in ["videos", "videos:", "videos:0", "videos:x", ":3", "a b:3", "..:1", "videos:1001"] {
            assert_eq!(bad.parse::<Topic>(), Err(BadTopic), "{bad}");
        }
    }
}
