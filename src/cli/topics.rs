//! `topics`

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use super::failure::Failure;
use super::link::Link;
use crate::config::Config;
use crate::kafka::admin::Admin;
use crate::kafka::target_lookup::{layout, new_layout};
use crate::kafka::topics::{Entries, Layout, created_with, findings, own};

/// What librdkafka takes at most.
const PARTITIONS_MAX: i64 = 100_000;
const REPLICAS_MAX: i64 = crate::config::REPLICAS_MAX as i64;

/// How long one request may take.
const REQUEST_MAX: Duration = Duration::from_secs(2);

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Create those of the engine's topics that are missing, with settings that lose no schedules
    #[command(after_help = "Examples:
  kafka-scheduler topics create
  kafka-scheduler topics create --partitions 6 --replication-factor 3")]
    Create {
        /// Partitions of each topic [default: the brokers' default]
        #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i32).range(1..=PARTITIONS_MAX))]
        partitions: Option<i32>,
        /// Replicas of each partition [default: CREATE_TOPICS_REPLICATION_FACTOR, or else the brokers' default]
        #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i32).range(1..=REPLICAS_MAX))]
        replication_factor: Option<i32>,
    },
    /// Say what is wrong with the settings of the engine's topics; exit code 4 if something is
    #[command(after_help = "Example:\n  SCHEDULES_TOPICS=schedules kafka-scheduler topics check")]
    Check,
}

pub fn run(config: Config, command: &Command) -> Result<(), Failure> {
    let link = Link::new(config)?;
    let admin = Admin::new(link.clients()).map_err(|e| super::link::refused(&e))?;
    match command {
        Command::Create { partitions, replication_factor } => create(&link, &admin, *partitions, *replication_factor),
        Command::Check => check(&link, &admin),
    }
}

fn create(link: &Link, admin: &Admin, partitions: Option<i32>, replicas: Option<i32>) -> Result<(), Failure> {
    let replicas = replicas.or(link.config.create_topics_replicas);
    for (topic, role) in own(&link.config) {
        if link.partitions(topic).is_ok() {
            println!("{topic} is there already");
            continue;
        }
        let made = admin
            .create(topic, role, partitions, replicas)
            .map_err(|e| failed(link, &format!("topic {topic:?} could not be created"), &e))?;
        if !made {
            println!("{topic} is there already");
            continue;
        }
        let Layout { partitions, replicas, .. } = new_layout(link.client(), topic, &|| {}).unwrap_or_default();
        let entries = admin.settings(&[topic]).ok().and_then(|mut told| told.remove(topic)).unwrap_or_default();
        let settings = created_with(role, &entries).join(", ");
        println!("{topic} created: partitions={partitions}, replicas={replicas} ({settings})");
    }
    Ok(())
}

fn check(link: &Link, admin: &Admin) -> Result<(), Failure> {
    let topics: Vec<_> = own(&link.config).collect();
    let names: Vec<&str> = topics.iter().map(|(topic, _)| *topic).collect();
    let described: BTreeMap<String, Entries> =
        admin.settings(&names).map_err(|e| failed(link, "the brokers do not tell the topics' settings", &e))?;
    let mut wrong = 0;
    for (topic, role) in topics {
        let mut say = |what: &str| {
            wrong += 1;
            println!("{topic}: {what}");
        };
        if let Err(e) = link.partitions(topic) {
            say(&e.to_string());
            continue;
        }
        let Some(entries) = described.get(topic) else {
            say("its settings may not be seen: grant this user DescribeConfigs on it");
            continue;
        };
        let layout = layout(link.client(), topic, REQUEST_MAX).unwrap_or_default();
        let found = findings(role, entries, layout);
        if found.is_empty() {
            println!("{topic}: good");
        }
        found.iter().for_each(|finding| say(&finding.to_string()));
    }
    if wrong == 0 { Ok(()) } else { Err(Failure::findings(format!("{wrong} things are to be put right"))) }
}

fn failed(link: &Link, what: &str, error: &KafkaError) -> Failure {
    if link.is_embedded() {
        return Failure::new("the broker inside `mini` has no topic administration: give it its topics with --topic");
    }
    let hint = match error.rdkafka_error_code() {
        Some(Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed) => ": grant this user Create on it",
        _ => "",
    };
    Failure::new(format!("{what}: {error}{hint}"))
}
