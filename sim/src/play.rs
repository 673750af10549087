//! A run: faults, then quiet in which everything must converge, then all anew from what compaction has left.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::failure::Failure;
use crate::oracle;
use crate::scenario::{Point, SAFETY_MS, Scenario};
use crate::world::{Summary, World};

/// The longest that anything waits once faults have stopped: parked schedules, targets, transactions' time-outs.
pub(crate) const CONVERGE_MS: i64 = 75_000;
/// From the crash of everybody to everything being served again: a session, a rebalance, a takeover. Less than a
/// transaction's time-out, which a takeover must not wait for.
const TAKEOVER_MS_MAX: i64 = 12_000;

/// Plays a scenario. With `verbose` it prints what happens.
///
/// # Errors
/// The first broken promise.
pub fn play(scenario: &Scenario, verbose: bool) -> Result<Summary, Failure> {
    let played = catch_unwind(AssertUnwindSafe(|| run(World::new(scenario, verbose))));
    played.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a message");
        Err(Failure::Crash(text.to_owned()))
    })
}

fn run(mut world: World) -> Result<Summary, Failure> {
    let safety_ms = i64::from(SAFETY_MS);
    world.until(safety_ms)?;
    oracle::safe(&world)?;
    world.calm();
    let quiet_ms = safety_ms + CONVERGE_MS;
    world.until(quiet_ms - 15_000)?;
    world.probe(3);
    world.until(quiet_ms)?;
    oracle::fires_on_time(&world)?;
    oracle::converged(&world)?;
    let restarted_ms = crash_all(&mut world, quiet_ms)?;
    world.until(restarted_ms + TAKEOVER_MS_MAX)?;
    oracle::served(&world)?;
    world.until(restarted_ms + TAKEOVER_MS_MAX + 30_000)?;
    let fired = oracle::converged(&world)?;
    still(&mut world)?;
    oracle::recovered(&world)?;
    world.summary.letters = fired.letters.len() as u64;
    world.summary.fired = fired.words.len() as u64;
    world.summary.reasserted = fired.reasserted;
    Ok(world.summary)
}

/// Waits for a moment at which nothing is on its way, if there is any soon.
fn still(world: &mut World) -> Result<(), Failure> {
    const TRIES: i64 = 500;
    const EVERY_MS: i64 = 10;
    let from_ms = world.now_ms - world.start_ms;
    for n in 1..=TRIES {
        if world.is_still() {
            break;
        }
        world.until(from_ms + n * EVERY_MS)?;
    }
    Ok(())
}

/// The log is compacted, and everybody dies in the middle of a transaction, which hangs. Gives when.
fn crash_all(world: &mut World, at_ms: i64) -> Result<i64, Failure> {
    world.compact_all();
    let points = [Point::AfterProduce, Point::AfterOffsets, Point::AfterCommit, Point::BeforeSend];
    world.arm_last_crash(points[(world.setup.noise % 4) as usize]);
    world.probe(2);
    world.until(at_ms + 4_000)?;
    world.force_last_crash();
    Ok(at_ms + 4_000)
}
