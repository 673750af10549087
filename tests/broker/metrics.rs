//! Metrics: `/metrics` has exactly those of docs/metrics.md, with correct values.

use std::collections::{BTreeMap, BTreeSet};

use crate::kit::case::TIMEOUT;
use crate::kit::client;
use crate::kit::engine::Engine;
use crate::kit::http;
use crate::kit::process::target_dir;
use crate::kit::wait::{eventually, now_s};
use crate::kit::{Case, Scheduled};

/// Returns names and types from the tables of docs/metrics.md.
fn documented() -> BTreeMap<String, String> {
    let text = include_str!("../../docs/metrics.md");
    let rows = text.lines().map(|line| line.split('|').map(str::trim).collect::<Vec<_>>());
    rows.filter(|row| row.len() == 6 && (row[1].starts_with("`kafka_scheduler_") || row[1].starts_with("`process_")))
        .map(|row| (row[1].trim_matches('`').to_owned(), row[2].to_owned()))
        .collect()
}

/// Returns names and types from `/metrics`.
fn exposed(body: &str) -> BTreeMap<String, String> {
    let types = body.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types.filter_map(|line| line.split_once(' ')).map(|(name, kind)| (name.to_owned(), kind.to_owned())).collect()
}

#[test]
fn every_documented_metric_is_there_and_no_other() {
    let Some(case) = Case::new("metric-names", 1) else { return };
    let state_dir = target_dir().join("tmp").join(format!("state-{}", case.group));
    let state_dir = state_dir.to_str().expect("UTF-8");
    let engine = case.engine_with(&[("MEMORY_WARN_BYTES", "1000000000"), ("STATE_DIR", state_dir)]);
    engine.ready();
    case.produce(&[case.due_in("later", "v", 3_600)]);
    let documented = documented();
    assert!(documented.len() > 35, "{documented:?}");
    eventually("the exposed metrics are those of docs/metrics.md", TIMEOUT, || {
        let exposed = exposed(&http::get(engine.metrics_port, "/metrics")?.1);
        let unknown: BTreeSet<_> = exposed.iter().filter(|(name, _)| !documented.contains_key(*name)).collect();
        assert!(unknown.is_empty(), "not documented: {unknown:?}");
        // The clients must have reported their statistics once.
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
    for n in 0..3 {
        case.queue(&case.due_in(format!("leftover{n}"), "v", -3 * 86_400).partition(0));
    }
    case.flush();
    let begun = now_s();
    let engine = case.engine();
    engine.ready();
    eventually("the missed ones are fired", TIMEOUT, || (engine.counter("missed_schedule")? == 20).then_some(()));
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
    let refused = |reason: &str| format!("kafka_scheduler_unfired_records_total{{reason=\"{reason}\"}}");
    let (version, (_, librdkafka)) = (env!("CARGO_PKG_VERSION"), rdkafka::util::get_rdkafka_version());
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
        ("kafka_scheduler_leftover_schedules_total".into(), 3.0),
        ("kafka_scheduler_dead_lettered_records_total".into(), 0.0),
        (refused("bad-epoch"), 0.0),
        (refused("duplicate-header"), 2.0),
        (refused("unknown-target"), 1.0),
        (at("held_bytes", 0), 0.0),
        ("kafka_scheduler_client_queued_records{client=\"transactor-0\"}".into(), 0.0),
        ("kafka_scheduler_client_queued_records{client=\"transactor-1\"}".into(), 0.0),
        (format!("kafka_scheduler_build_info{{librdkafka=\"{librdkafka}\",version=\"{version}\"}}"), 1.0),
        ("kafka_scheduler_rewritten_records_total".into(), 0.0),
        ("kafka_scheduler_log_lines_dropped_total".into(), 0.0),
        ("kafka_scheduler_transaction_duration_seconds_count{outcome=\"unknown\"}".into(), 0.0),
        ("kafka_scheduler_http_connections{server=\"metrics\"}".into(), 1.0),
    ];
    let mut wrong = Vec::new();
    let settled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        eventually("every value is as the workload has it", TIMEOUT, || {
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
    let metrics = eventually("every client has reported", TIMEOUT, || {
        let metrics = engine.metrics();
        metrics.contains_key("kafka_scheduler_client_sent_bytes_total{client=\"transactor-0\"}").then_some(metrics)
    });
    assert!(!metrics.contains_key(&at("next_due_timestamp_seconds", 0)), "the partition has no due time");
    for (series, least) in [
        ("kafka_scheduler_transaction_duration_seconds_count{outcome=\"committed\"}", 3.0),
        ("kafka_scheduler_rebalances_total", 1.0),
        ("kafka_scheduler_loop_iteration_seconds_count", 10.0),
        ("kafka_scheduler_client_brokers_up{client=\"consumer\"}", 1.0),
        ("kafka_scheduler_client_sent_bytes_total{client=\"transactor-0\"}", 1.0),
        ("kafka_scheduler_client_received_bytes_total{client=\"consumer\"}", 1.0),
        ("kafka_scheduler_http_requests_total{code=\"200\",server=\"rest\"}", 1.0),
        // Minimums: a round trip on this machine, and the payloads of seven schedules.
        ("kafka_scheduler_client_round_trip_p99_seconds{client=\"consumer\"}", 1e-6),
        ("kafka_scheduler_client_request_errors_total{client=\"consumer\"}", 0.0),
        (&at("held_bytes", 1), 7.0 * 64.0),
        ("process_resident_memory_bytes", 1e6),
    ] {
        assert!(metrics.get(series).is_some_and(|value| *value >= least), "{series}: {:?}", metrics.get(series));
    }
    assert!(metrics["kafka_scheduler_loop_heartbeat_age_seconds"] < 10.0);
    assert!(metrics["kafka_scheduler_lateness_seconds_sum{kind=\"missed\"}"] >= 20.0 * 600.0);
    assert!(metrics["kafka_scheduler_http_connections{server=\"rest\"}"] <= 1.0);
    assert!(metrics[&at("partition_position", 1)] >= 11.0);
    assert!(metrics[&at("held_bytes", 1)] <= 8.0 * 512.0, "{}", metrics[&at("held_bytes", 1)]);
    assert!(metrics["kafka_scheduler_client_round_trip_p99_seconds{client=\"consumer\"}"] < 10.0);
    for outcome in ["aborted", "fenced", "rejected"] {
        let series = format!("kafka_scheduler_transaction_duration_seconds_count{{outcome=\"{outcome}\"}}");
        assert!(metrics.contains_key(&series), "{series}");
    }
    assert!(metrics["kafka_scheduler_loop_stalls_total"] <= metrics["kafka_scheduler_loop_iteration_seconds_count"]);
    process_metrics_are_those_of_the_system(&engine, &metrics, begun);
}

/// Compares process metrics with /proc.
fn process_metrics_are_those_of_the_system(engine: &Engine, metrics: &BTreeMap<String, f64>, begun: i64) {
    let entries =
        |what: &str| std::fs::read_dir(format!("/proc/{}/{what}", engine.pid())).expect("a process").count() as f64;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", engine.pid())).expect("a process");
    let files = limits.lines().find(|line| line.starts_with("Max open files")).expect("a limit");
    let files: f64 = files.split_whitespace().nth(3).and_then(|n| n.parse().ok()).expect("a number");
    assert_eq!(metrics["process_max_fds"], files);
    // Connections and threads may change in between.
    let about = |name: &str, now: f64| assert!((metrics[name] - now).abs() <= 5.0, "{name}: {}, {now}", metrics[name]);
    about("process_threads", entries("task"));
    about("process_open_fds", entries("fd"));
    // User and system time are in hundredths of a second; the metric has whole seconds.
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", engine.pid())).expect("a process");
    let times = stat.rsplit(") ").next().expect("fields").split(' ').skip(11).take(2);
    about("process_cpu_seconds_total", times.map(|time| time.parse::<f64>().expect("a number")).sum::<f64>() / 100.0);
    assert!(metrics["process_virtual_memory_bytes"] >= metrics["process_resident_memory_bytes"]);
    let since = metrics["process_start_time_seconds"] as i64;
    assert!((begun - 2..=now_s() + 2).contains(&since), "the start time is {since}, but must be about {begun}");
}

#[test]
fn values_after_errors() {
    let Some(case) = Case::new("metric-trouble", 1) else { return };
    let topic = |what: &str| format!("{}-{what}", case.target);
    let (dead, compacted) = (topic("dead"), topic("compacted"));
    client::create_topic(case.bootstrap(), &dead, 1, &[]);
    client::create_topic(case.bootstrap(), &compacted, 1, &[("cleanup.policy", "compact")]);
    let engine = case.engine_with(&[("DEAD_LETTER_TOPIC", &dead)]);
    case.settled();
    let bad = |key: &str| case.due_in(key, "v", 0).header("scheduler-epoch", "1");
    // A compacted topic accepts no record without a key.
    case.produce(&[bad("bad1"), bad("bad2"), Scheduled::new("refused", "v", now_s(), &compacted)]);
    let series = |name: &str| engine.metric(&format!("kafka_scheduler_{name}"));
    eventually("all three are dead letters", TIMEOUT, || (series("dead_lettered_records_total ")? == 3).then_some(()));
    assert_eq!(engine.refused("rejected"), Some(1), "a record is counted once, however often it is retried");
    let rejected = series("transaction_duration_seconds_count{outcome=\"rejected\"}");
    assert!(rejected.is_some_and(|count| count >= 3), "each attempt is counted as rejected: {rejected:?}");
    let other = case.engine_with(&[("GROUP_ID", &format!("{}-other", case.group))]);
    eventually("the other group is seen", TIMEOUT, || (series("foreign_groups_total ")? == 1).then_some(()));
    drop(other);
}
