//! Imports run one way.

use std::collections::BTreeSet;

use crate::code::read;
use crate::cycles::engine;
use crate::hold;

/// All modules of the crate, from the bottom up. A module may use those of its own layer and of lower ones.
const LAYERS: &[&[&str]] = &[
    &["core", "span"],
    &["config", "handle", "logging"],
    &["client", "kafka", "metrics", "observe"],
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

#[test]
fn layers_list_each_module_once() {
    let engine = engine();
    let listed: Vec<&str> = LAYERS.concat();
    let modules: BTreeSet<&str> = engine.top().collect();
    assert_eq!(listed.iter().copied().collect::<BTreeSet<_>>(), modules);
    assert_eq!(listed.len(), modules.len(), "a module is listed twice");
}

/// The calendar alone may use what computes dates.
const CALENDAR: (&str, &[&str]) = ("src/core/calendar", &["croner", "jiff"]);

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
        let of_dates = |name: &String| file.path.starts_with(CALENDAR.0) && CALENDAR.1.contains(&name.as_str());
        let allowed = |name: &String| file.declares(name) || of_dates(name);
        let imports = file.imports.iter().filter(|import| foreign(import) && !allowed(&import[0]));
        breaches.extend(imports.map(|import| format!("{}: use {}", file.path, import.join("::"))));
    }
    hold("src/core builds from std alone. Take what is needed as an argument or an input.", &breaches);
}

#[test]
fn the_calendar_reads_no_clock_and_no_files() {
    // jiff's own choice of a database reads the machine's files, and so does parsing a zoned date.
    const BANNED: &[&[&str]] = &[&["now"], &["system"], &["try_system"], &["tz", "db"], &["tz", "get"], &["Zoned"]];
    let mut breaches = Vec::new();
    for file in read(&[CALENDAR.0, "src/core/calendar.rs"]) {
        let banned = |name: &&Vec<String>| name.len() > 1 && BANNED.iter().any(|banned| name.ends_with(&part(banned)));
        breaches.extend(file.names.iter().filter(banned).map(|name| format!("{}: {}", file.path, name.join("::"))));
    }
    hold("src/core/calendar computes the same on all machines: use TimeZoneDatabase::bundled.", &breaches);
}

fn part(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
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
