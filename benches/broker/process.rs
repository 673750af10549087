//! Reads a process's CPU time and memory from /proc.

use std::fs;
use std::time::{Duration, Instant};

/// The unit of CPU time in /proc: clock ticks per second.
const TICKS_PER_S: f64 = 100.0;

/// A process is idle if it uses less than this share of a core.
const QUIET_SHARE: f64 = 0.04;
const QUIET_WINDOW: Duration = Duration::from_millis(500);
const QUIET_LIMIT: Duration = Duration::from_secs(30);

/// Returns the CPU time, user and system, since the process started, in seconds.
pub fn cpu_s(pid: u32) -> f64 {
    let stat = read(pid, "stat");
    // The process name, in parentheses, may contain any character.
    let (_, fields) = stat.rsplit_once(") ").expect("a name in parentheses");
    let ticks: Vec<f64> = fields.split(' ').skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
    assert_eq!(ticks.len(), 2, "utime and stime in /proc/{pid}/stat: {stat}");
    ticks.iter().sum::<f64>() / TICKS_PER_S
}

/// Returns the resident memory, in bytes. The figure in `status` is less accurate, because each CPU updates it late.
pub fn resident_bytes(pid: u32) -> u64 {
    kilobytes(&read(pid, "smaps_rollup"), "Rss:")
}

/// Returns the peak of the resident memory, in bytes.
pub fn peak_bytes(pid: u32) -> u64 {
    kilobytes(&read(pid, "status"), "VmHWM:")
}

/// Waits until the process is idle; prints a message if it stays busy.
pub fn wait_until_idle(pid: u32) {
    let began = Instant::now();
    while began.elapsed() < QUIET_LIMIT {
        let (before, window) = (cpu_s(pid), Instant::now());
        std::thread::sleep(QUIET_WINDOW);
        if cpu_s(pid) - before <= QUIET_SHARE * window.elapsed().as_secs_f64() {
            return;
        }
    }
    eprintln!("the engine is still busy {QUIET_LIMIT:?} after its work");
}

fn kilobytes(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name} in {text}"));
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number of kB") * 1024
}

fn read(pid: u32, name: &str) -> String {
    let path = format!("/proc/{pid}/{name}");
    fs::read_to_string(&path)
        .unwrap_or_else(|e| panic!("{path}: {e}; the benchmark needs Linux, and the engine must be running"))
}
