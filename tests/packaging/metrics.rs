//! Dashboard and alerts query metrics that exist.

use std::collections::{BTreeMap, BTreeSet};

use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use kafka_scheduler::client::Schedule;

use crate::promql::{Asked, queried};
use crate::running::{Running, until_none};
use crate::{alerts, dashboard, read};

/// A metric's type, and the labels of its series.
#[derive(Default)]
struct Served {
    kind: String,
    labels: BTreeSet<String>,
}

/// Parses the metrics of a response.
fn served(answer: &str) -> BTreeMap<String, Served> {
    let mut metrics: BTreeMap<String, Served> = BTreeMap::new();
    let mut now = String::new();
    for line in answer.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            now = name.to_owned();
            metrics.entry(now.clone()).or_default().kind = kind.to_owned();
        } else if !line.starts_with('#') {
            let labels =
                line.split_once('{').and_then(|(_, rest)| rest.rsplit_once('}')).map_or("", |(labels, _)| labels);
            let names = labels.split("\",").filter_map(|label| label.split_once('=')).map(|(name, _)| name.to_owned());
            metrics.entry(now.clone()).or_default().labels.extend(names);
        }
    }
    metrics
}

/// Returns the error of a query against these metrics, if it has one.
fn wrong(queried: &Asked, served: &BTreeMap<String, Served>) -> Option<String> {
    // Prometheus adds these labels.
    const GIVEN: &[&str] = &["job", "instance"];
    let parts = ["_bucket", "_sum", "_count"];
    let whole = parts.iter().find_map(|part| queried.metric.strip_suffix(part));
    let whole = whole.filter(|whole| served.get(*whole).is_some_and(|metric| metric.kind == "histogram"));
    let name = whole.unwrap_or(&queried.metric);
    let Some(metric) = served.get(name) else { return Some(format!("{name} does not exist")) };
    if whole.is_none() && metric.kind == "histogram" {
        return Some(format!("{name} is a histogram"));
    }
    if queried.counted != (metric.kind == "counter" || whole.is_some())
        && name != "kafka_scheduler_foreign_groups_total"
    {
        return Some(format!(
            "{name} is a {}: rate and increase need a counter, and a counter needs one of them",
            metric.kind
        ));
    }
    let unknown =
        queried.labels.iter().find(|label| !GIVEN.contains(&label.as_str()) && !metric.labels.contains(*label));
    unknown.map(|label| format!("{name} has no label {label}"))
}

fn queries() -> Vec<Asked> {
    dashboard::expressions().iter().chain(&alerts::expressions()).flat_map(|expression| queried(expression)).collect()
}

#[test]
fn queried_metrics_are_documented() {
    let documented = read("docs/metrics.md");
    let unknown: BTreeSet<String> = queries()
        .into_iter()
        .map(|queried| queried.metric)
        .filter(|name| {
            let whole = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part));
            ![Some(name.as_str()), whole]
                .into_iter()
                .flatten()
                .any(|name| documented.contains(&format!("| `{name}` |")))
        })
        .collect();
    assert!(unknown.is_empty(), "docs/metrics.md has no {unknown:?}");
}

#[test]
#[cfg(target_os = "linux")]
fn queried_metrics_are_served() {
    let running = Running::start();
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", running.mini.bootstrap_servers()).create().expect("a producer");
    // One schedule fires, one is pending, and one is invalid.
    let due = std::time::Duration::from_secs(1);
    for (key, topic, after) in [("fires", "target", due), ("waits", "target", due * 3600), ("dead", "nowhere", due)] {
        let schedule = Schedule::new(key).to(topic).value("v").after(after).build().expect("the schedule is valid");
        producer.send(schedule.to_base_record("schedules")).map_err(|(e, _)| e).expect("sent");
    }
    producer
        .send(BaseRecord::<str, str>::to("schedules").key("k").payload("no headers"))
        .map_err(|(e, _)| e)
        .expect("sent");
    producer.flush(std::time::Duration::from_secs(10)).expect("acknowledged");
    let queries = queries();
    until_none("queried by dashboard or alerts", || {
        let served = served(&running.mini.running().metrics());
        queries.iter().filter_map(|queried| wrong(queried, &served)).collect::<BTreeSet<_>>().into_iter().collect()
    });
    running.mini.close().expect("mini stops");
}
