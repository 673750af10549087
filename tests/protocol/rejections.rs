//! Records that cannot fire: they stay in the log, are counted once, are retried or become dead letters, and do not
//! delay others.

use kafka_scheduler::core::batch::{Batch, Kind};
use kafka_scheduler::core::io::{Abort, Header, Input, Output, Record, Report, TargetState};
use kafka_scheduler::core::origin::{BARRIER_KEY, START_MARKER_KEY};
use kafka_scheduler::core::reason::Reason;
use kafka_scheduler::core::{Config, headers};

use crate::rig::*;

#[test]
fn an_invalid_record_becomes_a_dead_letter_with_its_tombstone() {
    let mut rig = Rig::live_with(with_dead_letters());
    let offset = rig.invalid(P, "k");
    rig.read(P);
    let batch = rig.work();
    assert_eq!(dead_letters(&batch), [(offset, Reason::BadEpoch)]);
    assert_eq!(batch.offsets.len(), 1, "a dead letter's batch commits an offset, so it is fenced");
    let records = sent(&batch, rig.now);
    let [(topic, partition, dead_letter), (schedules, own, tombstone)] = records.as_slice() else {
        panic!("{records:?}");
    };
    assert_eq!((topic.as_str(), *partition), ("dead", None));
    assert_eq!((text(dead_letter.key.as_ref()), text(dead_letter.value.as_ref())), ("k".into(), "poison".into()));
    assert_eq!(header(dead_letter, b"customer"), [None], "the dead letter has the original's headers");
    assert_eq!(header(dead_letter, headers::EPOCH), [Some(&b"soon"[..])]);
    assert_eq!(header(dead_letter, headers::ERROR), [Some(&b"bad-epoch"[..])]);
    assert_eq!(header(dead_letter, headers::ERROR_DETAIL), [Some(Reason::BadEpoch.detail().as_bytes())]);
    assert_eq!(header(dead_letter, headers::TOPIC), [Some(&b"schedules"[..])]);
    assert_eq!(header(dead_letter, headers::PARTITION), [Some(&b"0"[..])]);
    assert_eq!(header(dead_letter, headers::OFFSET), [Some(offset.to_string().as_bytes())]);
    assert_eq!((schedules.as_str(), *own, &tombstone.value), ("schedules", Some(P), &None));
    assert_eq!(tombstone.origin(), Some(offset));
    rig.commit(&batch);
    rig.read(P);
    rig.at(NOW + 100);
    rig.no_work("a dead letter is written once");
    assert_eq!((rig.core.counters().dead_lettered, counted(&rig, Reason::BadEpoch)), (1, 1));
    // After a restart it does not fire either, because its tombstone ended it.
    let mut successor = with_dead_letters();
    successor.run = run_id("cd");
    rig.core = kafka_scheduler::core::Scheduler::new(successor, crate::rig::calendar());
    rig.outs.clear();
    rig.bring_up(&[P]);
    rig.at(NOW + 200);
    rig.no_work("it was moved before the restart");
}

#[test]
fn invalid_records_read_while_loading_become_dead_letters() {
    let mut rig = Rig::new(with_dead_letters());
    let offset = rig.invalid(P, "k");
    rig.assign(&[P]);
    rig.tell_committed(&[P]);
    rig.run_until_quiet(&[P]);
    assert_eq!(dead_letters(&rig.work()), [(offset, Reason::BadEpoch)]);
}

#[test]
fn a_newer_record_outlives_the_dead_letter_of_an_older_one() {
    let mut rig = Rig::live_with(with_dead_letters());
    rig.invalid(P, "k");
    rig.read(P);
    let batch = rig.work();
    let newer = rig.schedule(P, "k", NOW + 5);
    rig.commit(&batch);
    rig.read(P);
    let again = rig.work();
    assert_eq!(
        again.items[0].origin_offset, newer,
        "the newer record was overtaken by the tombstone, so it is rewritten"
    );
    rig.commit(&again);
    rig.read(P);
    rig.at(NOW + 5);
    assert_eq!(fired(&rig.work()), [newer]);
}

