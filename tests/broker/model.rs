//! The simulator's model of Kafka beside Apache Kafka: each script runs on both, and a client sees the same.
//!
//! What the scheduler's protocol rests on stands here, also where it is strange. Where Kafka differs, the model is wrong.

mod modelled;
mod real;

use crate::kit::broker::broker;
use Seen::{Done, Hangs, Refused, Unanswered};
use Step::{
    Abort, Append, Commit, Committed, Compact, End, Init, Join, Keep, Leave, Offsets, Plain, Read, ReadAll, Send,
    TimeOut,
};

/// The transactional id of a producer whose transactions may be open for 2 s.
const SHORT: &str = "short";
/// The transactional id of a producer that reaches the broker through a proxy.
const PROXIED: &str = "proxied";

/// Who an offset commit says that it comes from.
#[derive(Clone, Copy, Debug)]
enum From {
    /// A member, as its metadata is now.
    Member(&'static str),
    /// Metadata that was kept.
    Kept(&'static str),
    /// A consumer that never joined.
    NonMember,
}

/// What a client does. Producers and members are named by the script.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A producer takes a transactional id.
    Init(&'static str, &'static str),
    /// A record in a producer's transaction, which begins with it: partition, key, value.
    Send(&'static str, i32, &'static str, Option<&'static str>),
    /// Offsets in a producer's transaction: partition, offset, bytes of metadata.
    Offsets(&'static str, From, &'static [(i32, i64)], usize),
    Commit(&'static str),
    Abort(&'static str),
    /// A commit that reaches the broker, and whose answer is lost.
    End(&'static str),
    /// The broker ends a producer's transaction, because it has been open for too long.
    TimeOut(&'static str),
    /// Offsets outside of any transaction.
    Plain(From, i32, i64),
    /// A record outside of any transaction.
    Append(i32, &'static str, Option<&'static str>),
    /// Members join, one after the other, and everybody waits until the partitions are shared out.
    Join(&'static [&'static str]),
    Leave(&'static str),
    /// Keeps a member's metadata under a name.
    Keep(&'static str, &'static str),
    /// What a read_committed consumer is given.
    Read(i32),
    /// What a read_uncommitted consumer is given.
    ReadAll(i32),
    /// The group's offset, as a read_committed client asks for it, or as a read_uncommitted one does.
    Committed(i32, bool),
    /// Waits until the partition is compacted, so these offsets are gone.
    Compact(i32, &'static [i64]),
}

/// What the client sees of it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Done,
    /// The offset of a record.
    At(i64),
    Refused(Why),
    Unanswered,
    /// No answer while something is pending.
    Hangs,
    /// Offsets with their values.
    Records(Vec<(i64, Option<String>)>),
    /// An offset, with the length of its metadata.
    Offset(Option<(i64, usize)>),
    /// How many generations it took, and how many partitions each member has.
    Shares(i32, Vec<usize>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Fenced,
    Generation,
    Metadata,
    State,
}

fn at(offset: i64) -> Seen {
    Seen::At(offset)
}

fn offset(offset: i64, metadata: usize) -> Seen {
    Seen::Offset(Some((offset, metadata)))
}

fn records(all: &[(i64, &str)]) -> Seen {
    Seen::Records(all.iter().map(|(offset, value)| (*offset, Some((*value).to_owned()))).collect())
}

/// Runs a script on both. Its second column says what is expected of them.
fn same(name: &str, partitions: i32, script: &[(Step, Seen)]) {
    let expected: Vec<&Seen> = script.iter().map(|(_, seen)| seen).collect();
    let steps = || script.iter().map(|(step, _)| *step);
    let mut model = modelled::Modelled::new(partitions);
    let modelled: Vec<Seen> = steps().map(|step| model.act(step)).collect();
    assert_eq!(modelled.iter().collect::<Vec<_>>(), expected, "the model");
    let Some(mut kafka) = real::Real::new(name, partitions) else { return };
    let real: Vec<Seen> = steps().map(|step| kafka.act(step)).collect();
    assert_eq!(real.iter().collect::<Vec<_>>(), expected, "Apache Kafka");
}

const BOTH: &[(i32, i64)] = &[(0, 3), (1, 4)];

#[test]
fn offsets_from_a_stale_generation_are_rejected() {
    same(
        "stale-generation",
        2,
        &[
            (Join(&["m"]), Seen::Shares(1, vec![2])),
            (Keep("old", "m"), Done),
            (Join(&["n"]), Seen::Shares(2, vec![1, 1])),
            (Init("p", "id"), Done),
            (Send("p", 0, "k", Some("v")), at(0)),
            (Offsets("p", From::Kept("old"), BOTH, 1), Refused(Why::Generation)),
            (Abort("p"), Done),
            (Send("p", 0, "k", Some("w")), at(2)),
            (Offsets("p", From::Member("m"), BOTH, 1), Done),
            (Commit("p"), Done),
            (Read(0), records(&[(2, "w")])),
            (Committed(1, true), offset(4, 1)),
        ],
    );
}

#[test]
fn the_generation_of_a_member_that_left_is_rejected() {
    same(
        "left",
        1,
        &[
            (Join(&["m"]), Seen::Shares(1, vec![1])),
            (Keep("old", "m"), Done),
            (Leave("m"), Seen::Shares(0, vec![])),
            // An empty group has a generation of its own.
            (Join(&["n"]), Seen::Shares(2, vec![1])),
            (Init("p", "id"), Done),
            (Offsets("p", From::Kept("old"), &[(0, 1)], 0), Refused(Why::Generation)),
            (Abort("p"), Done),
            (Committed(0, true), Seen::Offset(None)),
        ],
    );
}

#[test]
fn offsets_of_partitions_that_the_member_does_not_own_are_taken() {
    same(
        "not-the-owner",
        2,
        &[
            (Join(&["m"]), Seen::Shares(1, vec![2])),
            (Join(&["n"]), Seen::Shares(2, vec![1, 1])),
            (Init("p", "id"), Done),
            // Each of the two has one of them.
            (Offsets("p", From::Member("n"), BOTH, 0), Done),
            (Commit("p"), Done),
            (Committed(0, true), offset(3, 0)),
            (Committed(1, true), offset(4, 0)),
        ],
    );
}

#[test]
fn blank_metadata_is_taken_without_any_check() {
    same(
        "blank",
        1,
        &[
            (Join(&["m"]), Seen::Shares(1, vec![1])),
            (Init("p", "id"), Done),
            (Offsets("p", From::NonMember, &[(0, 5)], 0), Done),
            (Commit("p"), Done),
            (Committed(0, true), offset(5, 0)),
            (Plain(From::NonMember, 0, 6), Refused(Why::Generation)),
            (Committed(0, true), offset(5, 0)),
        ],
    );
}

#[test]
fn negative_offsets_pass_unfenced() {
    same(
        "negative",
        2,
        &[
            (Join(&["m"]), Seen::Shares(1, vec![2])),
            (Keep("old", "m"), Done),
            (Join(&["n"]), Seen::Shares(2, vec![1, 1])),
            (Init("p", "id"), Done),
            (Send("p", 0, "k", Some("v")), at(0)),
            (Offsets("p", From::Kept("old"), &[(0, -1)], 0), Done),
            (Commit("p"), Done),
            (Read(0), records(&[(0, "v")])),
            (Committed(0, true), Seen::Offset(None)),
        ],
    );
}

#[test]
fn records_may_follow_the_offsets_of_a_transaction() {
    same(
        "records-after-offsets",
        1,
        &[
            (Join(&["m"]), Seen::Shares(1, vec![1])),
            (Init("p", "id"), Done),
            (Offsets("p", From::Member("m"), &[(0, 1)], 0), Done),
            (Send("p", 0, "k", Some("late")), at(0)),
            (Commit("p"), Done),
            (Read(0), records(&[(0, "late")])),
        ],
    );
}

#[test]
fn a_plain_commit_makes_pending_offsets_vanish() {
    same(
        "plain",
        1,
        &[
            (Join(&["m"]), Seen::Shares(1, vec![1])),
            (Init("p", "id"), Done),
            (Offsets("p", From::Member("m"), &[(0, 5)], 3), Done),
            (Plain(From::Member("m"), 0, 9), Done),
            (Commit("p"), Done),
            (Committed(0, true), offset(9, 0)),
        ],
    );
}

#[test]
fn only_read_committed_clients_wait_for_pending_offsets() {
    same(
        "pending",
        1,
        &[
            (Join(&["m"]), Seen::Shares(1, vec![1])),
            (Init("p", "id"), Done),
            (Offsets("p", From::Member("m"), &[(0, 5)], 3), Done),
            (Commit("p"), Done),
            (Offsets("p", From::Member("m"), &[(0, 6)], 4), Done),
            (Committed(0, true), Hangs),
            (Committed(0, false), offset(5, 3)),
            (Abort("p"), Done),
            (Committed(0, true), offset(5, 3)),
        ],
    );
}

#[test]
fn a_new_producer_aborts_the_open_transaction_of_its_id() {
    same(
        "hanging",
        1,
        &[
            (Join(&["m"]), Seen::Shares(1, vec![1])),
            (Init("p", "id"), Done),
            (Send("p", 0, "k", Some("hangs")), at(0)),
            (Offsets("p", From::Member("m"), &[(0, 1)], 0), Done),
            (Append(0, "k", Some("behind")), at(1)),
            (Read(0), records(&[])),
            (ReadAll(0), records(&[(0, "hangs"), (1, "behind")])),
            (Committed(0, true), Hangs),
            (Init("q", "id"), Done),
            (Read(0), records(&[(1, "behind")])),
            (Committed(0, true), Seen::Offset(None)),
            // The marker has taken an offset.
            (Append(0, "k", Some("more")), at(3)),
            (Commit("p"), Refused(Why::Fenced)),
            (Send("q", 0, "k", Some("new")), at(4)),
            (Commit("q"), Done),
            (Read(0), records(&[(1, "behind"), (3, "more"), (4, "new")])),
        ],
    );
}

#[test]
fn markers_take_offsets_and_are_never_delivered() {
    same(
        "markers",
        2,
        &[
            (Init("p", "id"), Done),
            (Send("p", 0, "a", Some("1")), at(0)),
            (Send("p", 0, "b", Some("2")), at(1)),
            (Commit("p"), Done),
            (Send("p", 0, "c", Some("3")), at(3)),
            (Abort("p"), Done),
            (Append(0, "d", Some("4")), at(5)),
            (Read(0), records(&[(0, "1"), (1, "2"), (5, "4")])),
            (ReadAll(0), records(&[(0, "1"), (1, "2"), (3, "3"), (5, "4")])),
            (Append(1, "e", Some("5")), at(0)),
        ],
    );
}

#[test]
fn metadata_has_4096_bytes_at_the_most() {
    same(
        "metadata",
        1,
        &[
            (Join(&["m"]), Seen::Shares(1, vec![1])),
            (Init("p", "id"), Done),
            (Offsets("p", From::Member("m"), &[(0, 1)], 4_096), Done),
            (Commit("p"), Done),
            (Committed(0, true), offset(1, 4_096)),
            (Offsets("p", From::Member("m"), &[(0, 2)], 4_097), Refused(Why::Metadata)),
            (Abort("p"), Done),
            (Committed(0, true), offset(1, 4_096)),
        ],
    );
}

#[test]
fn after_an_unanswered_commit_only_a_commit_is_allowed() {
    if broker().is_some_and(|broker| broker.proxied.is_none()) {
        // A broker that was there already has no listener for a proxy.
        return;
    }
    same(
        "no-answer",
        1,
        &[
            (Init("p", PROXIED), Done),
            (Send("p", 0, "k", Some("v")), at(0)),
            (End("p"), Unanswered),
            (Abort("p"), Refused(Why::State)),
            (Commit("p"), Done),
            (Read(0), records(&[(0, "v")])),
            (Send("p", 0, "k", Some("w")), at(2)),
            (Commit("p"), Done),
            (Read(0), records(&[(0, "v"), (2, "w")])),
        ],
    );
}

#[test]
fn a_timed_out_transaction_is_aborted_and_its_producer_fenced() {
    same(
        "time-out",
        1,
        &[
            (Init("p", SHORT), Done),
            (Send("p", 0, "k", Some("v")), at(0)),
            (Append(0, "k", Some("behind")), at(1)),
            (TimeOut("p"), Done),
            (Read(0), records(&[(1, "behind")])),
            (Commit("p"), Refused(Why::Fenced)),
            (Read(0), records(&[(1, "behind")])),
        ],
    );
}

#[test]
fn a_handover_takes_two_generations_and_leaving_one() {
    same(
        "handover",
        2,
        &[
            (Join(&["m"]), Seen::Shares(1, vec![2])),
            (Join(&["n"]), Seen::Shares(2, vec![1, 1])),
            (Leave("n"), Seen::Shares(1, vec![2])),
        ],
    );
}

#[test]
fn compaction_keeps_the_last_record_and_no_aborted_one() {
    let kept = vec![(1, Some("2".to_owned())), (6, None), (7, Some("roll".to_owned()))];
    same(
        "compaction",
        1,
        &[
            (Append(0, "k", Some("1")), at(0)),
            (Append(0, "k", Some("2")), at(1)),
            (Init("p", "id"), Done),
            (Send("p", 0, "k", Some("aborted")), at(2)),
            (Abort("p"), Done),
            (Append(0, "j", Some("1")), at(4)),
            (Append(0, "j", Some("2")), at(5)),
            (Append(0, "j", None), at(6)),
            (Append(0, "roll", Some("roll")), at(7)),
            (Compact(0, &[0, 2, 4, 5]), Done),
            (Read(0), Seen::Records(kept)),
            (Append(0, "j", Some("3")), at(8)),
        ],
    );
}
