//! Takes snapshots while the loop works, and goes on from those of the last run.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, unbounded};

use super::EngineLoop;
use crate::core::PartitionState;
use crate::core::io::{Input, TopicPartition};
use crate::core::snapshot::{NoSnapshot, SnapshotCursor};
use crate::kafka::ffi;
use crate::kafka::restoring::{Restored, RestoredFolds};
use crate::kafka::snapshot_file::SourceLog;
use crate::state_dir::{SnapshotInfo, SnapshotWriter, StateDir};

/// Before the first round of snapshots.
const FIRST_ROUND_DELAY: Duration = Duration::from_secs(10);
/// Between two rounds of snapshots; longer if a round takes long.
const ROUND_INTERVAL: Duration = Duration::from_secs(60);
/// A round takes at most one of this many parts of the time.
const ROUND_SHARE: u32 = 4;
/// Entries of one step, some 100 µs.
const STEP_ENTRIES_MAX: u32 = 1_000;
/// Between two steps.
const STEP_INTERVAL: Duration = Duration::from_millis(1);
/// Steps that wait to be written.
const QUEUED_STEPS_MAX: usize = 16;
/// Time for the last snapshots, after the group was left.
const LAST_TIMEOUT: Duration = Duration::from_secs(15);
/// How long an assignment may take to start before it is sought.
const SEEK_TIMEOUT: Duration = Duration::from_secs(2);
/// Folds that no assignment has taken are forgotten after this.
const KEEP_RESTORED: Duration = Duration::from_secs(60);

/// The snapshots of this instance, if `STATE_DIR` is set.
pub(super) struct Snapshots {
    dir: StateDir,
    restored: Arc<RestoredFolds>,
    forget_restored_at: Option<Instant>,
    logs: Logs,
    /// By partition, the position of its last snapshot.
    positions: BTreeMap<TopicPartition, i64>,
    round: Vec<TopicPartition>,
    round_started_at: Instant,
    next_round_at: Instant,
    taking: Option<Taking>,
    /// Snapshots to remove.
    removals: Vec<Job>,
    jobs: Sender<Job>,
    written: Receiver<Written>,
}

/// What is known of the logs that are read.
#[derive(Debug, Default)]
struct Logs {
    /// By topic name, its id: from the cluster monitor.
    topic_ids: BTreeMap<String, String>,
    /// By topic name and partition number, the log start offset.
    starts: BTreeMap<(String, i32), i64>,
    /// The leader epoch of the last record of each partition.
    leader_epochs: BTreeMap<TopicPartition, i32>,
}

impl Logs {
    fn source(&self, topics: &[String], partition: TopicPartition) -> Option<SourceLog> {
        let topic = &topics[usize::from(partition.topic)];
        Some(SourceLog {
            topic_id: self.topic_ids.get(topic)?.clone(),
            start: *self.starts.get(&(topic.clone(), partition.number))?,
            leader_epoch: self.leader_epochs.get(&partition).copied(),
        })
    }
}

/// A snapshot that is being taken.
struct Taking {
    partition: TopicPartition,
    cursor: SnapshotCursor,
    position: i64,
    next_step_at: Instant,
    /// A step that the writer had no room for.
    held: Option<Job>,
    is_done: bool,
}

/// A task of the thread that writes.
enum Job {
    Begin(TopicPartition, String, i32, Vec<u8>),
    Bytes(Vec<u8>),
    Finish,
    Abandon,
    Remove(TopicPartition, String, i32),
}

/// A snapshot that was written, or was not.
struct Written {
    partition: TopicPartition,
    result: std::io::Result<SnapshotInfo>,
    took: Duration,
}

