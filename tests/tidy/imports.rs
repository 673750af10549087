//! Imports run one way.

use std::collections::BTreeSet;

use crate::code::read;
use crate::cycles::engine;
use crate::{files, hold};

/// All modules of the crate, from the bottom up. A module may use those of its own layer and of lower ones.
const LAYERS: &[&[&str]] = &[
    &["core"],
    &["calendar", "span", "state_dir"],
    &["config", "handle", "logging"],
    &["kafka", "metrics"],
    &["client", "observe"],
    &["http", "runner"],
    &["app", "mini"],
    &["cli"],
    &["main"],
];

fn layer(module: &str) -> usize {
    let layer = LAYERS.iter().position(|layer| layer.contains(&module));
    layer.unwrap_or_else(|| panic!("{module} has no layer: add it to LAYERS in tests/tidy/imports.rs"))
}

#[test]
fn imports_run_one_way() {
    let engine = engine();
    let uses = engine.uses(&[]);
    assert!(uses.iter().any(|(_, user, used)| *user == "kafka" && used == "core"), "nothing was read: {uses:?}");
    let upward: Vec<String> = uses
        .iter()
        .filter(|(_, user, used)| layer(used) > layer(user))
        .map(|(path, user, used)| format!("{path}: {user} uses {used}"))
        .collect();
    hold(
        "A lower module does not use a higher one (the layers are in tests/tidy/imports.rs). \
         Move what both need down, or pass it in as an argument.",
        &upward,
    );
}

/// Returns each row of the map in `docs/architecture.md` that names modules of the crate: these, and what it depends
/// on.
fn map(text: &str) -> Vec<(BTreeSet<String>, BTreeSet<String>)> {
    let module = |span: &str| {
        let path = span.trim().trim_matches('`').strip_prefix("src/")?;
        Some(path.trim_end_matches('/').trim_end_matches(".rs").to_owned())
    };
    let rows = text.lines().skip_while(|line| !line.starts_with("| path | purpose | depends on |")).skip(2);
    rows.take_while(|line| line.starts_with('|'))
        .filter_map(|line| {
            let cells: Vec<&str> = line.split('|').collect();
            let modules: BTreeSet<String> = cells[1].split(',').filter_map(module).collect();
            let used = cells[3].split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
            (!modules.is_empty()).then(|| (modules, used.collect()))
        })
        .collect()
}

#[test]
fn the_map_lists_what_each_module_imports() {
    let engine = engine();
    let uses = engine.uses(&[]);
    let architecture = files::below("docs/architecture.md");
    let map = map(&architecture[0].text);
    let mut breaches = Vec::new();
    for (modules, listed) in &map {
        let used = uses.iter().filter(|(_, user, _)| modules.contains(*user)).map(|(_, _, used)| used.clone());
        let used: BTreeSet<String> = used.filter(|used| !modules.contains(used)).collect();
        if used != *listed {
            breaches.push(format!("{modules:?}: the map lists {listed:?}, the code imports {used:?}"));
        }
    }
    let listed: BTreeSet<&str> = map.iter().flat_map(|(modules, _)| modules).map(String::as_str).collect();
    breaches.extend(
        engine.top().filter(|m| !["lib", "main"].contains(m) && !listed.contains(m)).map(|m| format!("{m}: no row")),
    );
    hold("The column \"depends on\" of docs/architecture.md lists the imports of each module.", &breaches);
}

#[test]
fn layers_list_each_module_once() {
    let engine = engine();
    let listed: Vec<&str> = LAYERS.concat();
    let modules: BTreeSet<&str> = engine.top().collect();
    assert_eq!(listed.iter().copied().collect::<BTreeSet<_>>(), modules);
    assert_eq!(listed.len(), modules.len(), "a module is listed twice");
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
fn the_simulator_knows_the_core_and_the_calendar_only() {
    let mut breaches = Vec::new();
    for file in read(&["sim/src"]) {
        let foreign = |name: &&Vec<String>| {
            name[0] == "kafka_scheduler" && name.get(1).is_some_and(|n| !["core", "calendar"].contains(&n.as_str()))
        };
        breaches.extend(file.names.iter().filter(foreign).map(|name| format!("{}: {}", file.path, name.join("::"))));
    }
    hold(
        "sim uses kafka_scheduler::core and calendar alone: it depends on the root without its default features.",
        &breaches,
    );
}
