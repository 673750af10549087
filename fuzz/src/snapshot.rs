//! Fuzzes snapshot files: what is read is what was written, and no damage goes unnoticed.

use kafka_scheduler::calendar::ZoneCalendar;
use kafka_scheduler::core::payload::Packed;
use kafka_scheduler::core::snapshot::{Fold, Restorer};
use kafka_scheduler::state_dir::snapshot::{BLOCK_BYTES_MAX, BlockReader, BlockWriter, Problem};

use super::bytes::Bytes;

const TOPIC: &str = "t";
const PARTITION: i32 = 7;

/// The whole input is a file. And then it is what a file is made of: what is done to it, and its content.
pub fn run(data: &[u8]) {
    let _ = read(data);
    restored(data);
    written(&mut Bytes(data));
}

fn read(file: &[u8]) -> Result<Vec<u8>, Problem> {
    let mut reader = BlockReader::new(file, TOPIC, PARTITION)?;
    let mut content = Vec::new();
    while let Some(block) = reader.next_block()? {
        assert!(!block.is_empty() && block.len() <= BLOCK_BYTES_MAX);
        content.extend_from_slice(block);
    }
    Ok(content)
}

/// A fold of any bytes is an error, or a fold, and never a panic.
fn restored(data: &[u8]) {
    let restorer = Restorer { hash_seed: 7, has_dead_letter_topic: true, calendar: &ZoneCalendar::default() };
    let _: Result<Fold<Packed>, _> = Fold::decode(data, &restorer, &mut ());
}

fn written(input: &mut Bytes<'_>) {
    let (damage, at, mask, repeats) = (input.byte(), input.long(), input.byte(), input.byte());
    let mut content = Vec::new();
    let mut writer = BlockWriter::new(Vec::new(), TOPIC, PARTITION).expect("a Vec takes everything");
    while !input.0.is_empty() {
        let piece = input.slice();
        writer.write(piece).expect("a Vec takes everything");
        content.extend_from_slice(piece);
    }
    // Rarely, and then for some blocks more.
    if repeats == u8::MAX && !content.is_empty() {
        let more = content.repeat(2 * BLOCK_BYTES_MAX / content.len());
        writer.write(&more).expect("a Vec takes everything");
        content.extend(more);
    }
    let mut file = writer.finish().expect("a Vec takes everything");
    assert_eq!(read(&file).expect("it is whole"), content);
    let index = usize::try_from(at.rem_euclid(file.len() as i64)).expect("an index");
    match damage % 4 {
        0 if mask != 0 => file[index] ^= mask,
        1 => file.truncate(index),
        2 => file.insert(file.len(), mask),
        3 if index > 0 => file.rotate_left(index),
        _ => return,
    }
    assert!(read(&file).is_err(), "the damage at {index} goes unnoticed");
}
