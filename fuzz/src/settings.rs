//! The environment alone: beside the file's parser, there is little in it to find for a fuzzer.

use super::config;

/// Lines `NAME=value`.
pub fn run(data: &[u8]) {
    config::load(&String::from_utf8_lossy(data), None);
}
