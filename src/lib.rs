//! Exactly-once message scheduling on Apache Kafka.
//!
//! [`core`] is the scheduler as a state machine, without any I/O. With the feature `kafka` (on by default) comes the
//! engine that runs it on Kafka.

#[cfg(feature = "kafka")]
pub mod config;
pub mod core;
#[cfg(feature = "kafka")]
pub mod handle;
#[cfg(feature = "kafka")]
pub mod kafka;
