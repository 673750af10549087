//! Fuzzes whole runs: several engines, their users and faults, on the simulator's model of Kafka.

use sim::{Scenario, play};

/// Operations after this many are ignored, which bounds the time of an input.
const BYTES_MAX: usize = 24 + 10 * 300;

/// Runs one scenario, which must keep every promise.
pub fn run(data: &[u8]) {
    let scenario = Scenario::from_bytes(&data[..data.len().min(BYTES_MAX)]);
    if let Err(failure) = play(&scenario, false) {
        panic!("{failure}\n  {} --bytes {}", sim::REPLAY, scenario.to_hex());
    }
}
