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

/// Returns the rules' PromQL expressions.
pub fn expressions() -> Vec<String> {
    rules().into_iter().map(|(_, expression)| expression).collect()
}

#[test]
fn each_rule_has_a_test_that_fires_and_one_that_is_silent() {
    let names: Vec<String> = rules().into_iter().map(|(name, _)| name).collect();
    let unique: BTreeSet<String> = names.iter().cloned().collect();
    assert_eq!(unique.len(), names.len(), "{names:?}");
    let tests = document(TESTS);
    let (mut firing, mut silent) = (BTreeSet::new(), BTreeSet::new());
    for case in list(&tests, "/tests").iter().flat_map(|test| list(test, "/alert_rule_test")) {
        let into = if case.get("exp_alerts").is_some() { &mut firing } else { &mut silent };
        into.insert(text(case, "/alertname").to_owned());
    }
    assert_eq!(firing, unique, "{TESTS} has a test in which each alert fires");
    assert_eq!(silent, unique, "{TESTS} has a test in which each alert is silent");
}

#[test]
fn prometheus_accepts_the_rules_and_their_tests_pass() {
    // promtool is in Debian's package prometheus. Without it, only metrics.rs checks the syntax.
    for (command, file) in [("check", RULES), ("test", TESTS)] {
        tool("promtool", &[command, "rules", path(file).to_str().expect("UTF-8")]);
    }
}
