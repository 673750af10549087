//! The directory that `STATE_DIR` names: a snapshot of each partition, for one process at a time.

mod error;
mod file_name;
pub mod snapshot;

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use fs4::TryLockError;

pub use error::{SnapshotError, StateDirError};
use file_name::{file_name, is_temporary, temporary_name};
use snapshot::{BlockReader, BlockWriter, Problem};

const LOCK_FILE: &str = "lock";
const READ_BYTES: usize = 64 * 1024;

/// The size and age of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// The size of its file.
    pub bytes: u64,
    /// When it was written.
    pub modified: SystemTime,
}

impl SnapshotInfo {
    fn of(file: &fs::Metadata) -> io::Result<Self> {
        Ok(Self { bytes: file.len(), modified: file.modified()? })
    }
}

/// The directory, which no other process can use until this, its clones and its writers are dropped.
#[derive(Clone, Debug)]
pub struct StateDir {
    path: PathBuf,
    lock: Arc<File>,
    /// Numbers temporary files.
    next: Arc<AtomicU32>,
}

impl StateDir {
    /// Creates the directory if it is missing, locks it, and removes what a former process was writing when it ended.
    ///
    /// # Errors
    /// If another process uses the directory, or it cannot be used.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, StateDirError> {
        let path = path.into();
        let unusable = |error| StateDirError::Unusable(path.clone(), error);
        create_directory(&path).map_err(unusable)?;
        let lock_path = path.join(LOCK_FILE);
        let lock = created(&lock_path, &mut OpenOptions::new())
            .map_err(|error| StateDirError::Unusable(lock_path.clone(), error))?;
        // Not the method of `File`, which came with Rust 1.89.
        match fs4::FileExt::try_lock(&lock) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StateDirError::InUse(path)),
            Err(TryLockError::Error(error)) => return Err(StateDirError::NoLocks(lock_path, error)),
        }
        remove_temporary_files(&path).map_err(unusable)?;
        Ok(Self { path, lock: Arc::new(lock), next: Arc::default() })
    }

    /// Returns its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Begins a snapshot. Until it is finished, the former one stays.
    ///
    /// # Errors
    /// If no file can be written.
    pub fn write(&self, topic: &str, partition: i32) -> io::Result<SnapshotWriter> {
        let name = file_name(topic, partition);
        let temporary = temporary_name(&name, self.next.fetch_add(1, Ordering::Relaxed));
        let (path, temporary) = (self.path.join(name), self.path.join(temporary));
        let file = created(&temporary, OpenOptions::new().truncate(true))?;
        let temporary = TemporaryFile { path: temporary, is_renamed: false };
        let blocks = BlockWriter::new(file, topic, partition)?;
        Ok(SnapshotWriter { blocks, path, temporary, _lock: Arc::clone(&self.lock) })
    }

    /// Opens the snapshot of a partition, if there is one.
    ///
    /// # Errors
    /// If it cannot be read, or is not a snapshot of this partition in a known version.
    pub fn read(&self, topic: &str, partition: i32) -> Result<Option<SnapshotReader>, SnapshotError> {
        let path = self.snapshot_path(topic, partition);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(SnapshotError { path, problem: Problem::Io(error) }),
        };
        match BlockReader::new(BufReader::with_capacity(READ_BYTES, file), topic, partition) {
            Ok(blocks) => Ok(Some(SnapshotReader { blocks, path })),
            Err(problem) => Err(SnapshotError { path, problem }),
        }
    }

    /// Returns the partitions of a topic that have a snapshot.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn partitions(&self, topic: &str) -> io::Result<Vec<i32>> {
        let mut partitions = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            partitions.extend(entry?.file_name().to_str().and_then(|name| file_name::partition(topic, name)));
        }
        partitions.sort_unstable();
        Ok(partitions)
    }

    /// Removes the snapshot of a partition. Returns whether there was one.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn remove(&self, topic: &str, partition: i32) -> io::Result<bool> {
        match fs::remove_file(self.snapshot_path(topic, partition)) {
            Ok(()) => sync_directory(&self.path).map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Returns the size and age of a partition's snapshot, if there is one.
    ///
    /// # Errors
    /// If the file system does not tell.
    pub fn info(&self, topic: &str, partition: i32) -> io::Result<Option<SnapshotInfo>> {
        match fs::metadata(self.snapshot_path(topic, partition)) {
            Ok(file) => SnapshotInfo::of(&file).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn snapshot_path(&self, topic: &str, partition: i32) -> PathBuf {
        self.path.join(file_name(topic, partition))
    }
}

/// Writes a snapshot beside the former one. If it is dropped before it is finished, the former one stays.
#[derive(Debug)]
pub struct SnapshotWriter {
    blocks: BlockWriter<File>,
    path: PathBuf,
    temporary: TemporaryFile,
    /// No other process may take the directory meanwhile.
    _lock: Arc<File>,
}

impl SnapshotWriter {
    /// Appends bytes. The reader gets the same bytes, but not in the same pieces.
    ///
    /// # Errors
    /// If writing fails, as on a full disk, or has failed before.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.blocks.write(bytes)
    }

    /// Replaces the former snapshot, once everything is on the disk.
    ///
    /// # Errors
    /// If writing fails, or has failed before. The former snapshot stays, unless the error came after the replacement:
    /// then it is unknown which of the two a crash of the machine would leave.
    pub fn finish(mut self) -> io::Result<SnapshotInfo> {
        let file = self.blocks.finish()?;
        file.sync_all()?;
        let info = SnapshotInfo::of(&file.metadata()?)?;
        fs::rename(&self.temporary.path, &self.path)?;
        self.temporary.is_renamed = true;
        sync_directory(self.path.parent().unwrap_or(Path::new(".")))?;
        Ok(info)
    }
}

/// A file that is removed unless it was renamed.
#[derive(Debug)]
struct TemporaryFile {
    path: PathBuf,
    is_renamed: bool,
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        if !self.is_renamed {
            // If this fails, the next process removes it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Reads a snapshot.
#[derive(Debug)]
pub struct SnapshotReader {
    blocks: BlockReader<BufReader<File>>,
    path: PathBuf,
}

impl SnapshotReader {
    /// Returns the next block, at most 1 MiB, whose checksum matches; `None` after the last one, if the whole file is
    /// as it was written. If it is not, forget all blocks.
    ///
    /// # Errors
    /// If the rest cannot be read, or is not as it was written.
    pub fn next_block(&mut self) -> Result<Option<&[u8]>, SnapshotError> {
        let Self { blocks, path } = self;
        blocks.next_block().map_err(|problem| SnapshotError { path: path.clone(), problem })
    }
}

fn remove_temporary_files(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(is_temporary) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Creates the directory, for this user alone: snapshots hold what users have scheduled.
fn create_directory(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Opens a file, and creates it, for this user alone, if it is missing.
fn created(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    options.write(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options.open(path)
}

/// Without this, a rename may be lost when the machine stops.
fn sync_directory(path: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of this test, which is removed after it.
    struct Temporary(PathBuf);

    impl Temporary {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("kafka-scheduler-state-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            Self(path)
        }

        fn open(&self) -> StateDir {
            StateDir::open(&self.0).expect("an unused directory")
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(&self.0).expect("it exists");
            let name = |entry: io::Result<fs::DirEntry>| entry.expect("an entry").file_name().into_string();
            let mut names: Vec<String> = entries.map(|entry| name(entry).expect("UTF-8")).collect();
            names.sort();
            names
        }
    }

    impl Drop for Temporary {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn write(state: &StateDir, topic: &str, partition: i32, bytes: &[u8]) -> SnapshotInfo {
        let mut writer = state.write(topic, partition).expect("a file");
        writer.write(bytes).expect("space");
        writer.finish().expect("space")
    }

    fn read(state: &StateDir, topic: &str, partition: i32) -> Option<Vec<u8>> {
        let mut reader = state.read(topic, partition).expect("a whole file")?;
        let mut bytes = Vec::new();
        while let Some(block) = reader.next_block().expect("a whole file") {
            bytes.extend_from_slice(block);
        }
        Some(bytes)
    }

    #[test]
    fn a_snapshot_is_read_as_it_was_written() {
        let temporary = Temporary::new("round-trip");
        let state = temporary.open();
        assert_eq!(read(&state, "a", 0), None);
        let long: Vec<u8> = (0..3_000_000).map(|n| (n % 241) as u8).collect();
        let info = write(&state, "a", 0, &long);
        write(&state, "a", 1, b"other");
        assert_eq!((read(&state, "a", 0), read(&state, "a", 1)), (Some(long), Some(b"other".to_vec())));
        assert_eq!(state.info("a", 0).expect("an answer"), Some(info));
        assert_eq!(info.bytes, fs::metadata(temporary.0.join("a-0.snapshot")).expect("a file").len());
        assert!(info.modified.elapsed().is_ok_and(|age| age.as_secs() < 60));

        write(&state, "a", 0, b"new");
        assert_eq!(read(&state, "a", 0), Some(b"new".to_vec()));
        assert!(state.remove("a", 0).expect("it can be removed"));
        assert!(!state.remove("a", 0).expect("there is nothing to remove"));
        assert_eq!((read(&state, "a", 0), state.info("a", 0).expect("an answer")), (None, None));
        assert_eq!(temporary.names(), ["a-1.snapshot", "lock"]);
    }

    #[test]
    fn a_second_user_of_the_directory_is_refused() {
        let temporary = Temporary::new("second");
        let state = temporary.open();
        let refused = StateDir::open(&temporary.0).expect_err("it is in use");
        let expected = format!(
            "STATE_DIR {:?} is in use by another process: give each instance a directory of its own, or stop the other \
             process",
            temporary.0
        );
        assert_eq!(refused.to_string(), expected);
        let writer = state.write("a", 0).expect("a file");
        drop(state);
        assert!(matches!(StateDir::open(&temporary.0), Err(StateDirError::InUse(_))), "a snapshot is being written");
        drop(writer);
        temporary.open();
    }

    #[test]
    fn a_path_that_is_no_directory_is_refused() {
        let temporary = Temporary::new("file");
        fs::write(&temporary.0, "").expect("a file");
        let refused = StateDir::open(&temporary.0).expect_err("a file").to_string();
        assert!(refused.ends_with("name a directory that this user may create files in"), "{refused}");
        fs::remove_file(&temporary.0).expect("removed");
    }

    #[test]
    fn half_written_files_are_removed() {
        let temporary = Temporary::new("half");
        let state = temporary.open();
        write(&state, "a", 0, b"whole");
        drop(state);
        for name in ["a-0.snapshot.7.tmp", "mine.tmp", "a-0.snapshot.x.tmp"] {
            fs::write(temporary.0.join(name), "half").expect("a file");
        }
        let state = temporary.open();
        assert_eq!(temporary.names(), ["a-0.snapshot", "a-0.snapshot.x.tmp", "lock", "mine.tmp"]);
        assert_eq!(read(&state, "a", 0), Some(b"whole".to_vec()));
    }

    #[test]
    fn the_former_snapshot_stays_until_the_new_one_is_whole() {
        let temporary = Temporary::new("rename");
        let state = temporary.open();
        write(&state, "a", 0, b"old");
        let mut dropped = state.write("a", 0).expect("a file");
        let mut finished = state.write("a", 0).expect("a second one does not disturb the first one");
        dropped.write(b"half").expect("space");
        finished.write(b"new").expect("space");
        assert_eq!(read(&state, "a", 0), Some(b"old".to_vec()));
        let mut reader = state.read("a", 0).expect("a whole file").expect("a file");
        finished.finish().expect("space");
        assert_eq!(reader.next_block().expect("it reads on in the old one"), Some(&b"old"[..]));
        drop(dropped);
        assert_eq!(read(&state, "a", 0), Some(b"new".to_vec()));
        assert_eq!(temporary.names(), ["a-0.snapshot", "lock"]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_leaves_the_former_snapshot() {
        let temporary = Temporary::new("full");
        let state = temporary.open();
        write(&state, "a", 0, b"old");
        std::os::unix::fs::symlink("/dev/full", temporary.0.join("a-0.snapshot.1.tmp")).expect("a link");
        let full = state.write("a", 0).expect_err("the header does not fit");
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        assert_eq!(read(&state, "a", 0), Some(b"old".to_vec()));
        assert_eq!(temporary.names(), ["a-0.snapshot", "lock"]);
    }

    #[test]
    fn an_error_names_the_file_and_the_problem() {
        let temporary = Temporary::new("damaged");
        let state = temporary.open();
        write(&state, "a", 0, b"content");
        let path = temporary.0.join("a-0.snapshot");
        let mut bytes = fs::read(&path).expect("a file");
        *bytes.last_mut().expect("a byte") ^= 1;
        fs::write(&path, &bytes).expect("written");
        let mut reader = state.read("a", 0).expect("its header is whole").expect("a file");
        assert_eq!(reader.next_block().expect("the block is whole"), Some(&b"content"[..]));
        let said = reader.next_block().expect_err("the trailer is damaged").to_string();
        let expected = format!(
            "the snapshot {path:?} cannot be used: it is damaged: a checksum does not match, after byte 36. Delete it: \
             the partition is read from its log instead"
        );
        assert_eq!(said, expected);
        fs::rename(&path, temporary.0.join("b-0.snapshot")).expect("renamed");
        let said = state.read("b", 0).expect_err("it was renamed").to_string();
        assert!(said.contains("it is a snapshot of \"a\" [0]"), "{said}");
    }

    #[test]
    fn the_longest_names_of_topics_can_be_used() {
        let temporary = Temporary::new("names");
        let state = temporary.open();
        // Kafka allows 249 characters.
        let topics = ["x".repeat(249), format!("{}y", "x".repeat(248)), "/".repeat(249)];
        for topic in &topics {
            write(&state, topic, i32::MAX, topic.as_bytes());
        }
        for topic in &topics {
            assert_eq!(read(&state, topic, i32::MAX).as_deref(), Some(topic.as_bytes()));
        }
    }

    #[cfg(unix)]
    #[test]
    fn only_this_user_may_read_the_files() {
        use std::os::unix::fs::PermissionsExt;
        let temporary = Temporary::new("modes");
        write(&temporary.open(), "a", 0, b"secret");
        for (name, expected) in [("", 0o700), ("lock", 0o600), ("a-0.snapshot", 0o600)] {
            let mode = fs::metadata(temporary.0.join(name)).expect("it exists").permissions().mode();
            assert_eq!(mode & 0o777, expected, "{name:?}");
        }
    }
}
