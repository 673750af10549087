//! The dashboard.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{document, list, text};

fn dashboard() -> Value {
    document("packaging/grafana/kafka-scheduler.json")
}

/// Returns the PromQL expressions of panels and variables.
pub fn expressions() -> Vec<String> {
    let dashboard = dashboard();
    let targets = list(&dashboard, "/panels").iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    targets.map(|target| text(target, "/expr").to_owned()).chain(variables(&dashboard)).collect()
}

/// `label_values(selector, label)` contains a selector.
fn variables(dashboard: &Value) -> Vec<String> {
    let list = list(dashboard, "/templating/list").iter().filter(|variable| variable["type"] == "query");
    let selector = |variable: &Value| {
        let query = text(variable, "/query/query");
        let inside = query.strip_prefix("label_values(").and_then(|rest| rest.rsplit_once(',')).expect("label_values");
        inside.0.to_owned()
    };
    list.map(selector).collect()
}

#[test]
fn panels_have_ids_of_their_own_and_do_not_overlap() {
    let dashboard = dashboard();
    let (mut ids, mut cells) = (BTreeSet::new(), BTreeSet::new());
    for panel in list(&dashboard, "/panels") {
        let title = text(panel, "/title");
        assert!(ids.insert(panel["id"].as_u64()), "{title}: another panel has the same id");
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().expect("a number"));
        assert!(x + w <= 24, "{title} is off the grid");
        let overlaps = (x..x + w).any(|x| (y..y + h).any(|y| !cells.insert((x, y))));
        assert!(!overlaps, "{title} overlaps another");
    }
}

#[test]
fn every_variable_that_is_used_is_defined() {
    let dashboard = dashboard();
    let names: Vec<&str> = list(&dashboard, "/templating/list").iter().map(|v| text(v, "/name")).collect();
    for expression in expressions() {
        for used in expression.split('$').skip(1) {
            let used: String = used.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            assert!(used == "__rate_interval" || names.contains(&used.as_str()), "${used} in {expression}");
        }
    }
}
