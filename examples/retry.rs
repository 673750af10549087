//! A consumer that fails three times on a message and succeeds on the fourth attempt. After each failure, the scheduler
//! redelivers the message after a growing delay.
//!
//! ```sh
//! cargo run -- mini --topic payments:1
//! BOOTSTRAP_SERVERS=127.0.0.1:... cargo run --example retry
//! ```

use std::error::Error;
use std::time::Duration;

use kafka_scheduler::client::retry::{Exponential, Next, Retry, Strategy, attempts};
use kafka_scheduler::client::{Record, RecordPosition};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::producer::{BaseProducer, Producer};

/// The consumer's work. It fails until the fourth attempt.
fn process(record: &Record) -> Result<(), Box<dyn Error>> {
    match attempts(record)? {
        3.. => Ok(()),
        _ => Err("the bank does not answer".into()),
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", std::env::var("BOOTSTRAP_SERVERS").unwrap_or("localhost:9092".into()));
    let consumer: BaseConsumer = client
        .clone()
        .set("group.id", "example-retry")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("isolation.level", "read_committed")
        .create()?;
    consumer.subscribe(&["payments"])?;
    let producer: BaseProducer = client.set("partitioner", "murmur2_random").create()?;
    let send = |record: &Record, topic| {
        producer.send(record.to_base_record(topic)).map_err(|(error, _)| error)?;
        producer.flush(Duration::from_secs(10))
    };
    send(&Record::new("customer-3", "pay 5"), "payments")?;

    // Delays of 1, 2, 4 s and so on. By default they start at 5 s, and the message is given up after 50 retries.
    let first = Duration::from_secs(1);
    let retry =
        Retry::new(Exponential { first, factor: 2.0 }.capped(Duration::from_secs(60)).jittered(0.1).limited(10));
    for message in &consumer {
        let message = message?;
        let record = Record::from(&message);
        let Err(error) = process(&record) else {
            consumer.commit_message(&message, CommitMode::Sync)?;
            println!("done with retry-attempt {}", attempts(&record)?);
            break;
        };
        match retry.after_failure(&record, RecordPosition::from_message(&message))? {
            Next::Again { record, attempt, delay } => {
                println!("{error}: retry {attempt} in {delay:?}");
                send(&record, "schedules")?;
            }
            // A real consumer would alert an operator here, or produce to another topic.
            Next::Exhausted { attempts, .. } => println!("{error}: given up after {attempts} retries"),
            other => println!("{error}: {other:?} is of a later version"),
        }
        // Commit only now: the failed message must be scheduled first, or it could be lost.
        consumer.commit_message(&message, CommitMode::Sync)?;
    }
    Ok(())
}
