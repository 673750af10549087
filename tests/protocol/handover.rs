//! Releasing partitions.

use kafka_scheduler::core::io::{Abort, Input, Outcome, Output};
use kafka_scheduler::core::ownership::Ownership;

use kafka_scheduler::core::Config;

use crate::rig::*;

#[test]
fn release_waits_for_batches_in_flight_and_the_clean_commit() {
    let mut rig = Rig::live();
    rig.schedule(P, "a", NOW + 1);
    rig.schedule(P, "b", NOW + 2);
    rig.read(P);
    rig.at(NOW + 1);
    let batch = rig.batch();
    rig.input(Input::Revoked { partitions: &[P] });
    rig.at(NOW + 2);
    rig.no_batch("no new batch touches it, and one is in flight");
    assert!(!rig.saw(|o| matches!(o, Output::Release(_))));
    rig.commit(&batch);
    let clean = rig.batch();
    assert!(clean.items.is_empty(), "the handover fires nothing: b is left to the successor");
    assert!(!rig.saw(|o| matches!(o, Output::Release(_))));
    rig.commit(&clean);
    assert!(rig.saw(|o| matches!(o, Output::Release(p) if p == &[P])));
    assert!(rig.ownership(P).clean);
    let barrier = rig.successors_barrier("cd");
    assert_eq!(
        Ownership::decode(barrier.offsets[0].metadata.as_bytes()).unwrap().owners_to_fence,
        Vec::<String>::new()
    );
    rig.commit(&barrier);
    assert!(!rig.saw(|o| matches!(o, Output::Fence { .. })), "a clean owner has nothing to fence");
}

#[test]
fn a_release_that_times_out_replaces_the_transactional_ids() {
    let mut rig = Rig::live();
    rig.schedule(P, "a", NOW + 1);
    rig.read(P);
    rig.at(NOW + 1);
    let batch = rig.batch();
    let before = rig.core.transactional_ids();
    rig.input(Input::Revoked { partitions: &[P] });
    let (at, _) = rig.core.poll_timeout().expect("a release has a deadline");
    assert!(at.0 <= (NOW + 6) * 1000);
    rig.now = at;
    rig.input(Input::Tick);
    assert!(
        rig.saw(|o| matches!(o, Output::ReplaceTransactionalIds { transactional_ids } if *transactional_ids != before))
    );
    assert!(rig.saw(|o| matches!(o, Output::Rejoin(_) | Output::Release(_))));
    rig.commit(&batch);
    rig.no_batch("the old batch is forgotten");
}

#[test]
fn a_failed_clean_commit_replaces_the_transactional_ids() {
    let mut rig = Rig::live();
    rig.input(Input::Revoked { partitions: &[P] });
    let clean = rig.batch();
    rig.abort(&clean, Abort::Retry);
    assert!(rig.saw(|o| matches!(o, Output::ReplaceTransactionalIds { .. })));
    assert!(rig.saw(|o| matches!(o, Output::Rejoin(_) | Output::Release(_))));
}

#[test]
fn lost_partitions_are_dropped_at_once_without_a_commit() {
    let mut rig = Rig::live();
    rig.schedule(P, "a", NOW + 1);
    rig.read(P);
    rig.input(Input::Lost { partitions: &[P] });
    assert!(rig.saw(
        |o| matches!(o, Output::ReplaceTransactionalIds { transactional_ids } if transactional_ids[0] == "g.ab.1.0")
    ));
    rig.at(NOW + 1);
    rig.no_batch("another instance owns the partition");
    assert_eq!(rig.core.status(), []);
}

#[test]
fn an_unknown_outcome_replaces_the_ids_and_reloads_the_log() {
    let mut rig = Rig::live();
    rig.schedule(P, "a", NOW + 1);
    rig.read(P);
    rig.at(NOW + 1);
    let batch = rig.batch();
    rig.land(&batch);
    rig.input(Input::BatchEnded { batch: batch.id, outcome: Outcome::Unknown });
    assert!(rig.saw(|o| matches!(o, Output::ReplaceTransactionalIds { .. })));
    assert!(rig.saw(|o| matches!(o, Output::Rejoin(_))));
    rig.at(NOW + 2);
    rig.no_batch("nothing is known until the log is read");
    rig.bring_up(&[P]);
    rig.at(NOW + 3);
    assert!(rig.try_batch().is_none_or(|b| fired(&b).is_empty()), "the firing was committed");
}

