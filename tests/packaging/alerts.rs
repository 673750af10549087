//! The alert rules.

use std::collections::BTreeSet;

use crate::{document, list, path, text, tool};

const RULES: &str = "packaging/prometheus/alerts.yaml";
const TESTS: &str = "packaging/prometheus/alerts.test.yaml";

fn rules() -> Vec<(String, String)> {
    let rules = document(RULES);
    let rules = list(&rules, "/groups").iter().flat_map(|group| list(group, "/rules"));
    rules.map(|rule| (text(rule, "/alert").to_owned(), text(rule, "/expr").to_owned())).collect()
}

/// What the rules ask.
pub fn expressions() -> Vec<String> {
    rules().into_iter().map(|(_, expression)| expression).collect()
}

#[test]
fn each_rule_is_shown_to_fire_and_to_be_silent() {
    let names: Vec<String> = rules().into_iter().map(|(name, _)| name).collect();
    let unique: BTreeSet<String> = names.iter().cloned().collect();
    assert_eq!(unique.len(), names.len(), "{names:?}");
    let tests = document(TESTS);
    let (mut firing, mut silent) = (BTreeSet::new(), BTreeSet::new());
    for case in list(&tests, "/tests").iter().flat_map(|test| list(test, "/alert_rule_test")) {
        let into = if case.get("exp_alerts").is_some() { &mut firing } else { &mut silent };
        into.insert(text(case, "/alertname").to_owned());
    }
    assert_eq!(firing, unique, "{TESTS} shows each to fire");
    assert_eq!(silent, unique, "{TESTS} shows each to be silent");
}

#[test]
fn prometheus_takes_the_rules_and_they_do_what_is_expected() {
    // Debian's package is prometheus. Without it nothing but the syntax is checked, in metrics.rs.
    for (command, file) in [("check", RULES), ("test", TESTS)] {
        tool("promtool", &[command, "rules", path(file).to_str().expect("UTF-8")]);
    }
}
