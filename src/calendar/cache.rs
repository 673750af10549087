//! What was parsed, by its text.

use std::collections::BTreeMap;

/// Up to as many values as it may keep; the one unused for longest makes room.
#[derive(Debug)]
pub(super) struct Cache<T> {
    values: BTreeMap<Box<str>, (T, u64)>,
    values_max: usize,
    /// Number of lookups so far.
    lookups: u64,
}

impl<T> Cache<T> {
    pub(super) fn new(values_max: usize) -> Self {
        Self { values: BTreeMap::new(), values_max, lookups: 0 }
    }

    /// Returns the value of a text, parsed now if it is not here.
    ///
    /// # Errors
    /// Those of `parse`, which are not kept.
    pub(super) fn get<E>(&mut self, text: &str, parse: impl FnOnce(&str) -> Result<T, E>) -> Result<&T, E> {
        self.lookups += 1;
        if !self.values.contains_key(text) {
            let value = parse(text)?;
            if self.values.len() >= self.values_max {
                self.remove_oldest();
            }
            self.values.insert(text.into(), (value, 0));
        }
        let (value, used) = self.values.get_mut(text).expect("it is here, or was inserted above");
        *used = self.lookups;
        Ok(value)
    }

    fn remove_oldest(&mut self) {
        let oldest = self.values.iter().min_by_key(|(_, (_, used))| *used).map(|(text, _)| text.clone());
        if let Some(oldest) = oldest {
            self.values.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_unused_for_longest_makes_room() {
        let mut cache = Cache::new(2);
        let mut parsed = Vec::new();
        for text in ["a", "b", "a", "c", "a", "b"] {
            let value = cache.get(text, |text| {
                parsed.push(text.to_owned());
                Ok::<_, ()>(text.len())
            });
            assert_eq!(value, Ok(&1));
        }
        assert_eq!((parsed.concat().as_str(), cache.values.len()), ("abcb", 2));
    }

    #[test]
    fn errors_are_not_kept() {
        let mut cache = Cache::new(2);
        assert_eq!(cache.get("a", |_| Err::<u8, _>("no")), Err("no"));
        assert_eq!(cache.get("a", |_| Ok::<_, &str>(7)), Ok(&7));
    }
}
