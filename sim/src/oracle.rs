//! What must hold, asked of the brokers' logs and of what users said.

mod converged;
mod fenced;
mod journal;
pub(crate) mod protocol;
mod recovery;
pub(crate) mod watch;

pub use converged::{converged, fires_on_time, folds, served};
pub use journal::{Fired, safe};
pub use recovery::recovered;

use crate::kafka::log::Stored;
use kafka_scheduler::core::origin::ORIGIN_HEADER;

fn header<'a>(stored: &'a Stored, name: &[u8]) -> Option<&'a [u8]> {
    stored.headers.iter().find(|(n, _)| n == name)?.1.as_deref()
}

/// The user record that an engine record names.
fn named(stored: &Stored) -> Option<i64> {
    let bytes = header(stored, ORIGIN_HEADER)?.get(9..17)?;
    Some(i64::from_be_bytes(bytes.try_into().ok()?))
}
