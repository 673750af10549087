//! Owed schedules and leftovers.

use kafka_scheduler::core::batch::Kind;
use kafka_scheduler::core::io::{Input, Millis, Output, Report};
use kafka_scheduler::core::origin::{self, BARRIER_KEY, START_MARKER_KEY};
use kafka_scheduler::core::reason::Reason;
use kafka_scheduler::core::start_marker::StartMarker;
use kafka_scheduler::core::{PartitionState, headers};

use crate::rig::*;

#[test]
fn a_first_start_writes_a_start_marker_and_skips_leftovers() {
    let mut rig = Rig::new(config());
    let yesterday = LEFTOVER_CUTOFF.0 / 1000 - 1;
    rig.schedule(P, "old", yesterday);
    let this_morning = rig.schedule(P, "morning", LEFTOVER_CUTOFF.0 / 1000);
    rig.assign(&[P]);
    rig.tell_committed(&[P]);
    rig.run_until_quiet(&[P]);
    let batch = rig.batch();
    assert_eq!(fired(&batch), [this_morning]);
    rig.commit(&batch);
    assert_eq!(rig.core.counters().leftovers, 1);
    let start_markers: Vec<_> =
        rig.logs[&P].iter().flatten().filter(|k| k.key.as_deref() == Some(START_MARKER_KEY)).cloned().collect();
    let place = origin::partition_hash("c", "schedules", 0);
    let start_marker = StartMarker::decode(start_markers[0].value.as_deref().unwrap(), place).unwrap();
    let barrier = rig.core.status()[0].barrier.unwrap();
    assert_eq!((start_markers.len(), start_marker), (1, StartMarker { since: LEFTOVER_CUTOFF, offset: barrier }));
    assert_eq!(rig.ownership(P).since, Some(LEFTOVER_CUTOFF));
    rig.schedule(P, "old but new here", yesterday);
    rig.read(P);
    assert_eq!(fired(&rig.batch()).len(), 1, "a schedule that arrives later is owed, however overdue");
}

#[test]
fn a_start_marker_outlives_downtime_and_a_change_of_group() {
    let mut rig = Rig::live();
    let offset = rig.schedule(P, "a", NOW + 1);
    rig.metadata.clear();
    rig.successor("cd");
    rig.now = Millis((NOW + 90 * 86_400) * 1000);
    rig.assign(&[P]);
    rig.tell_committed(&[P]);
    rig.run_until_quiet(&[P]);
    assert_eq!(fired(&rig.batch()), [offset]);
    let start_markers = rig.logs[&P].iter().flatten().filter(|k| k.key.as_deref() == Some(START_MARKER_KEY)).count();
    assert_eq!(start_markers, 1, "a start marker is written once");
}

#[test]
fn without_a_start_marker_the_groups_since_counts() {
    let mut rig = Rig::new(config());
    let long_ago = LEFTOVER_CUTOFF.plus(-10 * 86_400_000);
    let owed = rig.schedule(P, "a", long_ago.0 / 1000 + 1);
    rig.schedule(P, "b", long_ago.0 / 1000 - 1);
    rig.assign(&[P]);
    rig.tell_committed(&[P]);
    let barrier = rig.batch();
    rig.commit(&barrier);
    rig.read(P);
    assert_eq!(rig.answer_since(Some(long_ago), LEFTOVER_CUTOFF), Some(vec![0]));
    rig.run_until_quiet(&[P]);
    assert_eq!(fired(&rig.batch()), [owed]);
}

#[test]
fn a_new_partition_takes_since_from_its_siblings_start_marker() {
    let mut rig = Rig::live();
    let yesterday = LEFTOVER_CUTOFF.0 / 1000 - 1;
    rig.successor("cd");
    rig.metadata.clear();
    let since = LEFTOVER_CUTOFF.plus(-5 * 86_400_000);
    let place = origin::partition_hash("c", "schedules", 0);
    let at = rig.logs[&P]
        .iter()
        .position(|k| k.as_ref().is_some_and(|k| k.key.as_deref() == Some(START_MARKER_KEY)))
        .unwrap();
    rig.logs.get_mut(&P).unwrap()[at].as_mut().unwrap().value =
        Some(StartMarker { since, offset: 0 }.encode(place).into_bytes());
    let owed = rig.schedule(Q, "a", yesterday);
    rig.assign(&[P, Q]);
    rig.tell_committed(&[P, Q]);
    for _ in [P, Q] {
        let barrier = rig.batch();
        rig.commit(&barrier);
    }
    rig.read(Q);
    assert_eq!(rig.answer_since(None, LEFTOVER_CUTOFF), Some(vec![0, 1]));
    rig.no_batch("the sibling's start marker has not been read");
    rig.read(P);
    rig.run_until_quiet(&[P, Q]);
    assert_eq!(fired(&rig.batch()), [owed]);
    assert_eq!(rig.ownership(Q).since, Some(since));
}

