//! Whole runs: several engines, their users and their faults, on the simulator's model of Kafka.

use sim::{Scenario, play};

/// A setup and so many operations: what comes after them is left out, so no input takes long.
const BYTES_MAX: usize = 24 + 10 * 300;

/// One run, which must keep every promise.
pub fn run(data: &[u8]) {
    let scenario = Scenario::from_bytes(&data[..data.len().min(BYTES_MAX)]);
    if let Err(failure) = play(&scenario, false) {
        panic!("{failure}\n  {} --bytes {}", sim::REPLAY, scenario.to_hex());
    }
}