impl Snapshots {
    pub(super) fn new(dir: StateDir, restored: Arc<RestoredFolds>) -> Self {
        let (jobs, waiting) = bounded(QUEUED_STEPS_MAX);
        let (results, written) = unbounded();
        let writer = dir.clone();
        let spawned =
            std::thread::Builder::new().name("snapshots".into()).spawn(move || write_all(&writer, &waiting, &results));
        if let Err(error) = spawned {
            tracing::error!(%error, "no thread could be started: no snapshots are written");
        }
        let now = Instant::now();
        Self {
            dir,
            restored,
            forget_restored_at: Some(now + KEEP_RESTORED),
            logs: Logs::default(),
            positions: BTreeMap::new(),
            round: Vec::new(),
            round_started_at: now,
            next_round_at: now + FIRST_ROUND_DELAY,
            taking: None,
            removals: Vec::new(),
            jobs,
            written,
        }
    }

    /// Notes the leader epoch of a record that was read.
    pub(super) fn on_record(&mut self, partition: TopicPartition, leader_epoch: Option<i32>) {
        if let Some(epoch) = leader_epoch {
            self.logs.leader_epochs.insert(partition, epoch);
        }
    }

    /// Notes what the cluster monitor has seen of the logs.
    pub(super) fn on_logs(&mut self, topic_ids: BTreeMap<String, String>, log_starts: BTreeMap<(String, i32), i64>) {
        self.restored.on_logs(topic_ids.clone(), log_starts.clone());
        self.logs.topic_ids = topic_ids;
        self.logs.starts = log_starts;
    }

    /// Returns when the next step is due; `None` if no snapshot is being taken.
    pub(super) fn next_step_at(&self) -> Option<Instant> {
        self.taking.as_ref().map(|taking| taking.next_step_at)
    }

    fn start_of(&self, topic: &str, number: i32) -> Option<i64> {
        self.logs.starts.get(&(topic.to_owned(), number)).copied()
    }

    /// Forgets what was read from snapshots: a topic was recreated.
    pub(super) fn forget_restored(&self) {
        self.restored.close();
    }

    /// Passes a job to the writer. Returns it if there is no room.
    fn send(&self, job: Job) -> Option<Job> {
        match self.jobs.try_send(job) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => None,
            Err(TrySendError::Full(job)) => Some(job),
        }
    }
}

impl EngineLoop {
    /// Returns the folds from which assigned partitions go on. While this instance fires nothing, it waits for them.
    pub(super) fn take_restored(&self, partitions: &[TopicPartition]) -> Vec<(TopicPartition, Restored)> {
        let Some(snapshots) = &self.snapshots else { return Vec::new() };
        if self.core.status().is_empty() {
            snapshots.restored.wait(|| !self.reporter.board.is_stop_requested());
        }
        let mut folds = snapshots.restored.take(&self.topics, partitions);
        let now = self.clock.now();
        folds.retain(|(partition, restored)| {
            let checked = self.core.check_fold(now, *partition, &restored.fold);
            if let Err(why) = &checked {
                let topic = &self.topics[usize::from(partition.topic)];
                tracing::info!(topic, partition = partition.number, %why, "a snapshot is not used: the whole log is read");
            }
            checked.is_ok()
        });
        folds
    }

    /// Lets partitions that were just assigned go on from their folds.
    pub(super) fn go_on_from(&mut self, folds: Vec<(TopicPartition, Restored)>) {
        for (partition, Restored { fold, source }) in folds {
            let Some(consumer) = self.group.consumer.clone() else { return };
            let topic = &self.topics[usize::from(partition.topic)];
            let (place, offset) = ((topic.as_str(), partition.number), fold.position());
            if let Err(why) = self.core.restore(partition, fold) {
                tracing::warn!(topic, partition = partition.number, %why, "the partition cannot go on from its snapshot");
                return self.input(Input::PositionInvalid { why: "a partition cannot go on from its snapshot" });
            }
            if let Err(error) = ffi::seek(consumer.base(), place, offset, source.leader_epoch, SEEK_TIMEOUT) {
                tracing::warn!(topic, partition = partition.number, ?error, "the partition cannot be sought");
                return self.input(Input::PositionInvalid { why: "a partition cannot go on from its snapshot" });
            }
            tracing::info!(topic, partition = partition.number, offset, "the partition goes on from its snapshot");
            let start = self.snapshots.as_ref().and_then(|snapshots| snapshots.start_of(topic, partition.number));
            match start.filter(|start| *start > source.start) {
                // Records were deleted between the first look and the assignment.
                Some(start) => self.input(Input::Trimmed { partition, start }),
                None => self.input(Input::Tick),
            }
        }
    }

