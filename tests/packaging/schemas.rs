//! Each file matches its schema. A schema has only the fields that the file uses; add more when you need them.

use serde_json::Value;

use crate::{documents, path};

#[track_caller]
fn hold(file: &str, schema: &str) {
    let text = std::fs::read_to_string(path("tests/packaging/schemas").join(schema)).expect("a schema");
    let schema: Value = serde_json::from_str(&text).expect("JSON");
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    let mut wrong = Vec::new();
    for document in documents(file) {
        wrong.extend(validator.iter_errors(&document).map(|error| format!("{}: {error}", error.instance_path())));
    }
    assert!(wrong.is_empty(), "{file}:\n{}", wrong.join("\n"));
}

#[test]
fn compose() {
    hold("packaging/compose.yaml", "compose.json");
}

#[test]
fn kubernetes() {
    hold("packaging/kubernetes.yaml", "kubernetes.json");
}

#[test]
fn alerts() {
    hold("packaging/prometheus/alerts.yaml", "alerts.json");
}

#[test]
fn dashboard() {
    hold("packaging/grafana/kafka-scheduler.json", "dashboard.json");
}
