//! Forms that say when a schedule fires: milliseconds, delays, dates, recurrence, misfire, jitter, expiry.

use kafka_scheduler::core::batch::{Batch, Kind};
use kafka_scheduler::core::headers;
use kafka_scheduler::core::io::{Abort, Input, Millis, Output, Report, TargetState};
use kafka_scheduler::core::origin::BARRIER_KEY;
use kafka_scheduler::core::progress::progress_key;
use kafka_scheduler::core::reason::Reason;

use crate::rig::{Kept, NOW, P, Rig, Sent, config, sent};

const NOW_MS: i64 = NOW * 1_000;

/// Writes a schedule with these headers beside its target; returns its offset.
fn schedule(rig: &mut Rig, key: &str, when: &[(&[u8], &str)]) -> i64 {
    let mut all = vec![(b"customer".to_vec(), Some(b"c".to_vec()))];
    all.extend(when.iter().map(|(name, value)| (name.to_vec(), Some(value.as_bytes().to_vec()))));
    all.push((headers::TARGET_TOPIC.to_vec(), Some(b"target".to_vec())));
    let timestamp = rig.now;
    let offset = rig.append(P, Kept { timestamp, key: Some(key.into()), value: Some(b"v".to_vec()), headers: all });
    rig.read(P);
    offset
}

fn at_ms(rig: &mut Rig, ms: i64) {
    rig.now = Millis(ms);
    rig.input(Input::Tick);
}

fn text(kept: &Kept, name: &[u8]) -> Option<String> {
    let value = kept.headers.iter().find(|(found, _)| found == name)?.1.clone()?;
    Some(String::from_utf8(value).expect("text"))
}

/// Returns the triggered records of a batch: due time, occurrence and missed ones.
fn fired(rig: &Rig, batch: &Batch) -> Vec<(i64, Option<u64>, Option<u64>)> {
    let records: Vec<Sent> = sent(batch, rig.now);
    let of_target = records.iter().filter(|(topic, ..)| topic == "target");
    let number = |kept: &Kept, name| text(kept, name).map(|text| text.parse().expect("a number"));
    let facts = |(_, _, kept): &Sent| {
        let due = text(kept, headers::DUE).map_or(-1, |due| due.parse().expect("a number"));
        (due, number(kept, headers::OCCURRENCE), number(kept, headers::MISSED))
    };
    of_target.map(facts).collect()
}

/// Commits and reads the next batch of firings at a moment; returns its triggered records.
fn fire(rig: &mut Rig, ms: i64) -> Vec<(i64, Option<u64>, Option<u64>)> {
    at_ms(rig, ms);
    let batch = rig.work();
    let fired = fired(rig, &batch);
    rig.commit(&batch);
    rig.read(P);
    fired
}

fn live() -> Rig {
    let mut rig = Rig::live();
    // The target is looked up once, by a schedule that is cancelled.
    schedule(&mut rig, "first", &[(headers::EPOCH, "99999999999")]);
    rig.input(Input::Target { target: 0, state: TargetState::Exists });
    rig.cancel(P, "first");
    rig.read(P);
    rig.outs.clear();
    rig
}

#[test]
fn one_shot_forms_fire_at_their_millisecond() {
    let mut rig = live();
    let epoch_ms = (NOW_MS + 2_250).to_string();
    for (key, name, value, due_ms) in [
        ("ms", headers::EPOCH_MS, epoch_ms.as_str(), 2_250),
        ("delay", headers::DELAY, "2s 750ms", 2_750),
        ("at", headers::AT, "2023-11-15T13:00:04.500+01:00[Europe/Paris]", 4_500),
    ] {
        let offset = schedule(&mut rig, key, &[(name, value)]);
        at_ms(&mut rig, NOW_MS + due_ms - 1);
        rig.no_work("it is early by a millisecond");
        at_ms(&mut rig, NOW_MS + due_ms);
        let batch = rig.work();
        let records = sent(&batch, rig.now);
        let (topic, _, triggered) = &records[0];
        assert_eq!((topic.as_str(), text(triggered, headers::DUE)), ("target", Some((NOW_MS + due_ms).to_string())));
        assert_eq!(text(triggered, headers::ID), Some(format!("0-{offset}")));
        assert_eq!(text(triggered, b"customer").as_deref(), Some("c"));
        assert!(text(triggered, name).is_none() && text(triggered, headers::OCCURRENCE).is_none());
        let (_, _, history) = &records[1];
        assert_eq!(text(history, name).as_deref(), Some(value), "its history record keeps what the user asked for");
        assert_eq!(text(history, headers::EPOCH), Some((NOW + due_ms / 1_000).to_string()), "for older readers");
        rig.commit(&batch);
        rig.read(P);
        rig.now = Millis(NOW_MS);
    }
}

