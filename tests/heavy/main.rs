//! The engine against a real Kafka where it has much to do or little to work with. Each test has the machine to itself:
//! some move gigabytes, and others judge lateness.
#![cfg(feature = "cli")]

#[path = "../broker/kit/mod.rs"]
mod kit;

mod ended;
mod large_list;
mod large_records;
mod leaderless;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Held by the test that runs.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}
