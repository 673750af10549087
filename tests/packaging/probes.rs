//! Kubernetes asks where the program answers.

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
    let config = Config::load(&|_| None).expect("the defaults are legal");
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
    assert_eq!(compose["services"]["scheduler"]["ports"], json!(published), "on this machine alone: it has no token");
}

#[test]
fn probes_ask_what_the_program_answers() {
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
    running.mini.close().expect("it ends");
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
fn it_is_given_time_to_hand_over() {
    // What is in flight may take 5 s, and leaving the group a little more.
    const NEEDED_S: u64 = 15;
    let deployment = manifest("Deployment");
    let pod = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"].as_u64().expect("a number");
    let compose = &documents("packaging/compose.yaml")[0];
    let stop = text(compose, "/services/scheduler/stop_grace_period");
    let stop: u64 = stop.trim_end_matches('s').parse().expect("seconds");
    assert!(pod >= NEEDED_S && stop >= NEEDED_S, "{pod} s and {stop} s");
}
