//! A model of Kafka and a virtual clock that drive several instances of the scheduler's real core.
//!
//! A [`scenario::Scenario`] says what happens; [`play`] runs it, asking the [`oracle`] about the brokers' logs.

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
