//! The rules of the protocol, one by one, at the scheduler's own inputs and outputs.

mod blameless;
mod due;
mod leaving;
mod memory;
mod owed;
mod payloads;
mod poison;
mod refusals;
mod rig;
mod takeover;
mod targets;
mod throughput;
mod transactions;
mod words;
