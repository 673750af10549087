//! Prometheus metrics.

use prometheus::{IntCounter, IntCounterVec, Opts, Registry, TextEncoder};

use crate::core::io::Counters;

/// The media type of [`Metrics::text`].
pub const TEXT_FORMAT: &str = prometheus::TEXT_FORMAT;

/// Where an event's count stands in the core's.
type Read = fn(&Counters) -> u64;

/// The counters as they are exposed, fed from the core's. Clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    events: Vec<(IntCounter, Read)>,
    last: Counters,
}

/// Label values of `kafka_scheduler_event_total`, and where each comes from.
const EVENTS: [(&str, Read); 6] = [
    ("kafka_scheduler_planned_schedule", |c| c.planned),
    ("kafka_scheduler_triggered_schedule", |c| c.triggered),
    ("kafka_scheduler_missed_schedule", |c| c.missed),
    ("kafka_scheduler_deleted_schedule", |c| c.deleted),
    ("kafka_scheduler_invalid_schedule", |c| c.invalid),
    ("kafka_scheduler_other", |c| c.other),
];

impl Metrics {
    /// Every counter at 0.
    ///
    /// # Panics
    /// Never: the names are constants and legal.
    #[must_use]
    pub fn new() -> Self {
        let registry = Registry::new();
        let opts = Opts::new("kafka_scheduler_event_total", "Events of the scheduler by type");
        let total = IntCounterVec::new(opts, &["type"]).expect("the name is legal");
        registry.register(Box::new(total.clone())).expect("the registry is new");
        let events = EVENTS.iter().map(|(name, read)| (total.with_label_values(&[name]), *read)).collect();
        Self { registry, events, last: Counters::default() }
    }

    /// Adds what has been counted since the last call.
    pub fn count(&mut self, now: &Counters) {
        for (counter, read) in &self.events {
            let (before, after) = (read(&self.last), read(now));
            // Less than before means that the engine began a new core, which counts from 0.
            counter.inc_by(after.checked_sub(before).unwrap_or(after));
        }
        self.last = *now;
    }

    /// Everything in Prometheus' text format.
    #[must_use]
    pub fn text(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_there_from_the_start() {
        let text = Metrics::new().text();
        for (name, _) in EVENTS {
            assert!(text.contains(&format!("kafka_scheduler_event_total{{type=\"{name}\"}} 0\n")), "{text}");
        }
    }

    #[test]
    fn counters_grow_by_what_is_new_and_survive_a_new_core() {
        let mut metrics = Metrics::new();
        metrics.count(&Counters { planned: 5, ..Counters::default() });
        metrics.count(&Counters { planned: 7, ..Counters::default() });
        metrics.count(&Counters { planned: 2, ..Counters::default() });
        let line = "kafka_scheduler_event_total{type=\"kafka_scheduler_planned_schedule\"} 9\n";
        assert!(metrics.text().contains(line), "{}", metrics.text());
    }
}