#[test]
fn invalid_records_stay_without_a_dead_letter_topic() {
    let mut rig = Rig::live();
    rig.invalid(P, "k");
    rig.read(P);
    rig.no_work("there is nowhere to move it");
    assert_eq!((rig.core.counters().invalid, counted(&rig, Reason::BadEpoch)), (1, 1));
    rig.successor("cd");
    rig.bring_up(&[P]);
    assert_eq!((rig.core.counters().invalid, counted(&rig, Reason::BadEpoch)), (1, 1), "the successor counts it too");
}

#[test]
fn records_under_reserved_keys_stay_in_the_topic() {
    let mut rig = Rig::live_with(with_dead_letters());
    for key in [BARRIER_KEY, START_MARKER_KEY] {
        let timestamp = rig.now;
        let kept = Kept { timestamp, key: Some(key.to_vec()), value: Some(b"forged".to_vec()), headers: Vec::new() };
        rig.append(P, kept);
    }
    rig.read(P);
    rig.no_work("a tombstone for the start marker's key would delete the start marker");
    rig.schedule(P, "__scheduler.mine", NOW + 5);
    rig.read(P);
    rig.no_work("a later version may have written it: it is counted, and stays");
    assert_eq!(counted(&rig, Reason::ReservedKey), 3);
}

#[test]
fn a_record_without_a_key_is_counted_and_left_alone() {
    let mut rig = Rig::live_with(with_dead_letters());
    let timestamp = rig.now;
    rig.append(P, Kept { timestamp, key: None, value: Some(b"v".to_vec()), headers: Vec::new() });
    rig.read(P);
    rig.no_work("nothing could delete it");
    assert_eq!(counted(&rig, Reason::NoKey), 1);
}

#[test]
fn a_target_that_stays_missing_makes_a_dead_letter() {
    let mut rig = Rig::live_with(with_dead_letters());
    let offset = rig.schedule_to(P, "k", NOW + 1, "missing");
    rig.read(P);
    let mut seconds = NOW + 1;
    while seconds < NOW + 30 && rig.core.status()[0].parked < 2 {
        answer(&mut rig, TargetState::Missing);
        rig.at(seconds);
        if rig.outs.iter().any(|o| matches!(o, Output::Transact(_))) {
            break;
        }
        seconds += 1;
    }
    let batch = rig.work();
    assert!(seconds > NOW + 2, "the engine waits in case the topic is just being created");
    assert_eq!(dead_letters(&batch), [(offset, Reason::UnknownTarget)]);
    let (_, _, dead_letter) = &sent(&batch, rig.now)[0];
    assert_eq!(header(dead_letter, headers::EPOCH), [Some((NOW + 1).to_string().as_bytes())]);
    assert_eq!(header(dead_letter, headers::TARGET_TOPIC), [Some(&b"missing"[..])]);
    assert_eq!(header(dead_letter, headers::TARGET_KEY), [Some(&b"to-k"[..])]);
    assert!(rig.saw(|o| matches!(o, Output::Report(Report::ToDeadLetter { reason: Reason::UnknownTarget, .. }))));
    assert_eq!(counted(&rig, Reason::UnknownTarget), 1);
    rig.commit(&batch);
    rig.read(P);
    // Another schedule for the target, which exists by now: an old answer must not make it a dead letter.
    let second = rig.schedule_to(P, "l", seconds + 100, "missing");
    rig.read(P);
    rig.at(seconds + 100);
    rig.no_work("the target is looked for first");
    answer(&mut rig, TargetState::Exists).unwrap();
    assert_eq!(fired(&rig.work()), [second]);
}

