//! Reads a long list while schedules fire. `cargo test --release --test heavy large_list -- --nocapture` measures the
//! figures of docs/rest.md; without `--release` the list is shorter, and `LISTED` sets its length.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use crate::alone;
use crate::kit::case::TIMEOUT;
use crate::kit::engine::Engine;
use crate::kit::http;
use crate::kit::wait::{eventually, now_s};
use crate::kit::{Case, Record, Scheduled};

const GROWTH_MAX: u64 = 64 << 20;
const LISTED: usize = if cfg!(debug_assertions) { 30_000 } else { 1_000_000 };
/// With lists of this length or more, thousands of schedules fire meanwhile.
const MANY: usize = 100_000;
const FIRST_BYTE_MAX: Duration = Duration::from_secs(1);
/// The Go scheduler's admin server waits this long for a list.
const WHOLE_MAX: Duration = Duration::from_secs(5);
/// If lateness doubles but stays below twice this, the machine is the cause, and not the list.
const LATE_MIN_MS: i64 = if cfg!(debug_assertions) { 250 } else { 100 };

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// The times and entries of reading the list once.
struct Reading {
    first_byte: Duration,
    whole: Duration,
    entries: usize,
}

fn read(engine: &Engine, version: &str) -> Reading {
    let begun = Instant::now();
    let mut stream = http::connect(engine.port).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
    write!(stream, "GET /schedules HTTP/{version}\r\nHost: x\r\nConnection: close\r\n\r\n").expect("sent");
    let mut raw = vec![0; 1];
    stream.read_exact(&mut raw).expect("a first byte");
    let first_byte = begun.elapsed();
    stream.read_to_end(&mut raw).expect("the rest");
    let whole = begun.elapsed();
    let answer = http::parse(&raw, false).expect("a whole answer");
    drop(raw);
    let entries = serde_json::from_slice::<Vec<serde::de::IgnoredAny>>(&answer.body).expect("a JSON list").len();
    Reading { first_byte, whole, entries }
}

fn resident(engine: &Engine) -> f64 {
    engine.metrics()["process_resident_memory_bytes"]
}

/// Prints the memory that schedules use, by the process's memory and by the engine's own estimate.
fn cost(engine: &Engine, listed: usize, empty: f64) -> String {
    let metrics = eventually("the snapshot has all of them", TIMEOUT, || {
        let metrics = engine.metrics();
        let sum =
            |name: &str| metrics.iter().filter(|(series, _)| series.starts_with(name)).map(|(_, value)| value).sum();
        let pending: f64 = sum("kafka_scheduler_pending_schedules{");
        let held: f64 = sum("kafka_scheduler_held_bytes{");
        (pending >= listed as f64).then_some((held, metrics["process_resident_memory_bytes"]))
    });
    let each = |bytes: f64| bytes / listed as f64;
    format!(
        "a schedule costs {:.0} bytes by its own estimate, {:.0} by the process",
        each(metrics.0),
        each(metrics.1 - empty)
    )
}

/// Schedules `rate` records per second for some seconds. Returns the first due second.
fn plan(case: &Case, name: &str, rate: usize, seconds: usize) -> i64 {
    let from = now_s() + 3;
    for n in 0..rate * seconds {
        let second = n / rate;
        let key = format!("{name}-{n}");
        let due = from + i64::try_from(second).expect("few");
        case.queue(&Scheduled::new(&key, "v", due, &case.target).target_key(format!("{name}-{second}-{n}")));
    }
    case.flush();
    from
}

/// Returns how late each record was, sorted.
fn lateness_ms(case: &Case, name: &str, from: i64, count: usize) -> Vec<i64> {
    let mut reader = case.target_reader();
    let prefix = format!("{name}-");
    let ours = |record: &&Record| record.key_text().starts_with(&prefix);
    reader.wait("all of them fire", TIMEOUT * 2, |records| {
        records.len() >= count && records.iter().filter(ours).count() >= count
    });
    let late = |record: &Record| {
        let second: i64 = record.key_text().split('-').nth(1).and_then(|s| s.parse().ok()).expect("a second");
        record.timestamp - (from + second) * 1_000
    };
    let mut late: Vec<i64> = reader.records.iter().filter(ours).map(late).collect();
    late.sort_unstable();
    assert_eq!(late.len(), count);
    late
}

#[test]
fn a_long_list_is_whole_and_costs_little_while_schedules_fire() {
    let listed = number("LISTED", LISTED);
    let (rate, seconds) = if listed >= MANY { (1_000, 20) } else { (100, 6) };
    let Some(case) = Case::new("large-list", 4) else { return };
    let _alone = alone();
    let engine = case.engine();
    engine.ready();
    let empty = resident(&engine);
    let far = now_s() + 365 * 86_400;
    let value = "v".repeat(200);
    for n in 0..listed {
        case.queue(
            &Scheduled::new(format!("far-{n}"), &value, far + (n % 86_400) as i64, &case.target).target_key("k"),
        );
    }
    case.flush();
    eventually("they are pending", TIMEOUT * 4, || {
        (engine.counter("planned_schedule")? >= listed as u64).then_some(())
    });
    let costs = cost(&engine, listed, empty);
    let from = plan(&case, "alone", rate, seconds);
    let alone = lateness_ms(&case, "alone", from, rate * seconds);
    engine.forget_peak();
    let before = engine.peak_memory();
    let from = plan(&case, "listed", rate, seconds);
    crate::kit::wait::until_ms((from + 1) * 1_000);
    let read: Vec<Reading> = ["1.0", "1.1"].into_iter().map(|version| read(&engine, version)).collect();
    let during = lateness_ms(&case, "listed", from, rate * seconds);
    let grown = engine.peak_memory().saturating_sub(before);
    let p99 = |sorted: &[i64]| sorted[sorted.len() * 99 / 100];
    for (read, version) in read.iter().zip(["1.0", "1.1"]) {
        assert!(read.entries >= listed, "HTTP/{version}: {} of {listed}", read.entries);
        println!("HTTP/{version}: {} entries, first byte {:?}, whole {:?}", read.entries, read.first_byte, read.whole);
        assert!(read.first_byte <= FIRST_BYTE_MAX, "HTTP/{version}: first byte after {:?}", read.first_byte);
        assert!(read.whole <= WHOLE_MAX, "HTTP/{version}: whole after {:?}", read.whole);
    }
    println!("{costs}");
    println!("lateness p99 at {rate}/s: {} ms alone, {} ms while listed", p99(&alone), p99(&during));
    println!("peak memory {} MiB before, {} KiB more after", before >> 20, grown >> 10);
    assert!(grown <= GROWTH_MAX, "memory grew by {} KiB", grown >> 10);
    let allowed = 2 * p99(&alone).max(LATE_MIN_MS);
    assert!(p99(&during) <= allowed, "{} ms late while listed, {allowed} ms are allowed", p99(&during));
}
