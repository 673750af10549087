//! Creates scenarios from seeds: first the kinds of fault and how often they hit, then the operations.

use super::{Act, Away, Op, Point, RecordKind, RequestError, SAFETY_MS, Scenario, Setup, Target, Timestamps};
use crate::faults::{FAULTS, Fault};
use crate::rng::Rng;

impl Scenario {
    /// Creates the scenario of a seed.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let setup = setup(&mut rng);
        // In some seeds users change one or two keys all the time.
        let hot = rng.chance(25);
        let setup = match hot {
            true if rng.chance(50) => narrow(setup),
            true => Setup { keys: setup.keys.min(2), ..setup },
            false => setup,
        };
        scenario(&mut rng, setup, hot)
    }

    /// Creates the scenario of a seed with one key, one partition and two instances, so everything happens to that key.
    #[must_use]
    pub fn narrow(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let setup = narrow(setup(&mut rng));
        scenario(&mut rng, setup, true)
    }
}

fn narrow(setup: Setup) -> Setup {
    Setup { instances: 2, topics: 1, partitions: 1, keys: 1, ..setup }
}

fn scenario(rng: &mut Rng, mut setup: Setup, hot: bool) -> Scenario {
    // Most seeds have about half of the kinds of fault. Some have few, so rare ones meet without others.
    let share = [8, 20, 35, 50][rng.index(4)];
    let mut ops = users(rng, &setup, hot);
    if rng.chance(8) {
        wrong_day(rng, &setup, &mut ops);
    }
    let share = match rng.range(0, 99) {
        0..10 => slow_start(rng, &setup, &mut ops),
        10..15 => flooded_start(&setup, &mut ops),
        15..20 => changed_in_crashes(rng, &setup, &mut ops),
        _ => share,
    };
    for fault in FAULTS {
        if rng.chance(share) {
            faults(rng, &mut setup, fault, &mut ops);
        }
    }
    ops.sort_by_key(|op| op.at_ms);
    Scenario { setup, ops }
}

/// Makes the first load long and slow, so another instance joins before it ends. Returns a small share of kinds of
/// fault, so hardly anything else happens.
fn slow_start(rng: &mut Rng, setup: &Setup, ops: &mut Vec<Op>) -> i64 {
    ops.extend((0..150).map(|_| {
        let in_s = rng.range(-300, 600) as i16;
        Op { at_ms: 0, act: produce(rng, setup, RecordKind::Schedule, in_s) }
    }));
    let slow = |instance| Act::SlowConsumer { instance, for_ms: 9_000, gap_ms: 1_500 };
    ops.extend((0..setup.instances).map(|instance| Op { at_ms: 0, act: slow(instance) }));
    4
}

/// Returns an operation that takes a snapshot in steps of some entries.
fn snapshot(instance: u8, partition: u8, seed: u16) -> Act {
    Act::Snapshot { instance, partition, entries: (seed % 5) as u8, gap_ms: seed % 400 }
}

/// Makes every instance take snapshots at about a time, and most of them restart: soon, or when their snapshots are
/// old.
fn snapshots(rng: &mut Rng, setup: &Setup, at_ms: u32, ops: &mut Vec<Op>) {
    let down_ms = rng.range(10, 3_000) as u16;
    for instance in 0..setup.instances {
        for partition in 0..setup.partitions {
            let at_ms = at_ms + rng.range(0, 100) as u32 * 2;
            ops.push(Op { at_ms, act: snapshot(instance, partition, rng.range(0, 400) as u16) });
        }
        let later_ms = if rng.chance(70) { rng.range(50, 4_000) } else { rng.range(10_000, 25_000) } as u32;
        if rng.chance(60) {
            let act = match rng.chance(70) {
                true => Act::Crash { instance, point: Point::Now, down_ms },
                false => Act::Stop { instance, down_ms },
            };
            ops.push(Op { at_ms: at_ms + later_ms * 2, act });
        }
    }
}

