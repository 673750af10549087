//! Metrics of partitions and clients. They are built for each scrape, so lost partitions leave no series.

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{CounterVec, Gauge, GaugeVec, Opts};

use crate::core::{PartitionState, Status};
use crate::handle::status_board::{EngineState, StatusBoard};

/// Values of the label `state`.
const STATES: [(&str, PartitionState); 4] = [
    ("taking-over", PartitionState::TakingOver),
    ("loading", PartitionState::Loading),
    ("live", PartitionState::Live),
    ("releasing", PartitionState::Releasing),
];

/// Returns the state's name in metrics and REST.
#[must_use]
#[cfg(feature = "http")]
pub(crate) fn state(state: PartitionState) -> &'static str {
    STATES.iter().find(|(_, other)| *other == state).map_or("", |(name, _)| name)
}

/// Returns how much of a partition has been loaded: 0 to 1.
#[must_use]
pub(crate) fn progress(status: &Status) -> f64 {
    match (status.state, status.barrier) {
        (PartitionState::Live | PartitionState::Releasing, _) => 1.0,
        (_, Some(barrier)) if barrier > 0 => (status.position.max(0) as f64 / barrier as f64).min(1.0),
        _ => 0.0,
    }
}

type Value = fn(&Status) -> Option<f64>;

const PARTITIONS: [(&str, &str, Value); 7] = [
    ("kafka_scheduler_pending_schedules", "Pending schedules", |s| Some(s.pending as f64)),
    ("kafka_scheduler_overdue_schedules", "Schedules due and not yet in a batch, without parked ones", |s| {
        Some(s.overdue as f64)
    }),
    (
        "kafka_scheduler_parked_schedules",
        "Parked schedules: a broker rejected a record, or the target takes none",
        |s| Some(s.parked as f64),
    ),
    ("kafka_scheduler_held_bytes", "Estimated memory of pending schedules", |s| Some(s.bytes as f64)),
    ("kafka_scheduler_next_due_timestamp_seconds", "Due time of the next schedule; no series if there is none", |s| {
        s.next_due_s.map(|due| due as f64)
    }),
    (
        "kafka_scheduler_loading_progress_ratio",
        "Share of the log read before the partition goes live; 1 once it is live",
        |s| Some(progress(s)),
    ),
    ("kafka_scheduler_partition_position", "The next offset to be read", |s| Some(s.position as f64)),
];

const STATE: (&str, &str) =
    ("kafka_scheduler_partition_state", "1 for the state that the partition is in, 0 for the others");
const LAG: (&str, &str) =
    ("kafka_scheduler_consumer_lag_records", "Records between the read position and the last stable offset");
const BOUND: (&str, &str) = ("kafka_scheduler_memory_warn_bytes", "MEMORY_WARN_BYTES, if set");

type ClientValue = fn(&crate::handle::status_board::ClientStatistics) -> f64;

const CLIENTS: [(&str, &str, ClientValue); 6] = [
    ("kafka_scheduler_client_brokers_up", "Brokers the client is connected to", |c| c.brokers_up as f64),
    (
        "kafka_scheduler_client_request_errors_total",
        "Requests to brokers that failed, since the client was made",
        |c| c.request_errors as f64,
    ),
    ("kafka_scheduler_client_sent_bytes_total", "Bytes sent to brokers, since the client was made", |c| {
        c.sent_bytes as f64
    }),
    ("kafka_scheduler_client_received_bytes_total", "Bytes received from brokers, since the client was made", |c| {
        c.received_bytes as f64
    }),
    ("kafka_scheduler_client_queued_records", "Records that wait to be sent or acknowledged", |c| {
        c.queued_records as f64
    }),
    (
        "kafka_scheduler_client_round_trip_p99_seconds",
        "99th percentile of round trips to the slowest broker, in librdkafka's window",
        |c| c.round_trip_p99_us as f64 / 1e6,
    ),
];

/// Returns names and help texts of metrics that come and go with partitions, clients and settings.
pub(crate) fn described() -> impl Iterator<Item = (&'static str, &'static str)> {
    let partitions = PARTITIONS.iter().map(|(name, help, _)| (*name, *help));
    let clients = CLIENTS.iter().map(|(name, help, _)| (*name, *help));
    partitions.chain(clients).chain([STATE, LAG, BOUND])
}

