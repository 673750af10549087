//! A bad network between one engine and its broker.

use std::time::Duration;

use crate::kit::Case;
use crate::kit::engine::Engine;
use crate::kit::proxy::Proxy;
use crate::kit::wait::{eventually, now_ms, now_s, until_ms};
use crate::ledger::{Ledger, alone, patient};

const COUNT: usize = 10_000;
const PATIENCE: Duration = Duration::from_secs(40);

/// An engine that reaches the broker through the proxy only, and fires.
pub fn behind_proxy(case: &Case) -> (Proxy, Engine) {
    let (port, behind) = case.broker.proxied.expect("these tests need a broker of their own: unset KAFKA_BOOTSTRAP");
    let proxy = Proxy::shared(port, behind);
    proxy.pass(Duration::ZERO);
    let bootstrap = format!("127.0.0.1:{port}");
    let engine = case.engine_with(&[("BOOTSTRAP_SERVERS", &bootstrap), ("CONFIGURATION_FILE", &patient())]);
    engine.ready();
    (proxy, engine)
}

/// Runs a burst of 10 s through the proxy, with something done to it in the middle for 15 s: trouble in which nothing
/// comes through, or through which the engine works.
fn burst(name: &str, nothing_passes: bool, trouble: impl FnOnce(&Proxy)) {
    let _alone = alone();
    let Some(case) = Case::new(name, 2) else { return };
    let (proxy, mut engine) = behind_proxy(&case);
    case.settled();
    let mut ledger = Ledger::new(&case);
    let due = now_s() + 4;
    ledger.schedule(0..COUNT, |n| due + (n % 10) as i64);
    let mut reader = case.target_reader();
    reader.wait("the burst has begun", PATIENCE, |r| r.len() > 500);
    let began_ms = now_ms();
    trouble(&proxy);
    let pending = COUNT - case.read_target().len();
    assert!(pending > 0, "the burst was over before the trouble began");
    until_ms(began_ms + 15_000);
    let ended_ms = now_ms();
    proxy.pass(Duration::ZERO);
    let late_ms = ledger.settle();
    eprintln!("{name}: {pending} were pending, worst lateness {late_ms} ms");
    // What the proxy had taken when the trouble began may still have come through.
    let fired = case.read_target();
    let meanwhile = fired.iter().filter(|r| (began_ms + 500..ended_ms).contains(&r.timestamp)).count();
    assert!(!nothing_passes || meanwhile == 0, "{meanwhile} came through");
    engine.ready();
    assert!(engine.running(), "it was not restarted");
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
    let (proxy, mut engine) = behind_proxy(&case);
    proxy.cut();
    eventually("it is not ready, and says why", PATIENCE, || {
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
    let (proxy, mut engine) = behind_proxy(&case);
    // The connections stay open, so no broker is missed; but the session ends.
    proxy.silence();
    eventually("its partitions are lost", PATIENCE, || engine.output().contains("partitions lost").then_some(()));
    eventually("it is not ready, and says why", PATIENCE, || {
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
