//! The group coordinator: generations, sessions, cooperative rebalances.

use std::collections::{BTreeMap, BTreeSet};

use kafka_scheduler::core::io::Partition;

/// A member that is silent for this long is out.
pub const SESSION_MS: i64 = 6_000;

/// What a member is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing new.
    Stable,
    /// A rebalance has begun: join it.
    Rebalance,
    /// The rebalance it joined is over.
    Synced(i32, BTreeSet<Partition>),
    /// It has been thrown out.
    Unknown,
}

#[derive(Debug)]
struct Member {
    seen_ms: i64,
    owned: BTreeSet<Partition>,
    joined: bool,
    synced: Option<BTreeSet<Partition>>,
}

/// The group.
#[derive(Debug)]
pub struct Group {
    partitions: BTreeSet<Partition>,
    generation: i32,
    members: BTreeMap<String, Member>,
    preparing: bool,
}

impl Group {
    pub(super) fn new(partitions: &[Partition]) -> Self {
        let partitions = partitions.iter().copied().collect();
        Self { partitions, generation: 0, members: BTreeMap::new(), preparing: false }
    }

    /// Whether a transactional offset commit from this member is taken.
    #[must_use]
    pub fn is_current(&self, member: &str, generation: i32) -> bool {
        self.generation == generation && self.members.contains_key(member)
    }

    /// Whether it is a member still.
    #[must_use]
    pub fn knows(&self, member: &str) -> bool {
        self.members.contains_key(member)
    }

    /// Joins, or joins again, with what the member still owns.
    pub fn join(&mut self, member: &str, owned: BTreeSet<Partition>, now_ms: i64) {
        self.preparing = true;
        self.members.insert(member.to_owned(), Member { seen_ms: now_ms, owned, joined: true, synced: None });
    }

    /// Leaves at once.
    pub fn leave(&mut self, member: &str) {
        self.preparing |= self.members.remove(member).is_some();
    }

    /// A sign of life.
    pub fn beat(&mut self, member: &str, now_ms: i64) -> Answer {
        let Some(known) = self.members.get_mut(member) else { return Answer::Unknown };
        known.seen_ms = now_ms;
        if let Some(assigned) = known.synced.take() {
            return Answer::Synced(self.generation, assigned);
        }
        if self.preparing && !known.joined { Answer::Rebalance } else { Answer::Stable }
    }

    pub(super) fn tick(&mut self, now_ms: i64) {
        let before = self.members.len();
        self.members.retain(|_, m| m.seen_ms + SESSION_MS > now_ms);
        self.preparing |= self.members.len() != before;
        if self.preparing && !self.members.is_empty() && self.members.values().all(|m| m.joined) {
            self.assign();
        }
    }

    /// Sticky, and cooperative: what moves is first taken, and given in the rebalance after its release.
    fn assign(&mut self) {
        self.preparing = false;
        self.generation += 1;
        let count = self.members.len();
        let owned: BTreeSet<Partition> = self.members.values().flat_map(|m| m.owned.iter().copied()).collect();
        let mut free: Vec<Partition> = self.partitions.difference(&owned).copied().collect();
        let mut extra = self.partitions.len() % count;
        let mut by_load: Vec<&mut Member> = self.members.values_mut().collect();
        by_load.sort_by_key(|m| std::cmp::Reverse(m.owned.len()));
        for member in by_load {
            let quota = self.partitions.len() / count + usize::from(extra > 0);
            extra = extra.saturating_sub(1);
            let mut assigned: BTreeSet<Partition> = member.owned.iter().copied().take(quota).collect();
            while assigned.len() < quota && !free.is_empty() {
                assigned.extend(free.pop());
            }
            member.joined = false;
            member.synced = Some(assigned);
        }
    }
}
