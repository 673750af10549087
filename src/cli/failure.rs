//! How a command fails: what it says, and the program's exit code.

use std::fmt;
use std::io;

use crate::app;
use crate::config::ConfigError;

/// Why a command has ended without doing what it was asked.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// It could not be done: brokers, files, the system. Exit code 1.
    pub fn new(message: impl Into<String>) -> Self {
        Self { code: 1, message: message.into() }
    }

    /// Arguments or settings are wrong. Exit code 2, as clap's.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { code: 2, message: message.into() }
    }

    /// What was asked for is not there. Exit code 3.
    pub fn nothing(message: impl Into<String>) -> Self {
        Self { code: 3, message: message.into() }
    }

    /// Something was checked and is not right. Exit code 4.
    pub fn findings(message: impl Into<String>) -> Self {
        Self { code: 4, message: message.into() }
    }

    /// The program's exit code.
    pub const fn exit_code(&self) -> u8 {
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
        Self::usage(error.to_string())
    }
}

impl From<app::Error> for Failure {
    fn from(error: app::Error) -> Self {
        Self { code: error.exit_code(), message: app::chain(&error) }
    }
}

/// Output that nobody reads any more ends a command quietly, as it ends other programs.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let code = u8::from(error.kind() != io::ErrorKind::BrokenPipe);
        Self { code, message: if code == 0 { String::new() } else { format!("the output: {error}") } }
    }
}
