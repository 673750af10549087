//! Exactly-once message scheduling on Apache Kafka.
//!
//! A schedule is a record in a compacted *schedules topic* whose headers name a time, a topic and a key. At that time the
//! engine produces the record's value there, with a copy in the history topic, and deletes the schedule: all in one Kafka
//! transaction.
//!
//! Where to begin:
//!
//! - to schedule from your own program, and to retry what has failed: [`client`], which needs no Kafka library;
//! - to run the engine inside your own program: the module `runner`, with a `Config` from the module `config`;
//! - to list what is pending, or to stop the engine, from other threads: the module `handle`;
//! - to test against an engine with a Kafka in the same process: the module `mini`.
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | (none) | [`client`], on the standard library alone |
//! | `jiff` | dates and durations of that crate for [`client`] |
//! | `config` | the module `config` |
//! | `core` | the calendar of the engine's core, which is no part of the API |
//! | `engine` | the modules `runner`, `handle`, `mini`, rdkafka's types for [`client`]; includes `config`, `core`, `jiff` |
//! | `http` | the servers of REST, metrics and the status page, for the program; includes `engine` |
//! | `cli` | the program `kafka-scheduler` (default); includes `http` |

#![warn(unreachable_pub)]
#[cfg(feature = "cli")]
mod app;
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
    pub use crate::kafka::{Clock, Engine};
    #[cfg(feature = "cli")]
    pub use crate::logging::Logging;
    pub use crate::metrics::Metrics;
    pub use crate::observe::activity::Activity;
}
