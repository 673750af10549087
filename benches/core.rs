//! Measures the cost of one record in the scheduler's core, without Kafka: to load, fire or cancel it, by the number of
//! pending schedules.
//!
//! `cargo bench --bench core -- [--quick] [--runs N] [--pending N,N,...] [--json PATH]`. The unit is nanoseconds per
//! record, as the median of all runs. Firing consists of forming the batch, encoding its records for the producer,
//! settling it, and reading the tombstones back.

use std::convert::Infallible;
use std::fmt::Write;
use std::hint::black_box;
use std::ops::Range;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use kafka_scheduler::calendar::ZoneCalendar;
use kafka_scheduler::core::batch::{Batch, OutRecord};
use kafka_scheduler::core::io::{Header, Input, Millis, Outcome, Output, Record, TargetState, TopicPartition};
use kafka_scheduler::core::ownership::RunId;
use kafka_scheduler::core::{Config, Scheduler, SchedulesTopic};

const PENDING: [usize; 3] = [1_000, 100_000, 10_000_000];
const PENDING_QUICK: [usize; 2] = [1_000, 10_000];

/// The other counts are compared with this one.
const GROWS_FROM: usize = 100_000;

/// Runs with few pending schedules are short, so there are more of them.
const RECORDS_MIN: usize = 2_000_000;
const RUNS_MAX: usize = 200;

/// A tenth of the schedules is cancelled; at most this many fire.
const FIRED_MAX: usize = 1_000_000;

/// The number of schedules that are due in the same second, and so share a batch.
const PER_SECOND: usize = 10_000;

/// The number of records that are prepared before the measurement begins.
const CHUNK: usize = 1_000;

const NOON_S: i64 = 1_893_499_200;
const MIDNIGHT: Millis = Millis((NOON_S - 43_200) * 1000);
const FIRST_DUE_S: i64 = NOON_S + 3_600;

const PLACE: TopicPartition = TopicPartition { topic: 0, number: 0 };
const KEY_BYTES: usize = 16;
const VALUE_BYTES: usize = 200;
const NO_HEADER: Header<'static> = Header { name: b"", value: None };

/// A prime that scatters numbers: every number occurs once for any count that is not one of its multiples.
const STRIDE: usize = 7_368_787;

