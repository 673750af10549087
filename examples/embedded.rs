//! The scheduler inside another program, which goes on until its standard input ends.
//!
//! ```sh
//! BOOTSTRAP_SERVERS=localhost:9092 SCHEDULES_TOPICS=schedules cargo run --example embedded
//! ```

use std::error::Error;

use kafka_scheduler::{Event, Runner};
use prometheus::{Registry, TextEncoder};

fn main() -> Result<(), Box<dyn Error>> {
    let registry = Registry::new_custom(Some("shop".into()), None)?;
    let running = Runner::from_env()?
        .registry(&registry)
        // On the engine's own thread: it must return soon.
        .on_event(|event| match event {
            Event::Live { topic, partition, pending, .. } => println!("{topic} [{partition}]: {pending} pending"),
            Event::Fired { firing } => {
                println!("{} has fired to {}", String::from_utf8_lossy(firing.key), firing.target);
            }
            _ => {}
        })
        .start()?;

    // Whatever else this program does.
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;

    running.close()?;
    let metrics = TextEncoder::new().encode_to_string(&registry.gather())?;
    println!("{}", metrics.lines().filter(|line| line.contains("triggered")).collect::<Vec<_>>().join("\n"));
    Ok(())
}
