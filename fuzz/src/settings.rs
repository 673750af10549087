//! Fuzzes environment variables alone: with a configuration file, the YAML parser would take most of the inputs.

use super::config;

/// The input has lines `NAME=value`.
pub fn run(data: &[u8]) {
    config::load(&String::from_utf8_lossy(data), None);
}
