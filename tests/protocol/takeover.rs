//! Taking over a partition.

use kafka_scheduler::core::PartitionState;
use kafka_scheduler::core::batch::Kind;
use kafka_scheduler::core::io::{Abort, Input, Outcome, Output, Report, RequestId};
use kafka_scheduler::core::origin::BARRIER_KEY;
use kafka_scheduler::core::ownership::Ownership;

use crate::rig::*;

#[test]
fn barrier_precedes_fencing() {
    let mut rig = Rig::live();
    rig.successor("cd");
    rig.assign(&[P]);
    rig.no_batch("the former owner is not known yet");
    rig.tell_committed(&[P]);
    let barrier = rig.batch();
    assert!(matches!(&barrier.items[..], [item] if matches!(item.kind, Kind::Barrier { .. })));
    let records = sent(&barrier, rig.now);
    assert_eq!((records[0].1, records[0].2.key.as_deref()), (Some(P), Some(BARRIER_KEY)));
    assert_eq!(records[0].2.value, None);
    let ownership = Ownership::decode(barrier.offsets[0].metadata.as_bytes()).unwrap();
    assert_eq!((ownership.owner.as_str(), &ownership.owners_to_fence[..]), ("cd.0", &["ab.0".to_owned()][..]));
    assert!(!rig.saw(|o| matches!(o, Output::Fence { .. })), "an instance that was paused would fence a live owner");
    rig.commit(&barrier);
    let ids = take!(rig, Output::Fence { request, transactional_ids } => (request, transactional_ids));
    let (request, ids) = ids.expect("the former owner is fenced");
    assert_eq!(ids, ["g.ab.0.0", "g.ab.0.1"]);
    rig.input(Input::Fenced { request });
    let drop_list = rig.batch();
    assert!(drop_list.items.is_empty());
    assert_eq!(
        Ownership::decode(drop_list.offsets[0].metadata.as_bytes()).unwrap().owners_to_fence,
        Vec::<String>::new()
    );
    rig.commit(&drop_list);
    rig.no_batch("the list is dropped once");
}

#[test]
fn owners_still_to_fence_pass_to_the_successor() {
    let mut rig = Rig::live();
    let barrier = rig.successors_barrier("cd");
    rig.land(&barrier);
    rig.successor("ef");
    rig.assign(&[P]);
    rig.tell_committed(&[P]);
    let barrier = rig.batch();
    assert_eq!(Ownership::decode(barrier.offsets[0].metadata.as_bytes()).unwrap().owners_to_fence, ["cd.0", "ab.0"]);
}

#[test]
fn a_late_answer_to_fencing_drops_no_newer_owner() {
    for answered_before_barrier in [true, false] {
        let mut rig = Rig::live();
        let barrier = rig.successors_barrier("cd");
        rig.commit(&barrier);
        let first = take!(rig, Output::Fence { request, .. } => request).expect("the former owner is fenced");
        rig.input(Input::Revoked { partitions: &[P] });
        let handover = rig.batch();
        rig.commit(&handover);
        assert!(rig.saw(|o| matches!(o, Output::Release(released) if *released == [P])));
        let former = Ownership { owner: "ef.0".into(), owners_to_fence: vec!["ab.0".into()], ..rig.ownership(P) };
        rig.metadata.insert(P, (0, Ownership { clean: false, ..former }.encode()));
        rig.assign(&[P]);
        rig.tell_committed(&[P]);
        let barrier = rig.batch();
        if answered_before_barrier {
            rig.input(Input::Fenced { request: first });
        }
        rig.commit(&barrier);
        let second = take!(rig, Output::Fence { request, transactional_ids } => (request, transactional_ids));
        let (second, ids) = second.expect("the owners since then are fenced");
        assert_eq!(ids, ["g.ef.0.0", "g.ef.0.1", "g.ab.0.0", "g.ab.0.1"]);
        if !answered_before_barrier {
            rig.input(Input::Fenced { request: first });
        }
        rig.no_batch("the second request has no answer");
        assert_eq!(rig.ownership(P).owners_to_fence, ["ef.0", "ab.0"]);
        rig.input(Input::Fenced { request: second });
        let drop_list = rig.batch();
        rig.commit(&drop_list);
        assert_eq!(rig.ownership(P).owners_to_fence, Vec::<String>::new());
    }
}