fn main() -> ExitCode {
    let options = match Options::read(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut rows: Vec<Row> = Vec::new();
    println!("{:>12}{:>14}{:>14}{:>14}{:>8}   ns a record, medians", "pending", "loaded", "fired", "cancelled", "runs");
    for pending in options.pending {
        let row = Row::measure(pending, options.runs);
        println!("{:>12}{:>14.0}{:>14.0}{:>14.0}{:>8}", pending, row.loaded, row.fired, row.cancelled, row.runs);
        rows.push(row);
    }
    if let Some(base) = rows.iter().find(|row| row.pending == GROWS_FROM) {
        for row in rows.iter().filter(|row| row.pending > GROWS_FROM) {
            let [loaded, fired, cancelled] =
                [row.loaded / base.loaded, row.fired / base.fired, row.cancelled / base.cancelled];
            let against = format!("x at {GROWS_FROM}");
            println!("{:>12}{loaded:>14.2}{fired:>14.2}{cancelled:>14.2}   {against}", row.pending);
        }
    }
    if let Some(path) = options.json
        && let Err(error) = std::fs::write(&path, json(&rows))
    {
        eprintln!("error: {path}: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

struct Options {
    pending: Vec<usize>,
    runs: usize,
    json: Option<String>,
}

impl Options {
    fn read(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self { pending: PENDING.into(), runs: 5, json: None };
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
            let number = |text: &str| text.parse().ok().filter(|n| *n > 0).ok_or_else(|| format!("{text}: no count"));
            match arg.as_str() {
                "--quick" => (options.pending, options.runs) = (PENDING_QUICK.into(), 1),
                "--runs" => options.runs = number(&value()?)?,
                "--pending" => options.pending = value()?.split(',').map(number).collect::<Result<_, _>>()?,
                "--json" => options.json = Some(value()?),
                // Cargo adds this option.
                "--bench" => {}
                _ => return Err(format!("{arg}: there are --quick, --runs, --pending and --json")),
            }
        }
        Ok(options)
    }
}

/// Nanoseconds per record.
struct Row {
    pending: usize,
    runs: usize,
    loaded: f64,
    fired: f64,
    cancelled: f64,
}

impl Row {
    fn measure(pending: usize, runs: usize) -> Self {
        let runs = if runs > 1 { (RECORDS_MIN / pending).clamp(runs, RUNS_MAX) } else { 1 };
        let (mut loaded, mut fired, mut cancelled) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..runs {
            let mut rig = Rig::new(pending);
            loaded.push(rig.load());
            cancelled.push(rig.cancel((pending / 10).max(1)));
            fired.push(rig.fire());
        }
        Self { pending, runs, loaded: median(loaded), fired: median(fired), cancelled: median(cancelled) }
    }
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    let middle = all.len() / 2;
    if all.len() % 2 == 1 { all[middle] } else { f64::midpoint(all[middle - 1], all[middle]) }
}

fn json(rows: &[Row]) -> String {
    let row = |Row { pending, runs, loaded, fired, cancelled }: &Row| {
        format!(
            "  {{\"pending\": {pending}, \"runs\": {runs}, \"loaded_ns\": {loaded:.1}, \"fired_ns\": {fired:.1}, \
             \"cancelled_ns\": {cancelled:.1}}}"
        )
    };
    format!("[\n{}\n]\n", rows.iter().map(row).collect::<Vec<_>>().join(",\n"))
}

/// A scheduler that owns one partition, and the end offset of that partition's log.
struct Rig {
    core: Scheduler,
    now: Millis,
    pending: usize,
    end: i64,
    values: Vec<u8>,
    written: Written,
}

impl Rig {
    fn new(pending: usize) -> Self {
        let config = Config {
            cluster: "cluster".into(),
            topics: vec![SchedulesTopic::new("schedules")],
            history: "history".into(),
            dead_letter: None,
            group: "group".into(),
            run: RunId::from_random(7),
            grace_s: None,
            horizon_s: None,
            transactors: 2,
            batch_items_max: 10_000,
            batch_bytes_max: 16 << 20,
            adds_due_header: false,
            hash_seed: 7,
        };
        Self {
            core: Scheduler::new(config, Box::new(ZoneCalendar::default())),
            now: Millis(NOON_S * 1000),
            pending,
            end: pending as i64,
            values: noise(CHUNK * VALUE_BYTES),
            written: Written::default(),
        }
    }

    /// Takes the partition over with all its records. Returns the nanoseconds per record.
    fn load(&mut self) -> f64 {
        self.input(Input::Assigned { partitions: &[PLACE], leftover_cutoff: MIDNIGHT });
        let mut took = Duration::ZERO;
        for start in (0..self.pending).step_by(CHUNK) {
            let numbers = start..self.pending.min(start + CHUNK);
            let texts: Vec<(Vec<u8>, String)> =
                numbers.clone().map(|number| (key(number), self.due_s(number).to_string())).collect();
            let began = Instant::now();
            for (number, (key, due)) in numbers.zip(&texts) {
                let at = (number - start) * VALUE_BYTES;
                let headers = [
                    Header { name: b"scheduler-epoch", value: Some(due.as_bytes()) },
                    Header { name: b"scheduler-target-topic", value: Some(b"target") },
                    Header { name: b"scheduler-target-key", value: Some(key) },
                    Header { name: b"kind", value: Some(b"benchmark") },
                ];
                let value = &self.values[at..at + VALUE_BYTES];
                self.core.handle(self.now, Input::Record(record(number as i64, key, Some(value), &headers)));
                self.carry_out();
            }
            took += began.elapsed();
        }
        self.read_back();
        let status = self.core.status();
        assert_eq!(status[0].pending, self.pending, "every schedule is pending: {status:?}");
        each(took, self.pending)
    }

    /// Cancels this many schedules, scattered over the log.
    fn cancel(&mut self, count: usize) -> f64 {
        let mut took = Duration::ZERO;
        for start in (0..count).step_by(CHUNK) {
            let numbers = start..count.min(start + CHUNK);
            let keys: Vec<Vec<u8>> = numbers.map(|number| key(self.scattered(number))).collect();
            let began = Instant::now();
            for key in &keys {
                self.core.handle(self.now, Input::Record(record(self.end, key, None, &[])));
                self.end += 1;
                self.carry_out();
            }
            took += began.elapsed();
        }
        assert_eq!(self.core.counters().deleted, count as u64, "every cancel was counted");
        each(took, count)
    }

    /// Advances the clock second by second, until enough schedules have fired.
    fn fire(&mut self) -> f64 {
        let left = self.core.status()[0].pending;
        let wanted = left.min(FIRED_MAX);
        let began = Instant::now();
        for second in FIRST_DUE_S.. {
            self.now = Millis(second * 1000);
            self.input(Input::Tick);
            self.read_back();
            if self.core.counters().triggered >= wanted as u64 {
                break;
            }
        }
        let took = began.elapsed();
        let fired = self.core.counters().triggered as usize;
        assert_eq!(self.core.status()[0].pending, left - fired, "fired schedules are no longer pending");
        each(took, fired)
    }

    /// Returns due times in another order than the log's.
    fn due_s(&self, number: usize) -> i64 {
        FIRST_DUE_S + (number * STRIDE % self.pending / PER_SECOND) as i64
    }

    fn scattered(&self, number: usize) -> usize {
        number * STRIDE % self.pending
    }

    /// Passes an input to the core, and carries all outputs out.
    fn input(&mut self, input: Input<'_>) {
        self.core.handle(self.now, input);
        self.carry_out();
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.core.poll() {
            match output {
                Output::ReadCommitted(partitions) => {
                    for partition in partitions {
                        self.core.handle(self.now, Input::Committed { partition, offset: None, metadata: b"" });
                    }
                }
                Output::Fence { request, .. } => self.core.handle(self.now, Input::Fenced { request }),
                Output::FindSince { request, .. } => {
                    self.core.handle(self.now, Input::Since { request, since: None, leftover_cutoff: MIDNIGHT });
                }
                Output::CheckTarget { target, .. } => {
                    self.core.handle(self.now, Input::Target { target, state: TargetState::Exists });
                }
                Output::Transact(batch) => self.commit(&batch),
                Output::Report(report) => drop(black_box(report)),
                other => panic!("unexpected output: {other:?}"),
            }
        }
    }

    fn commit(&mut self, batch: &Batch) {
        let first = self.end;
        let Ok(()) = batch.records(|record| {
            if record.partition.is_some() {
                self.written.push(self.end, &record);
                self.end += 1;
            } else {
                black_box(&record);
            }
            Ok::<(), Infallible>(())
        });
        let last = (PLACE, self.end - 1);
        let written = if self.end > first { vec![last] } else { Vec::new() };
        // The control marker.
        self.end += 1;
        self.core.handle(
            self.now,
            Input::BatchEnded { batch: batch.id, outcome: Outcome::Committed { last_offsets: written } },
        );
    }

    /// Lets the consumer read the records that the engine has written.
    fn read_back(&mut self) {
        while !self.written.records.is_empty() {
            let written = std::mem::take(&mut self.written);
            for stored in &written.records {
                let mut headers = [NO_HEADER; HEADERS_MAX];
                for (header, (name, value)) in headers.iter_mut().zip(&stored.headers[..stored.header_count]) {
                    *header = Header { name: written.bytes(name), value: Some(written.bytes(value)) };
                }
                let value = stored.value.as_ref().map(|value| written.bytes(value));
                let (key, headers) = (written.bytes(&stored.key), &headers[..stored.header_count]);
                self.core.handle(self.now, Input::Record(record(stored.offset, key, value, headers)));
                self.carry_out();
            }
        }
    }
}

const HEADERS_MAX: usize = 2;

/// The engine's records in the schedules topic that have not been read back.
#[derive(Default)]
struct Written {
    bytes: Vec<u8>,
    records: Vec<Stored>,
}

struct Stored {
    offset: i64,
    key: Range<usize>,
    value: Option<Range<usize>>,
    headers: [(Range<usize>, Range<usize>); HEADERS_MAX],
    header_count: usize,
}

impl Written {
    fn push(&mut self, offset: i64, record: &OutRecord<'_>) {
        assert!(record.headers.len() <= HEADERS_MAX, "an engine record has few headers");
        let key = self.keep(record.key.unwrap_or_default());
        let value = record.value.map(|value| self.keep(value));
        let mut headers = [(0..0, 0..0), (0..0, 0..0)];
        for (kept, header) in headers.iter_mut().zip(record.headers) {
            *kept = (self.keep(header.name), self.keep(header.value.unwrap_or_default()));
        }
        self.records.push(Stored { offset, key, value, headers, header_count: record.headers.len() });
    }

    fn keep(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        start..self.bytes.len()
    }

    fn bytes(&self, range: &Range<usize>) -> &[u8] {
        &self.bytes[range.clone()]
    }
}

fn record<'a>(offset: i64, key: &'a [u8], value: Option<&'a [u8]>, headers: &'a [Header<'a>]) -> Record<'a> {
    Record { partition: PLACE, offset, timestamp: Millis(NOON_S * 1000), key: Some(key), value, headers }
}

fn key(number: usize) -> Vec<u8> {
    let mut key = String::with_capacity(KEY_BYTES);
    let _ = write!(key, "schedule-{number:07}");
    key.into_bytes()
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(next).take(length.div_ceil(8)).flatten().take(length).collect()
}

fn each(took: Duration, count: usize) -> f64 {
    took.as_nanos() as f64 / count.max(1) as f64
}
