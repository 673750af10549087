//! The whole program on a Kafka broker that requires TLS, credentials and permissions.
#![cfg(feature = "cli")]

#[path = "../broker/kit/mod.rs"]
mod kit;

mod certificates;
mod connection;
mod guide;
mod permissions;
mod rotation;
mod secrets;
mod secured;
