//! The engine against a real Kafka broker, from outside: the tests start the binary and look only at topics and HTTP.
#![cfg(feature = "cli")]

mod kit;

mod addresses;
mod changes;
mod cli;
mod client_errors;
mod configuration;
mod crashes;
mod examples;
mod firing;
mod first_start;
mod floods;
mod hardening;
mod harness;
mod library;
mod limits;
mod logs;
mod members;
mod metrics;
mod mini;
mod model;
mod moving_over;
mod outside;
mod poison;
mod readme;
mod reference;
mod requests;
mod rest;
mod restarts;
mod status_page;
mod topics;
mod written;