#[test]
fn without_a_dead_letter_topic_schedules_wait_for_their_target() {
    let mut rig = Rig::live();
    let offset = rig.schedule_to(P, "k", NOW + 1, "missing");
    rig.read(P);
    for second in 1..600 {
        answer(&mut rig, TargetState::Missing);
        rig.at(NOW + second);
    }
    rig.no_work("its target is missing");
    assert_eq!(
        counted(&rig, Reason::UnknownTarget),
        1,
        "a schedule is counted once, however often its target is looked up"
    );
    assert_eq!((rig.core.status()[0].parked, rig.core.status()[0].pending), (1, 1));
    let asked = (600..631).find(|second| {
        rig.at(NOW + second);
        rig.outs.iter().any(|o| matches!(o, Output::CheckTarget { .. }))
    });
    assert!(asked.is_some(), "the target is looked up at least every 30 s");
    answer(&mut rig, TargetState::Exists).unwrap();
    assert_eq!(fired(&rig.work()), [offset]);
    assert_eq!(rig.core.status()[0].parked, 0);
}

#[test]
fn a_schedule_rejected_as_too_large_becomes_a_dead_letter() {
    let mut rig = Rig::live_with(with_dead_letters());
    let poison = rig.schedule(P, "a", NOW + 1);
    let good = rig.schedule(P, "b", NOW + 1);
    rig.read(P);
    rig.at(NOW + 1);
    let batch = rig.work();
    rig.abort(&batch, Abort::Rejected(vec![(0, Reason::TooLarge)]));
    let next = rig.work();
    assert_eq!(fired(&next), [good], "the other schedule does not wait");
    rig.commit(&next);
    assert_eq!(dead_letters(&rig.work()), [(poison, Reason::TooLarge)]);
}

#[test]
fn a_rejected_dead_letter_is_parked_and_retried() {
    let mut rig = Rig::live_with(with_dead_letters());
    let offset = rig.invalid(P, "k");
    rig.read(P);
    let batch = rig.work();
    rig.abort(&batch, Abort::Rejected(vec![(0, Reason::TooLarge)]));
    rig.no_work("not at once");
    assert_eq!(rig.core.status()[0].parked, 1);
    let again = (1..10).find(|second| {
        rig.at(NOW + second);
        rig.outs.iter().any(|o| matches!(o, Output::Transact(_)))
    });
    assert!(again.is_some(), "the retry comes within its backoff");
    assert_eq!(dead_letters(&rig.work()), [(offset, Reason::BadEpoch)]);
}

#[test]
fn an_aborted_or_rejected_dead_letter_is_not_fired_instead() {
    for is_rejected in [false, true] {
        let mut rig = Rig::live_with(with_dead_letters());
        let poison = rig.schedule(P, "k", NOW + 1);
        rig.read(P);
        rig.at(NOW + 1);
        let batch = rig.work();
        assert_eq!(fired(&batch), [poison]);
        rig.abort(&batch, Abort::Rejected(vec![(0, Reason::TooLarge)]));
        for second in 2..40 {
            rig.at(NOW + second);
            while let Some(batch) = rig.try_batch().filter(|batch| !batch.items.is_empty()) {
                assert_eq!(dead_letters(&batch), [(poison, Reason::TooLarge)], "the dead letter is not fired instead");
                let rejected = vec![(0, Reason::TooLarge)];
                rig.abort(&batch, if is_rejected { Abort::Rejected(rejected) } else { Abort::Retry });
            }
        }
    }
}

#[test]
fn alternating_reasons_are_counted_once_each() {
    let mut rig = Rig::live();
    rig.schedule_to(P, "k", NOW + 1, "missing");
    rig.read(P);
    for second in 1..300 {
        answer(&mut rig, if second % 2 == 0 { TargetState::Missing } else { TargetState::Forbidden });
        rig.at(NOW + second);
    }
    assert_eq!((counted(&rig, Reason::UnknownTarget), counted(&rig, Reason::Forbidden)), (1, 1));
}

