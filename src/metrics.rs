//! Prometheus metrics. docs/metrics.md explains each of them.

pub(crate) mod partitions;

use std::collections::BTreeMap;
use std::time::Duration;

use prometheus::proto::MetricFamily;
use prometheus::{Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge};
use prometheus::{IntGaugeVec, Opts, Registry, TextEncoder};

use crate::core::batch::{Batch, Kind};
use crate::core::due::Due;
use crate::core::io::{Counters, Millis};
use crate::core::reason::Reason;
use crate::handle::status_board::StatusBoard;

/// The media type of [`Metrics::text`].
#[cfg(feature = "http")]
pub(crate) const TEXT_FORMAT: &str = prometheus::TEXT_FORMAT;

type Read = fn(&Counters) -> u64;

/// Label values of `kafka_scheduler_event_total`, and the count of each. The names are those of
/// etf1/kafka-message-scheduler, so its dashboards keep working.
const EVENTS: [(&str, Read); 6] = [
    ("kafka_scheduler_planned_schedule", |c| c.planned),
    ("kafka_scheduler_triggered_schedule", |c| c.triggered),
    ("kafka_scheduler_missed_schedule", |c| c.missed),
    ("kafka_scheduler_deleted_schedule", |c| c.deleted),
    ("kafka_scheduler_invalid_schedule", |c| c.invalid),
    ("kafka_scheduler_other", |c| c.other),
];

/// How a batch can end: the label `outcome`.
const OUTCOMES: [&str; 5] = ["committed", "aborted", "fenced", "rejected", "unknown"];

/// Buckets from a normal firing (5 ms) to a day's outage.
const LATENESS_S: [f64; 18] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0, 3_600.0, 21_600.0,
    86_400.0,
];
const TRANSACTION_S: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0];
const BATCH_ITEMS: [f64; 9] = [1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1_000.0, 3_000.0, 10_000.0];
const ITERATION_S: [f64; 9] = [0.000_1, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0];

/// The prefix of the process' metrics.
const PROCESS: &str = "process_";

/// An iteration as long as this counts as a stall: no schedule could fire meanwhile.
const STALL: Duration = Duration::from_millis(250);

/// The counters of events. Clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    events: Vec<(IntCounter, Read)>,
    by_reason: Vec<IntCounter>,
    last: Counters,
    lateness_live: Histogram,
    lateness_missed: Histogram,
    transactions: HistogramVec,
    batch: Histogram,
    iteration: Histogram,
    stalls: IntCounter,
    missed_deadlines: IntCounter,
    rebalances: IntCounter,
    snapshots: SnapshotGauges,
    foreign_groups: IntCounter,
    log_dropped: IntCounter,
    lines_dropped: fn() -> u64,
    requests: IntCounterVec,
    connections: IntGaugeVec,
    closed: IntCounterVec,
}

