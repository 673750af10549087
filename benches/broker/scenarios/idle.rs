//! Many schedules are pending, and none is due: what do they cost?

use std::thread;
use std::time::{Duration, Instant};

use super::load::fill;
use super::running::{Running, time_limit};
use super::{Bench, sweep};
use crate::process::{cpu_s, resident_bytes};
use crate::report::Figures;

pub fn run(bench: &Bench, count: u32, seconds: u32) -> Result<Vec<Figures>, String> {
    let case = bench.case("idle");
    fill(bench, &case, count, false)?;
    let mut engine = Running::ready(bench, &case, time_limit(count))?;
    engine.holds(count)?;
    engine.wait_until_idle();
    let runs = bench.runs(|| {
        let (began, before) = (Instant::now(), cpu_s(engine.pid()));
        thread::sleep(Duration::from_secs(u64::from(seconds)));
        let percent = (cpu_s(engine.pid()) - before) * 100.0 / began.elapsed().as_secs_f64();
        let resident = resident_bytes(engine.pid()) as f64;
        Ok(vec![("cpu_percent_of_a_core".to_owned(), percent), ("resident_bytes".to_owned(), resident)])
    })?;
    engine.stop();
    sweep(&case);
    Ok(runs)
}
