//! Queues of slots: linked lists whose links are in one array, so each operation on a list takes constant time.
//!
//! Schedules that are due within the same second share a list until that second begins, so a due time in milliseconds
//! costs no more memory than one in seconds. Then the second is *opened*: its slots move to a list for each
//! millisecond.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::due::Due;

/// The slot number that ends a list.
const NONE: u32 = u32::MAX;

/// The size of a schedule's payload: while throughput is the limit, each size has batches of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    Small,
    Large,
}

impl Size {
    pub(super) const ALL: [Self; 2] = [Self::Small, Self::Large];
}

/// The entries that are retried at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RetryGroup {
    /// Number of retries so far.
    pub(super) retries: u8,
    /// One of the groups of entries with so many retries: they are not all retried at once.
    pub(super) jitter_group: u8,
}

/// A queue, by what its slots wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queue {
    /// Its slots wait for this due time, by size.
    Due(Due, Size),
    /// Its slots wait for a batch of isolated schedules.
    Isolated,
    /// Its slots wait for the target with this number to take records.
    Target(u32),
    /// Its slots wait for a retry.
    Retry(RetryGroup),
    /// Its slots wait for a batch of dead letters.
    DeadLetter,
    /// Its slots wait for the calendar.
    Date,
    /// Its slots wait until no record for their progress keys is outstanding.
    Progress,
}

/// The key of a list of due slots, in due order: twice the millisecond in which all of them are due or, for an unopened
/// second, twice its first millisecond plus one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct DueKey(u64);

impl DueKey {
    fn exact(ms: u64) -> Self {
        // The milliseconds of a due time fit into 63 bits.
        Self(ms.saturating_mul(2))
    }

    fn unopened(second: u64) -> Self {
        Self(Self::exact(second.saturating_mul(1_000)).0 | 1)
    }

    fn is_unopened(self) -> bool {
        self.0 % 2 == 1
    }

    /// Returns the earliest millisecond in which a slot of the list may be due.
    fn first_ms(self) -> u64 {
        self.0 / 2
    }
}

/// All queues, each in order of arrival.
#[derive(Debug, Default)]
pub(super) struct WaitQueues {
    due: [DueQueues; Size::ALL.len()],
    /// By the queue's number.
    others: BTreeMap<u64, List>,
    links: Vec<Link>,
}

/// The queues of due slots of one size.
#[derive(Debug, Default)]
struct DueQueues {
    lists: BTreeMap<DueKey, List>,
    /// The first list and its first slot: a cache, because it is needed after every record.
    first: Option<(DueKey, u32)>,
    /// The last second that was opened: no unopened list is at or before it.
    opened_s: Option<u64>,
}

impl DueQueues {
    fn key(&self, due: Due) -> DueKey {
        let second = due.epoch_s();
        if due.is_whole_second() || self.opened_s.is_some_and(|opened| second <= opened) {
            DueKey::exact(due.epoch_ms())
        } else {
            DueKey::unopened(second)
        }
    }

    fn find_first(&mut self) {
        self.first = self.lists.first_key_value().map(|(key, list)| (*key, list.first));
    }

    fn before(&self, end_s: u64) -> impl Iterator<Item = &List> {
        self.lists.range(..DueKey::exact(end_s.saturating_mul(1_000))).map(|(_, list)| list)
    }
}

#[derive(Clone, Copy, Debug)]
struct List {
    first: u32,
    last: u32,
    count: u32,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    before: u32,
    after: u32,
}

impl WaitQueues {
    /// Returns the earliest time at which a slot of these sizes may be due: the beginning of its second while that is
    /// unopened.
    pub(super) fn next_due(&self, sizes: &[Size]) -> Option<Due> {
        self.first_list(sizes).and_then(|(key, _, _)| Due::from_epoch_ms(key.first_ms()))
    }

    /// Returns the first slot of these sizes that is due by `now_ms`. `due_of` returns the due time of a slot.
    pub(super) fn first_due(&mut self, now_ms: u64, sizes: &[Size], due_of: impl Fn(u32) -> Due) -> Option<u32> {
        loop {
            let (key, slot, size) = self.first_list(sizes).filter(|(key, ..)| key.first_ms() <= now_ms)?;
            if !key.is_unopened() {
                return Some(slot);
            }
            self.open(key, size, &due_of);
        }
    }

    fn first_list(&self, sizes: &[Size]) -> Option<(DueKey, u32, Size)> {
        let first = |size: &Size| self.due[*size as usize].first.map(|(key, slot)| (key, slot, *size));
        // Not a minimum over an iterator: this runs after every record, and mostly there is no large schedule.
        sizes.iter().map(first).reduce(|one, other| match (one, other) {
            (Some((key, ..)), Some((earlier, ..))) if earlier < key => other,
            (Some(_), _) => one,
            (None, _) => other,
        })?
    }

