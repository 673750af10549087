//! Stopping and restarting.

use std::time::{Duration, Instant};

use crate::kit::Case;

#[test]
fn a_restart_fires_nothing_again() {
    const COUNT: usize = 500;
    let Some(case) = Case::new("restart", 3) else { return };
    for n in 0..COUNT {
        case.queue(&case.due_in(format!("k{n}"), "v", -1));
    }
    case.flush();
    for round in 0..3 {
        let mut engine = case.engine();
        assert_eq!(case.settled().len(), COUNT, "after start {round}");
        // One stop with SIGTERM, one with SIGKILL.
        if round == 0 { engine.stop() } else { engine.kill() }
    }
    let mut history = case.read_history();
    history.retain(|r| r.value.as_deref() != Some(b"probe"));
    assert_eq!(history.len(), COUNT);
}

#[test]
fn schedules_due_while_down_fire_after_the_start() {
    let Some(case) = Case::new("missed", 2) else { return };
    let mut engine = case.engine();
    case.settled();
    case.produce(&[case.due_in("k", "v", 2)]);
    engine.stop();
    crate::kit::wait::until_ms(crate::kit::wait::now_ms() + 3_000);
    let engine = case.engine();
    assert_eq!(case.settled().len(), 1);
    assert!(engine.counter("missed_schedule").expect("a count") >= 1);
}

#[test]
fn sigterm_stops_the_engine_cleanly_and_quickly() {
    let Some(case) = Case::new("sigterm", 2) else { return };
    let mut engine = case.engine();
    case.settled();
    let asked = Instant::now();
    engine.stop();
    assert!(asked.elapsed() < Duration::from_secs(10), "stopping took {:?}", asked.elapsed());
}

#[test]
fn ctrl_c_stops_the_engine_cleanly() {
    let Some(case) = Case::new("sigint", 2) else { return };
    let mut engine = case.engine();
    case.produce(&[case.due_in("k", "v", 0)]);
    case.fired(1);
    assert_eq!(engine.interrupt().code(), Some(0), "{}", engine.output());
    assert!(engine.output().contains("stopping; a second signal ends the program at once"), "{}", engine.output());
    let _engine = case.engine();
    assert_eq!(case.settled().len(), 1, "a schedule fired twice");
}
