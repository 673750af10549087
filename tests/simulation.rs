//! Several instances on the model of Kafka: a few seeds of the swarm that `sim` plays.

use sim::scenario::Scenario;
use sim::swarm::{self, Scenarios};
use sim::{Summary, play};

const SEEDS: u64 = 150;

#[test]
fn promises_hold_under_every_kind_of_fault() {
    let report = swarm::swarm(Scenarios { of: Scenario::from_seed, from: 0, count: SEEDS }, 2, false, || {}, false);
    if let Some(broken) = report.broken.first() {
        panic!("{}\n  replay: {} --seed {}", broken.failure, sim::REPLAY, broken.seed);
    }
    let Summary { fired, rewritten, coverage, .. } = &report.total;
    for fault in sim::faults::FAULTS {
        assert!(coverage.0.keys().any(|(hit, _)| *hit == fault), "{fault:?} never hit:\n{}", coverage.table());
    }
    assert!(*fired > 20 * SEEDS && *rewritten > SEEDS / 2, "{:?}", report.total);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let scenario = Scenario::from_seed(11);
    assert_eq!(play(&scenario, false), play(&scenario, false));
}

/// Plays a scenario, given by its bytes, that found a bug in the engine.
fn holds(bytes: &str) {
    let scenario = Scenario::from_hex(bytes).expect("hexadecimal digits");
    if let Err(failure) = play(&scenario, false) {
        panic!("{failure}\n  {} --bytes {bytes}", sim::REPLAY);
    }
}

#[test]
fn a_rejected_schedule_waits_if_the_clock_is_set_back() {
    // The schedule fires a day early, is rejected and isolated. When the clock is set back, it must wait again.
    holds(
        "010002060106000000000000000000000aab9465ec6a1ddf3e3f0e00000000000000403705010100023e0000ae1d0000000500060000",
    );
}
