//! The engine against a real Kafka broker, from outside: the tests start the binary and look only at topics and HTTP.
#![cfg(feature = "kafka")]

mod kit;

mod changes;
mod configuration;
mod crashes;
mod firing;
mod first_start;
mod harness;
mod mini;
mod outside;
mod reference;
mod restarts;
