//! A bad network between one engine and its broker.

use std::time::Duration;

use crate::kit::Case;
use crate::kit::proxy::Proxy;
use crate::kit::wait::{now_s, until_ms};
use crate::ledger::{Ledger, alone, patient};

/// Runs a burst of 10 s through the proxy, with something done to it in the middle for 15 s.
fn burst(name: &str, trouble: impl FnOnce(&Proxy)) {
    let Some(case) = Case::new(name, 2) else { return };
    let Some((port, behind)) = case.broker.proxied else { return };
    let _alone = alone();
    let proxy = Proxy::shared(port, behind);
    let bootstrap = format!("127.0.0.1:{port}");
    let mut engine = case.engine_with(&[("BOOTSTRAP_SERVERS", &bootstrap), ("CONFIGURATION_FILE", &patient())]);
    case.settled();
    let mut ledger = Ledger::new(&case);
    let due = now_s() + 4;
    ledger.schedule(0..10_000, |n| due + (n % 10) as i64);
    let mut reader = case.target_reader();
    reader.wait("the burst has begun", Duration::from_secs(40), |r| r.len() > 500);
    let until = now_s() + 15;
    trouble(&proxy);
    until_ms(until * 1_000);
    proxy.pass(Duration::ZERO);
    let late_ms = ledger.settle();
    eprintln!("{name}: worst lateness {late_ms} ms");
    assert!(engine.running());
    engine.stop();
}

#[test]
fn delays_of_200_ms() {
    burst("delay-200", |proxy| proxy.pass(Duration::from_millis(200)));
}

#[test]
fn delays_of_2_s() {
    burst("delay-2000", |proxy| proxy.pass(Duration::from_secs(2)));
}

#[test]
fn connections_cut_for_15_s() {
    burst("cut", Proxy::cut);
}

#[test]
fn connections_half_open_for_15_s() {
    burst("half-open", Proxy::silence);
}
