//! Reads the snapshots of `STATE_DIR` when the engine starts, on threads of their own, while the group is joined.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;

use super::error::EngineError;
use super::ffi;
use super::random::random;
use super::snapshot_file::SourceLog;
use super::worker::{JOB_REQUEST_TIMEOUT, Worker};
use crate::calendar::ZoneCalendar;
use crate::config::Config;
use crate::core::io::TopicPartition;
use crate::core::payload::Packed;
use crate::core::snapshot::{Fold, Restorer};
use crate::state_dir::{SnapshotError, StateDir};

/// How long an assignment waits for snapshots.
const READ_TIMEOUT: Duration = Duration::from_secs(15);
/// Between two looks whether the engine is to stop.
const WAIT_SLICE: Duration = Duration::from_millis(50);
/// Threads that read snapshots.
const THREADS_MAX: usize = 4;

/// A fold from which a takeover can go on.
#[derive(Debug)]
pub(super) struct Restored {
    pub fold: Fold<Packed>,
    pub source: SourceLog,
}

/// `STATE_DIR`, and the folds that are read from it.
pub(super) struct Restoring {
    pub dir: StateDir,
    pub folds: Arc<RestoredFolds>,
    /// Of the scheduler that takes the folds.
    pub hash_seed: u64,
}

impl Restoring {
    /// Opens `STATE_DIR` if it is set, and starts to read its snapshots.
    pub(super) fn start(config: &Config) -> Result<Option<Self>, EngineError> {
        let Some(path) = config.state_dir() else { return Ok(None) };
        let dir = StateDir::open(path).map_err(EngineError::StateDir)?;
        let hash_seed = random()?;
        let what = RestoreFor { hash_seed, has_dead_letter_topic: config.dead_letter_topic().is_some() };
        let folds = RestoredFolds::start(config.schedules_topics(), &dir, what);
        Ok(Some(Self { dir, folds, hash_seed }))
    }
}

/// What decoding a snapshot needs of the engine.
#[derive(Clone, Copy, Debug)]
struct RestoreFor {
    hash_seed: u64,
    has_dead_letter_topic: bool,
}

/// The folds that were restored and not yet taken.
#[derive(Debug, Default)]
pub(super) struct RestoredFolds {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    folds: BTreeMap<TopicPartition, Restored>,
    /// Partitions whose snapshots are still to be read.
    waiting: Vec<TopicPartition>,
    /// Threads that read snapshots.
    reading: usize,
    /// The logs that exist now, once the brokers have described them.
    logs: Option<Logs>,
    /// No fold is taken any more.
    is_closed: bool,
}

/// The logs that exist now: by topic its id, and by partition the log start offset.
#[derive(Debug, Default)]
struct Logs {
    ids: BTreeMap<String, String>,
    starts: BTreeMap<(String, i32), i64>,
}