/// Makes users write to every partition before any instance starts, and reading slow, so the other instances join
/// before the first one has loaded. Returns a small share of kinds of fault: sooner or later one of them leaves all
/// partitions to one instance, which then has no log of another instance to search.
fn flooded_start(setup: &Setup, ops: &mut Vec<Op>) -> i64 {
    ops.push(Op { at_ms: 0, act: Act::Flood });
    let slow = |instance| Act::SlowConsumer { instance, for_ms: 5_000, gap_ms: 1_500 };
    ops.extend((0..setup.instances).map(|instance| Op { at_ms: 0, act: slow(instance) }));
    2
}

/// Makes a user schedule and cancel one key again and again, some milliseconds apart, and instances crash meanwhile, so
/// an instance takes a partition over while records of the engine and of users for the key alternate in its log.
/// Returns a small share of kinds of fault.
fn changed_in_crashes(rng: &mut Rng, setup: &Setup, ops: &mut Vec<Op>) -> i64 {
    for _ in 0..30 {
        let mut at_ms = rng.range(0, i64::from(SAFETY_MS) / 2 - 1) as u32 * 2;
        let key = rng.range(0, 15) as u8;
        for _ in 0..8 {
            at_ms += rng.range(1, 60) as u32 * 2;
            let kind = if rng.chance(60) { RecordKind::Schedule } else { RecordKind::Cancel };
            let (target, in_s) = (Target::Open, rng.range(0, 2) as i16);
            let act = Act::Produce { key, kind, target, in_s, twice: false, late_ms: 0, large: false };
            ops.push(Op { at_ms, act });
        }
        for instance in 0..setup.instances {
            let down_ms = rng.range(10, 2_000) as u16;
            let at_ms = at_ms + rng.range(1, 50) as u32 * 2;
            ops.push(Op { at_ms, act: Act::Crash { instance, point: Point::Now, down_ms } });
        }
    }
    4
}

/// Adds some operations for a kind of fault.
fn faults(rng: &mut Rng, setup: &mut Setup, fault: Fault, ops: &mut Vec<Op>) {
    let often = rng.range(1, operations_max(fault));
    for _ in 0..often {
        let mut at_ms = rng.range(0, i64::from(SAFETY_MS) / 2 - 1) as u32 * 2;
        if fault == Fault::Growth && rng.chance(60) {
            // Soon after a midnight, some time after the first start.
            setup.midnight_s = -40;
            at_ms = rng.range(20_500, 30_000) as u32 * 2;
        }
        ops.extend(act_of(rng, setup, fault).map(|act| Op { at_ms, act }));
        match fault {
            Fault::Bandwidth => ops.extend(large_burst(rng, setup, at_ms)),
            Fault::WrongClock => ops.extend(wrong_clock(rng, setup, at_ms)),
            _ => {}
        }
        if fault == Fault::Growth {
            // Records that are in the log before an instance reads it, and were due before that.
            ops.extend((0..6).map(|_| {
                let in_s = rng.range(-60, 0) as i16;
                Op { at_ms: at_ms + 2, act: produce(rng, setup, RecordKind::Schedule, in_s) }
            }));
        }
        let compact =
            |at_ms, partition, replica, tombstones| Op { at_ms, act: Act::Compact { partition, replica, tombstones } };
        if fault == Fault::OldTombstones {
            // A tombstone is removed some time after the first compaction that has left it.
            let before_ms = at_ms.saturating_sub(rng.range(13_000, 20_000) as u32 * 2);
            ops.push(compact(before_ms, rng.range(0, 5) as u8, 0, false));
        }
        if fault == Fault::LowerRetention {
            // Tombstones are stamped before it and during it, and removed after it.
            for partition in 0..6 {
                ops.push(compact(at_ms.saturating_sub(rng.range(50, 2_000) as u32 * 2), partition, 0, false));
                ops.push(compact(at_ms + 2, partition, rng.range(0, 3) as u8, false));
                ops.push(compact(at_ms + rng.range(10_100, 13_000) as u32 * 2, partition, rng.range(0, 3) as u8, true));
            }
        }
        if matches!(fault, Fault::Snapshot | Fault::OldSnapshot) {
            snapshots(rng, setup, at_ms, ops);
        }
        if matches!(fault, Fault::LeaderChange | Fault::ReplicaAway) && rng.chance(50) {
            // The replicas differ.
            let (partition, replica) = (rng.range(0, 5) as u8, rng.range(1, 3) as u8);
            ops.push(compact(at_ms.saturating_sub(rng.range(1, 2_000) as u32 * 2), partition, replica, rng.chance(70)));
        }
        if fault == Fault::Zombie || fault == Fault::Stall || fault == Fault::CrashAfterOffsets {
            // A schedule has to be due while the fault lasts.
            ops.push(Op { at_ms, act: produce(rng, setup, RecordKind::Schedule, 1) });
        }
    }
    for op in ops {
        disturb(rng, fault, &mut op.act);
    }
}

