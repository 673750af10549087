//! The rules of the protocol, tested one by one at the core's inputs and outputs.

mod attribution;
mod due;
mod handover;
mod key_table;
mod memory;
mod owed;
mod payloads;
mod poison;
mod rejections;
mod rig;
mod takeover;
mod targets;
mod throughput;
mod transactions;
mod warm;
mod when;
