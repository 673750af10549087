//! Exactly-once message scheduling on Apache Kafka.

pub mod core;