#[test]
fn schedules_of_one_second_fire_in_order() {
    let mut rig = live();
    for ms in [700, 100, 900, 100, 400] {
        let value = (NOW_MS + 5_000 + ms).to_string();
        let key = format!("k{ms}{}", rig.now.0);
        schedule(&mut rig, &key, &[(headers::EPOCH_MS, &value)]);
        rig.now = rig.now.plus(1);
    }
    let fired: Vec<i64> = fire(&mut rig, NOW_MS + 5_950).into_iter().map(|(due_ms, ..)| due_ms - NOW_MS).collect();
    assert_eq!(fired, [5_100, 5_100, 5_400, 5_700, 5_900]);
}

#[test]
fn an_interval_fires_until_its_count_and_then_ends() {
    let mut rig = live();
    let offset = schedule(&mut rig, "k", &[(headers::EVERY, "10s"), (headers::COUNT, "2")]);
    at_ms(&mut rig, NOW_MS + 10_000);
    let batch = rig.work();
    assert_eq!(fired(&rig, &batch), [(NOW_MS + 10_000, Some(1), Some(0))]);
    let records = sent(&batch, rig.now);
    assert_eq!(records.len(), 3);
    let (_, _, progress) = &records[2];
    assert_eq!((progress.key.clone(), progress.origin()), (Some(progress_key(b"k")), Some(offset)));
    let next = format!("v1 done=1 next={}", NOW_MS + 20_000);
    assert_eq!(progress.value.as_deref(), Some(next.as_bytes()), "it has no payload");
    rig.commit(&batch);
    rig.no_work("its progress has not been read");
    rig.read(P);
    at_ms(&mut rig, NOW_MS + 20_000);
    let batch = rig.work();
    assert_eq!(fired(&rig, &batch), [(NOW_MS + 20_000, Some(2), Some(0))]);
    let ended: Vec<_> = sent(&batch, rig.now).into_iter().skip(2).map(|(_, _, kept)| (kept.key, kept.value)).collect();
    assert_eq!(ended, [(Some(b"k".to_vec()), None), (Some(progress_key(b"k")), None)], "nothing of it stays");
    rig.commit(&batch);
    rig.read(P);
    assert_eq!(rig.core.status()[0].pending, 0);
}

#[test]
fn a_successor_goes_on_where_the_progress_record_says() {
    let mut rig = live();
    schedule(&mut rig, "k", &[(headers::EVERY, "10s")]);
    fire(&mut rig, NOW_MS + 10_000);
    rig.successor("cd");
    rig.bring_up(&[P]);
    rig.input(Input::Target { target: 0, state: TargetState::Exists });
    rig.outs.clear();
    at_ms(&mut rig, NOW_MS + 19_999);
    rig.no_work("occurrence 1 has fired");
    assert_eq!(fire(&mut rig, NOW_MS + 20_000), [(NOW_MS + 20_000, Some(2), Some(0))]);
}

#[test]
fn a_replayed_progress_record_does_not_count() {
    let mut rig = live();
    schedule(&mut rig, "k", &[(headers::EVERY, "10s")]);
    fire(&mut rig, NOW_MS + 10_000);
    let first = rig.logs[&P].iter().rposition(Option::is_some).expect("a progress record");
    let replayed = rig.kept(P, first as i64);
    fire(&mut rig, NOW_MS + 20_000);
    rig.append(P, replayed);
    rig.read(P);
    assert_eq!(rig.core.counters().progress_replayed, 1);
    let batch = rig.work();
    let again = format!("v1 done=2 next={}", NOW_MS + 30_000);
    assert_eq!(sent(&batch, rig.now)[0].2.value.as_deref(), Some(again.as_bytes()));
    rig.commit(&batch);
    rig.read(P);
    assert_eq!(fire(&mut rig, NOW_MS + 30_000), [(NOW_MS + 30_000, Some(3), Some(0))]);
}

