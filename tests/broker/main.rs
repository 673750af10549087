//! The engine on a real Kafka broker, as a black box: the tests start the binary, and use only topics and HTTP.
#![cfg(feature = "cli")]

mod kit;

mod addresses;
mod broker_calls;
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
mod warm;
mod when;
mod written;
