//! The whole program on Apache Kafka while processes are killed, paused and cut off. Each test has the machine to itself,
//! since most of them judge lateness.
#![cfg(feature = "cli")]

#[path = "../broker/kit/mod.rs"]
mod kit;

mod clock;
mod cluster;
mod crashes;
mod failover;
mod first_days;
mod idle;
mod ledger;
mod metrics;
mod network;
mod topics;
