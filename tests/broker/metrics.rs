//! Metrics: all that docs/metrics.md names are there, no others are, and they say what is so.

use std::collections::{BTreeMap, BTreeSet};

use crate::kit::case::PATIENCE;
use crate::kit::http;
use crate::kit::wait::{eventually, now_s};
use crate::kit::{Case, Scheduled};

/// Names and types in the tables of docs/metrics.md.
fn documented() -> BTreeMap<String, String> {
    let text = include_str!("../../docs/metrics.md");
    let rows = text.lines().map(|line| line.split('|').map(str::trim).collect::<Vec<_>>());
    rows.filter(|row| row.len() == 6 && (row[1].starts_with("`kafka_scheduler_") || row[1].starts_with("`process_")))
        .map(|row| (row[1].trim_matches('`').to_owned(), row[2].to_owned()))
        .collect()
}

/// Names and types as they are exposed.
fn exposed(body: &str) -> BTreeMap<String, String> {
    let types = body.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types.filter_map(|line| line.split_once(' ')).map(|(name, kind)| (name.to_owned(), kind.to_owned())).collect()
}

#[test]
fn every_documented_metric_is_there_and_no_other() {
    let Some(case) = Case::new("metric-names", 1) else { return };
    let engine = case.engine();
    engine.ready();
    case.produce(&[case.due_in("later", "v", 3_600)]);
    let documented = documented();
    assert!(documented.len() > 35, "{documented:?}");
    eventually("the exposed metrics are those of docs/metrics.md", PATIENCE, || {
        let exposed = exposed(&http::get(engine.metrics_port, "/metrics")?.1);
        let unknown: BTreeSet<_> = exposed.iter().filter(|(name, _)| !documented.contains_key(*name)).collect();
        assert!(unknown.is_empty(), "not documented: {unknown:?}");
        // Clients have to report once.
        (exposed == documented).then_some(())
    });
    let answer = http::ask(engine.metrics_port, "HEAD", "/metrics", &[]).expect("an answer");
    assert_eq!((answer.status, answer.header("content-type")), (200, "text/plain; version=0.0.4"));
    assert_eq!(http::ask(engine.metrics_port, "POST", "/metrics", &[]).expect("an answer").status, 405);
    assert_eq!(http::ask(engine.metrics_port, "GET", "/", &[]).expect("an answer").status, 404);
}

