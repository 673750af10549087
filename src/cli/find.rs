//! Where a key lies. Producers hash keys differently, so that only the topic itself can tell.

use super::failure::Failure;
use super::fold::{Names, Pending, fold, pending};
use super::link::Link;

/// The partitions in which a word on the key is pending.
pub fn partitions(link: &Link, topic: &str, key: &[u8]) -> Result<Vec<i32>, Failure> {
    let names = Names::default();
    let mut found = Vec::new();
    link.fix_ends([topic])?;
    for partition in link.partitions(topic)? {
        let fold = fold(link, &names, topic, partition, false, |record| record.key == Some(key))?;
        if fold.pending() > 0 {
            found.push(partition);
        }
    }
    Ok(found)
}

/// Shows what is pending for the key, in each partition where something is. Returns how many there are.
pub fn each(
    link: &Link,
    topic: &str,
    key: &[u8],
    mut visit: impl FnMut(&Pending<'_>) -> Result<(), Failure>,
) -> Result<usize, Failure> {
    let names = Names::default();
    let mut found = 0;
    for partition in link.partitions(topic)? {
        pending(
            link,
            &names,
            topic,
            partition,
            |record| record.key == Some(key),
            |word| {
                found += 1;
                visit(word)
            },
        )?;
    }
    Ok(found)
}

/// A partition number that the topic has.
pub fn checked(link: &Link, topic: &str, partition: i32) -> Result<i32, Failure> {
    let all = link.partitions(topic)?;
    if all.contains(&partition) {
        return Ok(partition);
    }
    let last = all.last().copied().unwrap_or(0);
    Err(Failure::usage(format!("--partition is {partition}, but topic {topic:?} has the partitions 0 to {last}")))
}
