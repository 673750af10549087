//! The embedded broker's topics.

use std::fmt;
use std::str::FromStr;

use rdkafka::error::KafkaResult;

use super::{Cluster, PARTITIONS_DEFAULT};
use crate::config::{Config, is_topic};

/// The most partitions of a topic: far more than any test needs.
const PARTITIONS_MAX: i32 = 1_000;

/// A topic of the embedded broker, written as `name:partitions`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    pub(super) name: String,
    pub(super) partitions: i32,
}

/// A topic's name or number of partitions that is not allowed, or a text that is not `name:partitions`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseTopicError;

impl fmt::Display for ParseTopicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "must be a topic's name and a number of partitions from 1 to {PARTITIONS_MAX}, as in videos:3")
    }
}

impl std::error::Error for ParseTopicError {}

impl Topic {
    /// Returns a topic with 1 to 1,000 partitions.
    ///
    /// # Errors
    /// If the name or the number of partitions is not allowed.
    pub fn new(name: impl Into<String>, partitions: i32) -> Result<Self, ParseTopicError> {
        let name = name.into();
        if !is_topic(&name) || !(1..=PARTITIONS_MAX).contains(&partitions) {
            return Err(ParseTopicError);
        }
        Ok(Self { name, partitions })
    }
}

impl FromStr for Topic {
    type Err = ParseTopicError;

    fn from_str(text: &str) -> Result<Self, ParseTopicError> {
        let (name, partitions) = text.rsplit_once(':').ok_or(ParseTopicError)?;
        Self::new(name, partitions.parse().map_err(|_| ParseTopicError)?)
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.partitions)
    }
}

/// Returns the given topics, and the engine's own that are not among them.
pub(super) fn with_needed(given: impl IntoIterator<Item = Topic>, config: &Config) -> Vec<Topic> {
    let schedules_topics = config.schedules_topics().iter().map(String::as_str);
    let needed = schedules_topics.chain(config.dead_letter_topic()).chain([config.history_topic()]);
    let needed = needed.map(|name| Topic { name: name.to_owned(), partitions: PARTITIONS_DEFAULT });
    let mut all: Vec<Topic> = Vec::new();
    for topic in given.into_iter().chain(needed) {
        if all.iter().all(|other| other.name != topic.name) {
            all.push(topic);
        }
    }
    all
}

/// Creates the topics.
pub(super) fn create(cluster: &Cluster, topics: &[Topic]) -> KafkaResult<()> {
    topics.iter().try_for_each(|topic| cluster.create_topic(&topic.name, topic.partitions, 1))
}

/// Returns how many partitions the topics with these names have together.
pub(super) fn partitions(topics: &[Topic], names: &[String]) -> usize {
    let named = topics.iter().filter(|topic| names.contains(&topic.name));
    named.map(|topic| usize::try_from(topic.partitions).unwrap_or(0)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_of_the_command_line() {
        assert_eq!("videos:3".parse(), Topic::new("videos", 3));
        assert_eq!(Topic::new("videos", 3), Ok(Topic { name: "videos".into(), partitions: 3 }));
        assert_eq!((Topic::new("a b", 1), Topic::new("videos", 0)), (Err(ParseTopicError), Err(ParseTopicError)));
        for bad in ["videos", "videos:", "videos:0", "videos:x", ":3", "a b:3", "..:1", "videos:1001"] {
            assert_eq!(bad.parse::<Topic>(), Err(ParseTopicError), "{bad}");
        }
    }
}
