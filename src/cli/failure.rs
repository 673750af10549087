//! A command's error: its message and the program's exit code.

use std::fmt;
use std::io;

use crate::app;
use crate::config::ConfigError;
use crate::kafka::broker_client::BrokerError;
use crate::kafka::publish::PublishError;

/// Why a command has failed.
#[derive(Debug)]
pub(super) struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// Exit code 1: brokers, files or the system have failed.
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { code: 1, message: message.into() }
    }

    /// Exit code 2, as clap's: arguments or settings are wrong.
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self { code: 2, message: message.into() }
    }

    /// Exit code 3: a topic does not exist, or a key is not pending.
    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self { code: 3, message: message.into() }
    }

    /// Exit code 4: a check has found a problem.
    pub(super) fn problems(message: impl Into<String>) -> Self {
        Self { code: 4, message: message.into() }
    }

    /// Returns the program's exit code.
    pub(super) const fn exit_code(&self) -> u8 {
        self.code
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::usage(app::chain(&error))
    }
}

impl From<BrokerError> for Failure {
    fn from(error: BrokerError) -> Self {
        let code = match error {
            BrokerError::Settings(_) => 2,
            BrokerError::NoTopic(_) => 3,
            _ => 1,
        };
        Self { code, message: app::chain(&error) }
    }
}

impl From<PublishError> for Failure {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Broker(error) => error.into(),
            PublishError::NoPartition { partition, .. } => {
                Self::usage(format!("--partition is {partition}, but {error}"))
            }
            PublishError::Ambiguous { .. } => {
                Self::new(format!("{error}: cancel it first, or choose one with --partition"))
            }
            error => Self::new(app::chain(&error)),
        }
    }
}

impl From<app::ProgramError> for Failure {
    fn from(error: app::ProgramError) -> Self {
        Self { code: error.exit_code(), message: app::chain(&error) }
    }
}

/// A closed stdout ends a command without a message, as it ends other programs.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let code = u8::from(error.kind() != io::ErrorKind::BrokenPipe);
        Self { code, message: if code == 0 { String::new() } else { format!("the output cannot be written: {error}") } }
    }
}
