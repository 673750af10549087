//! The errors that end the engine.

use rdkafka::error::KafkaError;

/// Why the engine cannot continue.
#[derive(Debug)]
pub enum Error {
    /// The operating system refused a thread or a wake-up.
    System(std::io::Error),
    /// librdkafka rejects its settings.
    Settings(KafkaError),
    /// The brokers reject the engine's connections, and this configuration file has changed since the engine read it.
    Outdated(String),
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::System(error) => write!(f, "the operating system refused a thread or a wake-up: {error}"),
            Self::Outdated(path) => write!(
                f,
                "the brokers reject the engine's connections, and {path:?} has changed since the engine read it: \
                 restart the engine to use the new content"
            ),
            Self::Settings(error) => {
                let refused = "librdkafka refuses its settings (see CONFIGURATION_FILE and SESSION_TIMEOUT)";
                match error {
                    // Without the value, which rust-rdkafka would add: a misspelt setting may hold a password.
                    KafkaError::ClientConfig(_, why, ..) => write!(f, "{refused}: {why}"),
                    error => write!(f, "{refused}: {error}"),
                }
            }
        }
    }
}

impl std::error::Error for Error {}
