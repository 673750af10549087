//! Finds members of the consumer group that are not kafka-scheduler, by their assignments and the committed offsets.
//!
//! An instance commits an offset for each partition soon after its assignment, with metadata that names its member id.
//! A member that has partitions and does not do that is another program, whatever its client id.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::core::ownership::names_member;

/// How long an instance may take to commit the first offset of a partition.
const FIRST_COMMIT_TIMEOUT: Duration = Duration::from_secs(10);
/// Characters of a member's name in a log line.
const NAME_CHARS_MAX: usize = 100;

/// A member, as the brokers describe it.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub id: String,
    pub client_id: String,
    pub host: String,
    /// Its partitions; `None` if the assignment cannot be read.
    pub assignment: Option<Vec<(String, i32)>>,
}

impl Member {
    fn display_name(&self) -> String {
        format!("{}{}", self.client_id, self.host).chars().take(NAME_CHARS_MAX).collect()
    }

    fn names_itself(&self, committed: &BTreeMap<(String, i32), Vec<u8>>) -> bool {
        let is_named = |partition| committed.get(partition).is_some_and(|text| names_member(text, self.id.as_bytes()));
        self.assignment.as_ref().is_some_and(|assigned| assigned.iter().all(is_named))
    }
}

/// Members that have not committed for all of their partitions, and since when.
#[derive(Debug, Default)]
pub(super) struct UnidentifiedMembers(BTreeMap<String, Instant>);

impl UnidentifiedMembers {
    /// Checks the members of the group whose client ids are not ours. `committed` has the metadata of their partitions.
    /// Returns the names of those that are another program's.
    pub(super) fn check(
        &mut self,
        now: Instant,
        members: &[Member],
        committed: &BTreeMap<(String, i32), Vec<u8>>,
    ) -> BTreeSet<String> {
        let before = std::mem::take(&mut self.0);
        let mut foreign = BTreeSet::new();
        for member in members.iter().filter(|member| !member.names_itself(committed)) {
            let since = before.get(&member.id).copied().unwrap_or(now);
            if now.duration_since(since) >= FIRST_COMMIT_TIMEOUT {
                foreign.insert(member.display_name());
            }
            self.0.insert(member.id.clone(), since);
        }
        foreign
    }

    /// Returns true if no member is left that may still turn out to be an instance of this program.
    pub(super) fn is_settled(&self, now: Instant) -> bool {
        self.0.values().all(|since| now.duration_since(*since) >= FIRST_COMMIT_TIMEOUT)
    }
}

/// Reads an assignment of the consumer protocol: a version, the topics with their partitions, and user data.
pub(super) fn parse_assignment(bytes: &[u8]) -> Option<Vec<(String, i32)>> {
    let mut rest = bytes;
    take::<2>(&mut rest)?;
    let mut assigned = Vec::new();
    for _ in 0..i32::from_be_bytes(take(&mut rest)?) {
        let length = usize::try_from(i16::from_be_bytes(take(&mut rest)?)).ok()?;
        let (name, after) = rest.split_at_checked(length)?;
        rest = after;
        let topic = std::str::from_utf8(name).ok()?;
        for _ in 0..i32::from_be_bytes(take(&mut rest)?) {
            assigned.push((topic.to_owned(), i32::from_be_bytes(take(&mut rest)?)));
        }
    }
    Some(assigned)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::ownership::{Ownership, with_member};

    const PARTITION: i32 = 3;

    fn member(id: &str, numbers: &[i32]) -> Member {
        let assignment = Some(numbers.iter().map(|number| ("t".to_owned(), *number)).collect());
        Member { id: id.into(), client_id: format!("client of {id}"), host: "/h".into(), assignment }
    }

    fn committed_by(id: &str) -> BTreeMap<(String, i32), Vec<u8>> {
        let ownership = Ownership { owner: "ab.0".into(), ..Ownership::default() };
        BTreeMap::from([(("t".to_owned(), PARTITION), with_member(&ownership.encode(), id.as_bytes()).into_bytes())])
    }

    #[test]
    fn a_member_that_commits_in_time_is_ours() {
        let (begun, mut members_seen) = (Instant::now(), UnidentifiedMembers::default());
        let members = [member("a", &[PARTITION]), member("idle", &[])];
        let later = |seconds| begun + Duration::from_secs(seconds);
        assert!(members_seen.check(begun, &members, &committed_by("former")).is_empty());
        assert!(!members_seen.is_settled(begun));
        assert!(
            members_seen.check(later(9), &members, &committed_by("former")).is_empty(),
            "a slow one is not reported"
        );
        assert!(members_seen.check(later(60), &members, &committed_by("a")).is_empty());
        assert!(members_seen.is_settled(later(60)));
    }

    #[test]
    fn a_member_that_never_commits_is_foreign() {
        let (begun, mut members_seen) = (Instant::now(), UnidentifiedMembers::default());
        let members = [member("a", &[PARTITION]), Member { assignment: None, ..member("b", &[]) }];
        let later = begun + FIRST_COMMIT_TIMEOUT;
        assert!(members_seen.check(begun, &members, &BTreeMap::new()).is_empty());
        let foreign = members_seen.check(later, &members, &committed_by("former"));
        assert_eq!(foreign, BTreeSet::from(["client of a/h".to_owned(), "client of b/h".to_owned()]));
        assert!(members_seen.is_settled(later));
    }

    #[test]
    fn a_member_that_was_identified_in_between_gets_its_time_again() {
        let (begun, mut members_seen) = (Instant::now(), UnidentifiedMembers::default());
        let members = [member("a", &[PARTITION])];
        members_seen.check(begun, &members, &BTreeMap::new());
        members_seen.check(begun + FIRST_COMMIT_TIMEOUT / 2, &members, &committed_by("a"));
        assert!(members_seen.check(begun + FIRST_COMMIT_TIMEOUT * 2, &members, &BTreeMap::new()).is_empty());
    }

    #[test]
    fn assignments_are_read() {
        let bytes = b"\0\x01\0\0\0\x02\0\x01a\0\0\0\x02\0\0\0\0\0\0\0\x07\0\x02bc\0\0\0\x01\0\0\0\x01\xff\xff\xff\xff";
        let expected = [("a", 0), ("a", 7), ("bc", 1)].map(|(topic, number)| (topic.to_owned(), number));
        assert_eq!(parse_assignment(bytes), Some(expected.to_vec()));
        assert_eq!(parse_assignment(b"\0\0\0\0\0\0\0\0\0\0"), Some(Vec::new()));
        for length in 0..bytes.len() - 4 {
            assert_eq!(parse_assignment(&bytes[..length]), None, "{length} bytes");
        }
        assert_eq!(parse_assignment(b"\0\0\x7f\xff\xff\xff"), None);
    }
}