#[test]
fn a_lower_since_delta_rescues_leftovers_later() {
    let mut rig = Rig::new(config());
    let rescued = rig.schedule(P, "old", LEFTOVER_CUTOFF.0 / 1000 - 1);
    rig.bring_up(&[P]);
    rig.successor("cd");
    rig.reads.insert(P, 0);
    rig.input(Input::Assigned { partitions: &[P], leftover_cutoff: LEFTOVER_CUTOFF.plus(-86_400_000) });
    rig.outs.clear();
    rig.tell_committed(&[P]);
    rig.run_until_quiet(&[P]);
    assert_eq!(fired(&rig.batch()), [rescued]);
}

#[test]
fn a_start_marker_of_another_cluster_is_ignored() {
    let mut rig = Rig::new(config());
    let foreign =
        StartMarker { since: Millis(0), offset: 0 }.encode(origin::partition_hash("elsewhere", "schedules", 0));
    let timestamp = rig.now;
    let value = Some(foreign.into_bytes());
    rig.append(P, Kept { timestamp, key: Some(START_MARKER_KEY.to_vec()), value, headers: Vec::new() });
    rig.schedule(P, "old", LEFTOVER_CUTOFF.0 / 1000 - 1);
    rig.bring_up(&[P]);
    rig.at(NOW + 1);
    assert!(rig.try_batch().is_none_or(|b| fired(&b).is_empty()), "the schedule is still a leftover");
}

#[test]
fn a_clock_set_back_before_the_start_marker_rewrites_it() {
    let mut rig = Rig::live();
    let earlier = LEFTOVER_CUTOFF.plus(-2 * 86_400_000);
    rig.now = earlier.plus(3_600_000);
    rig.input(Input::Tick);
    assert!(rig.saw(|o| matches!(o, Output::Seek(_))));
    rig.reads.insert(P, 0);
    let barrier = rig.batch();
    rig.commit(&barrier);
    rig.read(P);
    assert!(rig.answer_since(Some(LEFTOVER_CUTOFF), earlier).is_some());
    let start_marker = rig.batch();
    assert!(
        matches!(&start_marker.items[0].kind, Kind::StartMarker { value } if value.contains(&earlier.0.to_string()))
    );
    rig.commit(&start_marker);
    assert_eq!(rig.state(P), Some(PartitionState::Live));
}

#[test]
fn users_keys_with_the_reserved_prefix_are_invalid() {
    let mut rig = Rig::live();
    let offset = rig.schedule(P, "__scheduler.x", NOW + 1);
    rig.read(P);
    let wanted = Report::Invalid { partition: P, offset, reason: Reason::ReservedKey };
    assert!(rig.saw(|o| matches!(o, Output::Report(report) if *report == wanted)));
    rig.at(NOW + 1);
    rig.no_batch("it does not fire");
}

#[test]
fn a_barrier_of_another_group_after_our_own_is_reported() {
    let mut rig = Rig::live();
    let timestamp = rig.now;
    let headers =
        vec![(headers::BARRIER.to_vec(), Some(b"x.0.1".to_vec())), (headers::GROUP.to_vec(), Some(b"other".to_vec()))];
    rig.append(P, Kept { timestamp, key: Some(BARRIER_KEY.to_vec()), value: None, headers });
    rig.read(P);
    assert!(rig.saw(|o| matches!(o, Output::Report(Report::ForeignGroup { group, .. }) if group == "other")));
}

/// Found by the simulator: a partition without a start marker waited forever for a sibling that had been revoked.
#[test]
fn a_revoked_siblings_start_marker_is_not_waited_for() {
    let mut rig = Rig::new(config());
    rig.assign(&[P, Q]);
    rig.tell_committed(&[P]);
    let barrier = rig.batch();
    rig.commit(&barrier);
    rig.read(P);
    assert_eq!(rig.answer_since(None, LEFTOVER_CUTOFF), Some(vec![0, 1]));
    rig.no_batch("the sibling's start marker may have the since");
    rig.input(Input::Revoked { partitions: &[Q] });
    rig.no_batch("that start marker is still in the log");
    let long_ago = LEFTOVER_CUTOFF.plus(-86_400_000);
    assert_eq!(
        rig.answer_since(Some(long_ago), LEFTOVER_CUTOFF),
        Some(vec![0]),
        "the partition's log is scanned for a start marker"
    );
    let start_marker = rig.batch();
    let since = long_ago.0.to_string();
    assert!(
        matches!(&start_marker.items[0].kind, Kind::StartMarker { value } if value.contains(&since)),
        "{start_marker:?}"
    );
    rig.commit(&start_marker);
    assert_eq!(rig.state(P), Some(PartitionState::Live));
}