    /// Moves the slots of the first list, which is unopened, to a list for each millisecond.
    fn open(&mut self, key: DueKey, size: Size, due_of: impl Fn(u32) -> Due) {
        let queues = &mut self.due[size as usize];
        queues.opened_s = Some(key.first_ms() / 1_000);
        let mut next = queues.lists.remove(&key).map_or(NONE, |list| list.first);
        while next != NONE {
            let slot = next;
            next = self.links[slot as usize].after;
            let exact = DueKey::exact(due_of(slot).epoch_ms());
            append(self.due[size as usize].lists.entry(exact), &mut self.links, slot);
        }
        self.due[size as usize].find_first();
    }

    /// Returns the first slot of a queue of slots that do not wait for their due time.
    pub(super) fn first(&self, queue: Queue) -> Option<u32> {
        self.list(queue).map(|list| list.first)
    }

    /// Returns the number of slots in a queue.
    pub(super) fn count(&self, queue: Queue) -> usize {
        self.list(queue).map_or(0, |list| list.count as usize)
    }

    /// Iterates over the slots of a queue in order.
    pub(super) fn slots_of(&self, queue: Queue) -> impl Iterator<Item = u32> {
        self.iter_list(self.list(queue))
    }

    fn list(&self, queue: Queue) -> Option<&List> {
        match queue {
            Queue::Due(due, size) => {
                let queues = &self.due[size as usize];
                queues.lists.get(&queues.key(due))
            }
            other => self.others.get(&number(other)),
        }
    }

    /// Iterates over slots due before the second `end_s`: the small ones, then the large ones, by due second.
    pub(super) fn due_before(&self, end_s: u64) -> impl Iterator<Item = u32> {
        self.due.iter().flat_map(move |queues| queues.before(end_s)).flat_map(|list| self.iter_list(Some(list)))
    }

    /// Returns the number of slots due by `now_ms`. Those of the present second count once it is opened.
    pub(super) fn count_due(&self, now_ms: u64) -> usize {
        let is_counted = |key: &DueKey| !key.is_unopened() || key.first_ms() / 1_000 < now_ms / 1_000;
        let lists = self.due.iter().flat_map(|queues| queues.lists.range(..=DueKey::exact(now_ms)));
        lists.filter(|(key, _)| is_counted(key)).map(|(_, list)| list.count as usize).sum()
    }

    /// Iterates over the slots of one size that wait for their due time, in groups: each group before the next in due
    /// order, in no order within.
    pub(super) fn due_groups(&self, size: Size) -> impl Iterator<Item = impl Iterator<Item = u32>> {
        self.due[size as usize].lists.values().map(|list| self.iter_list(Some(list)))
    }

    /// Iterates over slots due from the second `begin_s` on: the small ones, then the large ones, by due second.
    pub(super) fn due_from(&self, begin_s: u64) -> impl Iterator<Item = u32> {
        let begin = DueKey::exact(begin_s.saturating_mul(1_000));
        let lists = self.due.iter().flat_map(move |queues| queues.lists.range(begin..));
        lists.flat_map(|(_, list)| self.iter_list(Some(list)))
    }

    fn iter_list(&self, list: Option<&List>) -> impl Iterator<Item = u32> {
        let some = |slot: u32| (slot != NONE).then_some(slot);
        std::iter::successors(list.map(|list| list.first), move |slot| some(self.links[*slot as usize].after))
    }

    /// Adds a slot that is in no queue.
    pub(super) fn insert(&mut self, queue: Queue, slot: u32) {
        let at = slot as usize;
        if self.links.len() <= at {
            self.links.resize(at + 1, Link { before: NONE, after: NONE });
        }
        let Queue::Due(due, size) = queue else {
            return append(self.others.entry(number(queue)), &mut self.links, slot);
        };
        let queues = &mut self.due[size as usize];
        let key = queues.key(due);
        append(queues.lists.entry(key), &mut self.links, slot);
        if queues.first.is_none_or(|(first, _)| key < first) {
            queues.first = Some((key, slot));
        }
    }

