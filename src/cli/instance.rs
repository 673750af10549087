//! Reads schedules from a running instance.

use std::io::{BufReader, Read};
use std::str::FromStr;
use std::time::Duration;

use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_json::Value;

use super::entry::Entry;
use super::failure::Failure;

/// How long the connection may take, and then the first byte of the response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(8);

/// The address of an instance's REST API.
#[derive(Clone, Debug)]
pub(super) struct Instance(String);

impl FromStr for Instance {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let host = text.strip_prefix("http://").unwrap_or_default();
        if host.trim_end_matches('/').is_empty() || host.contains(char::is_whitespace) {
            return Err("must be the address of an instance's REST API, such as http://localhost:8000");
        }
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }
}

/// Passes each schedule of the instance to `take` as it arrives.
///
/// # Errors
/// If the instance does not return schedules; or the error of `take`.
pub(super) fn schedules(
    instance: &Instance,
    take: &mut impl FnMut(Entry) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let url = format!("{}/schedules", instance.0);
    let failed = |why: String| Failure::new(format!("--server {}: {why}", instance.0));
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_connect(Some(RESPONSE_TIMEOUT))
        .timeout_recv_response(Some(RESPONSE_TIMEOUT))
        .build()
        .into();
    let mut request = agent.get(&url);
    if let Ok(token) = std::env::var("REST_TOKEN") {
        request = request.header("Authorization", format!("Bearer {}", token.trim()));
    }
    let response = request.call().map_err(|e| match e {
        ureq::Error::StatusCode(401 | 403) => failed("a token is required: set REST_TOKEN".into()),
        e => failed(e.to_string()),
    })?;
    let mut ended = Ok(());
    let reader: Box<dyn Read> = Box::new(response.into_body().into_reader());
    let mut json = serde_json::Deserializer::from_reader(BufReader::new(reader));
    let read = json.deserialize_seq(Each(|value: Value| {
        let entry = Entry::from_json(&value).ok_or("an entry is not a schedule")?;
        take(entry).map_err(|failure| {
            ended = Err(failure);
            "stopped"
        })
    }));
    ended?;
    read.map_err(|e| failed(format!("the response is not a list of schedules: {e}")))
}

/// Passes each element of a list to a function.
struct Each<F>(F);

impl<'de, F: FnMut(Value) -> Result<(), &'static str>> Visitor<'de> for Each<F> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        while let Some(value) = list.next_element()? {
            (self.0)(value).map_err(serde::de::Error::custom)?;
        }
        Ok(())
    }
}
