//! Why the directory, or a snapshot in it, cannot be used.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::snapshot::Problem;

/// Why the directory cannot be used.
#[derive(Debug)]
#[non_exhaustive]
pub enum StateDirError {
    /// Another process uses it.
    InUse(PathBuf),
    /// It cannot be made or read, or the lock file cannot be opened.
    Unusable(PathBuf, io::Error),
    /// The lock file cannot be locked.
    NoLocks(PathBuf, io::Error),
}

impl fmt::Display for StateDirError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse(path) => write!(
                f,
                "STATE_DIR {path:?} is in use by another process: give each instance a directory of its own, or stop \
                 the other process"
            ),
            Self::Unusable(path, error) => write!(
                f,
                "STATE_DIR: {path:?} cannot be used ({error}): name a directory that this user may create files in"
            ),
            Self::NoLocks(path, error) => write!(
                f,
                "STATE_DIR: {path:?} cannot be locked ({error}): name a directory on a file system that has locks, \
                 such as a local disk"
            ),
        }
    }
}

impl std::error::Error for StateDirError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::InUse(_) => None,
            Self::Unusable(_, error) | Self::NoLocks(_, error) => Some(error),
        }
    }
}

/// A snapshot that cannot be used. It costs a read of the partition's whole log.
#[derive(Debug)]
pub struct SnapshotError {
    pub(super) path: PathBuf,
    pub(super) problem: Problem,
}

impl SnapshotError {
    /// Returns why.
    #[must_use]
    pub const fn problem(&self) -> &Problem {
        &self.problem
    }
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, problem } = self;
        write!(f, "the snapshot {path:?} cannot be used: {problem}")?;
        if let Problem::Io(error) = problem {
            write!(f, " ({error})")?;
        }
        f.write_str(". Delete it: the partition is read from its log instead")
    }
}

impl std::error::Error for SnapshotError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.problem)
    }
}
