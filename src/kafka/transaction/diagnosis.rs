//! Asks the brokers why a transaction failed, if the delivery reports do not say.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::producer::Producer;

use super::{Ended, POLL_INTERVAL, TransactionRun};
use crate::core::batch::Batch;
use crate::core::io::{Abort, Outcome};
use crate::core::reason::Reason;
use crate::kafka::admin::Admin;
use crate::kafka::delivery::{Attribution, DeliveryReports};
use crate::kafka::ffi;
use crate::kafka::job::CALL_TIMEOUT;
use crate::kafka::target_lookup::TARGETS_MAX;
use crate::kafka::topics::batch_bytes_max;

/// Minimum interval between two requests about the engine's own topics.
const DIAGNOSIS_INTERVAL: Duration = Duration::from_secs(5);

/// Limits how often the engine's own topics are described, over all transactors.
#[derive(Debug, Default)]
pub(crate) struct DiagnosisLimit(Mutex<Option<Instant>>);

impl DiagnosisLimit {
    fn may_ask(&self) -> bool {
        let mut asked_at = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let may = asked_at.is_none_or(|at| at.elapsed() >= DIAGNOSIS_INTERVAL);
        if may {
            *asked_at = Some(Instant::now());
        }
        may
    }
}

impl TransactionRun<'_> {
    /// Finds out why topics rejected all of their records, by sending each topic one record in a transaction of its
    /// own, which is aborted: for a single record librdkafka returns the broker's code.
    pub(super) fn probe_ambiguous_topics(&self, batch: &Batch, mut reports: DeliveryReports) -> Ended {
        for (item, topic) in reports.ambiguous_topics() {
            let rejects_clock = match self.clients.topic_limits.rejects_clock(&topic) {
                Some(known) => known,
                None => {
                    if let Err(error) = self.producer.begin_transaction() {
                        tracing::warn!(%error, "a transaction could not be started");
                        return Ended::Unknown;
                    }
                    let code = self.probe(batch, item, &topic);
                    let ended = self.abort(Abort::Retry, false);
                    let (Ended::ProducerReusable(_), Some(code)) = (&ended, code) else { return ended };
                    self.clients.topic_limits.set_rejects_clock(&topic, code == Code::InvalidTimestamp);
                    code == Code::InvalidTimestamp
                }
            };
            if rejects_clock {
                reports.attribute_to_timestamps(&topic);
            }
        }
        let abort = match self.producer.client().context().attribute(batch, &reports) {
            Attribution::Items(items) => Abort::Rejected(items),
            Attribution::Unattributed => Abort::RejectedUnnamed,
            Attribution::Transient => Abort::Retry,
        };
        Ended::ProducerReusable(Outcome::Aborted(abort))
    }

    /// Returns the code with which a topic answers the record of one item. `None` if it does not answer in time.
    fn probe(&self, batch: &Batch, item: u32, topic: &str) -> Option<Code> {
        let context = self.producer.client().context();
        // The reports of the batch that has failed.
        context.take();
        let mut is_queued = false;
        let _: Result<(), ()> = batch.records(|record| {
            if record.item != item || record.topic != topic || is_queued {
                return Ok(());
            }
            is_queued = true;
            ffi::produce(self.producer, &record).map_err(|_| ())
        });
        let started = Instant::now();
        while self.poll_reports() > 0 && !self.is_closing() && started.elapsed() < CALL_TIMEOUT {
            std::thread::sleep(POLL_INTERVAL);
        }
        context.take().single_code(topic)
    }

    /// Checks whether writing to the engine's own topics is permitted. If it is not for one of a transaction's
    /// partitions, the broker rejects all of them, and names none.
    pub(super) fn diagnose_own_topics(&self, batch: &Batch) {
        let mut own: BTreeSet<String> = BTreeSet::new();
        let _: Result<(), Infallible> = batch.records(|record| {
            let target = batch.items.get(record.item as usize).and_then(|item| batch.target(item));
            if target != Some(record.topic) && !own.contains(record.topic) {
                own.insert(record.topic.to_owned());
            }
            Ok(())
        });
        let own: Vec<&str> = own.iter().map(String::as_str).collect();
        if self.is_closing() || own.is_empty() || !self.clients.can_describe || !self.diagnosis_limit.may_ask() {
            return;
        }
        let described = ffi::admin::describe_topics(self.producer.client(), &own, CALL_TIMEOUT).unwrap_or_default();
        for topic in described.into_iter().filter(|topic| topic.is_write_denied) {
            self.clients.diagnostics.on_topic_rejection(&topic.name, Code::TopicAuthorizationFailed);
        }
    }

    /// Reads `max.message.bytes` of these topics again, which can change at any time. Returns true if it has.
    pub(super) fn refresh_limits(&self, topics: &BTreeSet<String>) -> bool {
        let limits = &self.clients.topic_limits;
        let topics =
            topics.iter().map(String::as_str).filter(|topic| self.clients.can_describe && limits.may_refresh(topic));
        let topics: Vec<&str> = topics.collect();
        if topics.is_empty() {
            return false;
        }
        let found = Admin::new(self.clients).and_then(|admin| admin.settings(&topics)).unwrap_or_default();
        let mut has_changed = false;
        for (topic, entries) in &found {
            has_changed |= batch_bytes_max(entries).is_some_and(|bytes| limits.set_batch_bytes_max(topic, bytes));
        }
        has_changed
    }

    /// Finds targets to which writing is not permitted. The broker then rejects all partitions of a request, and names
    /// none.
    pub(super) fn find_denied_targets(&self, batch: &Batch) -> Vec<(u32, Reason)> {
        let targets: BTreeSet<&str> = batch.items.iter().filter_map(|item| batch.target(item)).collect();
        let targets: Vec<&str> = targets.into_iter().collect();
        let can_ask = self.clients.can_describe && !targets.is_empty();
        let mut denied: BTreeSet<String> = BTreeSet::new();
        for some in targets.chunks(TARGETS_MAX).take_while(|_| can_ask && !self.is_closing()) {
            let described = ffi::admin::describe_topics(self.producer.client(), some, CALL_TIMEOUT).unwrap_or_default();
            denied.extend(described.into_iter().filter(|topic| topic.is_write_denied).map(|topic| topic.name));
        }
        let items = (0u32..).zip(&batch.items);
        let is_denied = |name: &str| denied.contains(name);
        let denied_items = items.filter(|(_, item)| batch.target(item).is_some_and(is_denied));
        denied_items.map(|(number, _)| (number, Reason::Forbidden)).collect()
    }
}
