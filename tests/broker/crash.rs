//! Killed in the middle.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::kit::{Seen, World, now};

const LIMIT: Duration = Duration::from_secs(90);

fn distinct(seen: &[Seen]) -> usize {
    seen.iter().map(|s| s.header("scheduler-key").map(<[u8]>::to_vec)).collect::<BTreeSet<_>>().len()
}

#[test]
fn killed_five_times_while_firing_it_fires_each_schedule_once() {
    let Some(world) = World::new("kill") else { return };
    const COUNT: usize = 20_000;
    // Due over some seconds, so that there is time to kill between the first and the last.
    let begin = now() + 4;
    for number in 0..COUNT {
        world.schedule(&format!("k{number}"), "v", begin + number as u64 * 25 / COUNT as u64);
    }
    world.flush();
    let mut seen = 0;
    for _ in 0..5 {
        let mut engine = world.engine();
        let begun = Instant::now();
        loop {
            let fired = world.read(&world.target()).len();
            if fired > seen {
                seen = fired;
                break;
            }
            assert!(begun.elapsed() < LIMIT, "nothing fires any more");
            std::thread::sleep(Duration::from_millis(20));
        }
        engine.kill();
        assert!(seen > 0 && world.read(&world.target()).len() < COUNT, "killed too late to prove anything");
    }
    let mut engine = world.engine();
    world.wait_for(COUNT, LIMIT);
    assert_eq!(engine.terminate().code(), Some(0));
    let fired = world.read(&world.target());
    assert_eq!((fired.len(), distinct(&fired)), (COUNT, COUNT));
    let history = world.read(&world.history());
    assert_eq!((history.len(), distinct(&history)), (COUNT, COUNT));
    assert_eq!(world.tombstones().len(), COUNT);
}

#[test]
fn moved_in_the_moment_of_firing_the_second_date_fires_once() {
    let Some(world) = World::new("race") else { return };
    const COUNT: usize = 3_000;
    let first = now() + 6;
    let second = first + 4;
    for number in 0..COUNT {
        world.schedule(&format!("k{number}"), "first", first);
    }
    world.flush();
    let mut engine = world.engine();
    let due = Instant::now() + Duration::from_secs(first.saturating_sub(now()));
    while Instant::now() < due {
        std::thread::sleep(Duration::from_millis(1));
    }
    for number in 0..COUNT {
        world.schedule(&format!("k{number}"), "second", second);
        if number % 10 == 0 {
            world.flush();
        }
    }
    world.flush();
    let is_second = |seen: &Seen| seen.value.as_deref() == Some(b"second");
    let begun = Instant::now();
    while world.read(&world.target()).iter().filter(|seen| is_second(seen)).count() < COUNT {
        assert!(begun.elapsed() < LIMIT, "an update was lost");
        std::thread::sleep(Duration::from_millis(100));
    }
    engine.kill();
    let mut engine = world.engine();
    world.schedule("after", "after", now() - 1);
    world.flush();
    let begun = Instant::now();
    let fired = loop {
        let fired = world.read(&world.target());
        if fired.iter().any(|seen| seen.value.as_deref() == Some(b"after")) {
            break fired;
        }
        assert!(begun.elapsed() < LIMIT);
    };
    engine.kill();
    let seconds: Vec<Seen> = fired.iter().filter(|seen| is_second(seen)).cloned().collect();
    assert_eq!((seconds.len(), distinct(&seconds)), (COUNT, COUNT));
    let firsts: Vec<Seen> = fired.into_iter().filter(|seen| seen.value.as_deref() == Some(b"first")).collect();
    assert_eq!(firsts.len(), distinct(&firsts));
}
