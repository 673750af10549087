//! `cancel`

use super::args::{self, KeyArgs, placement};
use super::entry::printable;
use super::failure::Failure;
use super::topic_of;
use crate::config::Config;
use crate::kafka::broker_client::BrokerClient;
use crate::kafka::publish::Publisher;

const AFTER: &str = "\
cancel reads the topic to find the partition of the schedule, and produces the cancel to it. --partition skips the reading,
and cancels whether or not the key is pending in that partition. A schedule that is due at this moment may still fire.

Examples:
  kafka-scheduler cancel reminder-17
  kafka-scheduler cancel --base64 /wA= --topic schedules";

#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(super) struct Args {
    #[command(flatten)]
    key: KeyArgs,
    /// The schedules topic; required if SCHEDULES_TOPICS has several
    #[arg(long, value_parser = args::topic)]
    topic: Option<String>,
    /// The partition to produce to
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
}

pub(super) fn run(config: Config, args: &Args) -> Result<(), Failure> {
    let topic = topic_of(&config, args.topic.as_ref())?;
    let key = args.key.bytes()?;
    let broker = BrokerClient::connect(&config)?;
    let mut publisher = Publisher::new(broker.clients(), None)?;
    let partitions = publisher.cancel(&broker, &topic, &key, placement(args.partition))?;
    if partitions.is_empty() {
        return Err(Failure::not_found(format!("nothing is pending for the key {} in {topic}", printable(&key))));
    }
    for partition in partitions {
        println!("cancelled {} in {topic} (partition {partition})", printable(&key));
    }
    Ok(())
}
