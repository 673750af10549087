//! When schedules fire.

use kafka_scheduler::core::batch::Kind;
use kafka_scheduler::core::io::{Abort, Input, Millis};

use crate::rig::*;

#[test]
fn nothing_fires_before_its_second_and_the_deadline_says_when() {
    let mut rig = Rig::live();
    rig.schedule(P, "k", NOW + 10);
    rig.read(P);
    let due = Millis((NOW + 10) * 1000);
    assert_eq!(rig.core.poll_timeout().map(|(at, _)| at), Some(due));
    rig.now = due.plus(-1);
    rig.input(Input::Tick);
    rig.no_batch("one millisecond early");
    rig.now = due;
    rig.input(Input::Tick);
    rig.batch();
}

#[test]
fn missed_schedules_fire_first_and_in_due_order() {
    let mut rig = Rig::live();
    let c = rig.schedule(P, "c", NOW + 30);
    let a = rig.schedule(P, "a", NOW + 10);
    let b = rig.schedule(P, "b", NOW + 20);
    rig.schedule(P, "later", NOW + 10_000);
    rig.successor("cd");
    rig.now = Millis((NOW + 3_600) * 1000);
    rig.assign(&[P]);
    rig.tell_committed(&[P]);
    rig.run_until_quiet(&[P]);
    let batch = rig.batch();
    assert_eq!(fired(&batch), [a, b, c]);
    assert!(batch.items.iter().all(|i| matches!(i.kind, Kind::Fire { missed: true, .. })));
    rig.commit(&batch);
    assert_eq!((rig.core.counters().missed, rig.core.counters().triggered), (3, 0));
}

/// Found by the simulator: after an abort, all schedules waited for a day when the clock was set back by one.
#[test]
fn a_clock_set_back_delays_no_schedule_after_an_abort() {
    let mut rig = Rig::live();
    let tomorrow = rig.schedule(P, "a", NOW + 86_400);
    let soon = rig.schedule(P, "b", NOW + 10);
    rig.read(P);
    rig.at(NOW + 86_400);
    let early = rig.batch();
    assert_eq!(fired(&early), [soon, tomorrow], "by a clock that is a day ahead");
    rig.abort(&early, Abort::Retry);
    rig.at(NOW + 9);
    rig.no_work("nothing is due by the right clock");
    rig.at(NOW + 10);
    assert_eq!(fired(&rig.work()), [soon]);
}

/// Found by the simulator: schedules that were rejected together fired early when the clock was set back.
#[test]
fn a_clock_set_back_lets_no_rejected_schedule_fire_early() {
    let mut rig = Rig::live();
    let tomorrow = rig.schedule(P, "a", NOW + 86_400);
    let soon = rig.schedule(P, "b", NOW + 10);
    rig.read(P);
    rig.at(NOW + 86_400);
    let early = rig.batch();
    assert_eq!(fired(&early), [soon, tomorrow], "by a clock that is a day ahead");
    rig.now = Millis((NOW + 9) * 1000);
    rig.abort(&early, Abort::RejectedUnnamed);
    rig.no_work("nothing is due by the right clock");
    rig.at(NOW + 10);
    assert_eq!(fired(&rig.work()), [soon]);
}

#[test]
fn a_clock_set_back_makes_no_later_schedule_missed() {
    let mut rig = Rig::new(config());
    rig.now = Millis((NOW + 3_600) * 1000);
    rig.bring_up(&[P]);
    rig.at(NOW);
    rig.schedule(P, "a", NOW + 10);
    rig.read(P);
    rig.at(NOW + 10);
    let batch = rig.batch();
    assert!(matches!(batch.items[0].kind, Kind::Fire { missed: false, .. }), "{batch:?}");
}