impl Metrics {
    /// Starts every counter at 0.
    #[must_use]
    pub fn new() -> Self {
        // It does not panic: the names are constants, legal and different.
        let registry = Registry::new();
        let make = Make(&registry);
        let events = events(&make);
        let unfired = "Records that could not fire, each once for each reason";
        let unfired = make.counters("kafka_scheduler_unfired_records_total", unfired, &["reason"]);
        // Reasons with the same code count into the same series.
        let by_reason = Reason::ALL.iter().map(|reason| unfired.with_label_values(&[reason.code()])).collect();
        let late = "Time between a schedule's due time and its transaction's commit, live and missed ones apart";
        let lateness = make.histograms("kafka_scheduler_lateness_seconds", late, &["kind"], &LATENESS_S);
        let transactions = make.histograms(
            "kafka_scheduler_transaction_duration_seconds",
            "Time from forming a batch to its end, by outcome",
            &["outcome"],
            &TRANSACTION_S,
        );
        OUTCOMES.iter().for_each(|outcome| drop(transactions.with_label_values(&[outcome])));
        build_info(&make);
        process(&registry);
        Self {
            events,
            by_reason,
            last: Counters::default(),
            lateness_live: lateness.with_label_values(&["live"]),
            lateness_missed: lateness.with_label_values(&["missed"]),
            transactions,
            batch: make.histogram(
                "kafka_scheduler_batch_schedules",
                "Schedules fired by one transaction, of those that fired any",
                &BATCH_ITEMS,
            ),
            iteration: make.histogram(
                "kafka_scheduler_loop_iteration_seconds",
                "Time the loop worked between two sleeps",
                &ITERATION_S,
            ),
            stalls: make
                .counter("kafka_scheduler_loop_stalls_total", "Iterations of the loop that took 250 ms or longer"),
            missed_deadlines: make.counter(
                "kafka_scheduler_loop_missed_deadlines_total",
                "Regular checks of the loop that found work for which no deadline was announced, which is a bug",
            ),
            rebalances: make.counter("kafka_scheduler_rebalances_total", "Rebalances of the consumer group answered"),
            snapshots: SnapshotGauges::new(&make),
            foreign_groups: make.counter(
                "kafka_scheduler_foreign_groups_total",
                "Other consumer groups seen that fire the same topics, so each schedule fires once for each",
            ),
            log_dropped: make.counter(
                "kafka_scheduler_log_lines_dropped_total",
                "Log lines dropped because stderr did not take them in time",
            ),
            lines_dropped: || 0,
            requests: make.counters(
                "kafka_scheduler_http_requests_total",
                "HTTP requests answered, by server and status code",
                &["server", "code"],
            ),
            connections: make.gauges("kafka_scheduler_http_connections", "HTTP connections open", &["server"]),
            closed: make.counters(
                "kafka_scheduler_http_connections_cut_total",
                "HTTP connections closed from this side: stalled ones, and those that made room for others",
                &["server", "why"],
            ),
            registry,
        }
    }

    /// Reads the log lines dropped so far from `lines_dropped`: the log belongs to the program.
    pub fn log(&mut self, lines_dropped: fn() -> u64) {
        self.lines_dropped = lines_dropped;
    }

    /// Adds what the core counted since the last call.
    pub fn count(&mut self, now: &Counters) {
        for (counter, read) in &self.events {
            let (before, after) = (read(&self.last), read(now));
            // Less than before means that the engine began a new core, which counts from 0.
            counter.inc_by(after.checked_sub(before).unwrap_or(after));
        }
        for (counter, (reason, after)) in self.by_reason.iter().zip(now.by_reason.iter()) {
            let before = self.last.by_reason[reason];
            counter.inc_by(after.checked_sub(before).unwrap_or(after));
        }
        self.last = *now;
    }

    /// Returns the engine's metrics for another registry, whose owner has those of the process.
    #[must_use]
    pub fn of_engine(&self, board: &StatusBoard, topics: &[String]) -> Vec<MetricFamily> {
        let mut families = self.families(board, topics);
        families.retain(|family| !family.name().starts_with(PROCESS));
        families
    }

    /// Returns names and help texts of all metrics that [`of_engine`](Self::of_engine) can return.
    #[must_use]
    pub fn described(&self) -> Vec<(String, String)> {
        let families = self.of_engine(&StatusBoard::default(), &[]);
        let mut all: BTreeMap<String, String> =
            families.iter().map(|family| (family.name().to_owned(), family.help().to_owned())).collect();
        all.extend(partitions::described().map(|(name, help)| (name.to_owned(), help.to_owned())));
        all.into_iter().collect()
    }

    fn families(&self, board: &StatusBoard, topics: &[String]) -> Vec<MetricFamily> {
        self.log_dropped.inc_by((self.lines_dropped)().saturating_sub(self.log_dropped.get()));
        let mut families = self.registry.gather();
        families.extend(partitions::families(board, topics));
        families
    }

    /// Counts a batch with firings that was committed at `at`.
    pub fn fired(&self, batch: &Batch, at: Millis) {
        let mut fired = 0u32;
        for item in &batch.items {
            let Kind::Fire { due, missed, .. } = &item.kind else { continue };
            fired += 1;
            let lateness = if *missed { &self.lateness_missed } else { &self.lateness_live };
            lateness.observe(late_ms(*due, at) as f64 / 1000.0);
        }
        self.batch.observe(f64::from(fired));
    }

    /// Counts a batch that ended.
    pub fn settled(&self, outcome: &str, took: Duration) {
        self.transactions.with_label_values(&[outcome]).observe(took.as_secs_f64());
    }