/// Returns the metrics of all partitions and clients of this instance.
#[must_use]
pub(crate) fn families(board: &StatusBoard, topics: &[String]) -> Vec<MetricFamily> {
    let mut all = Vec::new();
    engine(board, &mut all);
    partitions(&board.snapshot().partitions, topics, &mut all);
    clients(board, &mut all);
    // An empty family cannot be written.
    all.retain(|family| !family.get_metric().is_empty());
    all
}

fn engine(board: &StatusBoard, all: &mut Vec<MetricFamily>) {
    let member = board.snapshot().state == EngineState::Member;
    for (name, help, value) in [
        ("kafka_scheduler_group_member", "1 while this instance is a member of its group", f64::from(u8::from(member))),
        (
            "kafka_scheduler_brokers_reachable",
            "1 unless the group's consumer has no broker that answers",
            f64::from(u8::from(!board.is_unreachable())),
        ),
        (
            "kafka_scheduler_loop_heartbeat_age_seconds",
            "Time since the loop's last iteration; /liveness fails beyond 10 s",
            board.since_heartbeat().as_secs_f64(),
        ),
    ] {
        all.extend(gauge(name, help, value));
    }
    let bound = board.snapshot().memory_warn_bytes;
    all.extend(bound.into_iter().flat_map(|bytes| gauge(BOUND.0, BOUND.1, bytes as f64)));
}

fn gauge(name: &str, help: &str, value: f64) -> Vec<MetricFamily> {
    let gauge = Gauge::new(name, help).expect("the name is legal");
    gauge.set(value);
    gauge.collect()
}

fn gauges(name: &str, help: &str, labels: &[&str]) -> GaugeVec {
    GaugeVec::new(Opts::new(name, help), labels).expect("the names are legal")
}

fn partitions(partitions: &[Status], topics: &[String], all: &mut Vec<MetricFamily>) {
    let named: Vec<(&str, String, &Status)> = partitions
        .iter()
        .filter_map(|status| {
            let topic = topics.get(usize::from(status.partition.topic))?;
            Some((topic.as_str(), status.partition.number.to_string(), status))
        })
        .collect();
    for (name, help, value) in PARTITIONS {
        let family = gauges(name, help, &["topic", "partition"]);
        for (topic, number, status) in &named {
            if let Some(value) = value(status) {
                family.with_label_values(&[*topic, number.as_str()]).set(value);
            }
        }
        all.extend(family.collect());
    }
    let family = gauges(STATE.0, STATE.1, &["topic", "partition", "state"]);
    for (topic, number, status) in &named {
        for (name, state) in STATES {
            let is = f64::from(u8::from(status.state == state));
            family.with_label_values(&[*topic, number.as_str(), name]).set(is);
        }
    }
    all.extend(family.collect());
}

fn clients(board: &StatusBoard, all: &mut Vec<MetricFamily>) {
    let clients = board.clients();
    for (name, help, value) in CLIENTS {
        // A new client counts from 0, as counters may.
        if name.ends_with("_total") {
            let family = CounterVec::new(Opts::new(name, help), &["client"]).expect("the names are legal");
            clients.iter().for_each(|(name, client)| family.with_label_values(&[name]).inc_by(value(client)));
            all.extend(family.collect());
        } else {
            let family = gauges(name, help, &["client"]);
            clients.iter().for_each(|(name, client)| family.with_label_values(&[name]).set(value(client)));
            all.extend(family.collect());
        }
    }
    let family = gauges(LAG.0, LAG.1, &["topic", "partition"]);
    for ((topic, number), records) in clients.values().flat_map(|client| &client.lag) {
        family.with_label_values(&[topic.as_str(), number.to_string().as_str()]).set(*records as f64);
    }
    all.extend(family.collect());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::io::TopicPartition;

    #[test]
    fn progress_goes_from_nothing_to_the_barrier() {
        let at = |state, position, barrier| {
            let partition = TopicPartition { topic: 0, number: 0 };
            let next_due_s = None;
            let (pending, overdue, parked, bytes) = (0, 0, 0, 0);
            progress(&Status { partition, state, position, barrier, pending, overdue, parked, next_due_s, bytes })
        };
        assert_eq!(at(PartitionState::TakingOver, 0, None), 0.0);
        assert_eq!(at(PartitionState::Loading, 50, Some(200)), 0.25);
        assert_eq!(at(PartitionState::Loading, 0, Some(0)), 0.0);
        assert_eq!(at(PartitionState::Loading, 201, Some(200)), 1.0);
        assert_eq!(at(PartitionState::Live, 5, Some(4)), 1.0);
    }
}