#[test]
fn dead_letters_wait_for_their_topic_while_schedules_fire() {
    let mut rig = Rig::live_with(Config { dead_letter: Some("missing-dead".into()), ..config() });
    rig.invalid(P, "k");
    let good = rig.schedule(P, "b", NOW + 1);
    rig.read(P);
    assert_eq!(answer(&mut rig, TargetState::Missing).as_deref(), Some("missing-dead"));
    rig.at(NOW + 1);
    assert_eq!(fired(&rig.work()), [good]);
    let asked = (1..40).any(|second| {
        rig.at(NOW + second);
        rig.outs.iter().any(|o| matches!(o, Output::CheckTarget { .. }))
    });
    assert!(asked, "the dead-letter topic is looked up again");
    answer(&mut rig, TargetState::Exists);
    // The batch of the firing is still in flight, and there is only one transactor.
    rig.no_work("one batch at a time");
    assert_eq!(rig.core.status()[0].parked, 1);
}

#[test]
fn parked_schedules_come_back_with_growing_waits_in_shares() {
    const MANY: usize = 40;
    let mut rig = Rig::live();
    for n in 0..MANY {
        rig.schedule(P, &format!("k{n}"), NOW + 1);
    }
    rig.read(P);
    rig.at(NOW + 1);
    let mut moments: Vec<(i64, usize)> = Vec::new();
    for tenths in 0..3_000 {
        rig.now = kafka_scheduler::core::io::Millis((NOW + 1) * 1000 + tenths * 100);
        rig.input(Input::Tick);
        while let Some(batch) = rig.try_batch() {
            moments.push((tenths, batch.items.len()));
            let all: Vec<(u32, Reason)> = (0..batch.items.len() as u32).map(|item| (item, Reason::TooLarge)).collect();
            rig.abort(&batch, Abort::rejected(all));
        }
    }
    let tries: usize = moments.iter().map(|(_, items)| items).sum();
    assert!((5 * MANY..12 * MANY).contains(&tries), "{moments:?}");
    assert!(
        moments[1..].iter().all(|(_, items)| *items <= MANY / 2),
        "the schedules are not retried all at once: {moments:?}"
    );
    assert!(moments.last().unwrap().0 > 2_000, "retries do not stop: {moments:?}");
    assert_eq!(counted(&rig, Reason::TooLarge), MANY as u64, "each schedule is counted once");
    let told = rig.outs.iter().filter(|o| matches!(o, Output::Report(Report::Parked { .. }))).count();
    assert_eq!(told, MANY, "each schedule is reported once");
}

#[test]
fn many_parked_schedules_are_retried_and_delay_no_other() {
    const MANY: usize = 100_000;
    let mut rig = Rig::live_with(Config { batch_items_max: 10_000, batch_bytes_max: 1 << 24, ..config() });
    for n in 0..MANY {
        rig.schedule(P, &format!("k{n}"), NOW + 1);
    }
    rig.read(P);
    let good = rig.schedule(P, "good", NOW + 2);
    rig.read(P);
    let mut tried = 0;
    let mut second = NOW + 1;
    while tried < 2 * MANY {
        assert!(second < NOW + 60, "only {tried} were retried by then");
        rig.at(second);
        while let Some(batch) = rig.try_batch() {
            let is_poison = |item: &kafka_scheduler::core::batch::Item| item.origin_offset != good;
            let rejected = (0u32..).zip(&batch.items).filter(|(_, item)| is_poison(item));
            let rejected: Vec<_> = rejected.map(|(number, _)| (number, Reason::TooLarge)).collect();
            tried += rejected.len();
            if rejected.is_empty() {
                assert!(second <= NOW + 3, "the other schedule fires on time");
                rig.commit(&batch);
                rig.read(P);
            } else {
                rig.abort(&batch, Abort::Rejected(rejected));
            }
        }
        second += 1;
    }
    assert_eq!(rig.core.counters().triggered, 1);
    assert_eq!(rig.core.status()[0].pending, MANY);
}

