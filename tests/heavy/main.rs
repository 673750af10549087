//! The engine on a real Kafka with large amounts of data or with missing resources. The tests run one at a time: some
//! move gigabytes, and others measure lateness.
#![cfg(feature = "cli")]

#[path = "../broker/kit/mod.rs"]
mod kit;

mod ended;
mod large_list;
mod large_records;
mod leaderless;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The lock that the running test holds.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}
