//! A gigabyte of schedules, each nearly as large as a broker accepts.

use crate::alone;
use crate::kit::case::TIMEOUT;
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
    // Later than the last arrival, so all schedules are pending at once.
    let due = now_s() + 20;
    let large = vec![b'x'; BYTES];
    for n in 0..COUNT {
        let schedule = Scheduled::new(format!("k{n}"), "v", due, &case.target);
        // Half of them have a large header, the others a large key.
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
    assert!(now_s() < due, "the machine is too slow for this test");
    let fired = |records: &[client::Record]| records.iter().filter(|r| r.value_text() == "v").count();
    let mut reader = case.target_reader();
    reader.wait("all have fired", TIMEOUT * 4, |r| fired(r) >= COUNT);
    assert_eq!(case.settled().len(), COUNT, "each schedule fires once");
    // The bound of docs/unfired.md: the pending schedules with a twentieth for the allocator, two batches with three
    // records per schedule, and the prefetched records.
    let pending = (COUNT * BYTES) as u64;
    let bound = pending + pending / 20 + 2 * 4 * 17 * MB + 64 * MB;
    let grown = engine.peak_memory().saturating_sub(before);
    println!("{} MiB more, {} MiB allowed", grown / MB, bound / MB);
    assert!(grown <= bound, "{grown} bytes more, {bound} are allowed");
    engine.stop();
}