#[test]
fn a_cancel_ends_a_parked_schedule() {
    let mut rig = Rig::live();
    rig.schedule(P, "k", NOW + 1);
    rig.read(P);
    rig.at(NOW + 1);
    let batch = rig.work();
    rig.abort(&batch, Abort::Rejected(vec![(0, Reason::TooLarge)]));
    rig.cancel(P, "k");
    rig.read(P);
    assert_eq!((rig.core.status()[0].parked, rig.core.status()[0].pending), (0, 0));
    for second in 2..200 {
        rig.at(NOW + second);
    }
    rig.no_work("it was cancelled");
    assert_eq!(rig.core.counters().deleted, 1);
}

#[test]
fn a_record_too_large_for_the_history_is_invalid_on_arrival() {
    let mut config = config();
    config.topics[0].record_bytes_max = Some(1_000);
    let mut rig = Rig::live_with(config);
    let timestamp = rig.now;
    let with_value = |bytes: usize| {
        let headers = vec![
            (headers::EPOCH.to_vec(), Some((NOW + 1).to_string().into_bytes())),
            (headers::TARGET_TOPIC.to_vec(), Some(b"target".to_vec())),
        ];
        Kept { timestamp, key: Some(b"k".to_vec()), value: Some(vec![0; bytes]), headers }
    };
    rig.append(P, with_value(900));
    rig.read(P);
    assert_eq!(counted(&rig, Reason::TooLarge), 1);
    rig.at(NOW + 1);
    rig.no_work("its history record cannot be written");
    let fits = rig.append(P, with_value(700));
    rig.read(P);
    assert_eq!(fired(&rig.work()), [fits]);
}

#[test]
fn names_of_unused_targets_are_forgotten() {
    let mut rig = Rig::live();
    let mut most = 0;
    for n in 0..20_000 {
        let due = NOW + 1_000_000;
        rig.schedule_to(P, "k", due, &format!("target-{n}"));
        rig.read(P);
        most = most.max(rig.core.targets());
    }
    assert!(most <= 1_025, "{most} names are kept for one schedule");
    let (listed, _) = rig.core.list(kafka_scheduler::core::io::Cursor::default(), 10);
    assert_eq!(&*listed[0].target, "target-19999");
}

#[test]
fn hostile_records_of_every_shape_are_taken_without_harm() {
    let mut rig = Rig::live_with(with_dead_letters());
    let large = vec![0xff; 1 << 20];
    let mut offset = 1_000;
    for key in [None, Some(&b""[..]), Some(&large)] {
        for name in [&b""[..], b"scheduler-epoch", &large] {
            for value in [None, Some(&b""[..]), Some(&large)] {
                let headers = [Header { name, value }, Header { name, value }];
                let timestamp = kafka_scheduler::core::io::Millis(i64::MIN);
                rig.input(Input::Record(Record { partition: P, offset, timestamp, key, value, headers: &headers }));
                offset += 1;
            }
        }
    }
    assert!(rig.core.counters().invalid > 0);
}

fn with_dead_letters() -> Config {
    Config { dead_letter: Some("dead".into()), ..config() }
}

fn dead_letters(batch: &Batch) -> Vec<(i64, Reason)> {
    let reason = |kind: &Kind| match kind {
        Kind::DeadLetter { reason, .. } => Some(*reason),
        _ => None,
    };
    batch.items.iter().filter_map(|item| Some((item.origin_offset, reason(&item.kind)?))).collect()
}

fn answer(rig: &mut Rig, state: TargetState) -> Option<String> {
    let (target, name) = take!(rig, Output::CheckTarget { target, name } => (target, name.to_string()))?;
    rig.input(Input::Target { target, state });
    Some(name)
}

fn counted(rig: &Rig, reason: Reason) -> u64 {
    rig.core.counters().by_reason[reason]
}

fn header<'a>(kept: &'a Kept, name: &[u8]) -> Vec<Option<&'a [u8]>> {
    kept.headers.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_deref()).collect()
}
