//! Compares the simulator's model of Kafka with Apache Kafka: each script runs on both, and a client must see the same.
//!
//! The scripts cover the behaviour that the scheduler's protocol relies on, including surprising behaviour. If Kafka
//! differs, the model is wrong.

mod modelled;
mod real;

use crate::kit::broker::broker;
use Seen::{Done, Hangs, Refused, Unanswered};
use Step::{
    Abort, Append, Commit, Committed, Compact, End, Init, Join, Keep, Leave, Offsets, Plain, Read, ReadAll, Send,
    TimeOut,
};

/// The transactional id of a producer whose transactions time out after 2 s.
const SHORT: &str = "short";
/// The transactional id of a producer that reaches the broker through a proxy.
const PROXIED: &str = "proxied";

/// The consumer whose metadata an offset commit carries.
#[derive(Clone, Copy, Debug)]
enum From {
    /// A member, with its current metadata.
    Member(&'static str),
    /// Metadata that a member had earlier.
    Kept(&'static str),
    /// A consumer that never joined the group.
    NonMember,
}

/// An action of a client. The script names producers and members.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A producer runs `init_transactions` for a transactional id: producer, id.
    Init(&'static str, &'static str),
    /// A producer sends a record in its transaction, which this may begin: partition, key, value.
    Send(&'static str, i32, &'static str, Option<&'static str>),
    /// A producer sends offsets in its transaction: partition, offset, length of the metadata.
    Offsets(&'static str, From, &'static [(i32, i64)], usize),
    Commit(&'static str),
    Abort(&'static str),
    /// A producer commits; the request reaches the broker, and the response is lost.
    End(&'static str),
    /// The broker aborts a transaction whose timeout has passed.
    TimeOut(&'static str),
    /// Commits an offset outside of any transaction.
    Plain(From, i32, i64),
    /// Produces a record outside of any transaction.
    Append(i32, &'static str, Option<&'static str>),
    /// Members join one after the other; then all wait for the assignment.
    Join(&'static [&'static str]),
    Leave(&'static str),
    /// Stores a member's current metadata under a name.
    Keep(&'static str, &'static str),
    /// Reads the records that a read_committed consumer gets.
    Read(i32),
    /// Reads the records that a read_uncommitted consumer gets.
    ReadAll(i32),
    /// Fetches the group's committed offset, with or without waiting for pending transactions.
    Committed(i32, bool),
    /// Waits until compaction has removed these offsets of the partition.
    Compact(i32, &'static [i64]),
}

/// The result that the client sees.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Done,
    /// The offset of a record.
    At(i64),
    Refused(Why),
    Unanswered,
    /// No response while a transaction is pending.
    Hangs,
    /// Offsets and values of records.
    Records(Vec<(i64, Option<String>)>),
    /// A committed offset, with the length of its metadata.
    Offset(Option<(i64, usize)>),
    /// The number of new generations, and of each member's partitions.
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

/// Runs a script on the model and on Kafka. Each step has its expected result.
fn run_on_both(name: &str, partitions: i32, script: &[(Step, Seen)]) {
    let expected: Vec<&Seen> = script.iter().map(|(_, seen)| seen).collect();
    let steps = || script.iter().map(|(step, _)| *step);
    let mut model = modelled::Modelled::new(partitions);
    let modelled: Vec<Seen> = steps().map(|step| model.act(step)).collect();
    assert_eq!(modelled.iter().collect::<Vec<_>>(), expected, "the model differs");
    let Some(mut kafka) = real::Real::new(name, partitions) else { return };
    let real: Vec<Seen> = steps().map(|step| kafka.act(step)).collect();
    assert_eq!(real.iter().collect::<Vec<_>>(), expected, "Apache Kafka differs");
}

const BOTH: &[(i32, i64)] = &[(0, 3), (1, 4)];

#[test]
fn offsets_from_a_stale_generation_are_rejected() {
    run_on_both(
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
    run_on_both(
        "left",
        1,
        &[
            (Join(&["m"]), Seen::Shares(1, vec![1])),
            (Keep("old", "m"), Done),
            (Leave("m"), Seen::Shares(0, vec![])),
            // An empty group has its own generation.
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
    run_on_both(
        "not-the-owner",
        2,
        &[
            (Join(&["m"]), Seen::Shares(1, vec![2])),
            (Join(&["n"]), Seen::Shares(2, vec![1, 1])),
            (Init("p", "id"), Done),
            // Each of the two members owns one of the partitions.
            (Offsets("p", From::Member("n"), BOTH, 0), Done),
            (Commit("p"), Done),
            (Committed(0, true), offset(3, 0)),
            (Committed(1, true), offset(4, 0)),
        ],
    );
}

#[test]
fn blank_metadata_is_taken_without_any_check() {
    run_on_both(
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
    run_on_both(
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
    run_on_both(
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
    run_on_both(
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
    run_on_both(
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
    run_on_both(
        "hanging",
        1,
        &[
            (Join(&["m"]), Seen::Shares(1, vec![1])),
            (Init("p", "id"), Done),
            (Send("p", 0, "k", Some("hangs")), at(0)),
            (Offsets("p", From::Member("m"), &[(0, 1)], 0), Done),
            (Append(0, "k", Some("next")), at(1)),
            (Read(0), records(&[])),
            (ReadAll(0), records(&[(0, "hangs"), (1, "next")])),
            (Committed(0, true), Hangs),
            (Init("q", "id"), Done),
            (Read(0), records(&[(1, "next")])),
            (Committed(0, true), Seen::Offset(None)),
            // The abort marker takes an offset.
            (Append(0, "k", Some("more")), at(3)),
            (Commit("p"), Refused(Why::Fenced)),
            (Send("q", 0, "k", Some("new")), at(4)),
            (Commit("q"), Done),
            (Read(0), records(&[(1, "next"), (3, "more"), (4, "new")])),
        ],
    );
}

#[test]
fn markers_take_offsets_and_are_never_delivered() {
    run_on_both(
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
    run_on_both(
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
        // The broker of KAFKA_BOOTSTRAP has no listener for a proxy.
        return;
    }
    run_on_both(
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
    run_on_both(
        "time-out",
        1,
        &[
            (Init("p", SHORT), Done),
            (Send("p", 0, "k", Some("v")), at(0)),
            (Append(0, "k", Some("next")), at(1)),
            (TimeOut("p"), Done),
            (Read(0), records(&[(1, "next")])),
            (Commit("p"), Refused(Why::Fenced)),
            (Read(0), records(&[(1, "next")])),
        ],
    );
}

#[test]
fn a_handover_takes_two_generations_and_leaving_one() {
    run_on_both(
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
    run_on_both(
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
