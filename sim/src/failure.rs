//! The failures of a run.

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Something happened that must not happen.
    Safety(String),
    /// Something did not happen that must happen.
    Liveness(String),
    /// The engine panicked.
    Crash(String),
}

impl Failure {
    /// Adds the time at which it was found.
    #[must_use]
    pub fn at(self, ms: i64) -> Self {
        match self {
            Self::Safety(what) => Self::Safety(format!("at {ms} ms: {what}")),
            Self::Liveness(what) => Self::Liveness(format!("at {ms} ms: {what}")),
            Self::Crash(what) => Self::Crash(format!("at {ms} ms: {what}")),
        }
    }

    /// Returns the exit code: 1 for safety, 3 for liveness, 4 for a crash.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Safety(_) => 1,
            Self::Liveness(_) => 3,
            Self::Crash(_) => 4,
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Safety(what) => write!(f, "SAFETY: {what}"),
            Self::Liveness(what) => write!(f, "LIVENESS: {what}"),
            Self::Crash(what) => write!(f, "CRASH: {what}"),
        }
    }
}

impl std::error::Error for Failure {}
