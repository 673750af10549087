//! Imports run one way.

use std::collections::{BTreeMap, BTreeSet};

use crate::code::{File, Module, read};
use crate::hold;

/// From the bottom up. A module may use those of its own layer and of lower ones; one that is not listed is held only
/// to there being no cycles.
const LAYERS: &[&[&str]] = &[
    &["core"],
    &["config", "handle", "logging"],
    &["metrics", "observe", "kafka"],
    &["http", "app", "mini"],
    &["main"],
];

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// Which module of the crate each file uses.
fn uses() -> Vec<(String, String, String)> {
    let mut uses = Vec::new();
    for File { path, module, names, .. } in read(&["src"]) {
        if let Module::Of(module) = module {
            let named = names.iter().filter_map(|name| match name.as_slice() {
                [root, other, ..] if ["crate", "kafka_scheduler"].contains(&root.as_str()) => Some(other.clone()),
                _ => None,
            });
            let others: BTreeSet<String> = named.filter(|other| *other != module).collect();
            uses.extend(others.into_iter().map(|other| (path.clone(), module.clone(), other)));
        }
    }
    assert!(uses.iter().any(|(_, module, other)| module == "kafka" && other == "core"), "nothing was read: {uses:?}");
    uses
}

#[test]
fn imports_run_one_way() {
    let upward: Vec<String> = uses()
        .into_iter()
        .filter(|(_, module, other)| layer(module).zip(layer(other)).is_some_and(|(from, to)| to > from))
        .map(|(path, module, other)| format!("{path}: {module} uses {other}"))
        .collect();
    hold(
        "A lower module does not use a higher one (the layers stand in tests/tidy/imports.rs). \
         Move what both need down, or hand it in as an argument.",
        &upward,
    );
}

#[test]
fn no_modules_use_each_other_in_a_circle() {
    let mut below: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (_, module, other) in uses() {
        below.entry(module).or_default().insert(other);
    }
    // What uses only modules that were taken away is taken away; a circle stays.
    loop {
        let free = |module: &String| below.get(module).is_none_or(BTreeSet::is_empty);
        let taken: BTreeSet<String> = below.values().flatten().filter(|module| free(module)).cloned().collect();
        if taken.is_empty() {
            break;
        }
        below.values_mut().for_each(|others| others.retain(|other| !taken.contains(other)));
    }
    below.retain(|_, others| !others.is_empty());
    let circle: Vec<String> = below.iter().map(|(module, others)| format!("{module} uses {others:?}")).collect();
    hold("Modules do not use each other in a circle. Move what both need into a module below them.", &circle);
}

#[test]
fn the_core_uses_the_standard_library_and_itself() {
    let foreign = |name: &[String]| match name {
        [root, other, ..] if root == "crate" => other != "core",
        // What the standard library calls core is `std` here.
        [root, ..] => !["std", "super", "self", "Self", "core"].contains(&root.as_str()),
        [] => false,
    };
    let mut breaches = Vec::new();
    for file in read(&["src/core", "src/core.rs"]) {
        let imports = file.imports.iter().filter(|import| foreign(import) && !file.declares(&import[0]));
        breaches.extend(imports.map(|import| format!("{}: use {}", file.path, import.join("::"))));
    }
    hold("src/core builds from std alone. Take what is needed as an argument or an input.", &breaches);
}

#[test]
fn the_simulator_knows_the_core_only() {
    let mut breaches = Vec::new();
    for file in read(&["sim/src"]) {
        let foreign = |name: &&Vec<String>| name[0] == "kafka_scheduler" && name.get(1).is_some_and(|n| n != "core");
        breaches.extend(file.names.iter().filter(foreign).map(|name| format!("{}: {}", file.path, name.join("::"))));
    }
    hold("sim uses kafka_scheduler::core alone: it depends on the root without its default features.", &breaches);
}
