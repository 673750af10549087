//! Finds the slot of a key: a hash table of slot numbers that stores no keys.

/// The slot number of a free place. No partition has this many entries.
const FREE: u32 = u32::MAX;

/// Fewest places of a table that is not empty, so small tables do not grow at every insertion.
const PLACES_MIN: usize = 16;

/// A table with open addressing and linear probing. A place holds half of the hash and the slot in eight bytes.
///
/// Places are ordered by hash, so growing reads the old table and writes the new one from end to end. That makes it
/// cheap to grow by half, and a table that has grown is at least 7/12 full.
#[derive(Debug, Default)]
pub(super) struct KeyIndex {
    places: Vec<(u32, u32)>,
    used: usize,
}

impl KeyIndex {
    /// Returns the slot with this hash for which `is_it` returns true.
    pub(super) fn find(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        self.probe(hash).map(|at| self.places[at].1).find(|slot| is_it(*slot))
    }

    /// Adds a slot that is not in the table.
    pub(super) fn insert(&mut self, hash: u64, slot: u32) {
        if (self.used + 1) * 8 > self.places.len() * 7 {
            self.grow();
        }
        let half = half(hash);
        let at = self.home(half);
        let at = self.free_from(at);
        self.places[at] = (half, slot);
        self.used += 1;
    }

    /// Removes a slot that is in the table.
    pub(super) fn remove(&mut self, hash: u64, slot: u32) {
        let mut hole = self.home(half(hash));
        while self.places[hole].1 != slot {
            debug_assert!(self.places[hole].1 != FREE, "only slots that were inserted are removed");
            hole = self.after(hole);
        }
        // Close the gap, so no later probe ends at it.
        let mut next = self.after(hole);
        while self.places[next].1 != FREE {
            let home = self.home(self.places[next].0);
            if self.distance(home, next) >= self.distance(hole, next) {
                self.places[hole] = self.places[next];
                hole = next;
            }
            next = self.after(next);
        }
        self.places[hole] = (0, FREE);
        self.used -= 1;
    }

    fn probe(&self, hash: u64) -> impl Iterator<Item = usize> {
        let half = half(hash);
        let start = (!self.places.is_empty()).then(|| self.home(half));
        // There is always a free place, where the probe ends.
        std::iter::successors(start, |at| Some(self.after(*at)))
            .take_while(|at| self.places[*at].1 != FREE)
            .filter(move |at| self.places[*at].0 == half)
    }

    /// Returns where a probe begins: for a larger hash never before that of a smaller one.
    fn home(&self, half: u32) -> usize {
        ((u64::from(half) * self.places.len() as u64) >> 32) as usize
    }

    fn after(&self, at: usize) -> usize {
        if at + 1 == self.places.len() { 0 } else { at + 1 }
    }

    /// Returns the number of steps between two places.
    fn distance(&self, from: usize, to: usize) -> usize {
        if to >= from { to - from } else { to + self.places.len() - from }
    }

    fn free_from(&self, mut at: usize) -> usize {
        while self.places[at].1 != FREE {
            at = self.after(at);
        }
        at
    }

    fn grow(&mut self) {
        let length = (self.places.len() + self.places.len() / 2).max(PLACES_MIN);
        let old = std::mem::replace(&mut self.places, vec![(0, FREE); length]);
        for (half, slot) in old.into_iter().filter(|place| place.1 != FREE) {
            let at = self.free_from(self.home(half));
            self.places[at] = (half, slot);
        }
    }
}

fn half(hash: u64) -> u32 {
    (hash ^ (hash >> 32)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_a_map_under_insertions_and_removals_that_collide() {
        let mut index = KeyIndex::default();
        let mut model = std::collections::BTreeMap::new();
        let mut state = 1u64;
        for step in 0..20_000u32 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let key = (state >> 40) % 500;
            let hash = key % 37 * 0x9e37_79b9;
            match model.remove(&key) {
                Some(slot) => index.remove(hash, slot),
                None => {
                    index.insert(hash, step);
                    model.insert(key, step);
                }
            }
            let probe = (state >> 20) % 500;
            let expected = model.get(&probe).copied();
            let found = index.find(probe % 37 * 0x9e37_79b9, |slot| Some(slot) == expected);
            assert_eq!(found, expected);
        }
    }
}
