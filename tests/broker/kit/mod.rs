//! The tools of the broker tests.

// Each test program uses only a part of the kit.
#![allow(dead_code, unused_imports)]

pub mod broker;
pub mod browser;
pub mod case;
pub mod client;
pub mod clock;
pub mod cluster;
pub mod engine;
pub mod http;
pub mod process;
pub mod proxy;
pub mod wait;

pub use case::Case;
pub use client::{Record, Scheduled};
