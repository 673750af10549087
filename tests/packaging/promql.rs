//! Finds the metrics that a PromQL expression queries.

use promql_parser::parser::{self, Expr, VectorSelector};
use promql_parser::util::{ExprVisitor, walk_expr};

/// A metric that an expression queries.
#[derive(Debug)]
pub struct Asked {
    pub metric: String,
    /// The labels that the expression selects or groups by.
    pub labels: Vec<String>,
    /// Whether it is inside `rate` or `increase`, which need a counter.
    pub counted: bool,
}

#[derive(Default)]
struct Asking {
    found: Vec<Asked>,
    counted: bool,
}

impl Asking {
    fn add(&mut self, selector: &VectorSelector) {
        let labels = selector.matchers.matchers.iter().map(|matcher| matcher.name.clone()).collect();
        let metric = selector.name.clone().expect("each selector names its metric");
        self.found.push(Asked { metric, labels, counted: self.counted });
    }
}

impl ExprVisitor for Asking {
    type Error = ();

    fn pre_visit(&mut self, expr: &Expr) -> Result<bool, ()> {
        match expr {
            Expr::VectorSelector(selector) => self.add(selector),
            Expr::MatrixSelector(matrix) => self.add(&matrix.vs),
            Expr::Call(call) if ["rate", "increase"].contains(&call.func.name) => self.counted = true,
            _ => {}
        }
        Ok(true)
    }

    fn post_visit(&mut self, expr: &Expr) -> Result<bool, ()> {
        if matches!(expr, Expr::Call(call) if ["rate", "increase"].contains(&call.func.name)) {
            self.counted = false;
        }
        Ok(true)
    }
}

/// Returns the metrics that an expression queries, after replacing Grafana's variables.
#[track_caller]
pub fn queried(expression: &str) -> Vec<Asked> {
    let expression = expression.replace("$__rate_interval", "5m");
    let parsed = parser::parse(&expression).unwrap_or_else(|e| panic!("{expression}: {e}"));
    let mut asking = Asking::default();
    walk_expr(&mut asking, &parsed).expect("the visitor never fails");
    assert!(!asking.found.is_empty(), "{expression} queries no metric");
    asking.found
}

#[test]
fn wrong_queries_are_found() {
    for wrong in ["sum(a", "rate(a)", "a{b=}", "sum by a (b)", "a[5x]"] {
        assert!(parser::parse(wrong).is_err(), "{wrong}");
    }
    let found = queried(r#"sum by (le) (rate(a_bucket{b="c"}[$__rate_interval])) / max_over_time(d[1h:1m])"#);
    let found: Vec<_> = found.iter().map(|a| (a.metric.as_str(), a.labels.len(), a.counted)).collect();
    assert_eq!(found, [("a_bucket", 1, true), ("d", 0, false)]);
}
