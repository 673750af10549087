//! An engine's metrics inside another program's registry.

use std::collections::HashMap;

use prometheus::Registry;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;

use crate::metrics::Metrics;

/// Shows the metrics in `registry` as well.
pub fn register(metrics: &Metrics, registry: &Registry) -> prometheus::Result<()> {
    // A registry knows collectors by their descriptions: a second engine's are the same, and refused.
    let descriptions = metrics
        .gather()
        .iter()
        .map(|family| Desc::new(family.name().to_owned(), family.help().to_owned(), Vec::new(), HashMap::new()))
        .collect::<prometheus::Result<_>>()?;
    registry.register(Box::new(Shown { metrics: metrics.clone(), descriptions }))
}

struct Shown {
    metrics: Metrics,
    descriptions: Vec<Desc>,
}

impl Collector for Shown {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.metrics.gather()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_shows_one_engine_and_refuses_a_second() {
        let registry = Registry::new_custom(Some("mine".into()), None).expect("a legal prefix");
        let metrics = Metrics::new();
        register(&metrics, &registry).expect("it is new");
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).expect("text");
        let line = "mine_kafka_scheduler_event_total{type=\"kafka_scheduler_planned_schedule\"} 0\n";
        assert!(text.contains(line), "{text}");
        register(&Metrics::new(), &registry).expect_err("a second one");
    }
}
