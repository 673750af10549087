//! How large the sets of records may be that topics take: each is kept small enough.
//!
//! The broker refuses a set as a whole, good records included, and librdkafka does not split it. Nor does it survive a
//! refusal unharmed: it has then skipped sequence numbers, which costs the next transaction as well. So a record that
//! is too large alone is found before it is sent.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::settings::SET_BYTES_MAX;
use crate::core::batch::OutRecord;

/// What a set and a record take beside keys, values and headers, by Kafka's message format 2.
const SET_BYTES: usize = 61;
const RECORD_BYTES: std::ops::RangeInclusive<usize> = 7..=36;
const HEADER_BYTES: std::ops::RangeInclusive<usize> = 2..=10;

/// Between two questions about a topic's limit when records are found too large.
const ASK_AGAIN: Duration = Duration::from_secs(10);

/// How long a topic's verdict on this machine's clock counts.
const CLOCK_VERDICT_MAX: Duration = Duration::from_secs(2);

/// What is known of topics' limits, shared between the threads.
#[derive(Debug, Default)]
pub struct Limits {
    known: Mutex<Arc<HashMap<String, usize>>>,
    /// When a topic was last asked about because of a record that was too large.
    asked: Mutex<HashMap<String, Instant>>,
    /// Whether a topic refused timestamps, and when that was found.
    clocks: Mutex<HashMap<String, (Instant, bool)>>,
}

impl Limits {
    /// Takes in a topic's `max.message.bytes`. True if that is news.
    pub fn learn(&self, topic: &str, bytes_max: usize) -> bool {
        let mut known = self.lock();
        let news = known.get(topic) != Some(&bytes_max);
        if news {
            Arc::make_mut(&mut known).insert(topic.to_owned(), bytes_max);
        }
        news
    }

    /// Whether to ask once more how much a topic takes: somebody may have changed it. The answer is expected to follow.
    pub fn ask_again(&self, topic: &str) -> bool {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let again = asked.get(topic).is_none_or(|at| at.elapsed() >= ASK_AGAIN);
        if again {
            asked.insert(topic.to_owned(), Instant::now());
        }
        again
    }

    /// Whether a topic refuses the timestamps of this machine's clock, if that was found a moment ago.
    pub fn clock_verdict(&self, topic: &str) -> Option<bool> {
        let clocks = self.clocks.lock().unwrap_or_else(PoisonError::into_inner);
        clocks.get(topic).filter(|(at, _)| at.elapsed() < CLOCK_VERDICT_MAX).map(|(_, refuses)| *refuses)
    }

    /// Keeps that verdict.
    pub fn learn_clock(&self, topic: &str, refuses: bool) {
        let mut clocks = self.clocks.lock().unwrap_or_else(PoisonError::into_inner);
        clocks.retain(|_, (at, _)| at.elapsed() < CLOCK_VERDICT_MAX);
        clocks.insert(topic.to_owned(), (Instant::now(), refuses));
    }

    /// For the records of one batch.
    pub fn sets(&self) -> Sets {
        Sets { limits: Arc::clone(&self.lock()), bytes: HashMap::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Arc<HashMap<String, usize>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a record fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// Into the set that is being filled, or a new one.
    Fits,
    /// Into a new set: what has been produced must be delivered before it.
    Alone,
    /// Into no set, unless it is compressed.
    Nowhere,
}

/// The sets that are being filled.
#[derive(Debug)]
pub struct Sets {
    limits: Arc<HashMap<String, usize>>,
    bytes: HashMap<String, usize>,
}

impl Sets {
    /// Adds a record.
    pub fn add(&mut self, record: &OutRecord<'_>) -> Fit {
        let Some(limit) = self.limits.get(record.topic) else { return Fit::Fits };
        let bytes = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
        let headers: usize = record.headers.iter().map(|h| h.name.len() + bytes(h.value)).sum();
        let given = bytes(record.key) + bytes(record.value) + headers;
        let size =
            |record_bytes: usize, header_bytes: usize| given + record_bytes + header_bytes * record.headers.len();
        if SET_BYTES + size(*RECORD_BYTES.start(), *HEADER_BYTES.start()) > *limit {
            // Should it be sent all the same, nothing joins it.
            self.bytes.insert(record.topic.to_owned(), *limit);
            return Fit::Nowhere;
        }
        if *limit >= SET_BYTES_MAX {
            return Fit::Fits;
        }
        let most = size(*RECORD_BYTES.end(), *HEADER_BYTES.end());
        match self.bytes.get_mut(record.topic) {
            Some(set) if *set + most <= *limit => {
                *set += most;
                Fit::Fits
            }
            begun => {
                let fit = if begun.is_some() { Fit::Alone } else { Fit::Fits };
                if begun.is_some() {
                    self.bytes.clear();
                }
                self.bytes.insert(record.topic.to_owned(), SET_BYTES + most);
                fit
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_for_a_small_topic_stay_small_and_others_are_not_held_up() {
        let limits = Limits::default();
        limits.learn("small", 1_000);
        limits.learn("large", 10_000_000);
        let mut sets = limits.sets();
        let mut add = |topic: &str, bytes: usize| {
            let value = vec![0; bytes];
            sets.add(&OutRecord { item: 0, topic, partition: None, key: None, value: Some(&value), headers: &[] })
        };
        assert_eq!((add("small", 300), add("small", 300)), (Fit::Fits, Fit::Fits));
        assert_eq!((add("large", 900_000), add("large", 900_000)), (Fit::Fits, Fit::Fits));
        assert_eq!(add("small", 300), Fit::Alone, "a third would not fit");
        assert_eq!(add("small", 300), Fit::Fits, "into the set that was begun with it");
        assert_eq!(add("small", 932), Fit::Alone, "the largest that may fit");
        assert_eq!(add("small", 933), Fit::Nowhere);
        assert_eq!(add("small", 1), Fit::Alone, "not into the set of one that is too large unless it is compressed");
        assert_eq!(add("large", 10_000_000), Fit::Nowhere);
        assert_eq!(add("unknown", 10_000_000), Fit::Fits, "the broker will say");
    }
    #[test]
    fn a_changed_limit_is_news_and_asked_for_once_in_a_while() {
        let limits = Limits::default();
        assert!(limits.learn("t", 1_000) && !limits.learn("t", 1_000) && limits.learn("t", 500));
        assert!(limits.ask_again("t") && !limits.ask_again("t") && limits.ask_again("u"));
    }
}
