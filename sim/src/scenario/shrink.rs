//! Shrinks scenarios that fail.

use super::{Op, Scenario};

/// Leaves out operations, half of them at first and single ones in the end, and keeps each smaller scenario that still
/// `fails`. Calls `fails` at most `tries` times.
#[must_use]
pub fn shrink(scenario: &Scenario, mut tries: usize, fails: impl Fn(&Scenario) -> bool) -> Scenario {
    let mut best = scenario.clone();
    let mut size = best.ops.len().div_ceil(2);
    while size > 0 && tries > 0 {
        let mut at = 0;
        let mut smaller = false;
        while at < best.ops.len() && tries > 0 {
            let end = (at + size).min(best.ops.len());
            let ops: Vec<Op> = best.ops[..at].iter().chain(&best.ops[end..]).copied().collect();
            let candidate = Scenario { setup: best.setup.clone(), ops };
            tries -= 1;
            if fails(&candidate) {
                best = candidate;
                smaller = true;
            } else {
                at = end;
            }
        }
        if size > 1 {
            size = size.div_ceil(2);
        } else if !smaller {
            break;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_needed_for_the_failure_is_left() {
        let whole = Scenario::from_seed(3);
        let needed = [whole.ops[5], whole.ops[70]];
        let small = shrink(&whole, 10_000, |s| needed.iter().all(|op| s.ops.contains(op)));
        assert_eq!(small.ops, needed);
    }
}
