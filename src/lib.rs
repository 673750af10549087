//! Exactly-once message scheduling on Apache Kafka.
//!
//! A schedule is a record in a compacted *schedules topic* that says when, to which topic and under which key its value is
//! to be sent. At that time the engine produces it there, with a copy in the history, and ends the schedule: all in one
//! Kafka transaction.
//!
//! Where to begin:
//!
//! - to schedule from your own program, and to retry what has failed: [`client`], which needs no Kafka library;
//! - to run the engine inside your own program: `Runner`, in the module `runner`;
//! - to test against an engine with a Kafka in the same process: the module `mini`;
//! - to understand the engine: [`core`] is the scheduler as a state machine, without any I/O.
//!
//! The feature `kafka` (on by default) brings the engine on Kafka and the command line. Without default features the crate is
//! [`core`] and [`client`], on the standard library alone; the feature `jiff` lets [`client`] take that crate's dates.

#[cfg(feature = "kafka")]
pub mod app;
#[cfg(feature = "kafka")]
pub mod cli;
pub mod client;
#[cfg(any(feature = "config", feature = "kafka"))]
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
#[cfg(feature = "kafka")]
pub mod runner;
#[cfg(feature = "kafka")]
pub(crate) mod span;

#[cfg(feature = "kafka")]
pub use runner::{Event, Runner, Running};
