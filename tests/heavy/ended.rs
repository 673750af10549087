//! A log with many records that have ended.

use crate::alone;
use crate::kit::case::TIMEOUT;
use crate::kit::wait::{eventually, now_s};
use crate::kit::{Case, Scheduled};

/// Cancelled schedules. A table that kept their slots would take about 50 MB.
const PAIRS: usize = 500_000;
/// After reading them, the engine may use this much more memory than on an empty topic.
const KEPT_BYTES_MAX: u64 = 20 << 20;

#[test]
fn ended_schedules_cost_no_memory_once_they_are_read() {
    let _alone = alone();
    let Some(case) = Case::new("ended", 1) else { return };
    let mut engine = case.engine();
    case.settled();
    let empty = engine.anonymous_memory();
    engine.stop();
    let due = now_s() + 86_400;
    for n in 0..PAIRS {
        case.queue(&Scheduled::new(format!("k{n}"), "v", due, &case.target));
        case.queue(&Scheduled::cancel(format!("k{n}")));
    }
    case.flush();
    let mut engine = case.engine();
    case.settled();
    eventually("the memory is given back", TIMEOUT, || {
        (engine.anonymous_memory() < empty + KEPT_BYTES_MAX).then_some(())
    });
    engine.stop();
}
