//! Exactly-once message scheduling on Apache Kafka.
//!
//! [`core`] is the scheduler as a state machine, without any I/O. With the feature `kafka` (on by default) comes the
//! engine that runs it on Kafka.

#[cfg(feature = "kafka")]
pub mod app;
#[cfg(feature = "kafka")]
pub mod config;
pub mod core;
#[cfg(feature = "kafka")]
pub mod handle;
#[cfg(feature = "kafka")]
pub mod http;
#[cfg(feature = "kafka")]
pub mod kafka;
#[cfg(feature = "kafka")]
pub mod logging;
#[cfg(feature = "kafka")]
pub mod metrics;
#[cfg(feature = "kafka")]
pub mod mini;
#[cfg(feature = "kafka")]
pub mod observe;
