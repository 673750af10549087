//! Where schedules wait: lists of slots whose links lie in one array, so that waiting costs the same everywhere.

use std::collections::BTreeMap;
use std::ops::Range;

/// Ends a list.
const NONE: u32 = u32::MAX;

/// Numbers below this are seconds of small schedules: every second whose milliseconds fit into 63 bits is smaller.
const LARGE: u64 = 1 << 62;

/// From here on numbers are not seconds; between [`LARGE`] and here they are seconds of large schedules.
const OTHERS: u64 = 1 << 63;

/// Schedules of one size: when throughput is the limit, each size has batches of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    Small,
    Large,
}

impl Size {
    pub const ALL: [Self; 2] = [Self::Small, Self::Large];

    /// The numbers of its seconds.
    fn numbers(self) -> std::ops::Range<u64> {
        match self {
            Self::Small => 0..LARGE,
            Self::Large => LARGE..OTHERS,
        }
    }
}

/// A list of slots. Those that wait for a second come first, in due order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// For this second (since 1970), by size.
    Due(u64, Size),
    /// For a batch of those that were refused together with it.
    Quarantined,
    /// For this interned target to be usable.
    Target(u32),
    /// For another try: by the number of tries before, and by a share of the slots, which spreads them.
    Retry(u8, u8),
    /// For a place in a batch of dead letters.
    DeadLetter,
}

impl Queue {
    /// Its place among all of them: one number, since there may be nearly as many shelves as schedules.
    fn number(self) -> u64 {
        match self {
            Self::Due(second, size) => size.numbers().start + second.min(LARGE - 1),
            Self::Quarantined => OTHERS,
            Self::Target(target) => OTHERS | 1 << 32 | u64::from(target),
            Self::Retry(retries, jitter_slot) => OTHERS | 2 << 32 | u64::from(retries) << 8 | u64::from(jitter_slot),
            Self::DeadLetter => OTHERS | 3 << 32,
        }
    }
}

/// Every list, each in order of arrival.
#[derive(Debug, Default)]
pub struct WaitQueues {
    /// By number.
    lists: BTreeMap<u64, List>,
    links: Vec<Link>,
    /// For each size the first second and its first slot, which are asked for after every record.
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
    /// The earliest second with a slot of one of these sizes, and its first slot.
    pub fn first_due(&self, sizes: &[Size]) -> Option<(u64, u32)> {
        let first = |size: &Size| self.first[*size as usize];
        // Asked after every record, when there is nothing large most of the time.
        sizes.iter().map(first).reduce(|one, other| match (one, other) {
            (Some((second, _)), Some((earlier, _))) if earlier < second => other,
            (Some(_), _) => one,
            (None, _) => other,
        })?
    }

    /// The first slot on a shelf.
    pub fn first(&self, queue: Queue) -> Option<u32> {
        self.lists.get(&queue.number()).map(|list| list.first)
    }

    /// How many slots are on a shelf.
    pub fn count(&self, queue: Queue) -> usize {
        self.lists.get(&queue.number()).map_or(0, |list| list.count as usize)
    }

    /// The slots on a shelf, in order.
    pub fn of(&self, queue: Queue) -> impl Iterator<Item = u32> {
        self.from(self.lists.get(&queue.number()))
    }

    /// Slots due before `end`: the small ones, then the large ones, each in due order.
    pub fn due_before(&self, end: u64) -> impl Iterator<Item = u32> {
        Size::ALL.into_iter().flat_map(move |size| self.seconds(size, end)).flat_map(|(_, list)| self.from(Some(list)))
    }

    /// How many slots are due before `end`.
    pub fn count_before(&self, end: u64) -> usize {
        let lists = Size::ALL.into_iter().flat_map(|size| self.seconds(size, end));
        lists.map(|(_, list)| list.count as usize).sum()
    }

    /// Every slot of one size that waits for its second, in due order.
    pub fn due(&self, size: Size) -> impl Iterator<Item = u32> {
        self.seconds(size, u64::MAX).flat_map(|(_, list)| self.from(Some(list)))
    }

    /// Slots due at or after `begin`: the small ones, then the large ones, each in due order.
    pub fn due_from(&self, begin: u64) -> impl Iterator<Item = u32> {
        let lists = Size::ALL.into_iter().flat_map(move |size| {
            let Range { start, end } = size.numbers();
            self.lists.range(start.saturating_add(begin).min(end)..end)
        });
        lists.flat_map(|(_, list)| self.from(Some(list)))
    }

    fn seconds(&self, size: Size, end: u64) -> impl Iterator<Item = (&u64, &List)> {
        let Range { start, end: last } = size.numbers();
        self.lists.range(start..start.saturating_add(end).min(last))
    }

    fn from(&self, list: Option<&List>) -> impl Iterator<Item = u32> {
        let some = |slot: u32| (slot != NONE).then_some(slot);
        std::iter::successors(list.map(|list| list.first), move |slot| some(self.links[*slot as usize].after))
    }

    /// Adds a slot that is on no shelf.
    pub fn insert(&mut self, queue: Queue, slot: u32) {
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

    /// The same lists, with each slot where `places` says.
    pub fn moved(&self, places: &[u32]) -> Self {
        let mut moved = Self::default();
        for (number, list) in &self.lists {
            let slots: Vec<u32> = self.from(Some(list)).map(|slot| places[slot as usize]).collect();
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

    /// Takes out a slot that is on this shelf.
    pub fn remove(&mut self, queue: Queue, slot: u32) {
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
        queues.insert(Queue::Retry(0, 1), 1);
        queues.insert(Queue::DeadLetter, 2);
        queues.insert(Queue::Target(1), 3);
        assert_eq!((queues.first_due(&Size::ALL), queues.due_before(u64::MAX).count()), (None, 0));
        assert_eq!(queues.of(Queue::Target(1)).collect::<Vec<_>>(), [0, 3]);
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