/// Makes so many large schedules due in one second that an instance cannot send them within `message.timeout.ms`.
fn large_burst(rng: &mut Rng, setup: &mut Setup, at_ms: u32) -> Vec<Op> {
    setup.bandwidth_kbps = rng.range(16, 24) as u8;
    setup.items_max = setup.items_max.max(4);
    let due_ms = at_ms / 1_000 * 1_000 + 3_000;
    let large = |key: u8| {
        let at_ms = at_ms + u32::from(key) * 2;
        let in_s = (due_ms / 1_000 - at_ms / 1_000) as i16;
        let (kind, target) = (RecordKind::Schedule, Target::Open);
        Op { at_ms, act: Act::Produce { key, kind, target, in_s, twice: false, late_ms: 0, large: true } }
    };
    (0..10).map(large).collect()
}

/// Sets a clock a day ahead for a while. The brokers reject its timestamps.
fn wrong_clock(rng: &mut Rng, setup: &mut Setup, at_ms: u32) -> [Op; 2] {
    setup.timestamps = [Timestamps::Bounded, Timestamps::BoundedInTargets][rng.index(2)];
    setup.dead_letters |= rng.chance(60);
    let instance = rng.range(0, i64::from(setup.instances) - 1) as u8;
    let step = |at_ms, by| Op { at_ms, act: Act::Skew { instance, by, days: true } };
    [step(at_ms, 1), step(at_ms + rng.range(1_000, 10_000) as u32 * 2, -1)]
}

fn setup(rng: &mut Rng) -> Setup {
    let setup = Setup {
        instances: [1, 2, 2, 3][rng.index(4)],
        topics: [1, 1, 1, 2][rng.index(4)],
        partitions: rng.range(1, 3) as u8,
        keys: rng.range(1, 16) as u8,
        transactors: rng.range(1, 2) as u8,
        items_max: rng.range(1, 8) as u8,
        grace_s: rng.chance(20).then(|| rng.range(0, 20) as u8),
        horizon_hs: rng.chance(10).then(|| rng.range(1, 40) as u8),
        since_days: if rng.chance(20) { rng.range(1, 2) as u8 } else { 0 },
        midnight_s: if rng.chance(40) { rng.range(-100, 100) as i8 } else { 0 },
        dead_letters: rng.chance(35),
        bandwidth_kbps: 0,
        timestamps: Timestamps::Any,
        replicas: 1,
        stale_replicas: false,
        seed: rng.bits(),
    };
    // Two thirds of the scenarios have several.
    Setup { replicas: (setup.seed % 3) as u8 + 1, ..setup }
}

/// Sets all clocks a day ahead when the engine first starts, and right again some time later.
fn wrong_day(rng: &mut Rng, setup: &Setup, ops: &mut Vec<Op>) {
    /// How long users produce nothing afterwards: the records in the logs must be found to be owed.
    const SILENT_MS: u32 = 5_000;
    let right_ms = rng.range(2_000, 40_000) as u32 * 2;
    if rng.chance(60) {
        ops.retain(|op| op.at_ms < 1_000 || op.at_ms > right_ms + SILENT_MS);
    }
    let step =
        |at_ms, by| (0..setup.instances).map(move |instance| Op { at_ms, act: Act::Skew { instance, by, days: true } });
    ops.extend(step(0, 1).chain(step(right_ms, -1)));
}

