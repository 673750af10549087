//! The engine with a Kafka in the same process: to try it out, and for tests.

use std::time::Duration;

use jiff::Timestamp;
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext};

use crate::config::Config;
use crate::core::batch::{Batch, Kind};
use crate::core::io::{Counters, Millis, Report};
use crate::handle::Observer;
use crate::watch::Watch;

/// Partitions of the topics that come by themselves.
const PARTITIONS: i32 = 3;
/// Where demo schedules fire to.
const DEMO_TARGET: &str = "demo";
/// The demo schedules, by how often they fire.
const DEMO_SECONDS: [u64; 3] = [5, 10, 30];
/// Characters of a value that a line shows.
const SHOWN_MAX: usize = 60;

/// Reads `name:partitions`.
///
/// # Errors
/// What is wrong with it.
pub fn topic(text: &str) -> Result<(String, i32), String> {
    let (name, partitions) = text.split_once(':').unwrap_or((text, "1"));
    let legal = (1..=249).contains(&name.len())
        && name != "."
        && name != ".."
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if !legal {
        return Err(format!("{name:?} is no topic name: 1 to 249 of a-z A-Z 0-9 . _ -"));
    }
    match partitions.parse() {
        Ok(count @ 1..=100) => Ok((name.to_owned(), count)),
        _ => Err(format!("{partitions:?} is no number of partitions: 1 to 100")),
    }
}

/// A Kafka in this process, with its topics.
pub struct Mini {
    // Kafka ends when this is dropped.
    cluster: MockCluster<'static, DefaultProducerContext>,
    config: Config,
}

impl std::fmt::Debug for Mini {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mini").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Mini {
    /// Starts it with the topics of the configuration, the demo's and more.
    ///
    /// # Errors
    /// When librdkafka cannot listen or refuses a topic.
    pub fn start(mut config: Config, topics: &[(String, i32)]) -> Result<Self, rdkafka::error::KafkaError> {
        let cluster = MockCluster::new(1)?;
        let own = config.schedules_topics.iter().chain([&config.history_topic]).map(String::as_str);
        for name in own.chain([DEMO_TARGET]) {
            if !topics.iter().any(|(other, _)| other == name) {
                cluster.create_topic(name, PARTITIONS, 1)?;
            }
        }
        for (name, partitions) in topics {
            cluster.create_topic(name, *partitions, 1)?;
        }
        config.bootstrap_servers = cluster.bootstrap_servers();
        Ok(Self { cluster, config })
    }

    /// The configuration, with this Kafka's address.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Says where it is and what it is not.
    pub fn greet(&self) {
        println!("Kafka is at    {}", self.cluster.bootstrap_servers());
        println!("schedules go to {}", self.config.schedules_topics.join(", "));
        println!("REST is at     http://{}/schedules", self.config.server_addr);
        println!("metrics are at http://{}/metrics", self.config.metrics_addr);
        println!("This Kafka lives in this process. It keeps nothing when it ends, holds 5 MB a partition, does not");
        println!("compact, does not fence, and proves nothing about exactly-once: it is for trying things out.");
    }

    /// Shows each firing, and keeps the demo schedules going.
    ///
    /// # Panics
    /// Never: the settings are constants.
    #[must_use]
    pub fn observer(&self, watch: Watch) -> Demo {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", self.cluster.bootstrap_servers())
            .create()
            .expect("the settings are legal");
        let demo = Demo { watch, producer, topic: self.config.schedules_topics[0].clone() };
        DEMO_SECONDS.iter().for_each(|seconds| demo.schedule(*seconds));
        demo
    }
}

/// Prints firings.
pub struct Demo {
    watch: Watch,
    producer: BaseProducer,
    topic: String,
}

impl std::fmt::Debug for Demo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Demo").finish_non_exhaustive()
    }
}

impl Demo {
    fn schedule(&self, seconds: u64) {
        let due = (Timestamp::now().as_second() + seconds as i64).to_string();
        let key = format!("demo-{seconds}s");
        let value = format!("every {seconds} seconds");
        let header = |key, value| Header { key, value: Some(value) };
        let headers = OwnedHeaders::new()
            .insert(header("scheduler-epoch", due.as_str()))
            .insert(header("scheduler-target-topic", DEMO_TARGET))
            .insert(header("scheduler-target-key", key.as_str()));
        let record = BaseRecord::to(&self.topic).key(&key).payload(&value).headers(headers);
        if let Err((error, _)) = self.producer.send(record) {
            tracing::warn!(%error, "a demo schedule could not be sent");
        }
        self.producer.poll(Duration::ZERO);
    }
}

impl Observer for Demo {
    fn counters(&mut self, counters: &Counters) {
        self.watch.counters(counters);
    }

    fn fired(&mut self, batch: &Batch, at: Millis) {
        for item in &batch.items {
            let Kind::Fire { target, due, .. } = &item.kind else { continue };
            let parts = batch.parts(item);
            let late = at.0.saturating_sub((*due as i64).saturating_mul(1000));
            println!("{}  {} -> {target}  {late} ms late  {}", clock(at), shown(parts.key), shown(parts.value));
            let again = DEMO_SECONDS.iter().find(|seconds| parts.key == format!("demo-{seconds}s").as_bytes());
            if let Some(seconds) = again.filter(|_| &**target == DEMO_TARGET) {
                self.schedule(*seconds);
            }
        }
    }

    fn report(&mut self, report: &Report, topics: &[String]) {
        self.watch.report(report, topics);
    }
}

fn clock(at: Millis) -> String {
    let zoned =
        Timestamp::from_millisecond(at.0).unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(jiff::tz::TimeZone::system());
    zoned.strftime("%H:%M:%S%.3f").to_string()
}

/// Bytes on a terminal: control characters escaped, long ones cut.
fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN_MAX)]);
    let more = if bytes.len() > SHOWN_MAX { "…" } else { "" };
    format!("\"{}{more}\"", text.escape_debug())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_named_with_their_partitions() {
        assert_eq!(topic("a.b:4"), Ok(("a.b".into(), 4)));
        assert_eq!(topic("a"), Ok(("a".into(), 1)));
        assert!(topic("a:0").unwrap_err().contains("1 to 100"));
        assert!(topic("a/b:1").unwrap_err().contains("no topic name"));
    }

    #[test]
    fn nothing_hostile_reaches_the_terminal() {
        assert_eq!(shown(b"a\x1b[31m\n"), r#""a\u{1b}[31m\n""#);
        assert!(shown(&[b'x'; 1000]).len() < 100);
    }
}