#[test]
fn what_was_missed_becomes_one_firing_or_none_or_each_fires() {
    for (policy, expected) in [
        ("once", &[(40_000, Some(4), Some(3)), (50_000, Some(5), Some(0))][..]),
        ("skip", &[(50_000, Some(5), Some(0))][..]),
        ("all", &[(10_000, Some(1), Some(0)), (20_000, Some(2), Some(0)), (30_000, Some(3), Some(0))][..]),
    ] {
        let mut rig = live();
        schedule(&mut rig, "k", &[(headers::EVERY, "10s"), (headers::MISFIRE, policy)]);
        for (due_ms, occurrence, missed) in expected {
            assert_eq!(fire(&mut rig, NOW_MS + 55_000), [(NOW_MS + due_ms, *occurrence, *missed)], "{policy}");
        }
    }
}

#[test]
fn a_year_of_missed_seconds_is_one_firing() {
    let mut rig = live();
    schedule(&mut rig, "every", &[(headers::EVERY, "1s")]);
    schedule(&mut rig, "cron", &[(headers::CRON, "* * * * * *"), (headers::TIMEZONE, "Europe/Paris")]);
    let year = 365 * 86_400;
    let fired = fire(&mut rig, NOW_MS + year * 1_000 + 500);
    let last = Some(year as u64 - 1);
    assert_eq!(fired, [(NOW_MS + (year - 1) * 1_000, last, last.map(|n| n - 1)); 2]);
}

#[test]
fn an_update_ends_the_progress_of_the_earlier_schedule() {
    let mut rig = live();
    schedule(&mut rig, "k", &[(headers::EVERY, "10s")]);
    fire(&mut rig, NOW_MS + 10_000);
    schedule(&mut rig, "k", &[(headers::EVERY, "7s")]);
    let batch = rig.work();
    let (_, _, ended) = &sent(&batch, rig.now)[0];
    assert_eq!((ended.key.clone(), ended.value.clone()), (Some(progress_key(b"k")), None));
    rig.commit(&batch);
    rig.read(P);
    assert_eq!(fire(&mut rig, NOW_MS + 17_000), [(NOW_MS + 17_000, Some(1), Some(0))], "it counts from its own record");
}

#[test]
fn an_expired_schedule_does_not_fire_and_is_in_the_history() {
    let mut rig = live();
    let due = (NOW_MS + 1_000).to_string();
    schedule(&mut rig, "k", &[(headers::EPOCH_MS, &due), (headers::EXPIRES, "10s")]);
    at_ms(&mut rig, NOW_MS + 11_001);
    let batch = rig.work();
    assert_eq!(fired(&rig, &batch), []);
    let records = sent(&batch, rig.now);
    assert_eq!((records.len(), records[0].0.as_str()), (2, "history"));
    assert_eq!(text(&records[0].2, headers::ERROR).as_deref(), Some("expired"));
    rig.commit(&batch);
    rig.read(P);
    assert_eq!((rig.core.status()[0].pending, rig.core.counters().expired), (0, 1));
}

#[test]
fn jitter_is_the_same_for_every_engine() {
    let mut due = Vec::new();
    for run in ["ab", "cd"] {
        let mut rig = live();
        schedule(&mut rig, "k", &[(headers::EVERY, "1h"), (headers::JITTER, "30m")]);
        rig.successor(run);
        rig.bring_up(&[P]);
        let (at, _) = rig.core.poll_timeout().expect("it waits for the firing");
        due.push(rig.core.status()[0].next_due_s);
        assert!(at.0 > NOW_MS);
    }
    assert_eq!(due[0], due[1]);
    let late_s = due[0].expect("it is pending") as i64 - NOW - 3_600;
    assert!((1..1_800).contains(&late_s), "{late_s}");
}

