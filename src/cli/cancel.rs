//! `cancel`

use super::args::{self, KeyArgs};
use super::entry::shown;
use super::failure::Failure;
use super::link::Link;
use super::writer::{Out, Writer};
use super::{find, topic_of};
use crate::config::Config;

const AFTER: &str = "\
The cancel goes to the partition where the schedule lies, which is found by reading the topic. --partition spares that, and
cancels whether or not something is pending there. A schedule that is due at this moment may still fire.

Examples:
  kafka-scheduler cancel reminder-17
  kafka-scheduler cancel --base64 /wA= --topic schedules";

#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub struct Args {
    #[command(flatten)]
    key: KeyArgs,
    /// The schedules topic; needed where SCHEDULES_TOPICS names several
    #[arg(long, value_parser = args::topic)]
    topic: Option<String>,
    /// The partition to produce to
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
}

pub fn run(config: Config, args: &Args) -> Result<(), Failure> {
    let topic = topic_of(&config, args.topic.as_ref())?;
    let key = args.key.bytes()?;
    let link = Link::new(config)?;
    let partitions = match args.partition {
        Some(partition) => vec![find::checked(&link, &topic, partition)?],
        None => find::partitions(&link, &topic, &key)?,
    };
    if partitions.is_empty() {
        return Err(Failure::nothing(format!("nothing is pending for the key {} in {topic}", shown(&key))));
    }
    let writer = Writer::new(&link, None)?;
    for partition in &partitions {
        writer.send(&topic, Out { partition: Some(*partition), key: Some(&key), value: None, headers: &[] })?;
    }
    writer.finish()?;
    for partition in partitions {
        println!("cancelled {} in {topic} (partition {partition})", shown(&key));
    }
    Ok(())
}
