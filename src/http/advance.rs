//! `POST /advance?by=1h`: moves the clock of `mini`.

use hyper::StatusCode;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::json;

use super::answer::{self, Answer};
use crate::kafka::Clock;
use crate::span::{self, BadSpan};

pub fn answer(clock: &Clock, query: &str) -> Answer {
    match advance(clock, query) {
        Ok(now) => answer::json(StatusCode::OK, &json!({ "now": now.to_string() })),
        Err(message) => answer::error(StatusCode::BAD_REQUEST, &message),
    }
}

fn advance(clock: &Clock, query: &str) -> Result<Timestamp, String> {
    let by = query.split('&').find_map(|pair| pair.strip_prefix("by=")).ok_or("by is missing: /advance?by=1h")?;
    let bad = |_: BadSpan| format!("by is {by:?}, but {BadSpan}");
    let now = Timestamp::from_millisecond(clock.now().0).map_err(|e| e.to_string())?;
    // The few characters that a duration needs escaped.
    let text = by.replace(['+'], " ").replace("%20", " ");
    let by = span::parse(&text, &now.to_zoned(TimeZone::system())).map_err(bad)?;
    Timestamp::from_millisecond(clock.advance(by).0).map_err(|e| e.to_string())
}
