//! Drives several instances of the scheduler's real core with a model of Kafka on a virtual clock.
//!
//! A [`scenario::Scenario`] is a list of operations. [`play()`] runs it, and the [`oracle`] judges its
//! [`history::History`].

#![warn(unreachable_pub)]
pub mod bugs;
mod engine;
pub mod failure;
pub mod faults;
pub mod history;
pub mod kafka;
pub mod names;
pub mod oracle;
mod play;
pub mod rng;
pub mod scenario;
mod summary;
pub mod swarm;
mod world;

pub use failure::Failure;
pub use play::play;
pub use scenario::Scenario;
pub use summary::Summary;

/// The command that replays a seed or bytes.
pub const REPLAY: &str = "cargo sim run";
