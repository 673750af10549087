//! Schedules that recur each second: are they sustained, how late is each occurrence, and what does it cost in the log?

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message};

use super::running::{Running, time_limit};
use super::{Bench, sweep};
use crate::bare;
use crate::feed::Feed;
use crate::kit::process::target_dir;
use crate::lateness::Lateness;
use crate::process::{cpu_s, resident_bytes};
use crate::report::Figures;

/// Seconds until all schedules recur, which are not measured.
const BEGIN: Duration = Duration::from_secs(10);

pub fn run(bench: &Bench, count: u32, seconds: u32) -> Result<Figures, String> {
    let case = bench.case("recurring");
    let engine = Running::ready(bench, &case, time_limit(0))?;
    let (consumer, _) = bare::consumer(case.bootstrap(), &case.target)?;
    Feed::new(&case, &bench.values)?.recurring(count)?;
    let measure = Duration::from_secs(u64::from(seconds));
    let (began, mut late_ms, mut missed) = (Instant::now(), Vec::new(), 0_u64);
    let mut before = None;
    while began.elapsed() < BEGIN + measure {
        if before.is_none() && began.elapsed() >= BEGIN {
            before = Some((log_bytes(&case.schedules[0]), cpu_s(engine.pid()), Instant::now()));
        }
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) if before.is_some() => {
                let number = |name: &str| -> Option<i64> {
                    let header = message.headers()?.iter().find(|header| header.key == name)?;
                    std::str::from_utf8(header.value?).ok()?.parse().ok()
                };
                let due_ms = number("scheduler-due").ok_or("a record without its due time")?;
                late_ms.push(message.timestamp().to_millis().unwrap_or(0) - due_ms);
                missed += number("scheduler-missed").unwrap_or(0).unsigned_abs();
            }
            None | Some(Ok(_) | Err(KafkaError::PartitionEOF(_))) => {}
            Some(Err(error)) => return Err(format!("reading the target: {error}")),
        }
    }
    let (bytes, cpu, at) = before.ok_or("nothing was measured")?;
    let (took_s, occurrences) = (at.elapsed().as_secs_f64(), late_ms.len() as f64);
    let bytes = log_bytes(&case.schedules[0]) as f64 - bytes as f64;
    let cpu = cpu_s(engine.pid()) - cpu;
    let resident = resident_bytes(engine.pid());
    engine.stop();
    let mut figures = Lateness::new(late_ms).figures("append");
    figures.extend([
        ("occurrences_per_s".to_owned(), occurrences / took_s),
        ("collapsed".to_owned(), missed as f64),
        ("schedules_log_bytes_per_occurrence".to_owned(), bytes / occurrences),
        ("cpu_s_per_million".to_owned(), cpu * 1e6 / occurrences),
        ("resident_bytes".to_owned(), resident as f64),
    ]);
    sweep(&case);
    Ok(figures)
}

/// Returns the bytes of a topic's segments in the directories of the broker that the benchmark has started; 0 if there
/// are none.
fn log_bytes(topic: &str) -> u64 {
    fn below(path: &Path, topic: &str, depth: u32) -> u64 {
        let Ok(entries) = fs::read_dir(path) else { return 0 };
        let entries: Vec<_> = entries.flatten().filter(|entry| entry.path().is_dir()).collect();
        let bytes = entries.iter().map(|entry| {
            let name = entry.file_name();
            let is_partition = name.to_string_lossy().rsplit_once('-').is_some_and(|(of, _)| of == topic);
            match is_partition {
                true => segments(&entry.path()),
                false if depth > 0 => below(&entry.path(), topic, depth - 1),
                false => 0,
            }
        });
        bytes.sum()
    }
    fn segments(partition: &Path) -> u64 {
        let Ok(files) = fs::read_dir(partition) else { return 0 };
        let is_log = |file: &fs::DirEntry| file.path().extension().is_some_and(|extension| extension == "log");
        files.flatten().filter(is_log).filter_map(|file| Some(file.metadata().ok()?.len())).sum()
    }
    below(&target_dir().join("tmp"), topic, 3)
}