#[test]
fn an_answer_from_before_a_sibling_was_revoked_is_ignored() {
    let mut rig = Rig::new(config());
    rig.assign(&[P, Q]);
    rig.tell_committed(&[P, Q]);
    let barrier = rig.batch();
    rig.commit(&barrier);
    rig.read(P);
    let asked = |rig: &mut Rig| take!(rig, Output::FindSince { request, known, .. } => (request, known));
    let (first, known) = asked(&mut rig).unwrap();
    assert_eq!(known, [0, 1]);
    rig.input(Input::Revoked { partitions: &[Q] });
    let (second, known) = asked(&mut rig).unwrap();
    assert_eq!(known, [0], "a partition that is being released is not queried");
    rig.input(Input::Since { request: first, since: None, leftover_cutoff: LEFTOVER_CUTOFF });
    let long_ago = LEFTOVER_CUTOFF.plus(-86_400_000);
    rig.input(Input::Since { request: second, since: Some(long_ago), leftover_cutoff: LEFTOVER_CUTOFF });
    rig.run_until_quiet(&[P]);
    assert_eq!(rig.ownership(P).since, Some(long_ago));
}

#[test]
fn partitions_that_load_together_query_since_once() {
    let mut rig = Rig::new(config());
    rig.assign(&[P, Q]);
    rig.tell_committed(&[P, Q]);
    let barrier = rig.batch();
    rig.commit(&barrier);
    rig.read(P);
    rig.read(Q);
    assert_eq!(rig.answer_since(Some(LEFTOVER_CUTOFF), LEFTOVER_CUTOFF), Some(vec![0, 1]));
    assert_eq!(rig.answer_since(None, LEFTOVER_CUTOFF), None, "since is queried once for the topic");
    rig.run_until_quiet(&[P, Q]);
    assert_eq!((rig.state(P), rig.state(Q)), (Some(PartitionState::Live), Some(PartitionState::Live)));
}

#[test]
fn a_start_marker_stays_if_the_clock_is_corrected_in_time() {
    let mut rig = Rig::new(config());
    let long_ago = LEFTOVER_CUTOFF.plus(-30 * 86_400_000);
    let place = origin::partition_hash("c", "schedules", 0);
    let owed = rig.schedule(P, "k", long_ago.0 / 1000 + 1);
    let value = Some(StartMarker { since: long_ago, offset: 0 }.encode(place).into_bytes());
    let timestamp = rig.now;
    rig.append(P, Kept { timestamp, key: Some(START_MARKER_KEY.to_vec()), value, headers: Vec::new() });
    let right = rig.now;
    rig.now = long_ago.plus(-1);
    rig.assign(&[P]);
    rig.tell_committed(&[P]);
    let barrier = rig.batch();
    rig.commit(&barrier);
    rig.read(P);
    rig.now = right;
    assert!(rig.answer_since(None, LEFTOVER_CUTOFF).is_some());
    rig.run_until_quiet(&[P]);
    assert_eq!(rig.ownership(P).since, Some(long_ago));
    assert_eq!(fired(&rig.batch()), [owed]);
}

/// Found by the simulator: the partition fired with a start marker from tomorrow until another event came.
#[test]
fn a_start_marker_in_flight_when_the_clock_steps_is_rewritten() {
    let mut rig = Rig::new(config());
    let tomorrow = LEFTOVER_CUTOFF.plus(86_400_000);
    let owed = rig.schedule(P, "a", NOW - 1);
    rig.now = Millis((NOW + 86_400) * 1000);
    rig.assign(&[P]);
    rig.tell_committed(&[P]);
    let barrier = rig.batch();
    rig.commit(&barrier);
    rig.read(P);
    assert!(rig.answer_since(None, tomorrow).is_some());
    let start_marker = rig.batch();
    rig.now = Millis(NOW * 1000);
    rig.commit(&start_marker);
    assert!(rig.saw(|o| matches!(o, Output::Seek(_))));
    rig.reads.insert(P, 0);
    rig.run_until_quiet(&[P]);
    assert_eq!(fired(&rig.batch()), [owed]);
}

#[test]
fn a_clock_set_back_before_a_start_marker_needs_a_tick_at_once() {
    let mut rig = Rig::live();
    rig.now = LEFTOVER_CUTOFF.plus(-1);
    let anything = rig.cancel(P, "k");
    rig.deliver(P, anything, &rig.kept(P, anything));
    let (at, why) = rig.core.poll_timeout().unwrap();
    assert!(at <= rig.now, "{at:?}, {why}");
}
