//! Fuzzes the records that the engine writes: for firings, for overtaken records, and for records that a successor
//! reads again.

use kafka_scheduler::core::Config;
use kafka_scheduler::core::io::{Input, Millis, TargetState};

use super::bytes::Bytes;
use super::kept::Kept;
use super::shell::{PARTITIONS, Shell, config};

/// Decodes records, some of which arrive after the engine has decided to fire the ones before. [`Shell`] checks every
/// batch.
pub fn run(data: &[u8]) {
    let mut bytes = Bytes(data);
    let here = PARTITIONS[0];
    let settings = bytes.byte();
    let overtaking = settings % 4;
    let dead_letter = (settings & 4 != 0).then(|| "dead".to_owned());
    let mut shell = Shell::new(Config { dead_letter, ..config() });
    shell.assign(|partition| partition == here);
    for _ in 0..=bytes.byte() % 4 {
        shell.append(here, Kept::decode(&mut bytes));
    }
    // Stop at the first firing, and leave it in flight.
    while shell.answer(TargetState::Exists, None) || shell.deliver(here) || shell.commit_before_firing() {}
    shell.now = Millis(shell.now.0 + i64::from(bytes.short().max(0)) * 1_000);
    shell.input(Input::Tick);
    while shell.answer(TargetState::Exists, None) {}
    for _ in 0..overtaking {
        shell.append(here, Kept::decode(&mut bytes));
    }
    if bytes.byte() & 1 == 0 {
        while shell.deliver(here) {}
    }
    shell.finish();
}
