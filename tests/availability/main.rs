//! The whole program on Apache Kafka while processes are killed, paused and disconnected. The tests run one at a time,
//! because most of them measure lateness.
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
mod recurring;
mod topics;
