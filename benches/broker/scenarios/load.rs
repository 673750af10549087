//! The engine starts with many pending schedules and one overdue schedule: how soon does that one fire, and how much
//! memory do the others take?

use std::time::Instant;

use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message};

use super::running::{Running, time_limit};
use super::{Bench, sweep};
use crate::bare;
use crate::feed::Feed;
use crate::kit::Case;
use crate::kit::wait::{now_ms, now_s};
use crate::process::{cpu_s, peak_bytes, resident_bytes};
use crate::records::{number_of, user_bytes};
use crate::report::Figures;

/// Due times far in the future, spread over a day.
const FAR_S: i64 = 365 * DAY_S;
const DAY_S: i64 = 86_400;

/// Starts without pending schedules, for comparison.
const EMPTY_STARTS: u32 = 3;

/// Produces schedules that do not fire during the run.
pub fn fill(bench: &Bench, case: &Case, count: u32, is_spread: bool) -> Result<(), String> {
    let far_ms = (now_s() + FAR_S) * 1000;
    // An odd number of milliseconds apart, so each has a millisecond of its own.
    let due_ms = |number: u32| if is_spread { i64::from(number) * 87 } else { i64::from(number) % DAY_S * 1000 };
    Feed::new(case, &bench.values)?.all(count, |number| far_ms + due_ms(number))
}

