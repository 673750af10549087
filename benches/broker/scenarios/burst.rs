//! Many schedules, loaded beforehand, are due in the same second. No other consumer reads while they fire.

use std::time::Instant;

use super::running::{Running, time_limit};
use super::{Bench, sweep};
use crate::bare::{self, Landed};
use crate::feed::Feed;
use crate::kit::wait::{now_ms, now_s, until_ms};
use crate::lateness::Lateness;
use crate::process::{cpu_s, peak_bytes, resident_bytes};
use crate::report::Figures;

/// All schedules must be loaded this many milliseconds before they are due.
const CALM_MS: i64 = 500;

/// The due time of the schedules that are only pending.
const FAR_S: i64 = 365 * 86_400;

/// Time for everything besides producing and loading, in seconds.
const MARGIN_S: u64 = 8;

pub fn run(bench: &Bench, count: u32) -> Result<Figures, String> {
    let case = bench.case("bare");
    let began = Instant::now();
    bare::produce(&case, &bench.values, count)?;
    let bare_took = began.elapsed();
    let bare_per_s = Landed::of(&case, count)?.appended_per_s();
    sweep(&case);

    let case = bench.case("burst");
    let mut engine = Running::ready(bench, &case, time_limit(0))?;
    engine.wait_until_idle();
    let none_pending = resident_bytes(engine.pid());
    // Producing and loading one record takes less time than writing three, however busy the machine is.
    let beside = bench.args.beside;
    let lead_s = MARGIN_S + bare_took.as_secs() * 3 / 2 * u64::from(count + beside) / u64::from(count);
    let now = now_s();
    let due_s = now + i64::try_from(lead_s).expect("a few seconds");
    Feed::new(&case, &bench.values)?.all(count + beside, |n| 1000 * if n < count { due_s } else { now + FAR_S })?;
    engine.counted("planned_schedule", count + beside)?;
    if now_ms() > due_s * 1000 - CALM_MS {
        return Err(format!("the machine is too busy: {count} were not loaded within {lead_s} s"));
    }
    until_ms(due_s * 1000 - CALM_MS / 2);
    let (cpu_before, loaded) = (cpu_s(engine.pid()), resident_bytes(engine.pid()));
    engine.counted("triggered_schedule", count)?;
    engine.wait_until_idle();
    let (cpu, steady, peak) = (cpu_s(engine.pid()), resident_bytes(engine.pid()), peak_bytes(engine.pid()));
    engine.stop();

    let landed = Landed::of(&case, count)?;
    let millions = f64::from(count) / 1e6;
    let mut figures = vec![
        ("fired_per_s".to_owned(), landed.appended_per_s()),
        ("bare_producer_per_s".to_owned(), bare_per_s),
        ("of_bare_producer".to_owned(), landed.appended_per_s() / bare_per_s),
        ("bare_consumer_per_s".to_owned(), landed.read.per_s()),
        ("of_bare_consumer".to_owned(), landed.appended_per_s() / landed.read.per_s()),
    ];
    figures
        .extend(Lateness::new(landed.each.iter().map(|(_, at_ms)| at_ms - due_s * 1000).collect()).figures("append"));
    figures.extend([
        ("firing_cpu_s".to_owned(), cpu - cpu_before),
        ("firing_cpu_s_per_million".to_owned(), (cpu - cpu_before) / millions),
        ("whole_cpu_s".to_owned(), cpu),
        ("whole_cpu_s_per_million".to_owned(), cpu / millions),
        ("resident_before_bytes".to_owned(), none_pending as f64),
        ("resident_loaded_bytes".to_owned(), loaded as f64),
        ("resident_after_bytes".to_owned(), steady as f64),
        ("resident_peak_bytes".to_owned(), peak as f64),
    ]);
    sweep(&case);
    Ok(figures)
}
