//! Collects the records that read_committed consumers receive from all topics.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::kit::client::{Reader, Record};
use crate::kit::{Case, client};
use crate::ledger::{Firing, Id, Seen};

/// The kind of a topic.
#[derive(Clone, Copy)]
enum Kind {
    Target,
    History,
    Dead,
    Schedules(usize),
}

/// Reads all topics until it is stopped.
pub struct Watch {
    pub seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Watch {
    pub fn start(case: &Case, dead: &str) -> Self {
        let topics = [(Kind::Target, case.target.as_str()), (Kind::History, &case.history), (Kind::Dead, dead)];
        let schedules = case.schedules.iter().enumerate().map(|(n, topic)| (Kind::Schedules(n), topic.as_str()));
        let topics = topics.into_iter().chain(schedules);
        let mut readers: Vec<(Kind, Reader)> =
            topics.map(|(kind, topic)| (kind, Reader::new(case.bootstrap(), topic))).collect();
        let (seen, stop) = (Arc::new(Mutex::new(Seen::default())), Arc::new(AtomicBool::new(false)));
        let (shared, stopped) = (Arc::clone(&seen), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                for (kind, reader) in &mut readers {
                    reader.poll(Duration::from_millis(10));
                    let mut seen = shared.lock().expect("no panic");
                    reader.records.drain(..).for_each(|record| note(&mut seen, *kind, &record));
                }
            }
        });
        Self { seen, stop, thread }
    }

    /// Stops, and reads all topics once more. A second reading of target and history must return the same records.
    pub fn finish(self, case: &Case) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the watch thread does not panic");
        let seen = std::mem::take(&mut *self.seen.lock().expect("no panic"));
        let mut again = Seen::default();
        for (kind, topic) in [(Kind::Target, &case.target), (Kind::History, &case.history)] {
            client::read_all(case.bootstrap(), topic).iter().for_each(|record| note(&mut again, kind, record));
        }
        let fired = |seen: &Seen| seen.target.values().map(Vec::len).sum::<usize>();
        let recorded = |seen: &Seen| seen.history.values().sum::<u32>();
        let (before, after) = ((fired(&seen), recorded(&seen)), (fired(&again), recorded(&again)));
        for topic in 0..case.schedules.len() {
            let records = client::read_all(case.bootstrap(), &case.schedules[topic]);
            records.iter().for_each(|record| note(&mut again, Kind::Schedules(topic), record));
        }
        let scheduled =
            |seen: &Seen| seen.log.len() + seen.tombstones.values().sum::<u32>() as usize + seen.copies as usize;
        // The second reading is complete; the first one may have missed records.
        let mut seen = seen;
        if before != after {
            seen.foreign.push(format!(
                "target and history had {before:?} records when first read, and {after:?} when read again"
            ));
        }
        seen.compacted = scheduled(&seen).saturating_sub(scheduled(&again));
        (seen.target, seen.history) = (again.target, again.history);
        seen
    }
}

fn id_of(record: &Record) -> Option<Id> {
    std::str::from_utf8(record.header("id")?).ok()?.parse().ok()
}

fn note(seen: &mut Seen, kind: Kind, record: &Record) {
    let id = id_of(record);
    match (kind, id) {
        // The engine's own records.
        (Kind::Schedules(_), _) if record.key.as_deref().is_some_and(|key| key.starts_with(b"__scheduler.")) => {}
        (Kind::Schedules(topic), id) => schedule(seen, topic, record, id),
        (Kind::Target, Some(id)) => {
            let key = record.key.clone();
            let headers: Vec<&str> = record.headers.iter().map(|(name, _)| name.as_str()).collect();
            let intact = record.value_text() == id.to_string()
                && record.header("scheduler-key") == key.as_deref()
                && headers == ["id", "scheduler-timestamp", "scheduler-key", "scheduler-topic"];
            let at = (record.partition, record.offset);
            seen.target.entry(id).or_default().push(Firing { at, appended_ms: record.timestamp, intact });
        }
        (Kind::History, Some(id)) => *seen.history.entry(id).or_default() += 1,
        (Kind::Dead, Some(id)) => *seen.dead.entry(id).or_default() += 1,
        (_, None) => seen.foreign.push(format!("no user produced {record:?}")),
    }
}

fn schedule(seen: &mut Seen, topic: usize, record: &Record, id: Option<Id>) {
    let Some(origin) = record.header("scheduler-engine") else {
        match id {
            Some(id) => drop(seen.log.insert((topic, record.partition, record.offset), id)),
            None => seen.foreign.push(format!("no user produced {record:?}")),
        }
        return;
    };
    // The offset in the origin header, as src/core/origin.rs encodes it.
    let named = origin.get(9..17).map(|bytes| i64::from_be_bytes(bytes.try_into().expect("eight bytes")));
    match named {
        Some(offset) if record.value.is_none() => {
            *seen.tombstones.entry((topic, record.partition, offset)).or_default() += 1;
        }
        Some(_) => seen.copies += 1,
        None => seen.foreign.push(format!("an origin without an offset: {record:?}")),
    }
}
