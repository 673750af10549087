//! Exactly-once message scheduling on Apache Kafka.
//!
//! A schedule is a record in a compacted *schedules topic* whose headers name a time, a topic and a key. At that time
//! the engine produces the record's value there, with a copy in the history topic, and deletes the schedule: all in one
//! Kafka transaction.
//!
//! Where to begin:
//!
//! - to schedule from your own program, and to retry what has failed: [`client`], which needs no Kafka library;
#![cfg_attr(
    feature = "engine",
    doc = "- to run the engine inside your own program: [`runner`], with a [`config::Config`];
- to list what is pending, or to stop the engine, from other threads: [`handle`];
- to test against an engine with a Kafka in the same process: [`mini`]."
)]
#![cfg_attr(not(feature = "engine"), doc = "- to run the engine inside your own program: the feature `engine`.")]
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | (none) | [`client`], on the standard library alone |
//! | `jiff` | dates and durations of that crate for [`client`] |
//! | `config` | the module `config` |
//! | `calendar` | time zones and cron expressions, for the engine |
//! | `state-dir` | snapshots on disk, for the engine |
//! | `engine` | the modules `runner`, `handle`, `mini`, and rdkafka's types for [`client`]; includes the four above |
//! | `http` | the servers of REST, metrics and the status page, for the program; includes `engine` |
//! | `cli` | the program `kafka-scheduler` (default); includes `http` |
//!
//! # Times
//!
//! The API has two types for times. Programs that schedule use `Moment` ([`client`]), and with the feature `jiff` that
//! crate's types. The engine reports integers since 1970 UTC, as Kafka's own records do: names end in `_s` for seconds
//! and in `_ms` for milliseconds. Converting them needs no particular crate for dates. The exception is for tests:
//! `Mini::now` and `Mini::advance` return a `Moment`, from which a test can schedule.
//!
//! # Versions of other crates
//!
//! Types of `rdkafka`, `jiff` and `prometheus` are part of the API: a new major version of one of them is one of this
//! crate. They are re-exported: use `kafka_scheduler::rdkafka` and so on, and the versions match.

#![warn(unreachable_pub)]
#[cfg(feature = "cli")]
mod app;
#[cfg(feature = "calendar")]
#[doc(hidden)]
pub mod calendar;
#[cfg(feature = "cli")]
mod cli;
pub mod client;
#[cfg(feature = "config")]
pub mod config;
#[doc(hidden)]
pub mod core;
#[cfg(feature = "engine")]
pub mod handle;
#[cfg(feature = "http")]
mod http;
#[cfg(feature = "engine")]
mod kafka;
#[cfg(feature = "cli")]
mod logging;
#[cfg(feature = "engine")]
mod metrics;
#[cfg(feature = "engine")]
pub mod mini;
#[cfg(feature = "engine")]
mod observe;
#[cfg(feature = "engine")]
pub mod runner;
#[cfg(feature = "http")]
mod span;
#[cfg(feature = "state-dir")]
#[doc(hidden)]
pub mod state_dir;

#[cfg(feature = "jiff")]
pub use jiff;
#[cfg(feature = "engine")]
pub use {prometheus, rdkafka};

#[cfg(feature = "engine")]
pub use runner::{Event, Runner, Running};

/// What this crate's own program and tests need. It is no part of the API and changes without notice.
#[cfg(feature = "engine")]
#[doc(hidden)]
pub mod internal {
    #[cfg(feature = "cli")]
    pub use crate::cli::main;
    pub use crate::handle::observer::Observer;
    pub use crate::handle::query::Query;
    #[cfg(feature = "http")]
    pub use crate::http::Listeners;
    pub use crate::kafka::{BrokerCalls, Clock, Engine, RecordReader};
    #[cfg(feature = "cli")]
    pub use crate::logging::Logging;
    pub use crate::metrics::Metrics;
    pub use crate::observe::activity::Activity;

    use std::sync::Arc;

    use crossbeam_channel::Receiver;

    use crate::handle::Handle;

    /// Returns a handle on an engine of these schedules topics, and the end that its loop reads from.
    #[must_use]
    pub fn handle(wake: Arc<dyn Fn() + Send + Sync>, topics: &[String]) -> (Handle, Receiver<Query>) {
        Handle::new(wake, topics)
    }
}