    /// Removes the snapshot of a partition that is read again from its beginning.
    pub(super) fn discard_snapshot(&mut self, partition: TopicPartition) {
        let Some(snapshots) = &mut self.snapshots else { return };
        let topic = &self.topics[usize::from(partition.topic)];
        snapshots.positions.remove(&partition);
        snapshots.taking.take_if(|taking| taking.partition == partition);
        // The writer removes the file after what it is writing, and abandons this partition's snapshot.
        snapshots.removals.push(Job::Remove(partition, topic.clone(), partition.number));
    }

    /// Takes the next step of a snapshot, if it is due.
    pub(super) fn take_snapshots(&mut self) {
        let Some(snapshots) = &mut self.snapshots else { return };
        let now = Instant::now();
        if snapshots.forget_restored_at.is_some_and(|at| at <= now) {
            snapshots.forget_restored_at = None;
            snapshots.restored.close();
        }
        while let Ok(Written { partition, result, took }) = snapshots.written.try_recv() {
            let topic = &self.topics[usize::from(partition.topic)];
            match result {
                Ok(info) => {
                    tracing::debug!(topic, partition = partition.number, bytes = info.bytes, ?took, "snapshot written");
                    let at = self.clock.now();
                    self.reporter.observer.snapshot_written(topic, partition.number, info.bytes, took, at);
                }
                Err(error) => {
                    snapshots.positions.remove(&partition);
                    tracing::warn!(
                        %error,
                        topic,
                        partition = partition.number,
                        path = %snapshots.dir.path().display(),
                        "a snapshot cannot be written to STATE_DIR: the last one stays"
                    );
                }
            }
        }
        while let Some(removal) = snapshots.removals.pop() {
            if let Some(held) = snapshots.send(removal) {
                snapshots.removals.push(held);
                break;
            }
        }
        if self.shutdown.is_stopping {
            snapshots.taking = None;
            return;
        }
        if snapshots.taking.is_none() && snapshots.removals.is_empty() {
            self.begin_snapshot(now);
        }
        self.go_on_snapshot(now);
    }

    fn begin_snapshot(&mut self, now: Instant) {
        let Some(snapshots) = &mut self.snapshots else { return };
        if snapshots.round.is_empty() {
            if snapshots.next_round_at > now {
                return;
            }
            let live = self.core.status().into_iter().filter(|status| status.state == PartitionState::Live);
            let changed = live.filter(|status| snapshots.positions.get(&status.partition) != Some(&status.position));
            snapshots.round = changed.map(|status| status.partition).collect();
            snapshots.round_started_at = now;
            snapshots.next_round_at = now + ROUND_INTERVAL;
        }
        let Some(partition) = snapshots.round.pop() else { return };
        let position = self.core.status().into_iter().find(|status| status.partition == partition);
        let (Some(status), Some(source)) = (position, snapshots.logs.source(&self.topics, partition)) else { return };
        let topic = self.topics[usize::from(partition.topic)].clone();
        let begin = Job::Begin(partition, topic, partition.number, source.encode());
        snapshots.taking = Some(Taking {
            partition,
            cursor: SnapshotCursor::default(),
            position: status.position,
            next_step_at: now,
            held: snapshots.send(begin),
            is_done: false,
        });
    }

