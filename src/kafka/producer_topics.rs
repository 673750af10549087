//! Producers that know topics which are gone. librdkafka never forgets a topic that it has produced to, and asks the brokers
//! about each that it misses every second, for ever. Only a new producer knows nothing of them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::types::RDKafkaRespErr;

use super::client_config::Settings;
use super::delivery::Reports;
use super::ffi;
use crate::core::batch::Batch;

/// Without a batch for so long a producer has nothing to do: to replace it holds up nothing that is on its way.
const QUIET_MIN: Duration = Duration::from_secs(10);
/// Between two looks: as often as librdkafka itself asks about all topics.
const LOOK: Duration = Duration::from_secs(30);
/// Targets asked about with one request, and how long its answer may take. A batch that comes meanwhile waits for it.
const TOGETHER_MAX: usize = 25;
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// The targets that one producer has been given, and when to look whether they are still there.
pub struct ProducerTopics {
    targets: BTreeSet<String>,
    look_at: Instant,
}

impl ProducerTopics {
    /// For a producer that knows no target yet.
    pub fn new() -> Self {
        Self { targets: BTreeSet::new(), look_at: Instant::now() }
    }

    /// A batch has ended.
    pub fn ran(&mut self, batch: &Batch) {
        let mut last = "";
        for target in batch.items.iter().filter_map(|item| batch.target(item)) {
            // Neighbours often have the same target.
            if target != last && !self.targets.contains(target) {
                self.targets.insert(target.to_owned());
            }
            last = target;
        }
        self.look_at = Instant::now() + QUIET_MIN;
    }

    /// Whether this is a quiet moment, and targets of the producer are gone. `hurry` says that there is something else to
    /// do by now.
    pub fn has_deleted_topics(
        &mut self,
        producer: &BaseProducer<Reports>,
        settings: &Settings,
        hurry: impl Fn() -> bool,
    ) -> bool {
        let is_time = self.look_at <= Instant::now() && producer.in_flight_count() == 0;
        if self.targets.is_empty() || !settings.describes || !is_time {
            return false;
        }
        self.look_at = Instant::now() + LOOK;
        let targets: Vec<&str> = self.targets.iter().map(String::as_str).collect();
        let mut gone = 0;
        for some in targets.chunks(TOGETHER_MAX) {
            // Without an answer nothing is known to be gone.
            let described = match ffi::describe(producer.client(), some, ANSWER_MAX) {
                Ok(described) => described,
                Err(error) => {
                    tracing::debug!(?error, "it is not known whether a producer's targets are still there");
                    return false;
                }
            };
            let unknown = Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART);
            gone += described.iter().filter(|topic| topic.error == unknown).count();
            if hurry() {
                return false;
            }
        }
        if gone > 0 {
            tracing::debug!(gone, "a producer knows topics that are gone, and is replaced");
        }
        gone > 0
    }
}