#[test]
fn stopping_hands_everything_over_first() {
    let mut rig = Rig::live();
    rig.input(Input::Stop);
    let clean = rig.batch();
    assert!(!rig.saw(|o| matches!(o, Output::Stopped)));
    rig.commit(&clean);
    assert!(rig.saw(|o| matches!(o, Output::Stopped)));
    assert!(rig.ownership(P).clean);
}

/// Found by the simulator: a successor fenced an owner that was alive.
#[test]
fn a_partition_revoked_before_its_reread_is_released_clean() {
    let mut rig = Rig::live_with(Config { transactors: 2, ..config() });
    rig.deliver(P, 0, &rig.kept(P, 0));
    assert!(rig.saw(|o| matches!(o, Output::Seek(_))));
    let barrier = rig.batch();
    rig.input(Input::Revoked { partitions: &[P] });
    rig.abort(&barrier, Abort::StaleGeneration { generation: Some(1) });
    rig.input(Input::Generation(2));
    rig.at(NOW + 1);
    assert!(!rig.saw(|o| matches!(o, Output::Release(_))), "the clean commit is still missing");
    let clean = rig.batch();
    assert!(clean.items.is_empty());
    rig.commit(&clean);
    assert!(rig.saw(|o| matches!(o, Output::Release(p) if p == &[P])));
    assert!(rig.ownership(P).clean);
}

#[test]
fn a_stop_that_times_out_keeps_the_transactional_ids() {
    let mut rig = Rig::live();
    rig.schedule(P, "a", NOW + 1);
    rig.read(P);
    rig.at(NOW + 1);
    rig.batch();
    rig.input(Input::Stop);
    assert!(!rig.saw(|o| matches!(o, Output::Stopped)), "a batch is in flight");
    let (at, _) = rig.core.poll_timeout().expect("a stop has a deadline");
    assert!(at.0 <= rig.now.0 + 1_000, "the process must stop within 2 s");
    rig.now = at;
    rig.input(Input::Tick);
    assert!(rig.saw(|o| matches!(o, Output::Stopped)));
    assert!(!rig.saw(|o| matches!(o, Output::ReplaceTransactionalIds { .. })), "no new transactors are needed");
}

/// Otherwise the new barrier would wait for our own open transaction until it times out, because the metadata names no
/// owner yet.
#[test]
fn a_former_incarnation_is_fenced_after_the_next_barrier() {
    let mut rig = Rig::new(config());
    rig.assign(&[P]);
    rig.tell_committed(&[P]);
    let lost = rig.batch();
    rig.input(Input::BatchEnded { batch: lost.id, outcome: Outcome::Unknown });
    rig.outs.clear();
    rig.assign(&[P]);
    rig.tell_committed(&[P]);
    let barrier = rig.batch();
    let ownership = Ownership::decode(barrier.offsets[0].metadata.as_bytes()).unwrap();
    assert_eq!((ownership.owner.as_str(), ownership.owners_to_fence), ("ab.1", vec!["ab.0".to_owned()]));
    assert!(!rig.saw(|o| matches!(o, Output::Fence { .. })), "fencing waits for the barrier's commit");
    rig.commit(&barrier);
    let ids = |o: &Output| matches!(o, Output::Fence { transactional_ids, .. } if transactional_ids[0] == "g.ab.0.0");
    assert!(rig.outs.iter().any(ids));
    rig.run_until_quiet(&[P]);
    // Fencing once is enough.
    rig.input(Input::Lost { partitions: &[P] });
    rig.assign(&[P]);
    rig.tell_committed(&[P]);
    let barrier = rig.batch();
    let ownership = Ownership::decode(barrier.offsets[0].metadata.as_bytes()).unwrap();
    assert_eq!(ownership.owners_to_fence, ["ab.1"]);
}
