//! The errors that end the engine.

use rdkafka::error::KafkaError;

use crate::state_dir::StateDirError;

/// Why the engine cannot continue.
#[derive(Debug)]
#[non_exhaustive]
pub enum EngineError {
    /// The operating system refused a thread or a wake-up.
    System(std::io::Error),
    /// `STATE_DIR` cannot be used.
    StateDir(StateDirError),
    /// librdkafka rejects its settings.
    Settings(SettingsError),
    /// The brokers reject the engine's connections, and this configuration file has changed since the engine read it.
    Outdated(String),
}

impl std::fmt::Display for EngineError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::System(_) => f.write_str("the operating system refused a thread or a wake-up"),
            Self::StateDir(_) => f.write_str("the directory of snapshots cannot be used"),
            Self::Settings(_) => {
                f.write_str("librdkafka rejects its settings (see CONFIGURATION_FILE and SESSION_TIMEOUT)")
            }
            Self::Outdated(path) => write!(
                f,
                "the brokers reject the engine's connections, and {path:?} has changed since the engine read it: \
                 restart the engine to use the new content"
            ),
        }
    }
}

impl std::error::Error for EngineError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::System(error) => Some(error),
            Self::StateDir(error) => Some(error),
            Self::Settings(error) => Some(error),
            Self::Outdated(_) => None,
        }
    }
}

/// The reason why librdkafka rejects its settings.
///
/// It leaves out the value that rust-rdkafka's own error has: a misspelt setting may hold a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingsError(String);

impl SettingsError {
    pub(super) fn new(error: KafkaError) -> Self {
        match error {
            KafkaError::ClientConfig(_, reason, ..) => Self(reason),
            error => Self(error.to_string()),
        }
    }
}

impl std::fmt::Display for SettingsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SettingsError {}