#[test]
fn each_takeover_writes_its_own_barrier() {
    let mut rig = Rig::live();
    rig.successor("cd");
    rig.bring_up(&[P]);
    let headers: Vec<_> = rig.logs[&P]
        .iter()
        .flatten()
        .filter(|k| k.key.as_deref() == Some(BARRIER_KEY))
        .map(|k| k.headers[0].1.clone())
        .collect();
    assert_eq!(headers.len(), 2);
    assert_ne!(headers[0], headers[1]);
}

#[test]
fn only_the_barriers_own_offset_ends_loading() {
    let mut rig = Rig::live();
    rig.schedule(P, "a", NOW - 1);
    let barrier = rig.successors_barrier("cd");
    rig.read(P);
    rig.at(NOW + 60);
    rig.no_batch("the end of the log was reached and time has passed, but the barrier is not committed");
    let written = rig.land(&barrier);
    rig.input(Input::BatchEnded { batch: barrier.id, outcome: Outcome::Committed { last_offsets: written } });
    assert_eq!(rig.state(P), Some(PartitionState::Loading));
    rig.input(Input::Fenced { request: RequestId(0) });
    let list = rig.batch();
    assert!(list.items.is_empty(), "only the fence list is dropped");
    rig.commit(&list);
    rig.no_batch("the barrier has not been read");
    rig.read(P);
    assert_eq!(rig.state(P), Some(PartitionState::Live));
    assert_eq!(fired(&rig.batch()).len(), 1);
}

#[test]
fn a_record_after_the_barrier_ends_loading_as_well() {
    let mut rig = Rig::live();
    let barrier = rig.successors_barrier("cd");
    rig.commit(&barrier);
    let at = rig.logs[&P].iter().rposition(|k| k.as_ref().is_some_and(|k| k.value.is_none())).unwrap();
    rig.compact(P, at as i64);
    rig.read(P);
    assert_eq!(rig.state(P), Some(PartitionState::Loading), "compaction removed the barrier");
    rig.schedule(P, "a", NOW + 9);
    rig.read(P);
    assert_eq!(rig.state(P), Some(PartitionState::Live));
}

#[test]
fn a_barrier_may_be_read_before_its_commit_is_answered() {
    let mut rig = Rig::live();
    let barrier = rig.successors_barrier("cd");
    let written = rig.land(&barrier);
    rig.read(P);
    assert_eq!(rig.state(P), Some(PartitionState::TakingOver));
    rig.input(Input::BatchEnded { batch: barrier.id, outcome: Outcome::Committed { last_offsets: written } });
    assert_eq!(rig.state(P), Some(PartitionState::Live));
}

#[test]
fn a_barrier_whose_offset_is_not_reported_is_rewritten() {
    let mut rig = Rig::live();
    let barrier = rig.successors_barrier("cd");
    rig.land(&barrier);
    rig.input(Input::BatchEnded { batch: barrier.id, outcome: Outcome::Committed { last_offsets: Vec::new() } });
    let again = rig.batch();
    assert!(matches!(again.items[0].kind, Kind::Barrier { .. }));
    rig.commit(&again);
    rig.read(P);
    assert_eq!(rig.state(P), Some(PartitionState::Live));
}

#[test]
fn an_aborted_barrier_is_rewritten() {
    let mut rig = Rig::new(config());
    rig.assign(&[P]);
    rig.tell_committed(&[P]);
    let barrier = rig.batch();
    rig.abort(&barrier, Abort::Retry);
    rig.at(NOW + 5);
    let again = rig.batch();
    assert!(matches!(again.items[0].kind, Kind::Barrier { .. }));
}

#[test]
fn an_offset_seen_before_rereads_up_to_a_new_barrier() {
    let mut rig = Rig::live();
    let offset = rig.schedule(P, "a", NOW + 9);
    rig.read(P);
    let kept = rig.kept(P, offset);
    rig.deliver(P, offset, &kept);
    assert!(rig.saw(|o| matches!(o, Output::Seek(p) if *p == P)));
    assert!(rig.saw(|o| matches!(o, Output::Report(Report::Reread { .. }))));
    rig.reads.insert(P, 0);
    let barrier = rig.batch();
    assert!(matches!(barrier.items[0].kind, Kind::Barrier { .. }));
    rig.commit(&barrier);
    rig.run_until_quiet(&[P]);
    rig.at(NOW + 9);
    assert_eq!(fired(&rig.batch()), [offset]);
}

#[test]
fn an_invalid_position_makes_the_consumer_rejoin() {
    let mut rig = Rig::live();
    rig.input(Input::PositionInvalid { why: "truncated" });
    assert!(rig.saw(|o| matches!(o, Output::ReplaceTransactionalIds { .. })));
    assert!(rig.saw(|o| matches!(o, Output::Rejoin(_))));
}
