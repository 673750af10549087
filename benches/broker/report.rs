//! Reports the measurements as a table and as JSON.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::args::Args;
use crate::records::{VALUE_BYTES, user_bytes};

/// The measurements of one run. Each name ends in its unit; a ratio has none.
pub type Figures = Vec<(String, f64)>;

/// The values of one measurement in all runs.
struct Row {
    name: String,
    runs: Vec<f64>,
}

impl Row {
    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.runs.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }

    /// The median; for an even number of runs, the mean of the two in the middle.
    fn median(&self) -> f64 {
        let sorted = self.sorted();
        let middle = sorted.len() / 2;
        if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) }
    }
}

/// All measurements so far.
pub struct Report {
    setting: Value,
    scenarios: Vec<(String, Vec<Row>)>,
}

impl Report {
    pub fn new(args: &Args) -> Self {
        let setting = json!({
            "machine": machine(),
            "load_average_before": first_line("/proc/loadavg"),
            "quick": args.quick,
            "partitions": args.partitions,
            "engine_configuration": args.configuration.as_deref().map(read),
            "value_bytes": VALUE_BYTES,
            "user_bytes": user_bytes(),
        });
        Self { setting, scenarios: Vec::new() }
    }

    /// Adds the runs of a scenario, and returns their table.
    pub fn add(&mut self, name: String, runs: Vec<Figures>) -> String {
        let mut rows: Vec<Row> = Vec::new();
        for (name, value) in runs.into_iter().flatten() {
            match rows.iter_mut().find(|row| row.name == name) {
                Some(row) => row.runs.push(value),
                None => rows.push(Row { name, runs: vec![value] }),
            }
        }
        let table = table(&name, &rows);
        self.scenarios.push((name, rows));
        table
    }

    pub fn json(&self) -> String {
        let row = |row: &Row| (row.name.clone(), json!({ "median": row.median(), "runs": row.runs }));
        let scenario =
            |(name, rows): &(String, Vec<Row>)| (name.clone(), Value::Object(rows.iter().map(row).collect()));
        let scenarios: Map<String, Value> = self.scenarios.iter().map(scenario).collect();
        let all = json!({ "setting": self.setting, "scenarios": scenarios });
        format!("{all:#}\n")
    }
}

fn table(name: &str, rows: &[Row]) -> String {
    let runs = rows.iter().map(|row| row.runs.len()).max().unwrap_or(0);
    let mut text = format!("\n{:<40}{:>14}{:>14}{:>14}\n", format!("{name}, runs: {runs}"), "median", "least", "most");
    for row in rows {
        let sorted = row.sorted();
        let [median, least, most] = [row.median(), sorted[0], sorted[sorted.len() - 1]].map(shown);
        let _ = writeln!(text, "  {:<38}{median:>14}{least:>14}{most:>14}", row.name);
    }
    text
}

/// Formats a value with three significant digits, or with all digits before the decimal point.
fn shown(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => grouped(value.round()),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

/// Separates groups of three digits by commas.
fn grouped(whole: f64) -> String {
    let digits = format!("{:.0}", whole.abs());
    let mut text = if whole < 0.0 { "-".to_owned() } else { String::new() };
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn machine() -> Value {
    let field = |path: &str, name: &str| {
        let line = fs::read_to_string(path).ok()?.lines().find(|line| line.starts_with(name))?.to_owned();
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    json!({
        "processor": field("/proc/cpuinfo", "model name"),
        "cores": std::thread::available_parallelism().map(usize::from).ok(),
        "memory": field("/proc/meminfo", "MemTotal"),
        "kernel": first_line("/proc/sys/kernel/osrelease"),
    })
}

fn first_line(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.lines().next()?.to_owned())
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}