fn users(rng: &mut Rng, setup: &Setup, hot: bool) -> Vec<Op> {
    let mut ops = Vec::new();
    // Records from before the engine first ran.
    for _ in 0..rng.range(0, 20) {
        let in_s = rng.range(-300, 60) as i16;
        ops.push(Op { at_ms: 0, act: produce(rng, setup, RecordKind::Schedule, in_s) });
    }
    let pace_ms = if hot { rng.range(30, 150) } else { rng.range(120, 400) };
    let lead_s = if hot { 1 } else { rng.range(2, 20) };
    let mut at_ms = 0;
    let schedules = if hot { 60 } else { 75 };
    // Share of schedules of new forms: none in half of the seeds.
    let recurring = [0, 0, 15, 50][rng.index(4)];
    while at_ms < i64::from(SAFETY_MS) {
        let kind = match rng.range(0, 99) {
            n if n < schedules && rng.chance(recurring) => {
                [RecordKind::Recurring, RecordKind::Recurring, RecordKind::Zoned, RecordKind::Expiring][rng.index(4)]
            }
            n if n < schedules => RecordKind::Schedule,
            60..88 if rng.chance(recurring / 3) => RecordKind::Replayed,
            60..88 => RecordKind::Cancel,
            88..92 => RecordKind::NoEpoch,
            92..94 => RecordKind::BadEpoch,
            94..96 => RecordKind::ToSchedules,
            96..98 => RecordKind::Copied,
            98 => RecordKind::ReservedKey,
            _ => RecordKind::NoKey,
        };
        let in_s = match rng.range(0, 9) {
            0 => rng.range(3_000, 30_000),
            1 => rng.range(-60, 0),
            _ => rng.range(-2, lead_s),
        } as i16;
        ops.push(Op { at_ms: at_ms as u32, act: produce(rng, setup, kind, in_s) });
        at_ms += rng.range(2, pace_ms) * 2;
    }
    ops
}

fn produce(rng: &mut Rng, setup: &Setup, kind: RecordKind, in_s: i16) -> Act {
    let key = rng.range(0, i64::from(setup.keys) - 1) as u8;
    Act::Produce { key, kind, target: Target::Open, in_s, twice: false, late_ms: 0, large: false }
}

/// Returns how many operations a kind of fault has at most. Changed user records come on top.
fn operations_max(fault: Fault) -> i64 {
    match fault {
        Fault::Duplicate | Fault::Reordered | Fault::Poison | Fault::Flood => 1,
        Fault::Growth | Fault::Bandwidth | Fault::WrongClock | Fault::LowerRetention => 2,
        Fault::Outage | Fault::Expiry | Fault::SlowRebalance | Fault::Skew => 3,
        Fault::Compaction | Fault::UserTransaction => 12,
        Fault::LeaderChange | Fault::ReplicaAway => 12,
        Fault::OldTombstones | Fault::Snapshot => 24,
        Fault::OldSnapshot => 12,
        _ => 4,
    }
}

/// Changes users' records by a kind of fault.
fn disturb(rng: &mut Rng, fault: Fault, act: &mut Act) {
    let Act::Produce { target, twice, late_ms, .. } = act else { return };
    match fault {
        Fault::Duplicate if rng.chance(5) => *twice = true,
        Fault::Reordered if rng.chance(8) => *late_ms = rng.range(1, 3_000) as u16,
        Fault::TargetAway if rng.chance(25) => *target = Target::Late,
        Fault::Poison if rng.chance(5) => {
            *target = [Target::Missing, Target::Forbidden, Target::Small, Target::Silent][rng.index(4)];
        }
        _ => {}
    }
}

