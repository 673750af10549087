//! Exactly-once message scheduling on Apache Kafka.

#[cfg(feature = "kafka")]
pub mod config;
pub mod core;
#[cfg(feature = "kafka")]
pub mod handle;
