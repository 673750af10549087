//! Schedules a message, and waits until it arrives.
//!
//! ```sh
//! cargo run -- mini --topic greetings:1
//! BOOTSTRAP_SERVERS=127.0.0.1:... cargo run --example schedule
//! ```

use std::error::Error;
use std::time::Duration;

use kafka_scheduler::client::{Record, Schedule, Triggered};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, Producer};

fn main() -> Result<(), Box<dyn Error>> {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", std::env::var("BOOTSTRAP_SERVERS").unwrap_or("localhost:9092".into()));

    let consumer: BaseConsumer = client
        .clone()
        .set("group.id", "example-schedule")
        .set("auto.offset.reset", "earliest")
        .set("isolation.level", "read_committed")
        .create()?;
    consumer.subscribe(&["greetings"])?;

    let record = Schedule::new("greeting-1")
        .to("greetings")
        .target_key("world")
        .header("language", "en")
        .value("hello")
        .after(Duration::from_secs(2))
        .build()?;
    // The partitioner of Java clients, so all clients produce a key to the same partition.
    let producer: BaseProducer = client.set("partitioner", "murmur2_random").create()?;
    producer.send(record.to_base_record("schedules")).map_err(|(error, _)| error)?;
    producer.flush(Duration::from_secs(10))?;
    println!("scheduled");

    for message in &consumer {
        let record = Record::from(&message?);
        if let Some(triggered) = Triggered::from_record(&record) {
            let value = String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned();
            println!("{value:?} arrived, scheduled as {:?}", String::from_utf8_lossy(triggered.key));
            break;
        }
    }
    Ok(())
}
