//! Where schedules wait: lists of slots whose links lie in one array, so that waiting costs the same everywhere.

use std::collections::BTreeMap;

/// Ends a list.
const NONE: u32 = u32::MAX;

/// Shelves that are no second's are numbered from here on: beyond every second whose milliseconds can be told.
const OTHERS: u64 = 1 << 63;

/// A list of slots. Those that wait for a second come first, in due order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shelf {
    /// For this second (since 1970).
    Due(u64),
    /// For a batch of those that were refused together with it.
    Suspect,
    /// For this interned target to be usable.
    Held(u32),
    /// For another try: by the number of tries before, and by a share of the slots, which spreads them.
    Parked(u8, u8),
    /// For a place in a batch of dead letters.
    Letter,
}

impl Shelf {
    /// Its place among all of them: one number, since there may be nearly as many shelves as schedules.
    fn number(self) -> u64 {
        match self {
            Self::Due(second) => second.min(OTHERS - 1),
            Self::Suspect => OTHERS,
            Self::Held(target) => OTHERS | 1 << 32 | u64::from(target),
            Self::Parked(tries, share) => OTHERS | 2 << 32 | u64::from(tries) << 8 | u64::from(share),
            Self::Letter => OTHERS | 3 << 32,
        }
    }
}

/// Every list, each in order of arrival.
#[derive(Debug, Default)]
pub struct Shelves {
    /// By number.
    lists: BTreeMap<u64, List>,
    links: Vec<Link>,
    /// The first of the lists, which is asked for after every record.
    first: Option<(u64, u32)>,
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

impl Shelves {
    /// The earliest second with a slot, and its first slot.
    pub fn first_due(&self) -> Option<(u64, u32)> {
        self.first.filter(|(number, _)| *number < OTHERS)
    }

    /// The first slot on a shelf.
    pub fn first(&self, shelf: Shelf) -> Option<u32> {
        self.lists.get(&shelf.number()).map(|list| list.first)
    }

    /// How many slots are on a shelf.
    pub fn count(&self, shelf: Shelf) -> usize {
        self.lists.get(&shelf.number()).map_or(0, |list| list.count as usize)
    }

    /// The slots on a shelf, in order.
    pub fn on(&self, shelf: Shelf) -> impl Iterator<Item = u32> {
        self.from(self.lists.get(&shelf.number()))
    }

    /// Slots due before `end`, in order.
    pub fn due_before(&self, end: u64) -> impl Iterator<Item = u32> {
        self.lists.range(..end.min(OTHERS)).flat_map(|(_, list)| self.from(Some(list)))
    }

    /// How many slots are due before `end`.
    pub fn count_before(&self, end: u64) -> usize {
        self.lists.range(..end.min(OTHERS)).map(|(_, list)| list.count as usize).sum()
    }

    /// Every slot that waits for its second, in due order.
    pub fn due(&self) -> impl Iterator<Item = u32> {
        self.due_from(0)
    }

    /// Slots due at or after `begin`, in order.
    pub fn due_from(&self, begin: u64) -> impl Iterator<Item = u32> {
        self.lists.range(begin.min(OTHERS)..OTHERS).flat_map(|(_, list)| self.from(Some(list)))
    }

    fn from(&self, list: Option<&List>) -> impl Iterator<Item = u32> {
        let some = |slot: u32| (slot != NONE).then_some(slot);
        std::iter::successors(list.map(|list| list.first), move |slot| some(self.links[*slot as usize].after))
    }

    /// Adds a slot that is on no shelf.
    pub fn insert(&mut self, shelf: Shelf, slot: u32) {
        let at = slot as usize;
        if self.links.len() <= at {
            self.links.resize(at + 1, Link { before: NONE, after: NONE });
        }
        let number = shelf.number();
        let list = self.lists.entry(number).or_insert(List { first: slot, last: NONE, count: 0 });
        self.links[at] = Link { before: list.last, after: NONE };
        if list.last != NONE {
            self.links[list.last as usize].after = slot;
        }
        list.last = slot;
        list.count += 1;
        if self.first.is_none_or(|(first, _)| number < first) {
            self.first = Some((number, slot));
        }
    }

    /// Takes out a slot that is on this shelf.
    pub fn remove(&mut self, shelf: Shelf, slot: u32) {
        let Link { before, after } = self.links[slot as usize];
        if before != NONE {
            self.links[before as usize].after = after;
        }
        if after != NONE {
            self.links[after as usize].before = before;
        }
        if before == NONE && after == NONE {
            self.lists.remove(&shelf.number());
        } else if let Some(list) = self.lists.get_mut(&shelf.number()) {
            list.count -= 1;
            if before == NONE {
                list.first = after;
            }
            if after == NONE {
                list.last = before;
            }
        }
        if self.first.is_some_and(|(_, first)| first == slot) {
            self.first = self.lists.first_key_value().map(|(number, list)| (*number, list.first));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_come_in_due_order_and_within_a_second_as_they_arrived() {
        let mut shelves = Shelves::default();
        for (due, slot) in [(5, 0), (3, 1), (5, 2), (3, 3), (3, 4), (9, 5)] {
            shelves.insert(Shelf::Due(due), slot);
        }
        shelves.remove(Shelf::Due(3), 3);
        shelves.remove(Shelf::Due(9), 5);
        assert_eq!(shelves.due_before(10).collect::<Vec<_>>(), [1, 4, 0, 2]);
        shelves.remove(Shelf::Due(3), 1);
        shelves.insert(Shelf::Due(3), 1);
        assert_eq!(shelves.first_due(), Some((3, 4)));
        assert_eq!((shelves.due_before(4).count(), shelves.count_before(4), shelves.count_before(u64::MAX)), (2, 2, 4));
        for (due, slot) in [(3, 4), (3, 1), (5, 2), (5, 0)] {
            shelves.remove(Shelf::Due(due), slot);
        }
        assert_eq!(shelves.first_due(), None);
    }

    #[test]
    fn shelves_do_not_mix() {
        let mut shelves = Shelves::default();
        shelves.insert(Shelf::Held(1), 0);
        shelves.insert(Shelf::Parked(0, 1), 1);
        shelves.insert(Shelf::Letter, 2);
        shelves.insert(Shelf::Held(1), 3);
        assert_eq!((shelves.first_due(), shelves.due_before(u64::MAX).count()), (None, 0));
        assert_eq!(shelves.on(Shelf::Held(1)).collect::<Vec<_>>(), [0, 3]);
        shelves.insert(Shelf::Due(7), 4);
        assert_eq!((shelves.first_due(), shelves.first(Shelf::Letter)), (Some((7, 4)), Some(2)));
    }
}