    /// Counts an iteration of the loop.
    pub fn on_iteration(&self, took: Duration) {
        self.iteration.observe(took.as_secs_f64());
        if took >= STALL {
            self.stalls.inc();
        }
    }

    /// Counts work without a deadline.
    pub fn missed_deadline(&self) {
        self.missed_deadlines.inc();
    }

    /// Counts a rebalance.
    pub fn rebalanced(&self) {
        self.rebalances.inc();
    }

    /// Shows a snapshot that was written at `at`.
    pub fn snapshot_written(&self, topic: &str, partition: i32, bytes: u64, took: Duration, at: Millis) {
        let partition = partition.to_string();
        let labels = [topic, &partition];
        let number = |number: u128| i64::try_from(number).unwrap_or(i64::MAX);
        self.snapshots.bytes.with_label_values(&labels).set(number(bytes.into()));
        self.snapshots.milliseconds.with_label_values(&labels).set(number(took.as_millis()));
        self.snapshots.time_s.with_label_values(&labels).set(at.0.div_euclid(1_000));
    }

    /// Counts another group that fires the same topics.
    pub fn foreign_group(&self) {
        self.foreign_groups.inc();
    }

    /// Counts an answered request. Only this program's own status codes become labels.
    pub fn request(&self, server: &str, code: u16) {
        self.requests.with_label_values(&[server, &code.to_string()]).inc();
    }

    /// Returns the gauge of open connections.
    #[must_use]
    pub fn connections(&self, server: &str) -> IntGauge {
        self.connections.with_label_values(&[server])
    }

    /// Returns the counter of connections that this side closed, for one reason.
    #[must_use]
    pub fn cut(&self, server: &str, why: &str) -> IntCounter {
        self.closed.with_label_values(&[server, why])
    }

