//! Payloads outside memory: the core keeps references, and the shell reads the bytes when it writes a batch.

use std::cell::RefCell;
use std::rc::Rc;

use kafka_scheduler::core::batch::Batch;
use kafka_scheduler::core::io::{Header, Input, Millis, Outcome, Output, Record, TargetState};
use kafka_scheduler::core::payload::{Packed, Parts, Payload, PayloadRef, Stored};
use kafka_scheduler::core::{PartitionState, Scheduler};

use crate::rig::{Kept, LEFTOVER_CUTOFF, NOW, P, Rig, Sent, calendar, config, sent};

/// The storage of a shell, such as a disk: packed bytes by position.
type Disk = Rc<RefCell<Vec<Vec<u8>>>>;

/// A reference, and the key's hash.
#[derive(Debug)]
struct OnDisk {
    reference: PayloadRef,
    key: u128,
}

fn hash(key: &[u8]) -> u128 {
    key.iter().fold(0x6c62_272e_07bb_0142, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

impl Payload for OnDisk {
    type Store = Disk;

    fn pack(parts: &Parts<'_>, disk: &mut Disk) -> Self {
        let mut packed = Vec::new();
        parts.write(&mut packed);
        let mut disk = disk.borrow_mut();
        let reference = PayloadRef { place: disk.len() as u64, packed_bytes: packed.len() as u32 };
        disk.push(packed);
        Self { reference, key: hash(parts.key) }
    }

    fn from_packed(packed: &[u8], disk: &mut Disk) -> Self {
        Self::pack(&Parts::unpack(packed), disk)
    }

    fn hash_of(key: &[u8], seed: u64) -> u64 {
        hash(key) as u64 ^ seed
    }

    fn hash(&self, seed: u64) -> u64 {
        self.key as u64 ^ seed
    }

    fn has_key(&self, key: &[u8]) -> bool {
        self.key == hash(key)
    }

    fn memory_bytes(&self) -> usize {
        0
    }

    fn stored(&self) -> Stored<'_> {
        Stored::Outside(self.reference)
    }
}

/// Reads a log with schedules, an update, an overtaken schedule and a cancel. Returns the records of each batch after
/// the partition is live. `resolve` reads the batch's payloads.
fn play<Y: Payload>(mut core: Scheduler<Y>, mut resolve: impl FnMut(&mut Batch)) -> Vec<Vec<Sent>> {
    let mut log = log();
    let mut now = Millis(NOW * 1000);
    let (mut read, mut batches) = (0, Vec::new());
    core.handle(now, Input::Assigned { partitions: &[P], leftover_cutoff: LEFTOVER_CUTOFF });
    for _ in 0..1_000 {
        match core.poll() {
            Some(Output::ReadCommitted(_)) => {
                core.handle(now, Input::Committed { partition: P, offset: None, metadata: b"" });
            }
            Some(Output::FindSince { request, .. }) => {
                core.handle(now, Input::Since { request, since: None, leftover_cutoff: LEFTOVER_CUTOFF });
            }
            Some(Output::CheckTarget { target, .. }) => {
                core.handle(now, Input::Target { target, state: TargetState::Exists });
            }
            Some(Output::Transact(mut batch)) => {
                resolve(&mut batch);
                let records = sent(&batch, now);
                let own = records.iter().filter(|(_, partition, _)| *partition == Some(P));
                log.extend(own.map(|(.., kept)| kept.clone()));
                let last_offsets = vec![(P, log.len() as i64 - 1)];
                core.handle(now, Input::BatchEnded { batch: batch.id, outcome: Outcome::Committed { last_offsets } });
                batches.push(records);
            }
            Some(_) => {}
            None if read < log.len() => {
                let kept = &log[read];
                let headers: Vec<Header<'_>> =
                    kept.headers.iter().map(|(name, value)| Header { name, value: value.as_deref() }).collect();
                let (key, value) = (kept.key.as_deref(), kept.value.as_deref());
                let (offset, timestamp) = (read as i64, kept.timestamp);
                read += 1;
                let record = Record { partition: P, offset, timestamp, key, value, headers: &headers };
                core.handle(now, Input::Record(record));
            }
            None if now.0 < (NOW + 100) * 1000 => {
                assert!(core.status().iter().all(|status| status.state == PartitionState::Live));
                now = core.poll_timeout().map_or(now.plus(100_000), |(at, _)| at.max(now.plus(1)));
                core.handle(now, Input::Tick);
            }
            None => return batches,
        }
    }
    panic!("the core does not come to rest");
}

fn log() -> Vec<Kept> {
    let mut rig = Rig::new(config());
    let overtaken = rig.schedule(P, "twice", NOW + 10);
    rig.schedule(P, "twice", NOW + 20);
    rig.engine(P, "twice", overtaken, None);
    rig.schedule(P, "once", NOW + 5);
    rig.schedule(P, "gone", NOW + 5);
    rig.cancel(P, "gone");
    rig.logs.remove(&P).unwrap().into_iter().flatten().collect()
}

#[test]
fn batches_of_references_write_the_same_records() {
    let in_memory = play::<Packed>(Scheduler::new(config(), calendar()), |_| {});
    let disk = Disk::default();
    let outside = play::<OnDisk>(Scheduler::with_store(config(), calendar(), Rc::clone(&disk)), |batch| {
        let bytes = batch.payload_bytes();
        assert_eq!(batch.resolve(|_, _| Err("the disk is away")).is_err(), bytes > 0, "{batch:?}");
        let read = |reference: PayloadRef, buffer: &mut Vec<u8>| {
            buffer.extend_from_slice(&disk.borrow()[reference.place as usize]);
            Ok::<(), ()>(())
        };
        assert_eq!(batch.resolve(read), Ok(()), "a batch can be resolved after an error");
        assert_eq!(batch.payload_bytes(), bytes, "the size is known before the batch is resolved");
    });
    assert_eq!(outside, in_memory);
    let fired = |batch: &&Vec<Sent>| batch.iter().any(|(topic, ..)| topic == "target");
    assert_eq!(in_memory.iter().filter(fired).count(), 2, "{in_memory:?}");
}
