//! The files of `packaging/` fit the program. These tests need no container engine, no cluster and no broker.
#![cfg(feature = "cli")]

mod alerts;
mod dashboard;
mod features;
mod image;
mod licences;
mod metrics;
mod probes;
mod promql;
mod running;
mod schemas;
mod settings;
mod systemd;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use serde_json::Value;

/// Returns the path of a file of the repository.
fn path(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(file: &str) -> String {
    fs::read_to_string(path(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
}

/// Parses the documents of a YAML file. JSON is YAML, too.
fn documents(file: &str) -> Vec<Value> {
    let document = |document| Value::deserialize(document).unwrap_or_else(|e| panic!("{file}: {e}"));
    serde_yaml_ng::Deserializer::from_str(&read(file)).map(document).collect()
}

/// Parses a file with one document.
fn document(file: &str) -> Value {
    let mut documents = documents(file);
    assert_eq!(documents.len(), 1, "{file}");
    documents.remove(0)
}

/// Returns the Kubernetes manifest of this kind.
fn manifest(kind: &str) -> Value {
    let all = documents("packaging/kubernetes.yaml").into_iter();
    all.into_iter().find(|document| document["kind"] == kind).unwrap_or_else(|| panic!("there is no {kind}"))
}

/// Returns the text at a JSON pointer.
#[track_caller]
fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("no text at {pointer} of {value}"))
}

/// Returns the elements of the list at a JSON pointer.
#[track_caller]
fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).unwrap_or_else(|| panic!("no list at {pointer} of {value}"))
}

/// Returns the output of a tool, or `None` if it is not installed; panics if it fails.
fn tool(name: &str, args: &[&str]) -> Option<String> {
    let output = match Command::new(name).args(args).output() {
        Ok(output) => output,
        Err(e) => {
            println!("skipped: {name}: {e}");
            return None;
        }
    };
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} {}:\n{said}", args.join(" "));
    Some(said)
}