fn act_of(rng: &mut Rng, setup: &Setup, fault: Fault) -> Option<Act> {
    let instance = rng.range(0, i64::from(setup.instances) - 1) as u8;
    let partition = rng.range(0, 5) as u8;
    let some_point = [Point::BeforeSend, Point::AfterProduce, Point::AfterOffsets][rng.index(3)];
    // After the commit an abort fails.
    let any_point = if rng.chance(20) { Point::AfterCommit } else { some_point };
    let down_ms = if rng.chance(30) { rng.range(6_000, 8_191) } else { rng.range(10, 3_000) } as u16;
    let for_ms = rng.range(500, 12_000) as u16;
    let up_to_ms = rng.range(50, 2_000) as u16;
    let some_replica = (down_ms % 4) as u8;
    let crash = |point| Act::Crash { instance, point, down_ms };
    Some(match fault {
        Fault::Crash => crash(Point::Now),
        Fault::CrashBeforeSend => crash(Point::BeforeSend),
        Fault::CrashAfterProduce => crash(Point::AfterProduce),
        Fault::CrashAfterOffsets => crash(Point::AfterOffsets),
        Fault::CrashAfterCommit => crash(Point::AfterCommit),
        Fault::Pause => {
            let point = if rng.chance(30) { Point::Now } else { some_point };
            Act::Pause { instance, point, for_ms: rng.range(100, 5_800) as u16 }
        }
        Fault::Zombie => {
            let point = if rng.chance(20) { Point::Now } else { some_point };
            Act::Pause { instance, point, for_ms: rng.range(6_000, 14_000) as u16 }
        }
        Fault::Stall => Act::Stall { instance, point: some_point, for_ms: rng.range(500, 14_000) as u16 },
        Fault::Retriable => {
            let point = [Point::AfterProduce, Point::AfterOffsets, Point::AfterCommit][rng.index(3)];
            Act::Error { instance, error: RequestError::Retriable, point }
        }
        Fault::Abortable => Act::Error { instance, error: RequestError::Abortable, point: any_point },
        Fault::Fatal => Act::Error { instance, error: RequestError::Fatal, point: any_point },
        Fault::Unanswered => {
            let error = [RequestError::RequestLost, RequestError::ReplyLost, RequestError::Late][rng.index(3)];
            let point = if rng.chance(70) { Point::AfterOffsets } else { any_point };
            Act::Error { instance, error, point }
        }
        Fault::Skew => Act::Skew { instance, by: rng.range(-5_000, 5_000) as i16, days: rng.chance(15) },
        Fault::Compaction => Act::Compact { partition, replica: some_replica, tombstones: false },
        Fault::OldTombstones => Act::Compact { partition, replica: some_replica, tombstones: true },
        Fault::Outage => Act::Outage { down_ms, expire: false },
        Fault::Expiry => Act::Outage { down_ms: 7_000 + down_ms / 4, expire: true },
        Fault::UserTransaction => Act::Transaction {
            key: rng.range(0, i64::from(setup.keys) - 1) as u8,
            count: rng.range(1, 3) as u8,
            commit: rng.chance(60),
            for_ms: rng.range(1, 6_000) as u16,
            in_s: rng.range(-1, 10) as i16,
        },
        Fault::TargetAway => {
            let away = [Away::Missing, Away::Forbidden, Away::Silent, Away::Leaderless][rng.index(4)];
            Act::TargetAway { away, for_ms }
        }
        Fault::SlowConsumer => Act::SlowConsumer { instance, for_ms, gap_ms: up_to_ms },
        Fault::SlowMarkers => Act::SlowMarkers { for_ms, up_to_ms },
        Fault::SlowNetwork => Act::SlowNetwork { instance, for_ms, up_to_ms },
        Fault::FencesFail => Act::FencesFail { for_ms },
        Fault::Stop => Act::Stop { instance, down_ms },
        Fault::Unreadable => Act::Unreadable { instance },
        Fault::Rewind => Act::Rewind { instance },
        Fault::SlowRebalance => Act::SlowRebalance { for_ms: down_ms },
        Fault::Growth => Act::Grow { topic: instance },
        // It makes a run several times as long.
        Fault::Flood if rng.chance(15) => Act::Flood,
        Fault::Flood => return None,
        Fault::LeaderChange => Act::ChangeLeader { partition },
        // After 20 s its log is deleted.
        Fault::ReplicaAway => Act::ReplicaAway { partition, replica: some_replica, for_ms: for_ms * 2 },
        Fault::Snapshot => snapshot(instance, partition, for_ms),
        // An old one is of no use without a restart.
        Fault::OldSnapshot => Act::CopySnapshot { instance, partition, from: some_replica, age: (for_ms % 4) as u8 },
        Fault::LowerRetention => Act::LowerRetention { for_ms, retention_ms: 20_000 + up_to_ms },
        Fault::Duplicate | Fault::Reordered | Fault::Poison | Fault::Bandwidth | Fault::WrongClock | Fault::Restore => {
            return None;
        }
    })
}
