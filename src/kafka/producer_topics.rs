//! Finds producers that know deleted topics. librdkafka never forgets a topic that it has produced to, and asks the
//! brokers about each missing one every second, without end. Only a new producer does not know them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::types::RDKafkaRespErr;

use super::clients::Clients;
use super::delivery::DeliveryContext;
use super::ffi;
use crate::core::batch::Batch;

/// After this long without a batch a producer is idle, so replacing it delays nothing.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// As often as librdkafka itself asks about all topics.
const CHECK_INTERVAL: Duration = Duration::from_secs(30);
/// Targets in one request, and its time limit. A batch that is formed meanwhile waits for it.
const TARGETS_MAX: usize = 25;
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(1);

/// The targets that one producer has produced to.
pub(super) struct ProducerTopics {
    targets: BTreeSet<String>,
    check_at: Instant,
}

impl ProducerTopics {
    pub(super) fn new() -> Self {
        Self { targets: BTreeSet::new(), check_at: Instant::now() }
    }

    /// Adds the targets of a batch that has ended.
    pub(super) fn add(&mut self, batch: &Batch) {
        let mut last = "";
        for target in batch.items.iter().filter_map(|item| batch.target(item)) {
            // Neighbours often have the same target.
            if target != last && !self.targets.contains(target) {
                self.targets.insert(target.to_owned());
            }
            last = target;
        }
        self.check_at = Instant::now() + IDLE_TIMEOUT;
    }

    /// Returns whether the producer is idle and some of its targets were deleted. `has_work` returns true if the thread
    /// has something else to do by now.
    pub(super) fn has_deleted_topics(
        &mut self,
        producer: &BaseProducer<DeliveryContext>,
        clients: &Clients,
        has_work: impl Fn() -> bool,
    ) -> bool {
        let is_time = self.check_at <= Instant::now() && producer.in_flight_count() == 0;
        if self.targets.is_empty() || !clients.can_describe || !is_time {
            return false;
        }
        self.check_at = Instant::now() + CHECK_INTERVAL;
        let targets: Vec<&str> = self.targets.iter().map(String::as_str).collect();
        let mut deleted = 0;
        for some in targets.chunks(TARGETS_MAX) {
            // Without an answer, no target is known to be deleted.
            let described = match ffi::admin::describe_topics(producer.client(), some, DESCRIBE_TIMEOUT) {
                Ok(described) => described,
                Err(error) => {
                    tracing::debug!(?error, "a producer's targets cannot be described");
                    return false;
                }
            };
            let unknown = Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART);
            deleted += described.iter().filter(|topic| topic.error == unknown).count();
            if has_work() {
                return false;
            }
        }
        if deleted > 0 {
            tracing::debug!(deleted, "a producer knows deleted topics, and is replaced");
        }
        deleted > 0
    }
}