    /// Returns the same queues with each slot replaced by `places[slot]`.
    pub(super) fn moved(&self, places: &[u32]) -> Self {
        let mut links = Vec::new();
        let mut moved = |list: &List| {
            let slots: Vec<u32> = self.iter_list(Some(list)).map(|slot| places[slot as usize]).collect();
            for (at, slot) in slots.iter().enumerate() {
                let needed = *slot as usize + 1;
                if links.len() < needed {
                    links.resize(needed, Link { before: NONE, after: NONE });
                }
                let before = if at == 0 { NONE } else { slots[at - 1] };
                let after = slots.get(at + 1).copied().unwrap_or(NONE);
                links[*slot as usize] = Link { before, after };
            }
            List { first: slots[0], last: slots[slots.len() - 1], count: list.count }
        };
        let due = self.due.each_ref().map(|queues| {
            let lists = queues.lists.iter().map(|(key, list)| (*key, moved(list))).collect();
            let mut queues = DueQueues { lists, first: None, opened_s: queues.opened_s };
            queues.find_first();
            queues
        });
        let others = self.others.iter().map(|(number, list)| (*number, moved(list))).collect();
        Self { due, others, links }
    }

    /// Removes a slot that is in this queue.
    pub(super) fn remove(&mut self, queue: Queue, slot: u32) {
        let Queue::Due(due, size) = queue else {
            unlink(&mut self.others, number(queue), &mut self.links, slot);
            return;
        };
        let queues = &mut self.due[size as usize];
        let key = queues.key(due);
        let after = unlink(&mut queues.lists, key, &mut self.links, slot);
        if queues.first.is_some_and(|(_, first)| first == slot) {
            match after {
                Some(after) => queues.first = Some((key, after)),
                None => queues.find_first(),
            }
        }
    }
}

/// Returns the number of a queue of slots that do not wait for their due time.
fn number(queue: Queue) -> u64 {
    match queue {
        Queue::Due(due, _) => due.epoch_ms(),
        Queue::Isolated => 0,
        Queue::Target(target) => 1 << 32 | u64::from(target),
        Queue::Retry(RetryGroup { retries, jitter_group }) => {
            2 << 32 | u64::from(retries) << 8 | u64::from(jitter_group)
        }
        Queue::DeadLetter => 3 << 32,
        Queue::Date => 4 << 32,
        Queue::Progress => 5 << 32,
    }
}

/// Adds a slot to the end of a list.
fn append<K: Ord>(entry: Entry<'_, K, List>, links: &mut [Link], slot: u32) {
    let list = entry.or_insert(List { first: slot, last: NONE, count: 0 });
    links[slot as usize] = Link { before: list.last, after: NONE };
    if list.last != NONE {
        links[list.last as usize].after = slot;
    }
    list.last = slot;
    list.count += 1;
}