#[test]
fn bad_forms_have_their_reasons() {
    let mut rig = live();
    for (when, reason) in [
        (&[(headers::EPOCH, "1"), (headers::DELAY, "1s")][..], Reason::ConflictingTime),
        (&[(headers::EPOCH_MS, "1.5")][..], Reason::BadEpochMs),
        (&[(headers::DELAY, "1 month")][..], Reason::BadDelay),
        (&[(headers::AT, "2027-03-28T09:00:00")][..], Reason::BadAt),
        (&[(headers::AT, "2027-06-30T23:59:60Z")][..], Reason::BadAt),
        (&[(headers::EVERY, "999ms")][..], Reason::BadEvery),
        (&[(headers::CRON, "0 9 * *")][..], Reason::BadCron),
        (&[(headers::CRON, "0 9 * * *"), (headers::TIMEZONE, "Mars/Olympus")][..], Reason::BadTimezone),
        (&[(headers::CRON, "0 0 30 2 *")][..], Reason::NeverDue),
        (&[(headers::EVERY, "1h"), (headers::COUNT, "0")][..], Reason::BadCount),
        (&[(headers::EVERY, "1h"), (headers::MISFIRE, "twice")][..], Reason::BadMisfire),
        (&[(headers::EVERY, "1h"), (headers::EXCEPT, "25.12.")][..], Reason::BadExcept),
        (&[(headers::EVERY, "1h"), (headers::DONE, "3")][..], Reason::BadDone),
        (&[(headers::DELAY, "1h"), (headers::UNTIL, "2027-03-28T09:00:00Z")][..], Reason::StrayOption),
        (&[(headers::DELAY, "1h"), (headers::JITTER, "soon")][..], Reason::BadJitter),
        (&[(headers::DELAY, "1h"), (headers::EXPIRES, "soon")][..], Reason::BadExpires),
    ] {
        let before = rig.core.counters().by_reason[reason];
        schedule(&mut rig, "k", when);
        assert_eq!(rig.core.counters().by_reason[reason], before + 1, "{when:?}");
    }
    rig.no_work("none of them fires");
}

#[test]
fn records_under_unknown_reserved_keys_are_left_alone() {
    let mut rig = Rig::live_with(kafka_scheduler::core::Config { dead_letter: Some("dead".into()), ..config() });
    for key in [&b"__scheduler.pause.all"[..], b"__scheduler.", BARRIER_KEY] {
        let timestamp = rig.now;
        rig.append(P, Kept { timestamp, key: Some(key.to_vec()), value: Some(b"v9".to_vec()), headers: Vec::new() });
    }
    rig.read(P);
    rig.no_work("a later version may need them");
    assert_eq!(rig.core.counters().by_reason[Reason::ReservedKey], 3);
}

#[test]
fn an_unknown_zone_read_before_is_kept_and_reported_once() {
    let mut rig = live();
    let on_mars = [(headers::CRON, "0 9 * * *"), (headers::TIMEZONE, "Mars/Olympus")];
    let offset = schedule(&mut rig, "mars", &on_mars);
    schedule(&mut rig, "k", &[(headers::DELAY, "1s")]);
    // Its batch commits offsets beyond the first record, so an engine has read that.
    assert_eq!(fire(&mut rig, NOW_MS + 1_000).len(), 1);
    rig.successor("cd");
    rig.bring_up_keeping_outputs(&[P]);
    let wanted = Report::UnknownSyntax { partition: P, offset, reason: Reason::BadTimezone };
    let is_wanted = |output: &&Output| matches!(output, Output::Report(report) if *report == wanted);
    assert_eq!(rig.outs.iter().filter(is_wanted).count(), 1);
    assert_eq!(rig.core.counters().by_reason[Reason::BadTimezone], 1);
    assert_eq!(rig.core.status()[0].parked, 0);
}

#[test]
fn progress_keeps_a_schedule_of_an_unknown_zone() {
    let mut rig = live();
    let on_mars = [(headers::CRON, "0 9 * * *"), (headers::TIMEZONE, "Mars/Olympus")];
    let offset = schedule(&mut rig, "mars", &on_mars);
    assert_eq!(rig.core.counters().by_reason[Reason::BadTimezone], 1, "it is new, so it is invalid");
    // Another version has fired it. The group's offsets are gone, so only that says that it was accepted.
    let value = format!("v1 done=3 next={}", NOW_MS + 3_600_000);
    let key = String::from_utf8(progress_key(b"mars")).expect("text");
    let progress = Kept { timestamp: rig.now, key: None, value: Some(value.into()), headers: Vec::new() };
    rig.engine(P, &key, offset, Some(&progress));
    rig.metadata.clear();
    rig.successor("cd");
    rig.bring_up_keeping_outputs(&[P]);
    let wanted = Report::UnknownSyntax { partition: P, offset, reason: Reason::BadTimezone };
    assert!(rig.outs.iter().any(|output| matches!(output, Output::Report(report) if *report == wanted)));
    rig.no_work("its progress is kept too");
}