    fn go_on_snapshot(&mut self, now: Instant) {
        let Some(snapshots) = &mut self.snapshots else { return };
        let Some(mut taking) = snapshots.taking.take_if(|taking| taking.next_step_at <= now) else { return };
        taking.next_step_at = now + STEP_INTERVAL;
        if let Some(held) = taking.held.take() {
            taking.held = snapshots.send(held);
        } else if taking.is_done {
            if snapshots.send(Job::Finish).is_none() {
                snapshots.positions.insert(taking.partition, taking.position);
                if snapshots.round.is_empty() {
                    let pause = snapshots.round_started_at.elapsed() * (ROUND_SHARE - 1);
                    snapshots.next_round_at = snapshots.next_round_at.max(now + pause);
                }
                return;
            }
        } else {
            let mut bytes = Vec::new();
            match self.core.snapshot(taking.partition, &mut taking.cursor, STEP_ENTRIES_MAX, &mut bytes) {
                Ok(is_done) => {
                    taking.is_done = is_done;
                    taking.held = snapshots.send(Job::Bytes(bytes));
                }
                Err(NoSnapshot) if snapshots.send(Job::Abandon).is_none() => return,
                Err(NoSnapshot) => taking.held = Some(Job::Abandon),
            }
        }
        snapshots.taking = Some(taking);
    }

    /// Writes the snapshots of the partitions that were given back clean, once the group has been left.
    pub(super) fn take_last_snapshots(&mut self) {
        let Some(snapshots) = self.snapshots.take() else { return };
        let deadline = Instant::now() + LAST_TIMEOUT;
        // The writer ends with its queue, and must not replace a last snapshot with an older one.
        let Snapshots { dir, written, jobs, logs, .. } = snapshots;
        drop(jobs);
        while written.recv_deadline(deadline).is_ok() {}
        for partition in self.core.retired().collect::<Vec<_>>() {
            let topic = &self.topics[usize::from(partition.topic)];
            let Some(source) = logs.source(&self.topics, partition) else { continue };
            let started = Instant::now();
            match self.write_last(&dir, partition, &source, deadline) {
                Ok(Some(info)) => {
                    let (bytes, took) = (info.bytes, started.elapsed());
                    tracing::info!(topic, partition = partition.number, bytes, ?took, "last snapshot written");
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%error, topic, partition = partition.number, "no last snapshot: an older one counts");
                }
            }
        }
    }

    fn write_last(
        &self,
        dir: &StateDir,
        partition: TopicPartition,
        source: &SourceLog,
        deadline: Instant,
    ) -> std::io::Result<Option<SnapshotInfo>> {
        let mut writer = dir.write(&self.topics[usize::from(partition.topic)], partition.number)?;
        writer.write(&source.encode())?;
        let (mut cursor, mut bytes) = (SnapshotCursor::default(), Vec::new());
        loop {
            bytes.clear();
            let Ok(is_done) = self.core.snapshot(partition, &mut cursor, STEP_ENTRIES_MAX, &mut bytes) else {
                return Ok(None);
            };
            writer.write(&bytes)?;
            if is_done {
                return writer.finish().map(Some);
            }
            if deadline <= Instant::now() {
                return Err(std::io::Error::other(format!("it takes longer than {} s", LAST_TIMEOUT.as_secs())));
            }
        }
    }
}

/// Writes snapshots, one after the other, until the engine ends.
fn write_all(dir: &StateDir, jobs: &Receiver<Job>, results: &Sender<Written>) {
    let mut current: Option<(TopicPartition, Instant, std::io::Result<SnapshotWriter>)> = None;
    while let Ok(job) = jobs.recv() {
        match job {
            Job::Begin(partition, topic, number, head) => {
                let writer = dir.write(&topic, number).and_then(|mut writer| writer.write(&head).map(|()| writer));
                current = Some((partition, Instant::now(), writer));
            }
            Job::Bytes(bytes) => {
                if let Some((.., writer)) = &mut current
                    && let Ok(open) = writer
                    && let Err(error) = open.write(&bytes)
                {
                    *writer = Err(error);
                }
            }
            Job::Finish => {
                let Some((partition, started, writer)) = current.take() else { continue };
                let result = writer.and_then(SnapshotWriter::finish);
                // The loop is gone only when the engine has ended.
                let _ = results.send(Written { partition, result, took: started.elapsed() });
            }
            Job::Abandon => current = None,
            Job::Remove(partition, topic, number) => {
                // Another partition's snapshot may be under way.
                current.take_if(|(taken, ..)| *taken == partition);
                if let Err(error) = dir.remove(&topic, number) {
                    tracing::warn!(%error, topic, partition = number, "a snapshot cannot be removed");
                }
            }
        }
    }
}