/// Removes a slot from a list, and the list with its last slot. Returns the slot after it in the list.
fn unlink<K: Ord>(lists: &mut BTreeMap<K, List>, key: K, links: &mut [Link], slot: u32) -> Option<u32> {
    let Link { before, after } = links[slot as usize];
    if before != NONE {
        links[before as usize].after = after;
    }
    if after != NONE {
        links[after as usize].before = before;
    }
    if before == NONE && after == NONE {
        lists.remove(&key);
    } else if let Some(list) = lists.get_mut(&key) {
        list.count -= 1;
        if before == NONE {
            list.first = after;
        }
        if after == NONE {
            list.last = before;
        }
    }
    (after != NONE).then_some(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(ms: u64) -> Due {
        Due::from_epoch_ms(ms).expect("it fits")
    }

    /// Inserts slots 0, 1, … with these due times.
    fn queues(due_ms: &[u64]) -> WaitQueues {
        let mut queues = WaitQueues::default();
        for (slot, ms) in due_ms.iter().enumerate() {
            queues.insert(Queue::Due(due(*ms), Size::Small), slot as u32);
        }
        queues
    }

    /// Takes all slots that are due by `now_ms`, in order.
    fn take(queues: &mut WaitQueues, now_ms: u64, due_ms: &[u64]) -> Vec<u32> {
        let due_of = |slot: u32| due(due_ms[slot as usize]);
        let take_one = |queues: &mut WaitQueues| {
            let slot = queues.first_due(now_ms, &Size::ALL, due_of)?;
            queues.remove(Queue::Due(due_of(slot), Size::Small), slot);
            Some(slot)
        };
        std::iter::from_fn(|| take_one(queues)).collect()
    }

    #[test]
    fn slots_come_in_due_order_and_within_a_second_as_they_arrived() {
        let mut queues = queues(&[5_000, 3_000, 5_000, 3_000, 3_000, 9_000]);
        queues.remove(Queue::Due(due(3_000), Size::Small), 3);
        queues.remove(Queue::Due(due(9_000), Size::Small), 5);
        assert_eq!(queues.due_before(10).collect::<Vec<_>>(), [1, 4, 0, 2]);
        queues.remove(Queue::Due(due(3_000), Size::Small), 1);
        queues.insert(Queue::Due(due(3_000), Size::Small), 1);
        assert_eq!(queues.next_due(&Size::ALL), Some(due(3_000)));
        assert_eq!((queues.due_before(4).count(), queues.count_due(3_999), queues.count_due(u64::MAX)), (2, 2, 4));
        for (ms, slot) in [(3_000, 4), (3_000, 1), (5_000, 2), (5_000, 0)] {
            queues.remove(Queue::Due(due(ms), Size::Small), slot);
        }
        assert_eq!(queues.next_due(&Size::ALL), None);
    }

    #[test]
    fn milliseconds_are_ordered_once_their_second_begins() {
        let due_ms = [7_900, 7_100, 7_000, 7_100, 6_999, 8_001, 7_500];
        let mut queues = queues(&due_ms);
        assert_eq!(queues.due[0].lists.len(), 4, "a second has one list, whatever its milliseconds");
        assert_eq!(take(&mut queues, 6_998, &due_ms), [0_u32; 0]);
        assert_eq!(take(&mut queues, 7_099, &due_ms), [4, 2]);
        assert_eq!((queues.next_due(&Size::ALL), queues.count_due(7_500)), (Some(due(7_100)), 3));
        queues.insert(Queue::Due(due(7_000), Size::Small), 2);
        assert_eq!(take(&mut queues, 7_500, &due_ms), [2, 1, 3, 6], "one that returns is in order too");
        assert_eq!(take(&mut queues, 8_000, &due_ms), [0]);
        assert_eq!(queues.next_due(&Size::ALL), Some(due(8_001)), "its second has begun");
        assert_eq!(take(&mut queues, 8_001, &due_ms), [5]);
    }

    #[test]
    fn an_unopened_second_is_due_from_its_beginning_at_the_earliest() {
        let mut queues = queues(&[7_900, 7_100]);
        assert_eq!((queues.next_due(&Size::ALL), queues.count_due(7_950)), (Some(due(7_000)), 0));
        assert_eq!(queues.first_due(7_000, &Size::ALL, |slot| due([7_900, 7_100][slot as usize])), None);
        assert_eq!((queues.next_due(&Size::ALL), queues.count_due(7_950)), (Some(due(7_100)), 2));
    }

    #[test]
    fn all_due_times_fit() {
        let last = Due::from_epoch_ms(i64::MAX as u64).expect("it fits");
        let mut queues = WaitQueues::default();
        queues.insert(Queue::Due(last, Size::Small), 0);
        assert_eq!(queues.first_due(last.epoch_ms() - 1, &Size::ALL, |_| last), None);
        assert_eq!(queues.first_due(last.epoch_ms(), &Size::ALL, |_| last), Some(0));
        assert_eq!((queues.due_before(u64::MAX).count(), queues.due_from(last.epoch_s()).count()), (1, 1));
    }

    #[test]
    fn queues_do_not_mix() {
        let mut queues = WaitQueues::default();
        queues.insert(Queue::Target(1), 0);
        queues.insert(Queue::Retry(RetryGroup { retries: 0, jitter_group: 1 }), 1);
        queues.insert(Queue::DeadLetter, 2);
        queues.insert(Queue::Target(1), 3);
        assert_eq!((queues.next_due(&Size::ALL), queues.due_before(u64::MAX).count()), (None, 0));
        assert_eq!(queues.slots_of(Queue::Target(1)).collect::<Vec<_>>(), [0, 3]);
        queues.insert(Queue::Due(due(7_000), Size::Small), 4);
        assert_eq!((queues.next_due(&Size::ALL), queues.first(Queue::DeadLetter)), (Some(due(7_000)), Some(2)));
    }

    #[test]
    fn sizes_are_queued_apart_and_merged_in_due_order() {
        let mut queues = WaitQueues::default();
        for (s, size, slot) in [(5, Size::Large, 0), (7, Size::Small, 1), (5, Size::Small, 2), (3, Size::Large, 3)] {
            queues.insert(Queue::Due(due(s * 1_000), size), slot);
        }
        let mut first = |now_s: u64, sizes: &[Size]| queues.first_due(now_s * 1_000, sizes, |_| unreachable!());
        assert_eq!(first(9, &[Size::Small]), Some(2));
        assert_eq!(first(9, &[Size::Large]), Some(3));
        assert_eq!(first(9, &Size::ALL), Some(3));
        assert_eq!((queues.count_due(5_000), queues.due_before(6).collect::<Vec<_>>()), (3, vec![2, 3, 0]));
        queues.remove(Queue::Due(due(3_000), Size::Large), 3);
        assert_eq!(queues.next_due(&Size::ALL), Some(due(5_000)));
        queues.remove(Queue::Due(due(5_000), Size::Large), 0);
        let small: Vec<u32> = queues.due_groups(Size::Small).flatten().collect();
        assert_eq!((queues.next_due(&[Size::Large]), small), (None, vec![2, 1]));
    }
}
