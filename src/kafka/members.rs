//! Which members of the consumer group are another program's, judged by what they hold and what has been committed.
//!
//! An instance commits an offset for each partition soon after its assignment, with metadata that names its member id. A
//! member that holds partitions and does not do that is not one of ours, whatever it calls itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::core::ownership::names_member;

/// How long an instance may take to commit the first offset of a partition.
const GRACE: Duration = Duration::from_secs(10);
/// Characters of a member's name in a log line.
const NAME_MAX: usize = 100;

/// A member, as the brokers describe it.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its id.
    pub id: String,
    /// What it calls itself.
    pub client_id: String,
    /// The host it connects from.
    pub host: String,
    /// What it holds; `None` if the assignment cannot be read.
    pub holds: Option<Vec<(String, i32)>>,
}

impl Member {
    /// As a log line names it.
    fn name(&self) -> String {
        format!("{}{}", self.client_id, self.host).chars().take(NAME_MAX).collect()
    }

    fn is_attributed(&self, committed: &BTreeMap<(String, i32), Vec<u8>>) -> bool {
        let names = |partition| committed.get(partition).is_some_and(|text| names_member(text, self.id.as_bytes()));
        self.holds.as_ref().is_some_and(|holds| holds.iter().all(names))
    }
}

/// Members that hold partitions for which they have not committed, and since when.
#[derive(Debug, Default)]
pub struct Suspects(BTreeMap<String, Instant>);

impl Suspects {
    /// Takes a look at all members of the group but those whose client ids are known. `committed` has the metadata of
    /// the partitions that they hold. Returns the names of those that are another program's.
    pub fn look(
        &mut self,
        now: Instant,
        members: &[Member],
        committed: &BTreeMap<(String, i32), Vec<u8>>,
    ) -> BTreeSet<String> {
        let before = std::mem::take(&mut self.0);
        let mut strangers = BTreeSet::new();
        for member in members.iter().filter(|member| !member.is_attributed(committed)) {
            let since = before.get(&member.id).copied().unwrap_or(now);
            if now.duration_since(since) >= GRACE {
                strangers.insert(member.name());
            }
            self.0.insert(member.id.clone(), since);
        }
        strangers
    }

    /// No suspect is left that may still turn out to be an instance of this program.
    pub fn is_settled(&self, now: Instant) -> bool {
        self.0.values().all(|since| now.duration_since(*since) >= GRACE)
    }
}

/// Reads an assignment of the consumer protocol: a version, the topics with their partitions, and user data.
pub fn assignment(bytes: &[u8]) -> Option<Vec<(String, i32)>> {
    let mut rest = bytes;
    take::<2>(&mut rest)?;
    let mut holds = Vec::new();
    for _ in 0..i32::from_be_bytes(take(&mut rest)?) {
        let length = usize::try_from(i16::from_be_bytes(take(&mut rest)?)).ok()?;
        let (name, after) = rest.split_at_checked(length)?;
        rest = after;
        let topic = std::str::from_utf8(name).ok()?;
        for _ in 0..i32::from_be_bytes(take(&mut rest)?) {
            holds.push((topic.to_owned(), i32::from_be_bytes(take(&mut rest)?)));
        }
    }
    Some(holds)
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

    fn member(id: &str, holds: &[i32]) -> Member {
        let holds = Some(holds.iter().map(|number| ("t".to_owned(), *number)).collect());
        Member { id: id.into(), client_id: format!("client of {id}"), host: "/h".into(), holds }
    }

    fn committed_by(id: &str) -> BTreeMap<(String, i32), Vec<u8>> {
        let ownership = Ownership { owner: "ab.0".into(), ..Ownership::default() };
        BTreeMap::from([(("t".to_owned(), PARTITION), with_member(&ownership.encode(), id.as_bytes()).into_bytes())])
    }

    #[test]
    fn a_member_that_commits_in_time_is_ours() {
        let (begun, mut suspects) = (Instant::now(), Suspects::default());
        let members = [member("a", &[PARTITION]), member("idle", &[])];
        let later = |seconds| begun + Duration::from_secs(seconds);
        assert!(suspects.look(begun, &members, &committed_by("former")).is_empty());
        assert!(!suspects.is_settled(begun));
        assert!(suspects.look(later(9), &members, &committed_by("former")).is_empty(), "a slow one is not accused");
        assert!(suspects.look(later(60), &members, &committed_by("a")).is_empty());
        assert!(suspects.is_settled(later(60)));
    }

    #[test]
    fn a_member_that_never_commits_is_a_stranger() {
        let (begun, mut suspects) = (Instant::now(), Suspects::default());
        let members = [member("a", &[PARTITION]), Member { holds: None, ..member("b", &[]) }];
        let later = begun + GRACE;
        assert!(suspects.look(begun, &members, &BTreeMap::new()).is_empty());
        let strangers = suspects.look(later, &members, &committed_by("former"));
        assert_eq!(strangers, BTreeSet::from(["client of a/h".to_owned(), "client of b/h".to_owned()]));
        assert!(suspects.is_settled(later));
    }

    #[test]
    fn a_suspect_that_was_cleared_in_between_gets_its_time_again() {
        let (begun, mut suspects) = (Instant::now(), Suspects::default());
        let members = [member("a", &[PARTITION])];
        suspects.look(begun, &members, &BTreeMap::new());
        suspects.look(begun + GRACE / 2, &members, &committed_by("a"));
        assert!(suspects.look(begun + GRACE * 2, &members, &BTreeMap::new()).is_empty());
    }

    #[test]
    fn assignments_are_read() {
        let bytes = b"\0\x01\0\0\0\x02\0\x01a\0\0\0\x02\0\0\0\0\0\0\0\x07\0\x02bc\0\0\0\x01\0\0\0\x01\xff\xff\xff\xff";
        let expected = [("a", 0), ("a", 7), ("bc", 1)].map(|(topic, number)| (topic.to_owned(), number));
        assert_eq!(assignment(bytes), Some(expected.to_vec()));
        assert_eq!(assignment(b"\0\0\0\0\0\0\0\0\0\0"), Some(Vec::new()));
        for length in 0..bytes.len() - 4 {
            assert_eq!(assignment(&bytes[..length]), None, "{length} bytes");
        }
        assert_eq!(assignment(b"\0\0\x7f\xff\xff\xff"), None);
    }
}
