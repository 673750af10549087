//! The engine against a real Kafka broker, from outside: the tests start the binary and look only at topics and HTTP.
#![cfg(feature = "kafka")]

mod kit;

mod harness;
mod reference;
