//! Kubernetes probes use the program's ports and paths.

use kafka_scheduler::config::Config;
use serde_json::{Value, json};

use crate::running::{Running, until_none};
use crate::{documents, list, manifest, text};

fn container() -> Value {
    let deployment = manifest("Deployment");
    let containers = list(&deployment, "/spec/template/spec/containers");
    assert_eq!(containers.len(), 1);
    containers[0].clone()
}

#[test]
fn ports_are_those_of_the_defaults() {
    let config = Config::load(&|_| None).expect("the defaults are valid");
    let [rest, metrics] = [config.server_addr().port(), config.metrics_addr().port()];
    let ports = [("rest", rest), ("metrics", metrics)];
    let inside: Vec<Value> = ports.map(|(name, port)| json!({"name": name, "containerPort": port})).into();
    assert_eq!(container()["ports"], Value::from(inside));
    let outside: Vec<Value> = ports.map(|(name, port)| json!({"name": name, "port": port, "targetPort": name})).into();
    assert_eq!(manifest("Service")["spec"]["ports"], Value::from(outside));
    let scraped = manifest("Deployment");
    let scraped = &scraped["spec"]["template"]["metadata"]["annotations"];
    assert_eq!(scraped["prometheus.io/port"], metrics.to_string());
    let compose = &documents("packaging/compose.yaml")[0];
    let published = ports.map(|(_, port)| format!("127.0.0.1:{port}:{port}"));
    assert_eq!(
        compose["services"]["scheduler"]["ports"],
        json!(published),
        "without a token, ports are published only on this machine"
    );
}

#[test]
fn the_program_answers_the_probes() {
    let container = container();
    let probes = ["/livenessProbe/httpGet", "/readinessProbe/httpGet"];
    let paths: Vec<&str> = probes
        .iter()
        .map(|probe| {
            assert_eq!(text(&container, &format!("{probe}/port")), "rest");
            text(&container, &format!("{probe}/path"))
        })
        .collect();
    assert_eq!(paths, ["/liveness", "/readiness"]);
    let running = Running::start();
    let wrong =
        || paths.iter().map(|path| (*path, running.status(path))).filter(|(_, status)| *status != 200).collect();
    until_none("answers other than 200", wrong);
    running.mini.close().expect("mini stops");
}

#[test]
fn everything_selects_the_pods() {
    let deployment = manifest("Deployment");
    let labels = &deployment["spec"]["template"]["metadata"]["labels"];
    assert!(labels.as_object().is_some_and(|labels| !labels.is_empty()));
    assert_eq!(deployment["spec"]["selector"]["matchLabels"], *labels);
    assert_eq!(manifest("Service")["spec"]["selector"], *labels);
    let budget = manifest("PodDisruptionBudget");
    assert_eq!(budget["spec"]["selector"]["matchLabels"], *labels);
    for spread in list(&deployment, "/spec/template/spec/topologySpreadConstraints") {
        assert_eq!(spread["labelSelector"]["matchLabels"], *labels);
    }
}

#[test]
fn there_is_time_for_a_handover() {
    // Batches in flight may take 5 s, and leaving the group a little longer.
    const NEEDED_S: u64 = 15;
    let deployment = manifest("Deployment");
    let pod = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"].as_u64().expect("a number");
    let compose = &documents("packaging/compose.yaml")[0];
    let stop = text(compose, "/services/scheduler/stop_grace_period");
    let stop: u64 = stop.trim_end_matches('s').parse().expect("seconds");
    assert!(pod >= NEEDED_S && stop >= NEEDED_S, "{pod} s and {stop} s");
}
