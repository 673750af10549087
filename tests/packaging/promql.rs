//! PromQL: what an expression asks for.

use promql_parser::parser::{self, Expr, VectorSelector};
use promql_parser::util::{ExprVisitor, walk_expr};

/// One metric that an expression names.
#[derive(Debug)]
pub struct Asked {
    pub metric: String,
    /// Labels that it is selected by.
    pub labels: Vec<String>,
    /// It is in `rate` or `increase`, which is for counters.
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

/// What an expression asks for. Grafana's own variables are put in first.
#[track_caller]
pub fn asked(expression: &str) -> Vec<Asked> {
    let expression = expression.replace("$__rate_interval", "5m");
    let parsed = parser::parse(&expression).unwrap_or_else(|e| panic!("{expression}: {e}"));
    let mut asking = Asking::default();
    walk_expr(&mut asking, &parsed).expect("it never fails");
    assert!(!asking.found.is_empty(), "{expression} asks for nothing");
    asking.found
}

#[test]
fn what_is_wrong_is_seen() {
    for wrong in ["sum(a", "rate(a)", "a{b=}", "sum by a (b)", "a[5x]"] {
        assert!(parser::parse(wrong).is_err(), "{wrong}");
    }
    let found = asked(r#"sum by (le) (rate(a_bucket{b="c"}[$__rate_interval])) / max_over_time(d[1h:1m])"#);
    let found: Vec<_> = found.iter().map(|a| (a.metric.as_str(), a.labels.len(), a.counted)).collect();
    assert_eq!(found, [("a_bucket", 1, true), ("d", 0, false)]);
}
