//! Provokes faults, and checks that the metrics count them as docs/metrics.md says.

use std::time::Duration;

use crate::kit::Case;
use crate::kit::engine::Engine;
use crate::kit::process::signal;
use crate::kit::wait::{eventually, now_ms, now_s, until_ms};
use crate::ledger::{Ledger, alone};
use crate::network::through_proxy;

const TIMEOUT: Duration = Duration::from_secs(60);

fn count(engine: &Engine, series: &str) -> u64 {
    engine.metric(&format!("kafka_scheduler_{series}")).unwrap_or_default()
}

#[test]
fn an_overtaken_record_is_rewritten_and_counted() {
    const COUNT: usize = 50;
    let _alone = alone();
    let Some(case) = Case::new("overtaken", 1) else { return };
    let (proxy, mut engine) = through_proxy(&case);
    let due = now_s() + 3;
    let keys = || (0..COUNT).map(|n| format!("overtaken-{n}"));
    keys().for_each(|key| case.queue(&case.due_in(key, "first", due - now_s())));
    case.flush();
    eventually("all are pending", TIMEOUT, || (engine.counter("planned_schedule")? >= COUNT as u64).then_some(()));
    assert!(now_s() < due, "the machine is too slow for this test");
    // The transactions that fire the schedules reach the broker after the newer records.
    until_ms(due * 1_000 - 200);
    proxy.hold();
    until_ms(due * 1_000 + 500);
    keys().for_each(|key| case.queue(&case.due_in(key, "second", 3_600)));
    case.flush();
    proxy.pass(Duration::ZERO);
    let series = "rewritten_records_total ";
    eventually("all are rewritten", TIMEOUT, || (count(&engine, series) == COUNT as u64).then_some(()));
    case.fired(COUNT);
    eventually("the newer ones are pending", TIMEOUT, || {
        let listed = engine.get("/schedules")?;
        keys().all(|key| listed.contains(&format!("\"{key}\""))).then_some(())
    });
    engine.stop();
}

#[test]
fn a_batch_that_the_group_has_overtaken_is_fenced_and_counted() {
    let _alone = alone();
    let Some(case) = Case::new("refused", 4) else { return };
    let (proxy, mut engine) = through_proxy(&case);
    let mut ledger = Ledger::new(&case);
    // On a slow network a batch takes over a second, and an instance learns late that a rebalance has ended. There is
    // always work, so when another instance joins, a batch is in flight for partitions that this instance keeps.
    proxy.pass(Duration::from_millis(200));
    let mut from = 0;
    eventually("a batch is fenced", TIMEOUT * 2, || {
        let due = now_s() + 1;
        ledger.schedule(from..from + 2_000, |n| due + (n % 20) as i64);
        from += 2_000;
        let mut other = case.engine();
        other.ready();
        let fenced = count(&engine, "transaction_duration_seconds_count{outcome=\"fenced\"}");
        other.stop();
        (fenced > 0).then_some(())
    });
    proxy.pass(Duration::ZERO);
    ledger.settle();
    engine.stop();
}

#[test]
fn a_loop_that_stalls_and_requests_that_fail_are_counted() {
    let _alone = alone();
    let Some(case) = Case::new("stalls", 1) else { return };
    let (proxy, mut engine) = through_proxy(&case);
    // Pause it in the middle of an iteration: while it catches up, the loop hardly waits.
    eventually("a stall is counted", TIMEOUT, || {
        for n in 0..10_000 {
            case.queue(&case.due_in(format!("k{n}"), "v", 3_600));
        }
        signal(engine.pid(), "STOP");
        case.flush();
        signal(engine.pid(), "CONT");
        for after_ms in [2, 4, 8, 16, 32] {
            until_ms(now_ms() + after_ms);
            signal(engine.pid(), "STOP");
            until_ms(now_ms() + 300);
            signal(engine.pid(), "CONT");
        }
        (count(&engine, "loop_stalls_total ") > 0).then_some(())
    });
    proxy.cut();
    eventually("failed requests are counted", TIMEOUT, || {
        (count(&engine, "client_request_errors_total{client=\"consumer\"}") > 0).then_some(())
    });
    proxy.pass(Duration::ZERO);
    engine.ready();
    engine.stop();
}