#[test]
fn values_after_a_known_workload() {
    let Some(case) = Case::new("metric-values", 2) else { return };
    let bad = |key: &str| Scheduled::new(key, "v", 0, &case.target).header("scheduler-epoch", "x");
    for n in 0..20 {
        case.queue(&case.due_in(format!("missed{n}"), "v", -600).partition(0));
    }
    case.flush();
    let engine = case.engine();
    engine.ready();
    eventually("the missed ones are fired", PATIENCE, || (engine.counter("missed_schedule")? == 20).then_some(()));
    let later = now_s() + 3_600;
    for n in 0..7 {
        case.queue(&Scheduled::new(format!("later{n}"), "v", later + n, &case.target).partition(1));
    }
    for n in 0..30 {
        case.queue(&case.due_in(format!("live{n}"), "v", 1).partition(0));
    }
    case.queue(&Scheduled::new("cancelled", "v", later, &case.target).partition(0));
    case.queue(&Scheduled::cancel("cancelled").partition(0));
    case.queue(&bad("bad1").partition(0));
    case.queue(&bad("bad2").partition(1));
    case.queue(&Scheduled::new("lost", "v", now_s(), "no-such-topic").partition(1));
    case.queue(&Scheduled::cancel("never-was").partition(1));
    case.flush();
    case.fired(50);
    let topic = case.schedules[0].as_str();
    let at =
        |name: &str, partition: i32| format!("kafka_scheduler_{name}{{partition=\"{partition}\",topic=\"{topic}\"}}");
    let event = |name: &str| format!("kafka_scheduler_event_total{{type=\"kafka_scheduler_{name}\"}}");
    let state = |partition: i32, state: &str| {
        format!("kafka_scheduler_partition_state{{partition=\"{partition}\",state=\"{state}\",topic=\"{topic}\"}}")
    };
    let expected: Vec<(String, f64)> = vec![
        (event("planned_schedule"), 59.0),
        (event("triggered_schedule"), 30.0),
        (event("missed_schedule"), 20.0),
        (event("deleted_schedule"), 1.0),
        (event("invalid_schedule"), 2.0),
        (event("other"), 1.0),
        ("kafka_scheduler_lateness_seconds_count{kind=\"live\"}".into(), 30.0),
        ("kafka_scheduler_lateness_seconds_count{kind=\"missed\"}".into(), 20.0),
        ("kafka_scheduler_lateness_seconds_bucket{kind=\"missed\",le=\"300\"}".into(), 0.0),
        ("kafka_scheduler_lateness_seconds_bucket{kind=\"missed\",le=\"1800\"}".into(), 20.0),
        ("kafka_scheduler_lateness_seconds_bucket{kind=\"live\",le=\"300\"}".into(), 30.0),
        ("kafka_scheduler_batch_schedules_sum".into(), 50.0),
        (at("pending_schedules", 0), 0.0),
        (at("pending_schedules", 1), 8.0),
        (at("overdue_schedules", 0), 0.0),
        (at("overdue_schedules", 1), 0.0),
        (at("parked_schedules", 0), 0.0),
        (at("parked_schedules", 1), 1.0),
        (at("next_due_timestamp_seconds", 1), later as f64),
        (at("loading_progress_ratio", 0), 1.0),
        (at("consumer_lag_records", 0), 0.0),
        (at("consumer_lag_records", 1), 0.0),
        (state(0, "live"), 1.0),
        (state(0, "loading"), 0.0),
        (state(1, "taking-over"), 0.0),
        (state(1, "releasing"), 0.0),
        ("kafka_scheduler_group_member".into(), 1.0),
        ("kafka_scheduler_brokers_reachable".into(), 1.0),
        ("kafka_scheduler_foreign_groups_total".into(), 0.0),
        ("kafka_scheduler_leftover_schedules_total".into(), 0.0),
        ("kafka_scheduler_reasserted_records_total".into(), 0.0),
        ("kafka_scheduler_log_lines_dropped_total".into(), 0.0),
        ("kafka_scheduler_transaction_duration_seconds_count{outcome=\"unknown\"}".into(), 0.0),
        ("kafka_scheduler_http_connections{server=\"metrics\"}".into(), 1.0),
    ];
    let mut wrong = Vec::new();
    let settled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        eventually("every value is as the workload has it", PATIENCE, || {
            let metrics = engine.metrics();
            wrong = expected
                .iter()
                .filter(|(series, value)| metrics.get(series) != Some(value))
                .map(|(series, value)| format!("{series}: {:?}, not {value}", metrics.get(series)))
                .collect();
            wrong.is_empty().then_some(())
        });
    }));
    assert!(settled.is_ok(), "{wrong:#?}");
    let metrics = eventually("every client has reported", PATIENCE, || {
        let metrics = engine.metrics();
        metrics.contains_key("kafka_scheduler_client_sent_bytes_total{client=\"transactor-0\"}").then_some(metrics)
    });
    assert!(!metrics.contains_key(&at("next_due_timestamp_seconds", 0)), "nothing is due there");
    for (series, least) in [
        ("kafka_scheduler_transaction_duration_seconds_count{outcome=\"committed\"}", 3.0),
        ("kafka_scheduler_rebalances_total", 1.0),
        ("kafka_scheduler_loop_turn_seconds_count", 10.0),
        ("kafka_scheduler_client_brokers_up{client=\"consumer\"}", 1.0),
        ("kafka_scheduler_client_sent_bytes_total{client=\"transactor-0\"}", 1.0),
        ("kafka_scheduler_client_received_bytes_total{client=\"consumer\"}", 1.0),
        ("kafka_scheduler_http_requests_total{code=\"200\",server=\"rest\"}", 1.0),
        ("process_resident_memory_bytes", 1e6),
        ("process_cpu_seconds_total", 0.0),
    ] {
        assert!(metrics.get(series).is_some_and(|value| *value >= least), "{series}: {:?}", metrics.get(series));
    }
    assert!(metrics["kafka_scheduler_loop_last_turn_age_seconds"] < 10.0);
    assert!(metrics["kafka_scheduler_lateness_seconds_sum{kind=\"missed\"}"] >= 20.0 * 600.0);
    assert!(metrics["kafka_scheduler_http_connections{server=\"rest\"}"] <= 1.0);
    assert!(metrics[&at("partition_position", 1)] >= 11.0);
}