#[test]
fn progress_beyond_the_end_does_not_fire_once_more() {
    for end in [(headers::COUNT, "5"), (headers::UNTIL, "2024-01-01T00:00:00Z")] {
        let mut rig = live();
        let next = (NOW_MS + 10_000_000_000).to_string();
        let moved = [(headers::DONE, "5"), (headers::NEXT, &next)];
        schedule(&mut rig, "k", &[&[(headers::EVERY, "1h"), end][..], &moved].concat());
        at_ms(&mut rig, NOW_MS + 20_000_000_000);
        rig.no_work("it is over");
        assert_eq!((rig.core.counters().by_reason[Reason::NeverDue], rig.core.status()[0].pending), (1, 0), "{end:?}");
    }
}

#[test]
fn an_expired_occurrence_takes_no_later_one_along() {
    let mut rig = Rig::live_with(kafka_scheduler::core::Config { dead_letter: Some("dead".into()), ..config() });
    schedule(&mut rig, "k", &[(headers::EVERY, "10s"), (headers::EXPIRES, "15s")]);
    rig.input(Input::Target { target: 0, state: TargetState::Exists });
    rig.input(Input::Target { target: 1, state: TargetState::Exists });
    rig.outs.clear();
    at_ms(&mut rig, NOW_MS + 26_000);
    let batch = rig.work();
    let topics: Vec<_> = sent(&batch, rig.now).into_iter().map(|(topic, ..)| topic).collect();
    assert!(topics.contains(&"dead".to_owned()) && !topics.contains(&"target".to_owned()), "{topics:?}");
    rig.abort(&batch, Abort::Retry);
    // Meanwhile the second occurrence was missed as well, and it can still fire.
    assert_eq!(fire(&mut rig, NOW_MS + 31_000), [(NOW_MS + 20_000, Some(2), Some(1))]);
    assert_eq!(fire(&mut rig, NOW_MS + 31_000), [(NOW_MS + 30_000, Some(3), Some(0))]);
}

#[test]
fn on_time_firings_do_not_use_up_the_row_of_missed_ones() {
    let mut rig = live();
    schedule(&mut rig, "k", &[(headers::EVERY, "1s"), (headers::MISFIRE, "all")]);
    for n in 1..=1_005 {
        assert_eq!(fire(&mut rig, NOW_MS + n * 1_000).len(), 1, "occurrence {n}");
    }
    for n in 1_006..=1_010 {
        let alone = (NOW_MS + n * 1_000, Some(n.unsigned_abs()), Some(0));
        assert_eq!(fire(&mut rig, NOW_MS + 1_010_500), [alone], "a missed one fires on its own");
    }
}

#[test]
fn an_empty_option_leaves_the_old_form() {
    let mut rig = live();
    let due = ((NOW_MS + 2_000) / 1_000).to_string();
    schedule(&mut rig, "k", &[(headers::EPOCH, &due), (headers::JITTER, "")]);
    at_ms(&mut rig, NOW_MS + 3_000);
    let batch = rig.work();
    let triggered = &sent(&batch, rig.now)[0];
    assert!(!triggered.2.headers.iter().any(|(name, _)| name == headers::DUE), "{triggered:?}");
}

#[test]
fn an_overtaken_schedule_that_recurs_is_rewritten_first() {
    let mut rig = live();
    let due = ((NOW_MS + 1_000) / 1_000).to_string();
    schedule(&mut rig, "k", &[(headers::EPOCH, &due)]);
    at_ms(&mut rig, NOW_MS + 1_000);
    let firing = rig.work();
    // It is in the log before the tombstone of the first schedule, so compaction may remove it.
    let second = schedule(&mut rig, "k", &[(headers::EVERY, "1s"), (headers::MISFIRE, "all")]);
    at_ms(&mut rig, NOW_MS + 5_000);
    rig.commit(&firing);
    rig.read(P);
    let copy = rig.work();
    assert!(matches!(copy.items[0].kind, Kind::RewriteSchedule { .. }), "{copy:?}");
    rig.commit(&copy);
    rig.read(P);
    assert_eq!(fire(&mut rig, NOW_MS + 5_000)[0].1, Some(1));
    rig.compact(P, second);
    rig.successor("cd");
    rig.bring_up_keeping_outputs(&[P]);
    rig.input(Input::Target { target: 0, state: TargetState::Exists });
    assert_eq!(fire(&mut rig, NOW_MS + 5_000)[0].1, Some(2), "the copy goes on where its progress says");
}