pub fn run(bench: &Bench, count: u32, is_spread: bool) -> Result<Vec<Figures>, String> {
    let case = bench.case("load");
    let mut starts = Starts { bench, case: &case, overdue: count, state_dir: None };
    // Only the very first start writes start markers.
    starts.next(0)?.0.stop();
    // The fastest of several starts: a slow one would make loading seem faster than it is.
    let (mut none_pending, mut empty_s) = (0, f64::INFINITY);
    for _ in 0..EMPTY_STARTS {
        let (engine, first_s) = starts.next(0)?;
        engine.wait_until_idle();
        none_pending = resident_bytes(engine.pid());
        empty_s = empty_s.min(first_s);
        engine.stop();
    }
    fill(bench, &case, count, is_spread)?;
    let runs = bench.runs(|| {
        let bare = bare::read(case.bootstrap(), &case.schedules[0], count, |_| {})?;
        let mut headers = 0;
        let with_headers = bare::read(case.bootstrap(), &case.schedules[0], count, |message| {
            // librdkafka decodes headers when they are requested.
            headers += message.headers().map_or(0, Headers::count);
        })?;
        if headers < count as usize {
            return Err(format!("{headers} headers of {count} schedules"));
        }
        let (mut engine, first_s) = starts.next(count)?;
        engine.holds(count)?;
        engine.wait_until_idle();
        let (pid, number) = (engine.pid(), f64::from(count));
        let (cpu, resident, peak) = (cpu_s(pid), resident_bytes(pid), peak_bytes(pid));
        engine.stop();
        // Starting and joining the group take equally long without pending schedules.
        let loaded_per_s = bare.records as f64 / (first_s - empty_s).max(0.001);
        let each = (resident as f64 - none_pending as f64) / number;
        Ok([
            ("start_to_first_firing_s", first_s),
            ("same_with_none_pending_s", empty_s),
            ("loaded_per_s", loaded_per_s),
            ("bare_consumer_per_s", bare.per_s()),
            ("of_bare_consumer", loaded_per_s / bare.per_s()),
            ("bare_consumer_with_headers_per_s", with_headers.per_s()),
            ("of_bare_consumer_with_headers", loaded_per_s / with_headers.per_s()),
            ("bytes_per_pending", each),
            ("bytes_per_pending_beyond_user_bytes", each - user_bytes() as f64),
            ("cpu_s_per_million_loaded", cpu * 1e6 / number),
            ("resident_none_pending_bytes", none_pending as f64),
            ("resident_bytes", resident as f64),
            ("resident_peak_bytes", peak as f64),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into())
    })?;
    sweep(&case);
    Ok(runs)
}

/// Each run stops an engine that has taken its last snapshots, and measures the next start.
pub fn run_warm(bench: &Bench, count: u32) -> Result<Vec<Figures>, String> {
    let case = bench.case("warm");
    let state_dir = std::env::temp_dir().join(format!("kafka-scheduler-bench-{}", std::process::id()));
    let path = state_dir.to_str().ok_or("the path of the temporary directory is not UTF-8")?.to_owned();
    let mut starts = Starts { bench, case: &case, overdue: count, state_dir: None };
    starts.next(0)?.0.stop();
    let mut empty_s = f64::INFINITY;
    for _ in 0..EMPTY_STARTS {
        let (engine, first_s) = starts.next(0)?;
        empty_s = empty_s.min(first_s);
        engine.stop();
    }
    fill(bench, &case, count, false)?;
    starts.state_dir = Some(path);
    let (cold, cold_s) = starts.next(count)?;
    // It has read its own canaries by then: otherwise there is no snapshot.
    cold.wait_until_idle();
    cold.terminate();
    let runs = bench.runs(|| {
        let (mut engine, first_s) = starts.next(count)?;
        engine.holds(count)?;
        engine.wait_until_idle();
        let (pid, number) = (engine.pid(), f64::from(count));
        let (cpu, resident, peak) = (cpu_s(pid), resident_bytes(pid), peak_bytes(pid));
        let warm = engine.0.metric("kafka_scheduler_takeovers_total{start=\"warm\"}").unwrap_or(0);
        if warm < u64::from(case.partitions.unsigned_abs()) {
            return Err(format!("{warm} partitions went on from snapshots: {}", engine.0.output()));
        }
        let stopped = Instant::now();
        engine.terminate();
        Ok([
            ("start_to_first_firing_s", first_s),
            ("same_with_none_pending_s", empty_s),
            ("same_cold_with_state_dir_s", cold_s),
            ("stop_s", stopped.elapsed().as_secs_f64()),
            ("cpu_s_per_million_loaded", cpu * 1e6 / number),
            ("resident_bytes", resident as f64),
            ("resident_peak_bytes", peak as f64),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into())
    })?;
    sweep(&case);
    let _ = std::fs::remove_dir_all(state_dir);
    Ok(runs)
}

/// Starts engines on the same topics, one after the other. Each has an overdue schedule of its own.
struct Starts<'a> {
    bench: &'a Bench,
    case: &'a Case,
    overdue: u32,
    state_dir: Option<String>,
}

impl Starts<'_> {
    /// Returns the engine, and the seconds from its start until the broker appended the overdue schedule's record.
    fn next(&mut self, pending: u32) -> Result<(Running, f64), String> {
        let overdue = self.overdue;
        self.overdue += 1;
        let (consumer, _) = bare::consumer(self.case.bootstrap(), &self.case.target)?;
        Feed::new(self.case, &self.bench.values)?.one(overdue, (now_s() - 1) * 1000)?;
        let began_ms = now_ms();
        let more: Vec<(&str, &str)> = self.state_dir.iter().map(|path| ("STATE_DIR", path.as_str())).collect();
        let mut engine = Running::start_with(self.bench, self.case, &more);
        let fired_ms = first_firing(&consumer, overdue, &mut engine, pending)?;
        Ok((engine, (fired_ms - began_ms) as f64 / 1000.0))
    }
}

fn first_firing(consumer: &BaseConsumer, overdue: u32, engine: &mut Running, pending: u32) -> Result<i64, String> {
    let (began, limit) = (Instant::now(), time_limit(pending));
    while began.elapsed() < limit {
        match consumer.poll(std::time::Duration::from_millis(100)) {
            Some(Ok(message)) if message.key().and_then(number_of) == Some(overdue) => {
                return message.timestamp().to_millis().ok_or_else(|| "a record without a time".to_owned());
            }
            Some(Ok(_) | Err(KafkaError::PartitionEOF(_))) => {}
            Some(Err(error)) => return Err(format!("reading the target: {error}")),
            None if !engine.0.running() => return Err(format!("the engine exited: {}", engine.0.output())),
            None => {}
        }
    }
    Err(format!("no firing within {limit:?}; output of the engine: {}", engine.0.output()))
}
