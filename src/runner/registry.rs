//! An engine's metrics inside another program's registry.

use std::collections::HashMap;
use std::sync::Arc;

use prometheus::Registry;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;

use crate::handle::status_board::StatusBoard;
use crate::metrics::Metrics;

/// Shows the metrics in `registry` as well.
pub(super) fn register(
    metrics: &Metrics,
    board: &Arc<StatusBoard>,
    topics: &[String],
    registry: &Registry,
) -> prometheus::Result<()> {
    // A registry knows collectors by their descriptions: a second engine's are the same, and rejected.
    let describe = |(name, help): (String, String)| Desc::new(name, help, Vec::new(), HashMap::new());
    let descriptions = metrics.described().into_iter().map(describe).collect::<prometheus::Result<_>>()?;
    let (metrics, board, topics) = (metrics.clone(), Arc::clone(board), topics.to_vec());
    registry.register(Box::new(Shown { metrics, board, topics, descriptions }))
}

struct Shown {
    metrics: Metrics,
    board: Arc<StatusBoard>,
    topics: Vec<String>,
    descriptions: Vec<Desc>,
}

impl Collector for Shown {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.metrics.of_engine(&self.board, &self.topics)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_shows_one_engine_and_rejects_a_second() {
        let registry = Registry::new_custom(Some("mine".into()), None).expect("a legal prefix");
        let (metrics, board) = (Metrics::new(), Arc::default());
        register(&metrics, &board, &[], &registry).expect("it is new");
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).expect("text");
        let line = "mine_kafka_scheduler_event_total{type=\"kafka_scheduler_planned_schedule\"} 0\n";
        assert!(text.contains(line), "{text}");
        assert!(text.contains("mine_kafka_scheduler_brokers_reachable 1\n"), "what is held, too: {text}");
        register(&Metrics::new(), &board, &[], &registry).expect_err("a second one");
    }

    /// The library's own registry has the process' metrics from the start, and so may any other.
    #[test]
    fn a_registry_with_an_engine_shows_the_process_once() {
        let registry = prometheus::default_registry();
        register(&Metrics::new(), &Arc::default(), &[], registry).expect("it is new");
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).expect("text");
        assert!(text.contains("\nkafka_scheduler_rebalances_total 0\n"), "{text}");
        if cfg!(target_os = "linux") {
            assert_eq!(text.matches("\nprocess_open_fds ").count(), 1, "{text}");
        }
    }
}
