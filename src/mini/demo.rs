//! Demo schedules, which recur.

use std::io;
use std::sync::Arc;

use tracing::warn;

use crate::app::ProgramError;
use crate::client::Moment;
use crate::config::Config;
use crate::core::headers;
use crate::core::io::Header;
use crate::kafka::clients::Clients;
use crate::kafka::publish::{NewRecord, Publisher};

/// The target topic of the demo schedules.
pub(super) const DEMO_TARGET: &str = "mini-demo";

/// Seconds between the firings of each demo.
const PERIODS_S: [i64; 3] = [5, 10, 30];

/// Produces the demo schedules. One that cannot be produced is only logged: the program is of use without it.
///
/// # Errors
/// If the producer cannot be made.
pub(super) fn schedule(config: &Config, topic: &str) -> Result<(), ProgramError> {
    let clients = Clients::new(config, Arc::default());
    let mut publisher =
        Publisher::new(&clients, None).map_err(|e| ProgramError::System("the demo", io::Error::other(e)))?;
    for period_s in PERIODS_S {
        let (key, value) = (format!("demo-{period_s}s"), format!("every {period_s} seconds"));
        let texts = [
            (headers::EVERY, format!("{period_s}s")),
            (headers::START, start(period_s)),
            (headers::TARGET_TOPIC, DEMO_TARGET.to_owned()),
            (headers::TARGET_KEY, "demo".to_owned()),
        ];
        let headers = texts.each_ref().map(|(name, text)| Header { name, value: Some(text.as_bytes()) });
        let new = NewRecord { key: key.as_bytes(), value: Some(value.as_bytes()), headers: &headers };
        if let Err(error) = publisher.send(topic, None, new) {
            warn!(error = &error as &dyn std::error::Error, "a demo schedule could not be produced");
        }
    }
    if let Err(error) = publisher.flush().confirmed() {
        warn!(error = &error as &dyn std::error::Error, "a demo schedule was not delivered");
    }
    Ok(())
}

/// Returns the next multiple of a period as a date, so the demos fire at round times.
fn start(period_s: i64) -> String {
    let now_s = Moment::now().epoch_s();
    let start_s = (now_s.div_euclid(period_s) + 1) * period_s;
    jiff::Timestamp::from_second(start_s).map(|start| start.to_string()).unwrap_or_default()
}
