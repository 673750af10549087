//! Each cargo feature compiles the crates that it needs, and no others.

use std::collections::BTreeSet;

use crate::{path, tool};

/// The crates that only the server and the program need.
const PROGRAM: [&str; 11] = [
    "clap",
    "comfy-table",
    "hyper",
    "hyper-util",
    "indicatif",
    "signal-hook",
    "socket2",
    "tokio",
    "tracing-appender",
    "tracing-subscriber",
    "ureq",
];

/// Returns the names of all crates that the library depends on.
fn crates(features: &str) -> BTreeSet<String> {
    let manifest = path("Cargo.toml");
    let manifest = manifest.to_str().expect("UTF-8");
    let args = ["tree", "--locked", "--offline", "--manifest-path", manifest, "--no-default-features"];
    let form = ["--edges", "normal", "--prefix", "none", "--format", "{p}", "--features", features];
    let said = tool(env!("CARGO"), &[&args[..], &form].concat()).expect("cargo is installed");
    // Crates are on lines such as `libc v0.2.1`; cargo's messages about locks are not.
    let crates = said.lines().filter_map(|line| line.split_once(" v"));
    crates
        .filter(|(_, version)| version.starts_with(|c: char| c.is_ascii_digit()))
        .map(|(name, _)| name.into())
        .collect()
}

#[test]
fn the_client_library_needs_the_standard_library_alone() {
    assert_eq!(crates(""), ["kafka-scheduler".to_owned()].into());
    let with_dates = crates("jiff");
    assert!(with_dates.contains("jiff") && !with_dates.contains("rdkafka"), "{with_dates:?}");
}

#[test]
fn the_engine_needs_no_server_and_no_command_line() {
    let (engine, http, cli) = (crates("engine"), crates("http"), crates("cli"));
    assert!(engine.contains("rdkafka"), "{engine:?}");
    let of = |crates: &BTreeSet<String>| PROGRAM.into_iter().filter(|name| crates.contains(*name)).collect::<Vec<_>>();
    assert_eq!(of(&engine), [""; 0]);
    assert_eq!(of(&http), ["hyper", "hyper-util", "socket2", "tokio"]);
    assert_eq!(of(&cli), PROGRAM, "the program uses all crates of the list");
}
