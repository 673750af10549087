//! The rules of the protocol, one by one, at the scheduler's own inputs and outputs.

mod due;
mod leaving;
mod owed;
mod poison;
mod refusals;
mod rig;
mod takeover;
mod targets;
mod transactions;
mod words;
