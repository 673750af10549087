//! Runs the scheduler inside another program until the program's standard input ends.
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
        // Runs on the engine's thread, so it must return quickly.
        .on_event(|event| match event {
            Event::Live { topic, partition, pending, .. } => println!("{topic} [{partition}]: {pending} pending"),
            Event::TargetChanged { target, state, .. } => println!("target {target}: {state:?}"),
            Event::Fired { firing, .. } => {
                println!("{} fired to {}", String::from_utf8_lossy(firing.key), firing.target);
            }
            _ => {}
        })
        .start()?;

    // The program's own work goes here.
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;

    running.close()?;
    let metrics = TextEncoder::new().encode_to_string(&registry.gather())?;
    println!("{}", metrics.lines().filter(|line| line.contains("triggered")).collect::<Vec<_>>().join("\n"));
    Ok(())
}
