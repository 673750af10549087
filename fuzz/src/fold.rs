//! Fuzzes the whole scheduler with records, faults and answers in any order.

use kafka_scheduler::core::Config;
use kafka_scheduler::core::io::{Abort, Input, Millis, TargetState, TopicPartition};
use kafka_scheduler::core::reason::Reason;

use super::bytes::Bytes;
use super::kept::Kept;
use super::shell::{PARTITIONS, Shell, config};

/// The input has settings, then operations, each an opcode with its operands. Any part may be missing.
pub fn run(data: &[u8]) {
    let mut bytes = Bytes(data);
    let settings = bytes.byte();
    let mut base = config();
    base.topics[0].record_bytes_max = [None, Some(250)][usize::from(settings >> 7)];
    let mut shell = Shell::new(Config {
        transactors: 1 + usize::from(settings & 1),
        batch_items_max: [100, 1, 2, 3][usize::from(settings >> 1 & 3)],
        batch_bytes_max: [1 << 20, 1][usize::from(settings >> 3 & 1)],
        grace_s: [None, Some(60)][usize::from(settings >> 4 & 1)],
        horizon_s: [None, Some(3_600)][usize::from(settings >> 5 & 1)],
        dead_letter: [None, Some("dead".to_owned())][usize::from(settings >> 6 & 1)].clone(),
        ..base
    });
    while let Some(operation) = bytes.next() {
        step(&mut shell, operation, &mut bytes);
    }
    shell.finish();
}

fn step(shell: &mut Shell, operation: u8, bytes: &mut Bytes<'_>) {
    match operation % 24 {
        0 => shell.assign(some(bytes)),
        1..=4 => {
            let partition = bytes.pick(&PARTITIONS);
            shell.append(partition, Kept::decode(bytes));
        }
        5 => {
            let partition = bytes.pick(&PARTITIONS);
            for _ in 0..bytes.byte() {
                shell.deliver(partition);
            }
        }
        6 => shell.proceed(),
        7 | 8 => {
            shell.answer(TargetState::Exists, None);
        }
        9 => {
            let state = bytes.pick(&[TargetState::Missing, TargetState::Forbidden, TargetState::NoAnswer]);
            let metadata = bytes.slice();
            shell.answer(state, Some(metadata));
        }
        10 | 11 => {
            shell.commit(true);
        }
        12 => {
            shell.commit(false);
        }
        13 => shell.abort(Abort::Retry),
        14 => shell.abort(Abort::StaleGeneration { generation: Some(i32::from(bytes.byte() % 4)) }),
        15 => {
            let item = u32::from(bytes.byte());
            shell.reject(item, bytes.pick(&[Reason::TooLarge, Reason::UnknownTarget, Reason::NoLeader]));
        }
        16 => shell.lose_outcome(bytes.byte() & 1 == 0),
        17 => shell.revoke(some(bytes)),
        18 => {
            let landing = usize::from(bytes.byte() % 3);
            shell.lose(some(bytes), landing);
        }
        19 => clock(shell, bytes),
        20 => {
            shell.until_deadline(Millis(i64::MAX));
        }
        21 => shell.compact(bytes.pick(&PARTITIONS)),
        22 => shell.input(Input::Generation(i32::from(bytes.byte() % 4))),
        _ => rare(shell, bytes),
    }
}

fn clock(shell: &mut Shell, bytes: &mut Bytes<'_>) {
    shell.now = match bytes.byte() {
        0xff => shell.now.plus(i64::from(bytes.short()) * 60_000),
        seconds => shell.now.plus(i64::from(seconds) * 1_000),
    };
    shell.input(Input::Tick);
}

fn rare(shell: &mut Shell, bytes: &mut Bytes<'_>) {
    match bytes.byte() % 4 {
        0 => shell.stop(),
        1 => shell.input(Input::PositionInvalid { why: "reset" }),
        2 => shell.rewind(bytes.pick(&PARTITIONS)),
        _ => shell.forget_offset(bytes.pick(&PARTITIONS)),
    }
}

/// Selects partitions by one bit each; no bit selects all.
fn some(bytes: &mut Bytes<'_>) -> impl Fn(TopicPartition) -> bool + use<> {
    let bits = bytes.byte();
    move |partition| {
        let at = PARTITIONS.iter().position(|p| *p == partition).unwrap_or(0);
        bits.trailing_zeros() >= 3 || bits >> at & 1 == 1
    }
}
