//! `POST /advance?by=1h`: moves the clock of `mini`.

use hyper::StatusCode;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::json;

use super::response::{self, Response};
use crate::kafka::Clock;
use crate::span::{self, BadSpan};

pub(super) fn respond(clock: &Clock, query: &str) -> Response {
    match advance(clock, query) {
        Ok(now) => response::json(StatusCode::OK, &json!({ "now": now.to_string() })),
        Err(message) => response::error(StatusCode::BAD_REQUEST, &message),
    }
}

fn advance(clock: &Clock, query: &str) -> Result<Timestamp, String> {
    let by = query.split('&').find_map(|pair| pair.strip_prefix("by=")).ok_or("by is missing: /advance?by=1h")?;
    let bad = |_: BadSpan| format!("by is {by:?}, but {BadSpan}");
    let now = Timestamp::from_millisecond(clock.now().0).map_err(|e| e.to_string())?;
    // The only characters of a duration that URLs escape.
    let text = by.replace(['+'], " ").replace("%20", " ");
    let by = span::parse(&text, &now.to_zoned(TimeZone::system())).map_err(bad)?;
    Timestamp::from_millisecond(clock.advance(by).0).map_err(|e| e.to_string())
}
