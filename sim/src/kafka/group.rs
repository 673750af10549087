//! The group coordinator: generations, sessions, cooperative rebalances.

use std::collections::{BTreeMap, BTreeSet};

use kafka_scheduler::core::io::TopicPartition;

/// `session.timeout.ms`.
pub const SESSION_TIMEOUT_MS: i64 = 6_000;

/// The answer to a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing new.
    Stable,
    /// A rebalance has begun: the member must join it.
    Rebalance,
    /// The rebalance that it joined is over: the generation and its partitions.
    Synced(i32, BTreeSet<TopicPartition>),
    /// It is not a member any more.
    Unknown,
}

#[derive(Debug)]
struct Member {
    seen_ms: i64,
    owned: BTreeSet<TopicPartition>,
    joined: bool,
    synced: Option<BTreeSet<TopicPartition>>,
    assigned: BTreeSet<TopicPartition>,
}

/// The consumer group.
#[derive(Debug)]
pub struct Group {
    partitions: BTreeSet<TopicPartition>,
    generation: i32,
    members: BTreeMap<String, Member>,
    preparing: bool,
    /// No rebalance ends before this.
    held_until_ms: i64,
}

impl Group {
    pub(super) fn new(partitions: &[TopicPartition]) -> Self {
        let partitions = partitions.iter().copied().collect();
        Self { partitions, generation: 0, members: BTreeMap::new(), preparing: false, held_until_ms: i64::MIN }
    }

    /// Whether this is a member in the group's generation.
    #[must_use]
    pub fn is_current(&self, member: &str, generation: i32) -> bool {
        self.generation == generation && self.members.contains_key(member)
    }

    /// Whether brokers accept a transactional offset commit: from a current member or, as older clients send it,
    /// without member and generation. They do not check which partitions the member owns.
    #[must_use]
    pub fn takes_in_transaction(&self, member: &str, generation: i32) -> bool {
        let blank = generation < 0 && (member.is_empty() || self.members.is_empty());
        blank || self.is_current(member, generation)
    }

    /// Whether brokers accept a plain offset commit: from a current member, or without member while the group is empty.
    #[must_use]
    pub fn takes_plain(&self, member: &str, generation: i32) -> bool {
        (generation < 0 && self.members.is_empty()) || self.is_current(member, generation)
    }

    /// Whether a member was assigned the partition, or has not yet released it. No broker checks this.
    #[must_use]
    pub fn holds(&self, member: &str, partition: TopicPartition) -> bool {
        let holds = |m: &Member| m.owned.contains(&partition) || m.assigned.contains(&partition);
        self.members.get(member).is_some_and(holds)
    }

    /// Whether the group has no members.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Returns the group's generation.
    #[must_use]
    pub fn generation(&self) -> i32 {
        self.generation
    }

    /// Returns until when a rebalance that could end is held up.
    #[must_use]
    pub fn is_held(&self, now_ms: i64) -> Option<i64> {
        Some(self.held_until_ms).filter(|until| *until > now_ms && self.is_complete())
    }

    /// Holds up every rebalance until `until_ms`.
    pub fn hold(&mut self, until_ms: i64) {
        self.held_until_ms = until_ms;
    }

    pub(super) fn deadline(&self) -> Option<i64> {
        let sessions = self.members.values().map(|m| m.seen_ms + SESSION_TIMEOUT_MS);
        let rebalance = self.is_complete().then_some(self.held_until_ms);
        sessions.chain(rebalance).min()
    }

    fn is_complete(&self) -> bool {
        self.preparing && self.members.values().all(|m| m.joined)
    }

    /// Whether this is a member.
    #[must_use]
    pub fn knows(&self, member: &str) -> bool {
        self.members.contains_key(member)
    }

    /// Joins, or joins again, with the partitions that the member still owns.
    pub fn join(&mut self, member: &str, owned: BTreeSet<TopicPartition>, now_ms: i64) {
        self.preparing = true;
        self.members.insert(
            member.to_owned(),
            Member { seen_ms: now_ms, owned, joined: true, synced: None, assigned: BTreeSet::new() },
        );
    }

    /// Removes a member.
    pub fn leave(&mut self, member: &str) {
        self.preparing |= self.members.remove(member).is_some();
    }

    pub(super) fn add_partition(&mut self, partition: TopicPartition) {
        self.preparing |= self.partitions.insert(partition);
    }

    /// Takes a heartbeat.
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
        self.members.retain(|_, m| m.seen_ms + SESSION_TIMEOUT_MS > now_ms);
        self.preparing |= self.members.len() != before;
        if self.is_complete() && self.held_until_ms <= now_ms {
            self.assign();
        }
    }

    /// Assigns like the cooperative sticky assignor: a partition that moves is revoked first, and assigned in the
    /// rebalance after its release.
    fn assign(&mut self) {
        self.preparing = false;
        self.generation += 1;
        let count = self.members.len();
        if count == 0 {
            // An empty group has a generation too.
            return;
        }
        let owned: BTreeSet<TopicPartition> = self.members.values().flat_map(|m| m.owned.iter().copied()).collect();
        let mut free: Vec<TopicPartition> = self.partitions.difference(&owned).copied().collect();
        let mut extra = self.partitions.len() % count;
        let mut by_load: Vec<&mut Member> = self.members.values_mut().collect();
        by_load.sort_by_key(|m| std::cmp::Reverse(m.owned.len()));
        for member in by_load {
            let quota = self.partitions.len() / count + usize::from(extra > 0);
            extra = extra.saturating_sub(1);
            let mut assigned: BTreeSet<TopicPartition> = member.owned.iter().copied().take(quota).collect();
            while assigned.len() < quota && !free.is_empty() {
                assigned.extend(free.pop());
            }
            member.joined = false;
            member.assigned.clone_from(&assigned);
            member.synced = Some(assigned);
        }
    }
}
