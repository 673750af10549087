//! A gigabyte of schedules, each of them nearly as large as a broker takes.

use crate::alone;
use crate::kit::case::PATIENCE;
use crate::kit::client;
use crate::kit::wait::now_s;
use crate::kit::{Case, Scheduled};

const MB: u64 = 1 << 20;

#[test]
fn schedules_of_900_kb_fire_within_the_stated_memory() {
    const COUNT: usize = 1_000;
    const BYTES: usize = 900_000;
    let Some(case) = Case::new("large", 1) else { return };
    let _alone = alone();
    let mut engine = case.engine();
    case.settled();
    let before = engine.peak_memory();
    // Later than all have arrived, so all are pending at once.
    let due = now_s() + 20;
    let large = vec![b'x'; BYTES];
    for n in 0..COUNT {
        let schedule = Scheduled::new(format!("k{n}"), "v", due, &case.target);
        // Half of them have a large header, half a large key.
        let schedule = if n % 2 == 0 {
            schedule.header("customer", &large)
        } else {
            let mut key = large.clone();
            key.extend(n.to_be_bytes());
            Scheduled { key: Some(key), ..schedule }
        };
        case.queue(&schedule);
    }
    case.flush();
    assert!(now_s() < due, "the machine is too slow for this");
    let fired = |records: &[client::Record]| records.iter().filter(|r| r.value_text() == "v").count();
    let mut reader = case.target_reader();
    reader.wait("all have fired", PATIENCE * 4, |r| fired(r) >= COUNT);
    assert_eq!(case.settled().len(), COUNT, "each once");
    // What is pending and a twentieth of it for the allocator, two batches with three records a schedule, and what was
    // fetched ahead: docs/refusals.md.
    let pending = (COUNT * BYTES) as u64;
    let bound = pending + pending / 20 + 2 * 4 * 17 * MB + 64 * MB;
    let grown = engine.peak_memory().saturating_sub(before);
    println!("{} MiB more, {} MiB allowed", grown / MB, bound / MB);
    assert!(grown <= bound, "{grown} bytes more, {bound} are allowed");
    engine.stop();
}
