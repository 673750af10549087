//! Slots in the order in which they are due.

use std::collections::BTreeMap;

/// Ends a list.
const NONE: u32 = u32::MAX;

/// A list of slots for each second, in order of arrival; the links lie in an array of their own.
#[derive(Debug, Default)]
pub struct Timeline {
    seconds: BTreeMap<u64, List>,
    links: Vec<Link>,
}

#[derive(Clone, Copy, Debug)]
struct List {
    first: u32,
    last: u32,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    before: u32,
    after: u32,
}

impl Timeline {
    /// The earliest second with a slot, and its first slot.
    pub fn first(&self) -> Option<(u64, u32)> {
        self.seconds.first_key_value().map(|(due, list)| (*due, list.first))
    }

    /// Slots due before `end`, in order.
    pub fn before(&self, end: u64) -> Vec<u32> {
        let mut slots = Vec::new();
        for list in self.seconds.range(..end).map(|(_, list)| list) {
            let mut slot = list.first;
            while slot != NONE {
                slots.push(slot);
                slot = self.links[slot as usize].after;
            }
        }
        slots
    }

    /// How many slots are due at or before `end`.
    pub fn count_until(&self, end: u64) -> usize {
        self.before(end.saturating_add(1)).len()
    }

    /// Adds a slot that is not in the timeline.
    pub fn insert(&mut self, due: u64, slot: u32) {
        let at = slot as usize;
        if self.links.len() <= at {
            self.links.resize(at + 1, Link { before: NONE, after: NONE });
        }
        let list = self.seconds.entry(due).or_insert(List { first: slot, last: NONE });
        self.links[at] = Link { before: list.last, after: NONE };
        if list.last != NONE {
            self.links[list.last as usize].after = slot;
        }
        list.last = slot;
    }

    /// Takes out a slot that is in the timeline at `due`.
    pub fn remove(&mut self, due: u64, slot: u32) {
        let Link { before, after } = self.links[slot as usize];
        if before != NONE {
            self.links[before as usize].after = after;
        }
        if after != NONE {
            self.links[after as usize].before = before;
        }
        if before == NONE && after == NONE {
            self.seconds.remove(&due);
        } else if let Some(list) = self.seconds.get_mut(&due) {
            if before == NONE {
                list.first = after;
            }
            if after == NONE {
                list.last = before;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_come_in_due_order_and_within_a_second_as_they_arrived() {
        let mut timeline = Timeline::default();
        for (due, slot) in [(5, 0), (3, 1), (5, 2), (3, 3), (3, 4), (9, 5)] {
            timeline.insert(due, slot);
        }
        timeline.remove(3, 3);
        timeline.remove(9, 5);
        assert_eq!(timeline.before(10), [1, 4, 0, 2]);
        timeline.remove(3, 1);
        timeline.insert(3, 1);
        assert_eq!(timeline.first(), Some((3, 4)));
        assert_eq!(timeline.count_until(3), 2);
        for (due, slot) in [(3, 4), (3, 1), (5, 2), (5, 0)] {
            timeline.remove(due, slot);
        }
        assert_eq!(timeline.first(), None);
    }
}
