//! Metrics of trouble that has to be made: what docs/metrics.md says of it is seen to be counted.

use std::time::Duration;

use crate::kit::Case;
use crate::kit::engine::Engine;
use crate::kit::process::signal;
use crate::kit::wait::{eventually, now_ms, now_s, until_ms};
use crate::ledger::{Ledger, alone, patient};
use crate::network::proxy;

const PATIENCE: Duration = Duration::from_secs(60);

fn count(engine: &Engine, series: &str) -> u64 {
    engine.metric(&format!("kafka_scheduler_{series}")).unwrap_or_default()
}

#[test]
fn a_newer_word_that_overtakes_the_tombstone_is_written_again_and_counted() {
    const COUNT: usize = 50;
    let _alone = alone();
    let Some(case) = Case::new("outrun", 1) else { return };
    let (proxy, bootstrap) = proxy(&case);
    let mut engine = case.engine_with(&[("BOOTSTRAP_SERVERS", &bootstrap), ("CONFIGURATION_FILE", &patient())]);
    engine.ready();
    let due = now_s() + 3;
    let keys = || (0..COUNT).map(|n| format!("outrun-{n}"));
    keys().for_each(|key| case.queue(&case.due_in(key, "first", due - now_s())));
    case.flush();
    eventually("all are pending", PATIENCE, || (engine.counter("planned_schedule")? >= COUNT as u64).then_some(()));
    assert!(now_s() < due, "the machine is too slow for this");
    // What the engine decides when they are due reaches the broker only after their newer words.
    until_ms(due * 1_000 - 200);
    proxy.hold();
    until_ms(due * 1_000 + 500);
    keys().for_each(|key| case.queue(&case.due_in(key, "second", 3_600)));
    case.flush();
    proxy.pass(Duration::ZERO);
    let series = "reasserted_records_total ";
    eventually("all are written again", PATIENCE, || (count(&engine, series) == COUNT as u64).then_some(()));
    case.fired(COUNT);
    eventually("the newer ones are pending", PATIENCE, || {
        let listed = engine.get("/schedules")?;
        keys().all(|key| listed.contains(&format!("\"{key}\""))).then_some(())
    });
    engine.stop();
}

#[test]
fn a_batch_that_the_group_has_overtaken_is_refused_and_counted() {
    let _alone = alone();
    let Some(case) = Case::new("refused", 4) else { return };
    let mut engine = case.engine();
    engine.ready();
    let mut ledger = Ledger::new(&case);
    // Another instance comes in the middle of bursts, until a batch has met the change of generations.
    let mut from = 0;
    eventually("a batch is refused", PATIENCE * 2, || {
        let due = now_s() + 1;
        ledger.schedule(from..from + 4_000, |n| due + (n % 3) as i64);
        from += 4_000;
        let mut other = case.engine();
        other.ready();
        let refused = [&engine, &other].map(|e| count(e, "transaction_duration_seconds_count{outcome=\"refused\"}"));
        other.stop();
        (refused != [0, 0]).then_some(())
    });
    ledger.settle();
    engine.stop();
}

#[test]
fn a_loop_that_stalls_and_requests_that_fail_are_counted() {
    let _alone = alone();
    let Some(case) = Case::new("stalls", 1) else { return };
    let (proxy, bootstrap) = proxy(&case);
    let mut engine = case.engine_with(&[("BOOTSTRAP_SERVERS", &bootstrap), ("CONFIGURATION_FILE", &patient())]);
    engine.ready();
    // Stopped in the middle of a turn: in one of many, since most of the time it waits.
    eventually("a stall is counted", PATIENCE, || {
        for n in 0..2_000 {
            case.queue(&case.due_in(format!("k{n}"), "v", 3_600));
        }
        signal(engine.pid(), "STOP");
        let stopped_ms = now_ms();
        case.flush();
        until_ms(stopped_ms + 300);
        signal(engine.pid(), "CONT");
        (count(&engine, "loop_stalls_total ") > 0).then_some(())
    });
    proxy.cut();
    eventually("failed requests are counted", PATIENCE, || {
        (count(&engine, "client_request_errors_total{client=\"consumer\"}") > 0).then_some(())
    });
    proxy.pass(Duration::ZERO);
    engine.ready();
    engine.stop();
}