    /// Returns all metrics in Prometheus' text format. `topics` are the names that partitions refer to.
    #[must_use]
    pub fn text(&self, board: &StatusBoard, topics: &[String]) -> String {
        let mut text = Vec::new();
        // It fails where a family is empty, and there is none: prometheus leaves them out.
        let _ = TextEncoder::new().encode(&self.families(board, topics), &mut text);
        String::from_utf8(text).unwrap_or_default()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Returns how late a schedule fired, in milliseconds.
#[must_use]
pub(crate) fn late_ms(due: Due, at: Millis) -> u64 {
    u64::try_from(at.0).unwrap_or(0).saturating_sub(due.epoch_ms())
}

/// Counters of events, each with the place in [`Counters`] that it follows.
/// The last snapshot of each partition.
#[derive(Clone, Debug)]
struct SnapshotGauges {
    bytes: IntGaugeVec,
    milliseconds: IntGaugeVec,
    time_s: IntGaugeVec,
}

impl SnapshotGauges {
    fn new(make: &Make<'_>) -> Self {
        let labels = ["topic", "partition"];
        let size = "Size of the last snapshot that this process has written while it ran";
        let time = "When that snapshot was written, in seconds since 1970";
        Self {
            bytes: make.gauges("kafka_scheduler_snapshot_bytes", size, &labels),
            milliseconds: make.gauges(
                "kafka_scheduler_snapshot_duration_milliseconds",
                "How long that snapshot took",
                &labels,
            ),
            time_s: make.gauges("kafka_scheduler_snapshot_timestamp_seconds", time, &labels),
        }
    }
}

fn events(make: &Make<'_>) -> Vec<(IntCounter, Read)> {
    let total = make.counters("kafka_scheduler_event_total", "Events of the scheduler by type", &["type"]);
    let mut events: Vec<(IntCounter, Read)> =
        EVENTS.iter().map(|(name, read)| (total.with_label_values(&[name]), *read)).collect();
    let leftovers =
        "Schedules skipped on a first start because they were due before the first start's cutoff (SINCE_DELTA)";
    events.push((make.counter("kafka_scheduler_leftover_schedules_total", leftovers), |c| c.leftovers));
    let far = "Schedules accepted that are due more than 100 years ahead, so their unit is probably wrong";
    events.push((make.counter("kafka_scheduler_far_ahead_schedules_total", far), |c| c.far_ahead));
    let skipped = "Missed occurrences that did not fire because scheduler-misfire is skip";
    events.push((make.counter("kafka_scheduler_skipped_occurrences_total", skipped), |c| c.skipped));
    let expired = "Schedules and occurrences that did not fire because scheduler-expires was over";
    events.push((make.counter("kafka_scheduler_expired_schedules_total", expired), |c| c.expired));
    let replayed = "Progress records ignored because they were produced again with fewer occurrences";
    events.push((make.counter("kafka_scheduler_replayed_progress_total", replayed), |c| c.progress_replayed));
    let rewritten = "Records rewritten because an engine record had overtaken them";
    events.push((make.counter("kafka_scheduler_rewritten_records_total", rewritten), |c| c.rewritten));
    let takeovers = make.counters("kafka_scheduler_takeovers_total", "Partitions that went live, by start", &["start"]);
    events.push((takeovers.with_label_values(&["cold"]), |c| c.cold_takeovers));
    events.push((takeovers.with_label_values(&["warm"]), |c| c.warm_takeovers));
    let dead_letters = "Records moved to the dead-letter topic";
    events.push((make.counter("kafka_scheduler_dead_lettered_records_total", dead_letters), |c| c.dead_lettered));
    events
}

fn build_info(make: &Make<'_>) {
    let (_, librdkafka) = rdkafka::util::get_rdkafka_version();
    let labels = ["version", "librdkafka"];
    let info = make.gauges("kafka_scheduler_build_info", "Always 1; labels have the versions", &labels);
    info.with_label_values(&[env!("CARGO_PKG_VERSION"), &librdkafka]).set(1);
}

/// Memory, CPU time and descriptors, where the system shows them as Linux does.
fn process(registry: &Registry) {
    #[cfg(target_os = "linux")]
    {
        let collector = prometheus::process_collector::ProcessCollector::for_self();
        registry.register(Box::new(collector)).expect("no other metric has the prefix process_");
    }
    #[cfg(not(target_os = "linux"))]
    let _ = registry;
}

/// Makes metrics and registers them. It cannot fail: the names are constants, legal and different.
struct Make<'a>(&'a Registry);

impl Make<'_> {
    fn registered<C: prometheus::core::Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> C {
        let collector = made.expect("the name is legal");
        self.0.register(Box::new(collector.clone())).expect("the name is new");
        collector
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.registered(IntCounter::new(name, help))
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.registered(IntCounterVec::new(Opts::new(name, help), labels))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.registered(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        self.registered(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec())))
    }

    fn histograms(&self, name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> HistogramVec {
        self.registered(HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(metrics: &Metrics) -> String {
        metrics.text(&StatusBoard::default(), &[])
    }

    #[test]
    fn every_type_is_there_from_the_start() {
        let text = text(&Metrics::new());
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
        assert!(text(&metrics).contains(line), "{}", text(&metrics));
    }

    #[test]
    fn what_recurring_schedules_leave_out_is_counted() {
        let mut metrics = Metrics::new();
        metrics.count(&Counters { skipped: 3, expired: 2, progress_replayed: 1, ..Counters::default() });
        let text = text(&metrics);
        for line in ["skipped_occurrences_total 3", "expired_schedules_total 2", "replayed_progress_total 1"] {
            assert!(text.contains(&format!("kafka_scheduler_{line}\n")), "{text}");
        }
    }

    #[test]
    fn a_long_iteration_is_a_stall() {
        let metrics = Metrics::new();
        metrics.on_iteration(Duration::from_millis(249));
        metrics.on_iteration(Duration::from_millis(250));
        assert!(text(&metrics).contains("kafka_scheduler_loop_stalls_total 1\n"));
        assert!(text(&metrics).contains("kafka_scheduler_loop_iteration_seconds_count 2\n"));
    }

    #[test]
    fn lateness_is_measured_from_the_due_time() {
        let due = |ms| Due::from_epoch_ms(ms).expect("it fits");
        assert_eq!(late_ms(due(10_000), Millis(10_250)), 250);
        assert_eq!(late_ms(due(10_125), Millis(10_250)), 125);
        assert_eq!(late_ms(due(10_000), Millis(9_000)), 0);
        assert_eq!(late_ms(Due::LAST, Millis(0)), 0);
    }
}
