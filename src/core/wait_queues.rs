//! Queues of slots: linked lists whose links are in one array, so each operation on a list takes constant time.

use std::collections::BTreeMap;
use std::ops::Range;

/// The slot number that ends a list.
const NONE: u32 = u32::MAX;

/// Queue numbers below this are due seconds of small schedules; valid seconds are always smaller.
const LARGE: u64 = 1 << 62;

/// Queue numbers from [`LARGE`] up to this are due seconds of large schedules; numbers from here up are other queues.
const OTHERS: u64 = 1 << 63;

/// The size of a schedule's payload: while throughput is the limit, each size has batches of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    Small,
    Large,
}

impl Size {
    pub(super) const ALL: [Self; 2] = [Self::Small, Self::Large];

    /// Returns the queue numbers of this size's due seconds.
    fn numbers(self) -> std::ops::Range<u64> {
        match self {
            Self::Small => 0..LARGE,
            Self::Large => LARGE..OTHERS,
        }
    }
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
    /// Its slots wait for this due second since 1970, by size.
    Due(u64, Size),
    /// Its slots wait for a batch of isolated schedules.
    Isolated,
    /// Its slots wait for the target with this number to take records.
    Target(u32),
    /// Its slots wait for a retry.
    Retry(RetryGroup),
    /// Its slots wait for a batch of dead letters.
    DeadLetter,
}

impl Queue {
    /// Returns its number, a small map key: there may be nearly as many queues as schedules.
    fn number(self) -> u64 {
        match self {
            Self::Due(second, size) => size.numbers().start + second.min(LARGE - 1),
            Self::Isolated => OTHERS,
            Self::Target(target) => OTHERS | 1 << 32 | u64::from(target),
            Self::Retry(RetryGroup { retries, jitter_group }) => {
                OTHERS | 2 << 32 | u64::from(retries) << 8 | u64::from(jitter_group)
            }
            Self::DeadLetter => OTHERS | 3 << 32,
        }
    }
}

/// All queues, each in order of arrival.
#[derive(Debug, Default)]
pub(super) struct WaitQueues {
    /// By the queue's number.
    lists: BTreeMap<u64, List>,
    links: Vec<Link>,
    /// By size, the first due second and its first slot: a cache, because it is needed after every record.
    first: [Option<(u64, u32)>; Size::ALL.len()],
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
    /// Returns the earliest due second with a slot of these sizes, and its first slot.
    pub(super) fn first_due(&self, sizes: &[Size]) -> Option<(u64, u32)> {
        let first = |size: &Size| self.first[*size as usize];
        // Not a minimum over an iterator: this runs after every record, and mostly there is no large schedule.
        sizes.iter().map(first).reduce(|one, other| match (one, other) {
            (Some((second, _)), Some((earlier, _))) if earlier < second => other,
            (Some(_), _) => one,
            (None, _) => other,
        })?
    }

    /// Returns the first slot of a queue.
    pub(super) fn first(&self, queue: Queue) -> Option<u32> {
        self.lists.get(&queue.number()).map(|list| list.first)
    }

    /// Returns the number of slots in a queue.
    pub(super) fn count(&self, queue: Queue) -> usize {
        self.lists.get(&queue.number()).map_or(0, |list| list.count as usize)
    }

    /// Iterates over the slots of a queue in order.
    pub(super) fn slots_of(&self, queue: Queue) -> impl Iterator<Item = u32> {
        self.iter_list(self.lists.get(&queue.number()))
    }

    /// Iterates over slots due before the second `end`: the small ones, then the large ones, each in due order.
    pub(super) fn due_before(&self, end: u64) -> impl Iterator<Item = u32> {
        Size::ALL
            .into_iter()
            .flat_map(move |size| self.seconds(size, end))
            .flat_map(|(_, list)| self.iter_list(Some(list)))
    }

    /// Returns the number of slots due before the second `end`.
    pub(super) fn count_before(&self, end: u64) -> usize {
        let lists = Size::ALL.into_iter().flat_map(|size| self.seconds(size, end));
        lists.map(|(_, list)| list.count as usize).sum()
    }

    /// Iterates over the slots of one size that wait for their due time, in due order.
    pub(super) fn due(&self, size: Size) -> impl Iterator<Item = u32> {
        self.seconds(size, u64::MAX).flat_map(|(_, list)| self.iter_list(Some(list)))
    }

    /// Iterates over slots due from the second `begin` on: the small ones, then the large ones, each in due order.
    pub(super) fn due_from(&self, begin: u64) -> impl Iterator<Item = u32> {
        let lists = Size::ALL.into_iter().flat_map(move |size| {
            let Range { start, end } = size.numbers();
            self.lists.range(start.saturating_add(begin).min(end)..end)
        });
        lists.flat_map(|(_, list)| self.iter_list(Some(list)))
    }

    fn seconds(&self, size: Size, end: u64) -> impl Iterator<Item = (&u64, &List)> {
        let Range { start, end: last } = size.numbers();
        self.lists.range(start..start.saturating_add(end).min(last))
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
        let number = queue.number();
        let list = self.lists.entry(number).or_insert(List { first: slot, last: NONE, count: 0 });
        self.links[at] = Link { before: list.last, after: NONE };
        if list.last != NONE {
            self.links[list.last as usize].after = slot;
        }
        list.last = slot;
        list.count += 1;
        if let Queue::Due(second, size) = queue {
            let first = &mut self.first[size as usize];
            if first.is_none_or(|(first, _)| second < first) {
                *first = Some((second, slot));
            }
        }
    }

