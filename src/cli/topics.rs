//! `topics`

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use super::failure::Failure;
use crate::app::chain;
use crate::config::Config;
use crate::kafka::admin::Admin;
use crate::kafka::broker_client::{BrokerClient, BrokerError};
use crate::kafka::target_lookup::{layout, new_layout};
use crate::kafka::topics::{Entries, Layout, created_with, findings, own};

/// librdkafka's limits.
const PARTITIONS_MAX: i64 = 100_000;
const REPLICAS_MAX: i64 = crate::config::REPLICAS_MAX as i64;

const LAYOUT_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Create the engine's topics that do not exist, with settings that lose no schedules
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
    /// Check the settings of the engine's topics; exit code 4 if there is a problem
    #[command(after_help = "Example:\n  SCHEDULES_TOPICS=schedules kafka-scheduler topics check")]
    Check,
}

pub(super) fn run(config: Config, command: &Command) -> Result<(), Failure> {
    let broker = BrokerClient::connect(&config)?;
    let admin = Admin::new(broker.clients()).map_err(BrokerError::settings)?;
    match command {
        Command::Create { partitions, replication_factor } => {
            let replicas = replication_factor.or(config.create_topics_replicas());
            create(&config, &broker, &admin, *partitions, replicas)
        }
        Command::Check => check(&config, &broker, &admin),
    }
}

fn create(
    config: &Config,
    broker: &BrokerClient,
    admin: &Admin,
    partitions: Option<i32>,
    replicas: Option<i32>,
) -> Result<(), Failure> {
    for (topic, role) in own(config) {
        if broker.partitions(topic).is_ok() {
            println!("{topic} already exists");
            continue;
        }
        let created = admin
            .create(topic, role, partitions, replicas)
            .map_err(|e| failed(broker, &format!("topic {topic:?} could not be created"), &e))?;
        if !created {
            println!("{topic} already exists");
            continue;
        }
        let Layout { partitions, replicas, .. } = new_layout(broker.client(), topic, &|| {}).unwrap_or_default();
        let entries = admin.settings(&[topic]).ok().and_then(|mut all| all.remove(topic)).unwrap_or_default();
        let settings = created_with(role, &entries).join(", ");
        println!("{topic} created: partitions={partitions}, replicas={replicas} ({settings})");
    }
    Ok(())
}

fn check(config: &Config, broker: &BrokerClient, admin: &Admin) -> Result<(), Failure> {
    let topics: Vec<_> = own(config).collect();
    let names: Vec<&str> = topics.iter().map(|(topic, _)| *topic).collect();
    let described: BTreeMap<String, Entries> =
        admin.settings(&names).map_err(|e| failed(broker, "the topics' settings cannot be read", &e))?;
    let mut problems = 0;
    for (topic, role) in topics {
        let mut report = |what: &str| {
            problems += 1;
            println!("{topic}: {what}");
        };
        if let Err(e) = broker.partitions(topic) {
            report(&chain(&e));
            continue;
        }
        let Some(entries) = described.get(topic) else {
            report("no permission to see its settings: grant this user DescribeConfigs on it");
            continue;
        };
        let layout = layout(broker.client(), topic, LAYOUT_TIMEOUT).unwrap_or_default();
        let found = findings(role, entries, layout);
        if found.is_empty() {
            println!("{topic}: good");
        }
        found.iter().for_each(|finding| report(&finding.to_string()));
    }
    if problems == 0 { Ok(()) } else { Err(Failure::problems(format!("{problems} problems found"))) }
}

fn failed(broker: &BrokerClient, what: &str, error: &KafkaError) -> Failure {
    if broker.is_embedded() {
        return Failure::new(
            "the broker inside `mini` has no topic administration: start it with --topic for each topic",
        );
    }
    let hint = match error.rdkafka_error_code() {
        Some(Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed) => ": grant this user Create on it",
        _ => "",
    };
    Failure::new(format!("{what}: {error}{hint}"))
}
