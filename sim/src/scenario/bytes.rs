//! Scenarios as bytes. Each byte has its meaning by its position alone, and any bytes are a scenario.

use super::{Act, Away, OPS_MAX, Op, Point, RecordKind, RequestError, Scenario, Setup, Target, Timestamps};

const SETUP_BYTES: usize = 24;
const OP_BYTES: usize = 10;
/// The lowest `delete.retention.ms` of an operation: no instance loads for that long.
const RETENTION_MS_MIN: u16 = 20_000;

impl Scenario {
    /// Reads a scenario: 24 bytes of setup, then 10 bytes for each operation. Missing bytes count as zeros.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let (setup, ops) = bytes.split_at(bytes.len().min(SETUP_BYTES));
        let ops = ops.chunks(OP_BYTES).take(OPS_MAX).map(|chunk| op(padded(chunk))).collect();
        Self { setup: self::setup(&padded(setup)), ops }
    }

    /// Returns the bytes from which [`Scenario::from_bytes`] reads this scenario.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = setup_bytes(&self.setup).to_vec();
        for op in &self.ops {
            bytes.extend_from_slice(&op_bytes(op));
        }
        bytes
    }

    /// Reads a scenario from the hexadecimal digits that a failure prints.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let digits = text.trim().as_bytes();
        let pairs = digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
        digits
            .len()
            .is_multiple_of(2)
            .then(|| pairs.collect::<Option<Vec<u8>>>().map(|bytes| Self::from_bytes(&bytes)))?
    }

    /// Returns [`Scenario::to_bytes`] in hexadecimal digits.
    #[must_use]
    pub fn to_hex(&self) -> String {
        self.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

fn padded<const N: usize>(bytes: &[u8]) -> [u8; N] {
    std::array::from_fn(|at| bytes.get(at).copied().unwrap_or(0))
}

fn setup(b: &[u8; SETUP_BYTES]) -> Setup {
    Setup {
        instances: b[0] % 3 + 1,
        topics: b[1] % 2 + 1,
        partitions: b[2] % 3 + 1,
        keys: b[3] % 16 + 1,
        transactors: b[4] % 2 + 1,
        items_max: b[5] % 8 + 1,
        grace_s: b[6].checked_sub(1),
        horizon_hs: (b[7] > 0).then_some(b[7]),
        since_days: b[8] % 3,
        midnight_s: b[9] as i8,
        dead_letters: b[10] % 2 == 1,
        bandwidth_kbps: b[11].checked_sub(1).map_or(0, |n| n % 16 + 16),
        timestamps: of(&TIMESTAMPS, b[12]),
        replicas: b[13] % 3 + 1,
        stale_replicas: b[14] % 2 == 1,
        seed: u64::from_be_bytes(padded(&b[16..])),
    }
}

fn setup_bytes(s: &Setup) -> [u8; SETUP_BYTES] {
    let mut b = [0; SETUP_BYTES];
    b[0] = s.instances - 1;
    b[1] = s.topics - 1;
    b[2] = s.partitions - 1;
    b[3] = s.keys - 1;
    b[4] = s.transactors - 1;
    b[5] = s.items_max - 1;
    b[6] = s.grace_s.map_or(0, |s| s + 1);
    b[7] = s.horizon_hs.unwrap_or(0);
    b[8] = s.since_days;
    b[9] = s.midnight_s as u8;
    b[10] = u8::from(s.dead_letters);
    b[11] = s.bandwidth_kbps.saturating_sub(15);
    b[12] = at(&TIMESTAMPS, &s.timestamps);
    b[13] = s.replicas - 1;
    b[14] = u8::from(s.stale_replicas);
    b[16..].copy_from_slice(&s.seed.to_be_bytes());
    b
}

const RECORD_KINDS: [RecordKind; 12] = [
    RecordKind::Schedule,
    RecordKind::Cancel,
    RecordKind::NoEpoch,
    RecordKind::BadEpoch,
    RecordKind::ToSchedules,
    RecordKind::Copied,
    RecordKind::ReservedKey,
    RecordKind::NoKey,
    RecordKind::Recurring,
    RecordKind::Zoned,
    RecordKind::Expiring,
    RecordKind::Replayed,
];
const TIMESTAMPS: [Timestamps; 3] = [Timestamps::Any, Timestamps::Bounded, Timestamps::BoundedInTargets];
const POINTS: [Point; 5] =
    [Point::Now, Point::BeforeSend, Point::AfterProduce, Point::AfterOffsets, Point::AfterCommit];
const ERRORS: [RequestError; 6] = [
    RequestError::Retriable,
    RequestError::Abortable,
    RequestError::Fatal,
    RequestError::RequestLost,
    RequestError::ReplyLost,
    RequestError::Late,
];
const AWAYS: [Away; 4] = [Away::Missing, Away::Forbidden, Away::Silent, Away::Leaderless];

fn of<T: Copy>(all: &[T], byte: u8) -> T {
    all[usize::from(byte) % all.len()]
}

fn at<T: PartialEq>(all: &[T], wanted: &T) -> u8 {
    // The lists above name every variant, and none of them has 256.
    all.iter().position(|one| one == wanted).unwrap_or(0) as u8
}

fn op(bytes: [u8; OP_BYTES]) -> Op {
    let [t0, t1, kind, a, b, c, d0, d1, e0, e1] = bytes;
    let (d, e) = (u16::from_be_bytes([d0, d1]), u16::from_be_bytes([e0, e1]));
    let act = match kind % 25 {
        0 => Act::Produce {
            key: a,
            kind: of(&RECORD_KINDS, b),
            target: of(&Target::ALL, c),
            in_s: d as i16,
            twice: e & 1 == 1,
            late_ms: (e >> 1) % 4_096,
            large: e >> 13 & 1 == 1,
        },
        1 => Act::Transaction { key: a, count: b % 3 + 1, commit: c % 2 == 0, for_ms: d % 16_384, in_s: e as i16 },
        2 => Act::Crash { instance: a, point: of(&POINTS, b), down_ms: d % 8_192 },
        3 => Act::Pause { instance: a, point: of(&POINTS, b), for_ms: d % 16_384 },
        4 => Act::Error { instance: a, error: of(&ERRORS, b), point: of(&POINTS, c) },
        5 => Act::Skew { instance: a, by: d as i16, days: b % 2 == 1 },
        6 => Act::Compact { partition: a, replica: c, tombstones: b % 2 == 1 },
        7 => Act::Outage { down_ms: d % 16_384, expire: a % 2 == 1 },
        8 => Act::SlowConsumer { instance: a, for_ms: d % 16_384, gap_ms: e % 2_048 },
        9 => Act::SlowMarkers { for_ms: d % 16_384, up_to_ms: e % 2_048 },
        10 => Act::SlowNetwork { instance: a, for_ms: d % 16_384, up_to_ms: e % 2_048 },
        11 => Act::FencesFail { for_ms: d % 16_384 },
        12 => Act::TargetAway { away: of(&AWAYS, a), for_ms: d % 32_768 },
        13 => Act::Stop { instance: a, down_ms: d % 8_192 },
        14 => Act::Unreadable { instance: a },
        15 => Act::SlowRebalance { for_ms: d % 8_192 },
        16 => Act::Grow { topic: a },
        17 => Act::Rewind { instance: a },
        18 => Act::Stall { instance: a, point: of(&POINTS, b), for_ms: d % 16_384 },
        19 => Act::Flood,
        20 => Act::ChangeLeader { partition: a },
        21 => Act::ReplicaAway { partition: a, replica: b, for_ms: d },
        23 => Act::Snapshot { instance: a, partition: b, entries: c, gap_ms: d % 1_024 },
        24 => Act::CopySnapshot { instance: a, partition: b, from: c, age: d0 },
        _ => Act::LowerRetention { for_ms: d % 16_384, retention_ms: e % 4_096 + RETENTION_MS_MIN },
    };
    Op { at_ms: u32::from(u16::from_be_bytes([t0, t1])) * 2, act }
}

fn op_bytes(op: &Op) -> [u8; OP_BYTES] {
    let (kind, [a, b, c], d, e) = match op.act {
        Act::Produce { key, kind, target, in_s, twice, late_ms, large } => {
            let e = u16::from(large) << 13 | late_ms << 1 | u16::from(twice);
            (0, [key, at(&RECORD_KINDS, &kind), at(&Target::ALL, &target)], in_s as u16, e)
        }
        Act::Transaction { key, count, commit, for_ms, in_s } => {
            (1, [key, count - 1, u8::from(!commit)], for_ms, in_s as u16)
        }
        Act::Crash { instance, point, down_ms } => (2, [instance, at(&POINTS, &point), 0], down_ms, 0),
        Act::Pause { instance, point, for_ms } => (3, [instance, at(&POINTS, &point), 0], for_ms, 0),
        Act::Error { instance, error, point } => (4, [instance, at(&ERRORS, &error), at(&POINTS, &point)], 0, 0),
        Act::Skew { instance, by, days } => (5, [instance, u8::from(days), 0], by as u16, 0),
        Act::Compact { partition, replica, tombstones } => (6, [partition, u8::from(tombstones), replica], 0, 0),
        Act::Outage { down_ms, expire } => (7, [u8::from(expire), 0, 0], down_ms, 0),
        Act::SlowConsumer { instance, for_ms, gap_ms } => (8, [instance, 0, 0], for_ms, gap_ms),
        Act::SlowMarkers { for_ms, up_to_ms } => (9, [0, 0, 0], for_ms, up_to_ms),
        Act::SlowNetwork { instance, for_ms, up_to_ms } => (10, [instance, 0, 0], for_ms, up_to_ms),
        Act::FencesFail { for_ms } => (11, [0, 0, 0], for_ms, 0),
        Act::TargetAway { away, for_ms } => (12, [at(&AWAYS, &away), 0, 0], for_ms, 0),
        Act::Stop { instance, down_ms } => (13, [instance, 0, 0], down_ms, 0),
        Act::Unreadable { instance } => (14, [instance, 0, 0], 0, 0),
        Act::SlowRebalance { for_ms } => (15, [0, 0, 0], for_ms, 0),
        Act::Grow { topic } => (16, [topic, 0, 0], 0, 0),
        Act::Rewind { instance } => (17, [instance, 0, 0], 0, 0),
        Act::Stall { instance, point, for_ms } => (18, [instance, at(&POINTS, &point), 0], for_ms, 0),
        Act::Flood => (19, [0, 0, 0], 0, 0),
        Act::ChangeLeader { partition } => (20, [partition, 0, 0], 0, 0),
        Act::ReplicaAway { partition, replica, for_ms } => (21, [partition, replica, 0], for_ms, 0),
        Act::Snapshot { instance, partition, entries, gap_ms } => (23, [instance, partition, entries], gap_ms, 0),
        Act::CopySnapshot { instance, partition, from, age } => {
            (24, [instance, partition, from], u16::from(age) << 8, 0)
        }
        Act::LowerRetention { for_ms, retention_ms } => (22, [0, 0, 0], for_ms, retention_ms - RETENTION_MS_MIN),
    };
    let [t0, t1] = ((op.at_ms / 2) as u16).to_be_bytes();
    let ([d0, d1], [e0, e1]) = (d.to_be_bytes(), e.to_be_bytes());
    [t0, t1, kind, a, b, c, d0, d1, e0, e1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_round_trips_and_any_bytes_make_one() {
        for seed in 0..50 {
            let scenario = Scenario::from_seed(seed);
            assert_eq!(Scenario::from_bytes(&scenario.to_bytes()), scenario);
            assert_eq!(Scenario::from_hex(&scenario.to_hex()).as_ref(), Some(&scenario));
        }
        let mut rng = crate::rng::Rng::new(1);
        for length in 0..300 {
            let bytes: Vec<u8> = (0..length).map(|_| rng.bits() as u8).collect();
            let scenario = Scenario::from_bytes(&bytes);
            assert_eq!(Scenario::from_bytes(&scenario.to_bytes()), scenario, "{bytes:?}");
        }
        assert_eq!(Scenario::from_hex("0"), None);
        assert_eq!(Scenario::from_hex("zz"), None);
    }
}
