//! What the broker tests are made of.

pub mod broker;
pub mod case;
pub mod client;
pub mod engine;
pub mod http;
pub mod process;
pub mod wait;

pub use case::Case;
pub use client::{Record, Scheduled};
