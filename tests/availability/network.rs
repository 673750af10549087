//! A bad network between an engine and its broker.

use std::time::Duration;

use crate::kit::Case;
use crate::kit::engine::Engine;
use crate::kit::proxy::Proxy;
use crate::kit::wait::{eventually, now_ms, now_s, until_ms};
use crate::ledger::{Ledger, alone, long_transaction_timeout};

const COUNT: usize = 10_000;
const TIMEOUT: Duration = Duration::from_secs(40);

/// Starts an engine that reaches the broker only through the proxy, and waits until it is ready.
pub fn through_proxy(case: &Case) -> (Proxy, Engine) {
    let (port, upstream) = case.broker.proxied.expect("these tests need a broker of their own: unset KAFKA_BOOTSTRAP");
    let proxy = Proxy::shared(port, upstream);
    proxy.pass(Duration::ZERO);
    let bootstrap = format!("127.0.0.1:{port}");
    let engine =
        case.engine_with(&[("BOOTSTRAP_SERVERS", &bootstrap), ("CONFIGURATION_FILE", &long_transaction_timeout())]);
    engine.ready();
    (proxy, engine)
}

/// Runs a burst of 10 s through the proxy. In the middle, `trouble` applies to the proxy for 15 s; `nothing_passes`
/// says whether it blocks all data.
fn burst(name: &str, nothing_passes: bool, trouble: impl FnOnce(&Proxy)) {
    let _alone = alone();
    let Some(case) = Case::new(name, 2) else { return };
    let (proxy, mut engine) = through_proxy(&case);
    case.settled();
    let mut ledger = Ledger::new(&case);
    let due = now_s() + 4;
    ledger.schedule(0..COUNT, |n| due + (n % 10) as i64);
    let mut reader = case.target_reader();
    reader.wait("the burst has begun", TIMEOUT, |r| r.len() > 500);
    let began_ms = now_ms();
    trouble(&proxy);
    let pending = COUNT - case.read_target().len();
    assert!(pending > 0, "the burst ended before the fault began");
    until_ms(began_ms + 15_000);
    let ended_ms = now_ms();
    proxy.pass(Duration::ZERO);
    let late_ms = ledger.settle();
    eprintln!("{name}: {pending} were pending, worst lateness {late_ms} ms");
    // Data that the proxy had read before the fault may still arrive.
    let fired = case.read_target();
    let meanwhile = fired.iter().filter(|r| (began_ms + 500..ended_ms).contains(&r.timestamp)).count();
    assert!(!nothing_passes || meanwhile == 0, "{meanwhile} fired through a blocked network");
    engine.ready();
    assert!(engine.running(), "the engine exited");
    engine.stop();
}

#[test]
fn delays_of_200_ms() {
    burst("delay-200", false, |proxy| proxy.pass(Duration::from_millis(200)));
}

#[test]
fn delays_of_2_s() {
    burst("delay-2000", false, |proxy| proxy.pass(Duration::from_secs(2)));
}

#[test]
fn connections_cut_for_15_s() {
    burst("cut", true, Proxy::cut);
}

#[test]
fn readiness_is_false_while_connections_are_cut() {
    let _alone = alone();
    let Some(case) = Case::new("not-ready", 1) else { return };
    let (proxy, mut engine) = through_proxy(&case);
    proxy.cut();
    eventually("readiness fails with a reason", TIMEOUT, || {
        let answer = engine.probe("/readiness")?;
        (answer.status == 503 && answer.text().contains("no broker answers")).then_some(())
    });
    proxy.pass(Duration::ZERO);
    engine.ready();
    engine.stop();
}

#[test]
fn readiness_is_false_from_the_loss_of_the_partitions_on() {
    let _alone = alone();
    let Some(case) = Case::new("lost", 1) else { return };
    let (proxy, mut engine) = through_proxy(&case);
    // The connections stay open, so the engine misses no broker, but the session expires.
    proxy.silence();
    eventually("its partitions are lost", TIMEOUT, || engine.output().contains("partitions lost").then_some(()));
    eventually("readiness fails with a reason", TIMEOUT, || {
        let answer = engine.probe("/readiness")?;
        (answer.status == 503 && answer.text().contains("the consumer group has not answered yet")).then_some(())
    });
    proxy.pass(Duration::ZERO);
    engine.ready();
    engine.stop();
}

#[test]
fn connections_half_open_for_15_s() {
    burst("half-open", true, Proxy::silence);
}

#[test]
fn connections_held_up_for_15_s_whose_data_then_arrives() {
    burst("held-up", true, Proxy::hold);
}