    /// Returns the same queues with each slot replaced by `places[slot]`.
    pub(super) fn moved(&self, places: &[u32]) -> Self {
        let mut moved = Self::default();
        for (number, list) in &self.lists {
            let slots: Vec<u32> = self.iter_list(Some(list)).map(|slot| places[slot as usize]).collect();
            for (at, slot) in slots.iter().enumerate() {
                let needed = *slot as usize + 1;
                if moved.links.len() < needed {
                    moved.links.resize(needed, Link { before: NONE, after: NONE });
                }
                let before = if at == 0 { NONE } else { slots[at - 1] };
                let after = slots.get(at + 1).copied().unwrap_or(NONE);
                moved.links[*slot as usize] = Link { before, after };
            }
            let (first, last) = (slots[0], slots[slots.len() - 1]);
            moved.lists.insert(*number, List { first, last, count: list.count });
        }
        for size in Size::ALL {
            moved.first[size as usize] = moved.first_of(size);
        }
        moved
    }

    /// Removes a slot that is in this queue.
    pub(super) fn remove(&mut self, queue: Queue, slot: u32) {
        let Link { before, after } = self.links[slot as usize];
        if before != NONE {
            self.links[before as usize].after = after;
        }
        if after != NONE {
            self.links[after as usize].before = before;
        }
        if before == NONE && after == NONE {
            self.lists.remove(&queue.number());
        } else if let Some(list) = self.lists.get_mut(&queue.number()) {
            list.count -= 1;
            if before == NONE {
                list.first = after;
            }
            if after == NONE {
                list.last = before;
            }
        }
        if let Queue::Due(second, size) = queue
            && self.first[size as usize].is_some_and(|(_, first)| first == slot)
        {
            self.first[size as usize] = if after == NONE { self.first_of(size) } else { Some((second, after)) };
        }
    }

    fn first_of(&self, size: Size) -> Option<(u64, u32)> {
        let first = self.seconds(size, u64::MAX).next();
        first.map(|(number, list)| (number - size.numbers().start, list.first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_come_in_due_order_and_within_a_second_as_they_arrived() {
        let mut queues = WaitQueues::default();
        for (due, slot) in [(5, 0), (3, 1), (5, 2), (3, 3), (3, 4), (9, 5)] {
            queues.insert(Queue::Due(due, Size::Small), slot);
        }
        queues.remove(Queue::Due(3, Size::Small), 3);
        queues.remove(Queue::Due(9, Size::Small), 5);
        assert_eq!(queues.due_before(10).collect::<Vec<_>>(), [1, 4, 0, 2]);
        queues.remove(Queue::Due(3, Size::Small), 1);
        queues.insert(Queue::Due(3, Size::Small), 1);
        assert_eq!(queues.first_due(&Size::ALL), Some((3, 4)));
        assert_eq!((queues.due_before(4).count(), queues.count_before(4), queues.count_before(u64::MAX)), (2, 2, 4));
        for (due, slot) in [(3, 4), (3, 1), (5, 2), (5, 0)] {
            queues.remove(Queue::Due(due, Size::Small), slot);
        }
        assert_eq!(queues.first_due(&Size::ALL), None);
    }

    #[test]
    fn queues_do_not_mix() {
        let mut queues = WaitQueues::default();
        queues.insert(Queue::Target(1), 0);
        queues.insert(Queue::Retry(RetryGroup { retries: 0, jitter_group: 1 }), 1);
        queues.insert(Queue::DeadLetter, 2);
        queues.insert(Queue::Target(1), 3);
        assert_eq!((queues.first_due(&Size::ALL), queues.due_before(u64::MAX).count()), (None, 0));
        assert_eq!(queues.slots_of(Queue::Target(1)).collect::<Vec<_>>(), [0, 3]);
        queues.insert(Queue::Due(7, Size::Small), 4);
        assert_eq!((queues.first_due(&Size::ALL), queues.first(Queue::DeadLetter)), (Some((7, 4)), Some(2)));
    }

    #[test]
    fn sizes_are_queued_apart_and_merged_in_due_order() {
        let mut queues = WaitQueues::default();
        for (due, size, slot) in [(5, Size::Large, 0), (7, Size::Small, 1), (5, Size::Small, 2), (3, Size::Large, 3)] {
            queues.insert(Queue::Due(due, size), slot);
        }
        assert_eq!(queues.first_due(&[Size::Small]), Some((5, 2)));
        assert_eq!(queues.first_due(&[Size::Large]), Some((3, 3)));
        assert_eq!(queues.first_due(&Size::ALL), Some((3, 3)));
        assert_eq!((queues.count_before(6), queues.due_before(6).collect::<Vec<_>>()), (3, vec![2, 3, 0]));
        queues.remove(Queue::Due(3, Size::Large), 3);
        assert_eq!(queues.first_due(&Size::ALL).map(|(second, _)| second), Some(5));
        queues.remove(Queue::Due(5, Size::Large), 0);
        assert_eq!((queues.first_due(&[Size::Large]), queues.due(Size::Small).collect::<Vec<_>>()), (None, vec![2, 1]));
    }
}