impl RestoredFolds {
    /// Starts to read all snapshots of these topics, while the engine connects.
    fn start(topics: &[String], dir: &StateDir, what: RestoreFor) -> Arc<Self> {
        let mut waiting = Vec::new();
        for (topic, name) in (0_u16..).zip(topics) {
            let numbers = dir.partitions(name).unwrap_or_else(|error| {
                tracing::warn!(%error, path = %dir.path().display(), "STATE_DIR cannot be listed");
                Vec::new()
            });
            waiting.extend(numbers.into_iter().map(|number| TopicPartition { topic, number }));
        }
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX).min(waiting.len());
        let restored = Arc::new(Self::default());
        *restored.state() = State { waiting, reading: threads, ..State::default() };
        for _ in 0..threads {
            let (shared, topics, thread_dir) = (Arc::clone(&restored), topics.to_vec(), dir.clone());
            let read = move || {
                let _ends = Ends(Arc::clone(&shared));
                shared.read_some(&topics, &thread_dir, what);
            };
            if let Err(error) = std::thread::Builder::new().name("restore".into()).spawn(read) {
                tracing::error!(%error, "no thread could be started");
                restored.state().reading -= 1;
            }
        }
        restored
    }

    /// Asks the brokers which logs exist now.
    pub(super) fn check(self: &Arc<Self>, worker: &Worker) {
        let shared = Arc::clone(self);
        worker.spawn("logs", move |worker| {
            let logs = Logs::read(&worker).unwrap_or_default();
            shared.state().logs = Some(logs);
            shared.changed.notify_all();
        });
    }

    /// Notes which logs exist now: topic ids, and log start offsets.
    pub(super) fn on_logs(&self, ids: BTreeMap<String, String>, starts: BTreeMap<(String, i32), i64>) {
        let mut state = self.state();
        // The first answer is that of `check`.
        if state.logs.is_some() {
            state.logs = Some(Logs { ids, starts });
        }
    }

    /// Waits until all snapshots have been read, for a bounded time, and while `goes_on`.
    pub(super) fn wait(&self, goes_on: impl Fn() -> bool) {
        let deadline = Instant::now() + READ_TIMEOUT;
        let mut state = self.state();
        loop {
            let has_some = state.reading > 0 || !state.folds.is_empty();
            let is_busy = has_some && !state.is_closed && (state.reading > 0 || state.logs.is_none());
            if !is_busy || !goes_on() || deadline <= Instant::now() {
                return;
            }
            let waited = self.changed.wait_timeout(state, WAIT_SLICE);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Returns the folds of these partitions that have been read.
    pub(super) fn take(&self, topics: &[String], partitions: &[TopicPartition]) -> Vec<(TopicPartition, Restored)> {
        let mut state = self.state();
        let mut taken = Vec::new();
        for partition in partitions {
            let Some(restored) = state.folds.remove(partition) else { continue };
            let topic = &topics[usize::from(partition.topic)];
            let place = (topic.clone(), partition.number);
            let logs = state.logs.as_ref();
            let why = match logs {
                None => "the brokers have not described the topic yet",
                Some(logs) if logs.ids.get(topic) != Some(&restored.source.topic_id) => "the topic was recreated",
                Some(logs) if logs.starts.get(&place) != Some(&restored.source.start) => {
                    "records were deleted from the beginning of the log"
                }
                Some(_) => {
                    taken.push((*partition, restored));
                    continue;
                }
            };
            tracing::warn!(topic, partition = partition.number, why, "a snapshot is not used: the whole log is read");
        }
        taken
    }

    /// Forgets the folds that were not taken, for good.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.is_closed = true;
        state.folds.clear();
        state.waiting.clear();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_some(&self, topics: &[String], dir: &StateDir, what: RestoreFor) {
        loop {
            let Some(partition) = self.state().waiting.pop() else { return };
            let (topic, number) = (&topics[usize::from(partition.topic)], partition.number);
            match read(topic, number, dir, what) {
                Ok(restored) => {
                    let mut state = self.state();
                    if !state.is_closed {
                        state.folds.insert(partition, restored);
                    }
                }
                Err(why) => {
                    tracing::warn!(topic, partition = number, why, "a snapshot is not used: the whole log is read");
                }
            }
        }
    }
}

/// Notes that a thread that reads snapshots has ended, also if it panics.
struct Ends(Arc<RestoredFolds>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.state().reading -= 1;
        self.0.changed.notify_all();
    }
}

impl Logs {
    /// Returns `None` if the brokers do not describe them: then no snapshot can be trusted.
    fn read(worker: &Worker) -> Option<Self> {
        let unknown = |error: String| tracing::warn!(error, "snapshots are not used: topics cannot be described");
        let client = worker.clients.read_uncommitted_consumer().map_err(|error| unknown(error.to_string())).ok()?;
        let names: Vec<&str> = worker.topics.iter().map(String::as_str).collect();
        let described = ffi::admin::describe_topics(client.client(), &names, JOB_REQUEST_TIMEOUT)
            .map_err(|error| unknown(format!("{error:?}")))
            .ok()?;
        let partitions: Vec<(&str, i32)> = described
            .iter()
            .flat_map(|topic| {
                (0..i32::try_from(topic.in_sync.len()).unwrap_or(0)).map(|number| (topic.name.as_str(), number))
            })
            .collect();
        let starts = ffi::admin::log_start_offsets(client.client(), &partitions, JOB_REQUEST_TIMEOUT)
            .map_err(|error| unknown(format!("{error:?}")))
            .ok()?;
        Some(Self {
            starts: starts.into_iter().map(|(topic, number, start)| ((topic, number), start)).collect(),
            ids: described.into_iter().filter_map(|topic| Some((topic.name, topic.id?))).collect(),
        })
    }
}

/// Reads a snapshot.
fn read(topic: &str, number: i32, dir: &StateDir, what: RestoreFor) -> Result<Restored, String> {
    let said = |error: SnapshotError| error.to_string();
    let mut reader = dir.read(topic, number).map_err(said)?.ok_or("it has gone")?;
    let mut bytes = Vec::new();
    while let Some(block) = reader.next_block().map_err(said)? {
        bytes.extend_from_slice(block);
    }
    let (source, core) = SourceLog::decode(&bytes).ok_or("its first line is malformed")?;
    let restorer = Restorer {
        hash_seed: what.hash_seed,
        has_dead_letter_topic: what.has_dead_letter_topic,
        calendar: &ZoneCalendar::default(),
    };
    let fold = Fold::decode(core, &restorer, &mut ()).map_err(|error| error.to_string())?;
    Ok(Restored { fold, source })
}
